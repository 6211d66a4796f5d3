//! Times in configurations: RFC 3339, with whatever offset the maker's clock had.

use std::time::{Duration, SystemTime};

use hull_specs_oci::time;

/// Reads one; nothing for what is none, or before 1970 (Go's zero time is).
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let Some((at, sign)) = text.rfind(['+', '-']).and_then(|at| {
        let (_, offset) = text.split_at(at);
        // Not a hyphen of the date.
        (offset.len() == 6).then(|| (at, offset.starts_with('-')))
    }) else {
        return time::parse_rfc3339(text);
    };
    let (local, offset) = text.split_at(at);
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number < 60);
    let offset = Duration::from_secs(number(hours)? * 3600 + number(minutes)? * 60);
    let local = time::parse_rfc3339(&format!("{local}Z"))?;
    if sign { local.checked_add(offset) } else { local.checked_sub(offset) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn offsets_are_subtracted() {
        let noon = UNIX_EPOCH + Duration::from_secs(12 * 3600);
        for text in [
            "1970-01-01T12:00:00Z",
            "1970-01-01T14:00:00+02:00",
            "1970-01-01T08:30:00-03:30",
            "1970-01-01T12:00:00.000+00:00",
        ] {
            assert_eq!(parse(text), Some(noon), "{text}");
        }
        for bad in ["", "1970-01-01", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00+xx:00", "+"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
