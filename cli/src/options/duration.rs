//! Spans of time as Go writes them: `1h30m`, `1.5s`, `300ms`.

/// In nanoseconds.
pub(crate) fn nanoseconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let digits = |part: &str| -> Result<i128, String> {
            if part.is_empty() { Ok(0) } else { part.parse().map_err(|_| invalid()) }
        };
        // Digits beyond the eighteenth are below a nanosecond in every unit.
        let fraction: String = fraction.chars().take(18).collect();
        let power = 10_i128.pow(u32::try_from(fraction.len()).map_err(|_| invalid())?);
        let part = digits(whole)?.checked_mul(scale).ok_or_else(invalid)?;
        total = part
            .checked_add(digits(&fraction)? * scale / power)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// As the message that hull.v1 has for it.
pub(crate) fn message(nanoseconds: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: nanoseconds / 1_000_000_000,
        nanos: i32::try_from(nanoseconds % 1_000_000_000).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, span) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1h1m1s", 3_661_000_000_000),
            ("10ms", 10_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("-2m", -120_000_000_000),
            ("+1ns", 1),
        ] {
            assert_eq!(nanoseconds(text), Ok(span), "{text}");
        }
        for (text, words) in [
            ("x", "time: invalid duration \"x\""),
            ("", "time: invalid duration \"\""),
            ("10", "time: missing unit in duration \"10\""),
            ("10x", "time: unknown unit \"x\" in duration \"10x\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ] {
            assert_eq!(nanoseconds(text).unwrap_err(), words);
        }
        assert_eq!(
            message(1_500_000_000),
            prost_types::Duration { seconds: 1, nanos: 500_000_000 }
        );
    }
}
