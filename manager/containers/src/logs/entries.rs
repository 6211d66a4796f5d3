//! The entries of a json-file log, chosen and put together for a reader. Pure.

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

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

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: &'a str,
    time: &'a str,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
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
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if self.over {
                break;
            }
            // What is no entry of ours says nothing.
            if let Ok(entry) = serde_json::from_slice::<Entry<'_>>(line) {
                self.add(entry, &mut found);
            }
        }
        found
    }

    fn add(&mut self, entry: Entry<'_>, found: &mut Vec<v1::LogEntry>) {
        let wanted = &self.wanted;
        let stream = if entry.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
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
            && last.data.len() + entry.log.len() <= BATCH_BYTES
        {
            last.data.extend_from_slice(entry.log.as_bytes());
            return;
        }
        found.push(v1::LogEntry {
            stream: stream.into(),
            time: time.map(Into::into),
            data: entry.log.into_owned().into_bytes(),
            attributes: entry
                .attrs
                .filter(|_| wanted.details)
                .unwrap_or_default()
                .into_iter()
                .collect(),
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
