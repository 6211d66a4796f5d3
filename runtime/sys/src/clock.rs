//! The host's local time.

/// A point in time as clocks on the host's walls show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The year of the Gregorian calendar.
    pub year: i32,
    /// 0 is January.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// From 0.
    pub hour: u8,
    /// From 0.
    pub minute: u8,
    /// From 0; 60 in a leap second.
    pub second: u8,
    /// How many seconds it is ahead of UTC.
    pub offset_seconds: i64,
}

/// The local time at so many seconds after the epoch (localtime_r(3), by `TZ` or
/// `/etc/localtime`).
#[must_use]
pub fn local(seconds: i64) -> LocalTime {
    // SAFETY: all-zero is a valid tm.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid for the call; what it reads of the environment nobody
    // changes, because setting a variable is unsafe and this workspace does not.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    let small = |number: libc::c_int| u8::try_from(number).unwrap_or(0);
    LocalTime {
        year: parts.tm_year.saturating_add(1900),
        month: small(parts.tm_mon),
        day: small(parts.tm_mday),
        hour: small(parts.tm_hour),
        minute: small(parts.tm_min),
        second: small(parts.tm_sec),
        offset_seconds: parts.tm_gmtoff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_utc_and_its_offset() {
        let time = local(1_795_266_000);
        let day = i64::from(time.day) * 86_400;
        let clock = day + i64::from(time.hour) * 3600 + i64::from(time.minute) * 60;
        // 2026-11-21T13:00:00Z
        assert_eq!((time.year, time.month, time.second), (2026, 10, 0));
        assert_eq!(clock - time.offset_seconds, 21 * 86_400 + 13 * 3600);
    }
}
