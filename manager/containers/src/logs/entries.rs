//! The entries of a log, chosen and put together for a reader. Pure.

use std::{borrow::Cow, collections::BTreeMap, str, time::SystemTime};

use hull_specs_api::v1::{self, log_entry::Stream};
use hull_specs_oci::time::parse_rfc3339;
use serde::Deserialize;

/// Lines are put together up to this size.
const BATCH_BYTES: usize = 32 << 10;

/// What a reader wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) since: Option<SystemTime>,
    pub(super) until: Option<SystemTime>,
    pub(super) times: bool,
    pub(super) details: bool,
}

/// An entry of docker's json-file.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: &'a str,
    time: &'a str,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// An entry, whatever its form is.
struct Entry<'a> {
    text: Cow<'a, [u8]>,
    stream: Stream,
    time: &'a str,
    attributes: BTreeMap<String, String>,
}

impl<'a> Entry<'a> {
    /// Reads a line of a log, with its end. What is no entry of ours says nothing.
    fn parse(line: &'a [u8]) -> Option<Self> {
        if line.first() == Some(&b'{') {
            let Json { log, stream, time, attrs } = serde_json::from_slice(line).ok()?;
            let text = match log {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            let attributes = attrs.unwrap_or_default();
            return Some(Self { text, stream: stream_of(stream.as_bytes())?, time, attributes });
        }
        // `TIME STREAM F|P TEXT`.
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = str::from_utf8(fields.next()?).ok()?;
        let stream = stream_of(fields.next()?)?;
        let goes_on = match fields.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        let text = fields.next()?;
        let text = if goes_on { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        Some(Self { text: text.into(), stream, time, attributes: BTreeMap::new() })
    }
}

fn stream_of(name: &[u8]) -> Option<Stream> {
    match name {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

/// Takes text apart, wherever it is cut.
pub(super) struct Entries {
    wanted: Wanted,
    /// Begun entries.
    buffer: Vec<u8>,
    /// `until` is reached.
    over: bool,
}

impl Entries {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, buffer: Vec::new(), over: false }
    }

    /// Where text is to be added.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether nothing more can come.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The entries that are complete now.
    pub(super) fn take(&mut self) -> Vec<v1::LogEntry> {
        let Some(end) = memchr::memrchr(b'\n', &self.buffer) else { return Vec::new() };
        let rest = self.buffer.split_off(end + 1);
        let text = std::mem::replace(&mut self.buffer, rest);
        let mut found = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if self.over {
                break;
            }
            if let Some(entry) = Entry::parse(line) {
                self.add(entry, &mut found);
            }
        }
        found
    }

    fn add(&mut self, entry: Entry<'_>, found: &mut Vec<v1::LogEntry>) {
        let (wanted, stream) = (&self.wanted, entry.stream);
        let dated = wanted.times || wanted.since.is_some() || wanted.until.is_some();
        let time = dated.then(|| parse_rfc3339(entry.time)).flatten();
        if let (Some(until), Some(time)) = (wanted.until, time)
            && time > until
        {
            self.over = true;
            return;
        }
        let is_old = wanted.since.is_some_and(|since| time.is_some_and(|time| time < since));
        let is_asked = match stream {
            Stream::Stdout => wanted.stdout,
            Stream::Stderr => wanted.stderr,
        };
        if is_old || !is_asked {
            return;
        }
        if !wanted.times
            && !wanted.details
            && let Some(last) = found.last_mut()
            && last.stream() == stream
            && last.data.len() + entry.text.len() <= BATCH_BYTES
        {
            last.data.extend_from_slice(&entry.text);
            return;
        }
        let attributes = if wanted.details { entry.attributes } else { BTreeMap::new() };
        found.push(v1::LogEntry {
            stream: stream.into(),
            time: time.map(Into::into),
            data: entry.text.into_owned(),
            attributes: attributes.into_iter().collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(text: &str, stream: &str, second: u64) -> String {
        format!(
            "{{\"log\":{},\"stream\":\"{stream}\",\"attrs\":{{\"k\":\"v\"}},\"time\":\"1970-01-01T00:00:{second:02}Z\"}}\n",
            serde_json::to_string(text).unwrap()
        )
    }

    fn log() -> String {
        [
            line("a\n", "stdout", 1),
            line("b\n", "stdout", 2),
            "garbage\n".to_owned(),
            line("e\u{1}\n", "stderr", 3),
            line("part", "stdout", 4),
        ]
        .concat()
    }

    fn wanted() -> Wanted {
        Wanted {
            stdout: true,
            stderr: true,
            since: None,
            until: None,
            times: false,
            details: false,
        }
    }

    fn read(wanted: Wanted, pieces: usize) -> Vec<(i32, String)> {
        let mut entries = Entries::new(wanted);
        let mut found: Vec<(i32, String)> = Vec::new();
        for piece in log().as_bytes().chunks(pieces) {
            entries.buffer().extend_from_slice(piece);
            for entry in entries.take() {
                found.push((entry.stream, String::from_utf8(entry.data).unwrap()));
            }
        }
        found
    }

    fn text(list: &[(i32, String)]) -> String {
        list.iter().map(|(stream, text)| format!("{stream}:{text}|")).collect()
    }

    #[test]
    fn lines_are_put_together_by_stream() {
        assert_eq!(text(&read(wanted(), 10_000)), "0:a\nb\n|1:e\u{1}\n|0:part|");
    }

    #[test]
    fn the_local_form_keeps_bytes_as_they_are() {
        let log = b"1970-01-01T00:00:01.5Z stdout P a \xff\n1970-01-01T00:00:01.5Z stdout F \r\n\
            garbage\n1970-01-01T00:00:02Z stderr F {x}\n1970-01-01T00:00:02Z stderr X y\n";
        for (wanted, expected) in [
            (wanted(), "[([97, 32, 255, 13, 10], None), ([123, 120, 125, 10], None)]"),
            (Wanted { times: true, stdout: false, ..wanted() }, "[([123, 120, 125, 10], Some(2))]"),
        ] {
            let mut entries = Entries::new(wanted);
            entries.buffer().extend_from_slice(log);
            let found = entries.take();
            let found: Vec<_> =
                found.iter().map(|e| (e.data.clone(), e.time.map(|time| time.seconds))).collect();
            assert_eq!(format!("{found:?}"), expected);
        }
    }

    #[test]
    fn text_may_be_cut_anywhere() {
        let separate = Wanted { times: true, ..wanted() };
        let whole = read(separate.clone(), 10_000);
        assert_eq!(whole.len(), 4);
        for pieces in 1..80 {
            assert_eq!(read(separate.clone(), pieces), whole, "{pieces}");
        }
    }

    #[test]
    fn streams_and_times_are_chosen() {
        let at = |second| Some(UNIX_EPOCH + Duration::from_secs(second));
        for (wanted, expected) in [
            (Wanted { stdout: false, ..wanted() }, "1:e\u{1}\n|"),
            (Wanted { since: at(2), until: at(3), ..wanted() }, "0:b\n|1:e\u{1}\n|"),
            (Wanted { until: at(0), ..wanted() }, ""),
        ] {
            assert_eq!(text(&read(wanted, 10_000)), expected);
        }
    }

    #[test]
    fn details_and_times_come_with_each_line() {
        let mut entries = Entries::new(Wanted { times: true, details: true, ..wanted() });
        entries.buffer().extend_from_slice(log().as_bytes());
        let found = entries.take();
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].attributes["k"], "v");
        assert_eq!(found[1].time.unwrap().seconds, 2);
    }
}
