//! `--gpus`, as names of CDI devices: nvidia's, which is what docker's option means.

use super::csv;

const KIND: &str = "nvidia.com/gpu";

/// The names of the devices.
pub(crate) fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut devices = Vec::new();
    for field in csv::fields(text)? {
        match field.split_once('=') {
            None => devices.extend(count(&field)?),
            Some(("count", value)) => devices.extend(count(value)?),
            Some(("device", ids)) => {
                devices.extend(ids.split(',').map(|id| format!("{KIND}={id}")));
            }
            Some(("driver", "nvidia" | "cdi") | ("capabilities", "gpu")) => {}
            Some((key @ ("driver" | "capabilities" | "options"), value)) => {
                return Err(format!(
                    "{key}={value} is not supported: GPUs are given by CDI files, see --device"
                ));
            }
            Some((key, _)) => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    Ok(devices)
}

fn count(text: &str) -> Result<Vec<String>, String> {
    if text == "all" {
        return Ok(vec![format!("{KIND}=all")]);
    }
    let count: u32 = text.parse().map_err(|_| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
        )
    })?;
    Ok((0..count.min(64)).map(|index| format!("{KIND}={index}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_cdi_devices() {
        for (text, names) in [
            ("all", &["nvidia.com/gpu=all"][..]),
            ("2", &["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
            ("\"device=0,GPU-a\"", &["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-a"]),
            ("device=3,capabilities=gpu", &["nvidia.com/gpu=3"]),
        ] {
            assert_eq!(parse(text).unwrap(), names, "{text}");
        }
        assert_eq!(
            parse("foo").unwrap_err(),
            "invalid count (foo): value must be either \"all\" or an integer: invalid syntax"
        );
        assert!(parse("x=1").is_err() && parse("capabilities=video").is_err());
    }
}
