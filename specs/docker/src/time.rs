//! Points in time as Docker writes them.

use std::time::SystemTime;

use hull_specs_oci::time;
use prost_types::Timestamp;

/// What Go prints for a time that was not set.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with nanoseconds, without trailing zeros; [`ZERO`] for none.
#[must_use]
pub fn nano(at: Option<&Timestamp>) -> String {
    at.and_then(system).map_or_else(|| ZERO.to_owned(), time::rfc3339_nano)
}

/// RFC 3339 with exactly nine digits of fraction, as logs and events have it.
#[must_use]
pub fn fixed(at: Option<&Timestamp>) -> String {
    let whole = time::rfc3339(at.and_then(system).unwrap_or(SystemTime::UNIX_EPOCH));
    let nanos = at.map_or(0, |at| at.nanos.clamp(0, 999_999_999));
    format!("{}.{nanos:09}Z", whole.trim_end_matches('Z'))
}

/// RFC 3339 to the second.
#[must_use]
pub fn seconds(at: Option<&Timestamp>) -> String {
    at.and_then(system).map_or_else(|| ZERO.to_owned(), time::rfc3339)
}

/// As tables have it: `2026-11-21 17:00:46 +0000 UTC`.
#[must_use]
pub fn table(at: Option<&Timestamp>) -> String {
    seconds(at).replace('T', " ").replace('Z', " +0000 UTC")
}

/// The same point in time; none before 1970, where Go's zero is.
#[must_use]
pub fn system(at: &Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(*at).ok().filter(|at| *at >= SystemTime::UNIX_EPOCH)
}

/// Whole seconds between `at` and `now`; 0 if `at` is later or unknown.
#[must_use]
pub fn age_seconds(at: Option<&Timestamp>, now: SystemTime) -> u64 {
    at.and_then(system).and_then(|at| now.duration_since(at).ok()).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let at = Timestamp { seconds: 1_795_280_414, nanos: 546_008_400 };
        assert_eq!(nano(Some(&at)), "2026-11-21T17:00:14.5460084Z");
        assert_eq!(fixed(Some(&at)), "2026-11-21T17:00:14.546008400Z");
        assert_eq!(seconds(Some(&at)), "2026-11-21T17:00:14Z");
        assert_eq!(table(Some(&at)), "2026-11-21 17:00:14 +0000 UTC");
        let go_zero = Timestamp { seconds: -62_135_596_800, nanos: 0 };
        assert_eq!((nano(None).as_str(), nano(Some(&go_zero)).as_str()), (ZERO, ZERO));
    }
}
