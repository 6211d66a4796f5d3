//! Points in time as RFC 3339 text in UTC. Not a calendar library: it prints, and reads what
//! it has printed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time to the second: `2026-11-21T10:11:12Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    date_and_time(since_epoch(time).0)
}

/// A point in time to the nanosecond, without trailing zeros, as Go prints it.
#[must_use]
pub fn rfc3339_nano(time: SystemTime) -> String {
    let (seconds, nanoseconds) = since_epoch(time);
    let mut text = date_and_time(seconds);
    if nanoseconds != 0 {
        let fraction = format!(".{nanoseconds:09}");
        text.insert_str(text.len() - 1, fraction.trim_end_matches('0'));
    }
    text
}

/// Reads what [`rfc3339`] and [`rfc3339_nano`] print, and no other form: UTC, from 1970 on.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() != "1970-01-01T00:00:00".len() || fraction.len() > 9 || text.ends_with('.') {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = whole.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
    // The year begins on 1 March, as in `date`.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let time = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))?;
    // What is not a date (30 February, 25 o'clock, other separators) does not print the same.
    (date_and_time(i64::try_from(seconds).ok()?) == format!("{whole}Z")).then_some(time)
}

fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        // A clock before 1970 is a broken clock; the epoch is as good an answer as any.
        Err(_) => (0, 0),
    }
}

/// Seconds since the epoch, as a date and time.
fn date_and_time(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of a year, and in eras of
/// 400 years, after which the calendar repeats: 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    // A year of the era is over after 365 days, and one more every 4th, save the 100th.
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The months from March on are 31, 30, 31, 30, 31 days long, twice and a half: 153 each.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_and_time(seconds), text);
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(date(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn fractions_lose_their_trailing_zeros() {
        let at = |nanoseconds| UNIX_EPOCH + Duration::new(1_000_000_000, nanoseconds);
        assert_eq!(rfc3339_nano(at(0)), "2001-09-09T01:46:40Z");
        assert_eq!(rfc3339_nano(at(120_000_000)), "2001-09-09T01:46:40.12Z");
        assert_eq!(rfc3339_nano(at(1)), "2001-09-09T01:46:40.000000001Z");
    }

    #[test]
    fn what_was_printed_is_read() {
        for seconds in (0..8_000_000_000).step_by(86_399 * 31) {
            for nanoseconds in [0, 1, 120_000_000, 999_999_999] {
                let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
                assert_eq!(parse_rfc3339(&rfc3339_nano(time)), Some(time));
            }
        }
    }

    #[test]
    fn other_text_is_not_read() {
        for text in [
            "",
            "Z",
            "2026-11-21T10:11:12",
            "2026-11-21T10:11:12+00:00",
            "2026-11-21 10:11:12Z",
            "2026-02-30T10:11:12Z",
            "2026-13-01T10:11:12Z",
            "2026-00-01T10:11:12Z",
            "2026-11-21T25:11:12Z",
            "2026-11-21T10:60:12Z",
            "2026-11-21T10:11:12.Z",
            "2026-11-21T10:11:12.1234567890Z",
            "2026-11-21T10:11:12.+1Z",
            "+026-11-21T10:11:12Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "2026-11-21T10:11:1éZ",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
