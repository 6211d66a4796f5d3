//! The `hull-log:` URI that a caller gives as a container's stdout.
//!
//! `hull-log:///var/log/NAME.log?format=cri&max-size=10m&max-file=3`. A path and values may be
//! percent-encoded; a value may have `+` for a space, as Go encodes queries. The options that
//! dockerd's json-file driver has are named and understood as there:
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `format` | `json-file`, `local`, `cri`, `raw` | `json-file` |
//! | `max-size` | rotate before the entry after this size: bytes, or `k`, `m`, `g` in thousands | never |
//! | `max-age` | rotate when the file's first entry is this old, in seconds | never |
//! | `max-file` | so many files in all, 1 to 1000 | 1 |
//! | `compress` | `true`: rotated files become `.gz` | `false` |
//! | `label` | `KEY=VALUE` for `attrs` of each entry, json-file only; repeatable | |
//! | `attach` | the path of the socket for attached clients | none |
//!
//! Lines may also go on to the host's log; the file is then a copy of them to be read:
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `syslog` | `local` (`/dev/log`), `unixgram:///PATH`, `unix:///PATH`, `udp://ADDRESS:PORT`, `tcp://ADDRESS:PORT` | none |
//! | `syslog-facility` | a number from 0 to 23 | 3 |
//! | `syslog-format` | `rfc3164`, `rfc5424`, `rfc5424micro` | without the host's name |
//! | `tag` | the tag of each message; needed | |
//! | `journald` | the path of journald's socket | none |
//! | `field` | `NAME=VALUE`, a field of each message to journald; repeatable | |
//! | `mode` | `non-blocking`: the container does not wait for the receiver | `blocking` |
//! | `max-buffer-size` | how much may wait then; what is more is lost | 1 MB |

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    entry::{Form, Format},
    forward,
};

/// The start of every such URI.
const SCHEME: &str = "hull-log://";

/// The most bytes of all labels together; they stand in every entry.
const LABEL_BYTES: usize = 4096;

/// How a container's output is kept.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    pub(super) max_size: Option<u64>,
    pub(super) max_age: Option<Duration>,
    pub(super) max_files: u32,
    pub(super) compress: bool,
    /// Where the socket for attached clients is to be.
    pub(crate) attach: Option<PathBuf>,
    /// Where lines go on to.
    pub(crate) forward: Option<forward::Options>,
}

impl Options {
    /// Whether a stdio URI is for [`Self::parse`].
    pub(crate) fn is_ours(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }

    /// Reads a `hull-log:` URI.
    ///
    /// # Errors
    /// One sentence that names the option, for an unknown one, one given twice, a value out of
    /// range, and options that do not go together.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let rest = uri.strip_prefix(SCHEME).with_context(|| format!("{uri:?} is not {SCHEME}"))?;
        ensure!(!rest.contains('#'), "{uri:?} has a fragment");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path).and_then(plain).and_then(|path| file_path(&path));
        let path = path.context("log path")?;
        let (mut format, mut max_size, mut max_age) = (None, None, None);
        let (mut max_files, mut compress, mut attach) = (None, None, None);
        let (mut labels, mut forward) = (Vec::new(), forward::Given::default());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .with_context(|| format!("log option {part:?} has no value"))?;
            ensure!(!key.contains(char::is_control), "unknown log option {key:?}");
            // What people have put into labels stands for itself.
            let is_free = matches!(key, "label" | "field");
            let value = decode(&value.replace('+', " "))
                .and_then(|value| if is_free { Ok(value) } else { plain(value) })
                .with_context(|| format!("log option {key}"))?;
            let first = match key {
                "format" => put(&mut format, parse_format(&value)),
                "max-size" => put(&mut max_size, parse_size(&value)),
                "max-age" => put(&mut max_age, parse_age(&value)),
                "max-file" => put(&mut max_files, parse_count(&value)),
                "compress" => put(&mut compress, parse_bool(&value)),
                "attach" => put(&mut attach, file_path(&value)),
                "label" => add_pair(&mut labels, &value, LABEL_BYTES).map(|()| true),
                _ => match forward.take(key, &value) {
                    Some(taken) => taken,
                    None => bail!("unknown log option {key:?}"),
                },
            };
            ensure!(first.with_context(|| format!("log option {key}"))?, "log option {key} twice");
        }
        let format = format.unwrap_or(Format::JsonFile);
        let (max_files, compress) = (max_files.unwrap_or(1), compress.unwrap_or(false));
        if compress && (max_files < 2 || max_size.is_none() && max_age.is_none()) {
            bail!("log option compress needs max-file of 2 or more, and max-size or max-age");
        }
        if !labels.is_empty() && format != Format::JsonFile {
            bail!("log option label needs format=json-file");
        }
        // As Go writes a map.
        labels.sort();
        let form = Form::new(format, &labels);
        let forward = forward.finish()?;
        Ok(Self { path, form, max_size, max_age, max_files, compress, attach, forward })
    }
}

/// Fills `place`; false if it was full.
pub(super) fn put<T>(place: &mut Option<T>, value: Result<T>) -> Result<bool> {
    Ok(place.replace(value?).is_none())
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            bail!("{text:?} has a % without two hexadecimal digits");
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or(0));
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("{text:?} is not UTF-8"))
}

fn plain(text: String) -> Result<String> {
    ensure!(!text.contains(char::is_control), "{text:?} has a control character");
    Ok(text)
}

pub(super) fn file_path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    ensure!(path.is_absolute(), "{text:?} is not an absolute path");
    let is_plain = path.components().all(|part| part != Component::ParentDir);
    ensure!(is_plain && path.file_name().is_some(), "{text:?} does not name a file");
    ensure!(!text.ends_with('/'), "{text:?} names a directory");
    Ok(path.to_owned())
}

fn parse_format(text: &str) -> Result<Format> {
    Ok(match text {
        "json-file" => Format::JsonFile,
        "local" => Format::Local,
        "cri" => Format::Cri,
        "raw" => Format::Raw,
        _ => bail!("{text:?} is not json-file, local, cri or raw"),
    })
}

/// A size as dockerd reads it: `1.5g`, `10MB`, `512 KiB`, every unit in thousands.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let factor = match &*unit {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1e3,
        "m" | "mb" | "mib" => 1e6,
        "g" | "gb" | "gib" => 1e9,
        "t" | "tb" | "tib" => 1e12,
        _ => bail!("{text:?} is not a size"),
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number
        .parse()
        .ok()
        .filter(|_| is_plain)
        .with_context(|| format!("{text:?} is not a size"))?;
    // Larger than any file, and exact in both types.
    let size = (number * factor).min(1e18) as u64;
    ensure!(size > 0, "{text:?} is not more than 0");
    Ok(size)
}

fn parse_age(text: &str) -> Result<Duration> {
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => bail!("{text:?} is not a number of seconds"),
    }
}

fn parse_count(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => bail!("{text:?} is not a number from 1 to 1000"),
    }
}

/// The words that Go's `strconv.ParseBool` takes.
fn parse_bool(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("{text:?} is not true or false"),
    }
}

/// Adds `KEY=VALUE`, if all pairs together have no more than `limit_bytes`.
pub(super) fn add_pair(
    pairs: &mut Vec<(String, String)>,
    text: &str,
    limit_bytes: usize,
) -> Result<()> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))?;
    ensure!(!key.is_empty(), "{text:?} has no key");
    ensure!(pairs.iter().all(|(other, _)| other != key), "{key:?} twice");
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    ensure!(bytes + text.len() <= limit_bytes, "more than {limit_bytes} bytes");
    pairs.push((key.to_owned(), value.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_as_dockerd_has_it() {
        let options = Options::parse("hull-log:///var/log/a.log").unwrap();
        assert_eq!(options.path, Path::new("/var/log/a.log"));
        assert_eq!(options.form.format, Format::JsonFile);
        assert_eq!((options.max_size, options.max_age, options.max_files), (None, None, 1));
        assert!(!options.compress && options.attach.is_none());
    }

    #[test]
    fn every_option_is_read() {
        let uri = "hull-log:///a%20b/c?format=json-file&max-size=10m&max-file=3&max-age=60\
            &compress=true&attach=/run/a%2Fs&label=b=x%26y&label=a=1+2";
        let options = Options::parse(uri).unwrap();
        assert_eq!(options.path, Path::new("/a b/c"));
        assert_eq!((options.max_size, options.max_files), (Some(10_000_000), 3));
        assert_eq!(options.max_age, Some(Duration::from_secs(60)));
        assert!(options.compress);
        assert_eq!(options.attach.as_deref(), Some(Path::new("/run/a/s")));
        let labels = [("a", "1 2"), ("b", "x&y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let expected = Form::new(Format::JsonFile, &labels);
        assert_eq!(format!("{:?}", options.form), format!("{expected:?}"));
    }

    #[test]
    fn sizes_are_dockerds() {
        for (text, bytes) in [
            ("1", 1),
            ("32b", 32),
            ("10k", 10_000),
            ("10K", 10_000),
            ("1.5m", 1_500_000),
            ("2GiB", 2_000_000_000),
            ("3 kb", 3000),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "k", "0", "-1", "1x", "1e3", "inf", "NaN", "0.1", "1 0", "1kbb", "1.1.1"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bad_uri_gives_one_sentence() {
        for (uri, expected) in [
            ("file:///a", r#""file:///a" is not hull-log://"#),
            ("hull-log://a/b", r#"log path: "a/b" is not an absolute path"#),
            ("hull-log:///a/", r#"log path: "/a/" names a directory"#),
            ("hull-log:///a/../b", r#"log path: "/a/../b" does not name a file"#),
            ("hull-log:///", r#"log path: "/" does not name a file"#),
            ("hull-log:///a%0a", r#"log path: "/a\n" has a control character"#),
            ("hull-log:///a%2", r#"log path: "/a%2" has a % without two hexadecimal digits"#),
            ("hull-log:///a%ff", r#"log path: "/a%ff" is not UTF-8"#),
            ("hull-log:///a#b", r#""hull-log:///a#b" has a fragment"#),
            ("hull-log:///a?size=1", r#"unknown log option "size""#),
            ("hull-log:///a?max-size", r#"log option "max-size" has no value"#),
            ("hull-log:///a?max-size=1&max-size=1", "log option max-size twice"),
            ("hull-log:///a?max-size=0", r#"log option max-size: "0" is not more than 0"#),
            (
                "hull-log:///a?max-file=0",
                r#"log option max-file: "0" is not a number from 1 to 1000"#,
            ),
            ("hull-log:///a?max-age=1m", r#"log option max-age: "1m" is not a number of seconds"#),
            (
                "hull-log:///a?format=xml",
                r#"log option format: "xml" is not json-file, local, cri or raw"#,
            ),
            ("hull-log:///a?compress=gzip", r#"log option compress: "gzip" is not true or false"#),
            ("hull-log:///a?label=x", r#"log option label: "x" is not KEY=VALUE"#),
            ("hull-log:///a?label=x=1&label=x=2", r#"log option label: "x" twice"#),
            ("hull-log:///a?label=x=1&format=cri", "log option label needs format=json-file"),
            (
                "hull-log:///a?compress=1&max-size=1",
                "log option compress needs max-file of 2 or more, and max-size or max-age",
            ),
            (
                "hull-log:///a?syslog=/dev/log&tag=t",
                r#"log option syslog: "/dev/log" has no scheme"#,
            ),
            (
                "hull-log:///a?syslog=udp://localhost:514&tag=t",
                r#"log option syslog: "localhost:514" is not a numeric address with a port: invalid socket address syntax"#,
            ),
            (
                "hull-log:///a?syslog=tls://1.2.3.4:1&tag=t",
                r#"log option syslog: "tls" is not unixgram, unix, udp or tcp"#,
            ),
            ("hull-log:///a?syslog=local", "log option syslog needs tag"),
            ("hull-log:///a?syslog=local&journald=/j", "log option journald twice"),
            (
                "hull-log:///a?syslog=local&tag=t&syslog-facility=24",
                r#"log option syslog-facility: "24" is not a number from 0 to 23"#,
            ),
            (
                "hull-log:///a?syslog=local&tag=a%0ab",
                r#"log option tag: "a\nb" has a control character"#,
            ),
            (
                "hull-log:///a?journald=/j&field=a=b",
                r#"log option field: "a" is not a name of journald's"#,
            ),
            ("hull-log:///a?journald=/j&tag=b", "a log option of syslog does not go with journald"),
            ("hull-log:///a?syslog=local&tag=t&field=A=b", "log option field needs journald"),
            ("hull-log:///a?tag=b", "a log option of syslog or journald needs syslog or journald"),
            (
                "hull-log:///a?journald=/j&max-buffer-size=1k",
                "log option max-buffer-size needs mode=non-blocking",
            ),
            (
                "hull-log:///a?compress=1&max-file=2",
                "log option compress needs max-file of 2 or more, and max-size or max-age",
            ),
        ] {
            let error = Options::parse(uri).expect_err(uri);
            assert_eq!(format!("{error:#}"), expected, "{uri}");
        }
    }

    #[test]
    fn mutants_are_options_or_refused_in_one_line() {
        let uri = "hull-log:///a%20b/c?format=json-file&max-size=1.5m&max-file=3&max-age=60\
            &compress=true&attach=/run/a%2Fs&label=b=x%26y&journald=/j&field=A=b%0ac&mode=non-blocking";
        let mut read = 0;
        crate::mutants::each(uri.as_bytes(), 50_000, |bytes| {
            match Options::parse(&String::from_utf8_lossy(bytes)) {
                Ok(options) => {
                    read += 1;
                    assert!(options.path.is_absolute() && (1..=1000).contains(&options.max_files));
                    assert!(options.max_size != Some(0));
                }
                Err(error) => assert!(!format!("{error:#}").contains('\n'), "{error:#}"),
            }
        });
        assert!(read > 0);
    }
}
