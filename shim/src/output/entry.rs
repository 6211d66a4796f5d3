//! The forms of a log's entries.

use std::time::SystemTime;

use hull_specs_oci::time::rfc3339_nano;

use super::{
    Stream,
    batch::Batch,
    escape::push_escaped,
    forward::{self, Syslog},
};

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `{"log":"text\n","stream":"stdout","time":"2026-11-21T13:00:00.123456789Z"}`, as dockerd's
    /// json-file driver writes it.
    JsonFile,
    /// `2026-11-21T13:00:00.123456789Z stdout F text`, with the text's bytes as they are. `P` is a
    /// part of a line that goes on.
    Local,
    /// The same, where a line end may be `\r\n`, as containerd's CRI plugin writes it.
    Cri,
    /// The output as it is: without time, and both streams mixed.
    Raw,
    /// A message for syslog. These two are never read back.
    Syslog(Syslog),
    /// A message for journald.
    Journald,
}

/// Whether an entry holds the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, or the last piece of one.
    Full,
    /// What more will follow: marked `P`, or without `\n`.
    Partial,
}

/// The form of one log.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) format: Format,
    /// What every entry has: `"attrs":{...},`, what is between syslog's time and the text,
    /// journald's fields, or nothing.
    text: Vec<u8>,
}

impl Form {
    /// A form with `attributes`, which only [`Format::JsonFile`] has a place for.
    pub(super) fn new(format: Format, attributes: &[(String, String)]) -> Self {
        let mut text = Vec::new();
        if !attributes.is_empty() {
            text.extend_from_slice(b"\"attrs\":{");
            for (key, value) in attributes {
                text.push(b'"');
                push_escaped(&mut text, key.as_bytes());
                text.extend_from_slice(b"\":\"");
                push_escaped(&mut text, value.as_bytes());
                text.extend_from_slice(b"\",");
            }
            text.pop();
            text.extend_from_slice(b"},");
        }
        Self { format, text }
    }

    /// A form with `text` in every entry.
    pub(super) fn with_text(format: Format, text: Vec<u8>) -> Self {
        Self { format, text }
    }

    /// What surrounds every piece that `stream` writes at `time`.
    pub(super) fn frame(&self, stream: Stream, time: SystemTime) -> Frame {
        let mut frame = Frame { format: self.format, text: Vec::with_capacity(128) };
        let text = &mut frame.text;
        match self.format {
            Format::JsonFile => {
                text.extend_from_slice(b"\",\"stream\":\"");
                text.extend_from_slice(stream.name().as_bytes());
                text.extend_from_slice(b"\",");
                text.extend_from_slice(&self.text);
                text.extend_from_slice(b"\"time\":\"");
                text.extend_from_slice(rfc3339_nano(time).as_bytes());
                text.extend_from_slice(b"\"}\n");
            }
            Format::Local | Format::Cri => {
                text.extend_from_slice(rfc3339_nano(time).as_bytes());
                text.push(b' ');
                text.extend_from_slice(stream.name().as_bytes());
                text.push(b' ');
            }
            Format::Raw => {}
            Format::Syslog(syslog) => {
                text.extend_from_slice(syslog.head(stream, time).as_bytes());
                text.extend_from_slice(&self.text);
            }
            Format::Journald => {
                let priority = [b'0' + forward::severity(stream)];
                forward::push_field(text, b"PRIORITY", &priority);
                text.extend_from_slice(&self.text);
            }
        }
        frame
    }
}

/// What surrounds the pieces of one stream at one time: formatted once for all of them.
#[derive(Debug)]
pub(super) struct Frame {
    format: Format,
    /// What follows the text (JSON), or goes before it (all others).
    text: Vec<u8>,
}

impl Frame {
    /// Appends an entry for `text`, which has no line end. `output` is how many bytes of the
    /// container's output it stands for.
    pub(super) fn push(&self, batch: &mut Batch, text: &[u8], piece: Piece, output: usize) {
        let out = &mut batch.bytes;
        match self.format {
            Format::JsonFile => {
                out.extend_from_slice(b"{\"log\":\"");
                push_escaped(out, text);
                if piece == Piece::Full {
                    out.extend_from_slice(b"\\n");
                }
                out.extend_from_slice(&self.text);
            }
            Format::Local | Format::Cri => {
                out.extend_from_slice(&self.text);
                out.extend_from_slice(if piece == Piece::Full { b"F " } else { b"P " });
                out.extend_from_slice(text);
                out.push(b'\n');
            }
            Format::Raw => {
                out.extend_from_slice(text);
                if piece == Piece::Full {
                    out.push(b'\n');
                }
            }
            // dockerd, too, has no message for an empty line.
            Format::Syslog(_) if text.is_empty() => return,
            Format::Syslog(_) => {
                out.extend_from_slice(&self.text);
                out.extend_from_slice(text);
                out.push(b'\n');
            }
            Format::Journald => {
                out.extend_from_slice(&self.text);
                if piece == Piece::Partial {
                    forward::push_field(out, b"CONTAINER_PARTIAL_MESSAGE", b"true");
                }
                forward::push_field(out, b"MESSAGE", text);
            }
        }
        batch.end_entry(output);
    }
}

/// An entry that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The stream, where the form says it.
    pub(super) stream: Option<Stream>,
    pub(super) piece: Piece,
    /// Without the line's end.
    pub(super) text: Vec<u8>,
}

impl Format {
    /// Whether lines are cut as dockerd cuts them for all of its drivers, and the pieces of one
    /// have one time.
    pub(super) fn is_dockerds(self) -> bool {
        !matches!(self, Self::Cri | Self::Raw)
    }

    /// Reads an entry, given without the line end that closes it. `None` for what is not one.
    pub(super) fn parse(self, entry: &[u8]) -> Option<Parsed> {
        match self {
            Self::JsonFile => parse_json(entry),
            Self::Local | Self::Cri => {
                let mut fields = entry.splitn(4, |byte| *byte == b' ');
                let (_time, stream) = (fields.next()?, stream(fields.next()?)?);
                // Tags are parted by colons; the first says what this is.
                let piece = match fields.next()?.split(|byte| *byte == b':').next()? {
                    b"F" => Piece::Full,
                    b"P" => Piece::Partial,
                    _ => return None,
                };
                Some(Parsed { stream: Some(stream), piece, text: fields.next()?.to_vec() })
            }
            Self::Raw => Some(Parsed { stream: None, piece: Piece::Full, text: entry.to_vec() }),
            Self::Syslog(_) | Self::Journald => None,
        }
    }
}

fn parse_json(entry: &[u8]) -> Option<Parsed> {
    #[derive(serde::Deserialize)]
    struct Entry {
        log: String,
        stream: String,
    }
    let Entry { log, stream: name } = serde_json::from_slice(entry).ok()?;
    let (text, piece) = match log.strip_suffix('\n') {
        Some(text) => (text, Piece::Full),
        None => (&*log, Piece::Partial),
    };
    Some(Parsed { stream: Some(stream(name.as_bytes())?), piece, text: text.into() })
}

fn stream(name: &[u8]) -> Option<Stream> {
    Stream::BOTH.into_iter().find(|stream| stream.name().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn entry(form: &Form, text: &str, piece: Piece) -> String {
        let time = UNIX_EPOCH + Duration::new(1_795_266_000, 123_456_789);
        let mut batch = Batch::default();
        form.frame(Stream::Stderr, time).push(&mut batch, text.as_bytes(), piece, text.len());
        String::from_utf8(batch.bytes).unwrap()
    }

    #[test]
    fn entries_have_the_form_of_their_programs() {
        let json = Form::new(Format::JsonFile, &[]);
        let labels = [("a".to_owned(), "<1>".to_owned()), ("b".to_owned(), String::new())];
        let labelled = Form::new(Format::JsonFile, &labels);
        let (cri, raw) = (Form::new(Format::Cri, &[]), Form::new(Format::Raw, &[]));
        let time = "2026-11-21T13:00:00.123456789Z";
        for (form, piece, expected) in [
            (
                &json,
                Piece::Full,
                format!(r#"{{"log":"a \"b\"\n","stream":"stderr","time":"{time}"}}"#) + "\n",
            ),
            (
                &json,
                Piece::Partial,
                format!(r#"{{"log":"a \"b\"","stream":"stderr","time":"{time}"}}"#) + "\n",
            ),
            (
                &labelled,
                Piece::Full,
                format!(
                    r#"{{"log":"a \"b\"\n","stream":"stderr","attrs":{{"a":"\u003c1\u003e","b":""}},"time":"{time}"}}"#
                ) + "\n",
            ),
            (&cri, Piece::Full, format!("{time} stderr F a \"b\"\n")),
            (&cri, Piece::Partial, format!("{time} stderr P a \"b\"\n")),
            (&raw, Piece::Full, "a \"b\"\n".to_owned()),
            (&raw, Piece::Partial, "a \"b\"".to_owned()),
        ] {
            assert_eq!(entry(form, "a \"b\"", piece), expected);
        }
    }

    #[test]
    fn entries_are_read_back() {
        for format in [Format::JsonFile, Format::Local, Format::Cri] {
            for piece in [Piece::Full, Piece::Partial] {
                for text in ["", "a", " a  b ", "\"<\u{2028}\\\t\r"] {
                    let entry = entry(&Form::new(format, &[]), text, piece);
                    let parsed = format.parse(entry.strip_suffix('\n').unwrap().as_bytes());
                    let expected =
                        Parsed { stream: Some(Stream::Stderr), piece, text: text.into() };
                    assert_eq!(parsed, Some(expected));
                }
            }
        }
        for broken in
            [&b""[..], b"{}", b"{\"log\":\"a\",\"stream\":\"x\"}", b"t stdout X a", b"t s"]
        {
            assert_eq!(Format::JsonFile.parse(broken), None);
            assert_eq!(Format::Cri.parse(broken), None);
        }
    }
}
