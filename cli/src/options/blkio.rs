//! Limits of block devices: `DEVICE:RATE`, `DEVICE:WEIGHT`.

use hull_specs_api::v1;

use super::size;

fn split(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text
        .rsplit_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or(format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

/// Bytes a second.
pub(crate) fn bytes_rate(text: &str) -> Result<v1::DeviceLimit, String> {
    let (path, rate) = split(text)?;
    let value = size::bytes(rate).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(v1::DeviceLimit { path: path.to_owned(), value })
}

/// Operations a second.
pub(crate) fn operations_rate(text: &str) -> Result<v1::DeviceLimit, String> {
    let (path, rate) = split(text)?;
    let value = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )
    })?;
    Ok(v1::DeviceLimit { path: path.to_owned(), value })
}

/// A weight from 10 to 1000, or 0.
pub(crate) fn weight(text: &str) -> Result<v1::DeviceLimit, String> {
    let (path, weight) = split(text)?;
    let value = weight
        .parse()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(v1::DeviceLimit { path: path.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_devices() {
        assert_eq!(bytes_rate("/dev/sda:1mb").map(|limit| limit.value), Ok(1 << 20));
        assert_eq!(operations_rate("/dev/sda:100").map(|limit| limit.value), Ok(100));
        assert_eq!(weight("/dev/sda:10").map(|limit| limit.value), Ok(10));
        assert_eq!(bytes_rate("foo").unwrap_err(), "bad format: foo");
        assert_eq!(bytes_rate("a:1").unwrap_err(), "bad format for device path: a:1");
        assert_eq!(weight("/dev/a:5").unwrap_err(), "invalid weight for device: /dev/a:5");
        assert!(operations_rate("/dev/a:-1").is_err() && bytes_rate("/dev/a:x").is_err());
    }
}
