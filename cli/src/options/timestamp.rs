//! Points in time for `--since` and `--until`: RFC 3339 and its shorter forms (UTC where no zone
//! is said), seconds since 1970, or a span before now.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use super::duration;

/// Reads one.
pub(crate) fn parse(text: &str, now: SystemTime) -> Result<Timestamp, String> {
    let invalid = || format!("failed to parse value as time or duration: {text:?}");
    if let Ok(span) = duration::nanoseconds(text)
        && text != "0"
    {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let at = i128::try_from(now).map_err(|_| invalid())? - i128::from(span);
        return from_nanoseconds(at).ok_or_else(invalid);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>()
        && fraction.len() <= 9
        && fraction.bytes().all(|b| b.is_ascii_digit())
    {
        let nanos = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
        return Ok(Timestamp { seconds, nanos });
    }
    date(text).ok_or_else(invalid)
}

fn from_nanoseconds(at: i128) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(at.div_euclid(1_000_000_000)).ok()?,
        nanos: i32::try_from(at.rem_euclid(1_000_000_000)).ok()?,
    })
}

/// A date, with or without a time and a zone: what is missing is zero.
fn date(text: &str) -> Option<Timestamp> {
    let zone_at = text.get(10..)?.find(['Z', '+', '-']).map(|at| at + 10);
    let (local, zone) = text.split_at(zone_at.unwrap_or(text.len()));
    let missing = ["", "", "", "T00:00:00", "", "", ":00:00", "", "", ":00"];
    let local = match local.len() {
        10 => format!("{local}{}", missing[3]),
        13 => format!("{local}{}", missing[6]),
        16 => format!("{local}{}", missing[9]),
        _ => local.to_owned(),
    };
    let mut at: Timestamp = format!("{local}Z").parse().ok()?;
    if let Some(sign) = zone.chars().next().filter(|sign| *sign != 'Z') {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let offset = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
        at.seconds -= if sign == '-' { -offset } else { offset };
    } else if zone.len() > 1 {
        return None;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn forms_of_docker_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, seconds, nanos) in [
            ("10m", 999_400, 0),
            ("1.5s", 999_998, 500_000_000),
            ("0", 0, 0),
            ("1136073600", 1_136_073_600, 0),
            ("1136073600.000000001", 1_136_073_600, 1),
            ("2006-01-02T15:04:05Z", 1_136_214_245, 0),
            ("2006-01-02T15:04:05.5Z", 1_136_214_245, 500_000_000),
            ("2006-01-02T15:04:05+01:00", 1_136_210_645, 0),
            ("2006-01-02T15:04:05-01:00", 1_136_217_845, 0),
            ("2006-01-02T15:04:05", 1_136_214_245, 0),
            ("2006-01-02T15:04", 1_136_214_240, 0),
            ("2006-01-02T15", 1_136_214_000, 0),
            ("2006-01-02", 1_136_160_000, 0),
            ("2006-01-02Z", 1_136_160_000, 0),
        ] {
            assert_eq!(parse(text, now), Ok(Timestamp { seconds, nanos }), "{text}");
        }
        for bad in ["x", "", "2006-13-02", "2006-01-02T25:00", "1.2.3", "2006-01-02Zx", "\u{e9}"] {
            let words = format!("failed to parse value as time or duration: {bad:?}");
            assert_eq!(parse(bad, now), Err(words));
        }
    }
}
