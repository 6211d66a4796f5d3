//! `hull logs`.

use std::{
    io::{self, BufWriter, Write},
    time::SystemTime,
};

use anyhow::{Result, anyhow};
use hull_specs_api::v1::{LogEntry, LogsRequest, log_entry::Stream};
use hull_specs_docker::time;

use crate::{args::container::LogsArgs, connect::Manager, failure::refused, options::timestamp};

/// Prints what a container wrote, each stream on ours.
pub(crate) async fn logs(manager: &Manager, args: &LogsArgs) -> Result<u8> {
    let now = SystemTime::now();
    let at = |text: &Option<String>, option: &str| {
        text.as_deref()
            .map(|text| timestamp::parse(text, now))
            .transpose()
            .map_err(|why| anyhow!("invalid value for {option:?}: {why}"))
    };
    let request = LogsRequest {
        container: args.container.clone(),
        stdout: true,
        stderr: true,
        follow: args.follow,
        tail: tail(&args.tail),
        since: at(&args.since, "since")?,
        until: at(&args.until, "until")?,
        details: args.details,
        timestamps: args.timestamps,
    };
    let mut entries = manager.containers().logs(request).await.map_err(refused)?.into_inner();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut err = io::stderr().lock();
    let mut lines = Lines::default();
    while let Some(entry) = entries.message().await.map_err(refused)? {
        let stream: &mut dyn Write = match entry.stream() {
            Stream::Stdout => &mut out,
            Stream::Stderr => {
                // Where both go to one place, they are in the order in which they were written.
                out.flush()?;
                &mut err
            }
        };
        lines.write(stream, &entry, args)?;
        // Followed lines are wanted now.
        if args.follow {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(0)
}

/// Docker takes whatever is no number for all.
fn tail(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Where each stream stands in its line: the parts of a long line have one prefix.
#[derive(Default)]
struct Lines {
    inside: [bool; 2],
}

impl Lines {
    fn write(&mut self, stream: &mut dyn Write, entry: &LogEntry, args: &LogsArgs) -> Result<()> {
        let inside = &mut self.inside[usize::from(entry.stream() == Stream::Stderr)];
        if !args.timestamps && !args.details {
            stream.write_all(&entry.data)?;
            return Ok(());
        }
        for line in entry.data.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                if args.timestamps {
                    write!(stream, "{} ", time::fixed(entry.time.as_ref()))?;
                }
                if args.details {
                    write!(stream, "{} ", attributes(entry))?;
                }
            }
            stream.write_all(line)?;
            *inside = !line.ends_with(b"\n");
        }
        Ok(())
    }
}

fn attributes(entry: &LogEntry) -> String {
    let mut list: Vec<_> =
        entry.attributes.iter().map(|(key, value)| (escape(key), escape(value))).collect();
    list.sort();
    list.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// As Go escapes a query, and docker these: they come from whoever made the image.
fn escape(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_parts_has_one_time() {
        let args = LogsArgs {
            details: true,
            follow: false,
            since: None,
            tail: "all".into(),
            timestamps: true,
            until: None,
            container: String::new(),
        };
        let entry = |data: &str| LogEntry {
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 5 }),
            data: data.as_bytes().to_vec(),
            attributes: [("a".to_owned(), "b <\n".to_owned())].into(),
            ..LogEntry::default()
        };
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for data in ["one ", "line\n", "two\n"] {
            lines.write(&mut out, &entry(data), &args).unwrap();
        }
        let time = "1970-01-01T00:00:00.000000005Z a=b+%3C%0A";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{time} one line\n{time} two\n"));
        assert_eq!((tail("all"), tail("5"), tail("-1")), (None, Some(5), None));
    }
}
