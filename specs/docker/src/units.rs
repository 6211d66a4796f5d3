//! Sizes and spans as Docker writes them for people (the go-units library).

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Decimal units, four digits: `1.982MB`.
#[must_use]
pub fn decimal(bytes: u64) -> String {
    decimal_with(bytes, 4)
}

/// Decimal units with so many digits: `1.98MB` with three.
#[must_use]
pub fn decimal_with(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, &DECIMAL, digits)
}

/// Binary units, four digits: `23.54GiB`.
#[must_use]
pub fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(bytes: u64, base: f64, names: &[&str], digits: usize) -> String {
    // Above 2^53 the last digits are lost, of which none is shown.
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit < names.len() - 1 {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), names[unit])
}

/// C's and Go's `%.*g` for a number from 0 to 9999: so many digits, no zeros at the end.
fn significant(value: f64, digits: usize) -> String {
    let mut whole = 1;
    let mut bound = 10.0;
    // A value that rounds up to the next power of ten has one digit more before the point.
    while whole < digits && round_to(value, digits - whole) >= bound {
        whole += 1;
        bound *= 10.0;
    }
    let leading_zero = usize::from(value < 1.0);
    let text = format!("{value:.*}", digits - whole + leading_zero);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if round_to(value, 0) >= bound {
        // More digits before the point than are kept: `%g` would write an exponent.
        exponent(value, digits)
    } else {
        text
    }
}

fn round_to(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

fn exponent(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e+{power:0>2}")
}

/// A span in words: `About a minute`, `3 hours`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_982_319, "1.982MB"),
            (12_345_678, "12.35MB"),
            (123_456_789, "123.5MB"),
            (999_960_000, "1000MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
        assert_eq!(decimal_with(1_982_319, 3), "1.98MB");
        assert_eq!(decimal_with(4_261_000, 3), "4.26MB");
        assert_eq!(decimal_with(999_600_000, 3), "1e+03MB");
        for (bytes, text) in [
            (0, "0B"),
            (368 << 10, "368KiB"),
            (25_276_510_208, "23.54GiB"),
            (1_047_527_424, "999MiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!(binary((1 << 20) - 1), "1024KiB");
    }

    #[test]
    fn spans_are_those_of_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"),
            (60 * 86400, "2 months"),
            (729 * 86400, "24 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}
