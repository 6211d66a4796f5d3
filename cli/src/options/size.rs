//! Amounts: bytes with units, processors in billionths.

/// Bytes, as `64m`, `1.5GiB`, `1024`: every unit is a power of 1024 (docker's RAMInBytes).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.split('.').any(str::is_empty) {
        return Err(invalid());
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let size = number * 1024_f64.powi(power);
    if !(0.0..9.2e18).contains(&size) {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in the range")]
    Ok(size as u64)
}

/// The same, or -1 for no limit.
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(bytes(text)?).map_err(|_| format!("invalid size: '{text}'"))
}

/// Processors as a decimal number, in billionths.
pub(crate) fn nano_cpus(text: &str) -> Result<u64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let billionths: u64 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(billionths)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, size) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32Kib", 32 << 10),
            ("32 mb", 32 << 20),
            ("1.5g", 3 << 29),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "abc", "-1", "1x", "1.", ".5", "1..2", "1 k b", "1kk", " 1", "99999999p"] {
            assert_eq!(bytes(bad), Err(format!("invalid size: '{bad}'")));
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
        assert_eq!(bytes_or_unlimited("1k"), Ok(1024));
    }

    #[test]
    fn processors() {
        for (text, nano) in
            [("1", 1_000_000_000), ("1.5", 1_500_000_000), (".5", 500_000_000), ("0.000000001", 1)]
        {
            assert_eq!(nano_cpus(text), Ok(nano));
        }
        assert_eq!(nano_cpus("x").unwrap_err(), "failed to parse x as a rational number");
        assert_eq!(nano_cpus("0.0000000001").unwrap_err(), "value is too precise");
        for bad in ["", ".", "-1", "1e3"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }
}
