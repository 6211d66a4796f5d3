//! The forms of syslog's messages, as dockerd writes them.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use hull_runtime_sys::clock::{self, LocalTime};

use super::super::Stream;

/// What stands before the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `<30>Nov 21 13:00:00 TAG[PID]: `, as a local daemon takes it.
    Local,
    /// `<30>Nov 21 13:00:00 HOST TAG[PID]: ` (RFC 3164).
    Rfc3164,
    /// `<30>1 2026-11-21T13:00:00Z HOST TAG PID TAG - ` (RFC 5424).
    Rfc5424,
    /// The same with microseconds.
    Rfc5424Micro,
}

/// The form of one container's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syslog {
    pub(super) style: Style,
    /// 0 to 23 (RFC 5424, section 6.2.1).
    pub(super) facility: u8,
}

impl Syslog {
    /// What stands before the text, up to the time.
    pub(crate) fn head(self, stream: Stream, time: SystemTime) -> String {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let local = clock::local(i64::try_from(since.as_secs()).unwrap_or(0));
        self.head_at(stream, local, since.subsec_micros())
    }

    fn head_at(self, stream: Stream, time: LocalTime, micros: u32) -> String {
        let priority = self.facility * 8 + severity(stream);
        let LocalTime { year, month, day, hour, minute, second, offset_seconds } = time;
        let mut text = format!("<{priority}>");
        let written = match self.style {
            Style::Local | Style::Rfc3164 => {
                let name = MONTHS.get(usize::from(month)).unwrap_or(&MONTHS[0]);
                write!(text, "{name} {day:2} {hour:02}:{minute:02}:{second:02}")
            }
            Style::Rfc5424 | Style::Rfc5424Micro => {
                let month = month + 1;
                let date = format!("{year:04}-{month:02}-{day:02}");
                let fraction = match self.style {
                    Style::Rfc5424Micro => format!(".{micros:06}"),
                    _ => String::new(),
                };
                let zone = zone(offset_seconds);
                write!(text, "1 {date}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
            }
        };
        debug_assert!(written.is_ok(), "a string takes all");
        text
    }
}

/// What stands between the time and the text.
pub(super) fn rest(style: Style, host: &str, tag: &str, pid: u32) -> String {
    match style {
        Style::Local => format!(" {tag}[{pid}]: "),
        Style::Rfc3164 => format!(" {host} {tag}[{pid}]: "),
        Style::Rfc5424 | Style::Rfc5424Micro => format!(" {host} {tag} {pid} {tag} - "),
    }
}

/// How bad it is (RFC 5424, table 2): what comes on standard error is an error.
pub(crate) fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 6,
        Stream::Stderr => 3,
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn zone(offset_seconds: i64) -> String {
    if offset_seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if offset_seconds < 0 { '-' } else { '+' };
    let minutes = offset_seconds.abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_as_dockerds() {
        let time = LocalTime {
            year: 2026,
            month: 10,
            day: 1,
            hour: 3,
            minute: 4,
            second: 5,
            offset_seconds: -12_600,
        };
        for (style, facility, stream, expected) in [
            (Style::Local, 3, Stream::Stdout, "<30>Nov  1 03:04:05 t[7]: "),
            (Style::Rfc3164, 19, Stream::Stderr, "<155>Nov  1 03:04:05 h t[7]: "),
            (Style::Rfc5424, 19, Stream::Stdout, "<158>1 2026-11-01T03:04:05-03:30 h t 7 t - "),
            (
                Style::Rfc5424Micro,
                0,
                Stream::Stdout,
                "<6>1 2026-11-01T03:04:05.000123-03:30 h t 7 t - ",
            ),
        ] {
            let head = Syslog { style, facility }.head_at(stream, time, 123);
            assert_eq!(head + &rest(style, "h", "t", 7), expected);
        }
        assert_eq!((zone(0), zone(3600)), ("Z".to_owned(), "+01:00".to_owned()));
    }
}
