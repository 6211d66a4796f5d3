//! The log that callers read: lines of text, or of JSON as logrus writes it.
//!
//! containerd takes the last line whose level is `error`; podman reads the whole file as one
//! JSON document and gives up on a second line. So a JSON log file of a failed command holds
//! its error and nothing else: warnings wait until the command has succeeded (and go to
//! standard error where it has not). Debug lines are written at once, since whoever asks
//! for them reads the file himself.
//!
//! Only the process that the caller started logs. The container's first process reports to
//! it instead: that process must not hold a descriptor of the host.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    mem,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, OnceLock},
    time::SystemTime,
};

use anyhow::{Context, Result};
use hull_specs_oci::time::rfc3339;

/// The longest sentence, in bytes: text of the configuration in it can be of any length.
const MAX_SENTENCE_BYTES: usize = 3000;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

struct Log {
    /// Where lines go; standard error if there is no file.
    file: Option<File>,
    format: Format,
    debug: bool,
    /// Warnings that wait for the command's end.
    waiting: Mutex<Vec<String>>,
}

/// The log before it is opened.
static UNOPENED: Log =
    Log { file: None, format: Format::Text, debug: false, waiting: Mutex::new(Vec::new()) };

static OPENED: OnceLock<Log> = OnceLock::new();

fn log() -> &'static Log {
    OPENED.get().unwrap_or(&UNOPENED)
}

/// Opens the log. Before this, and where it fails, errors go to standard error as text.
pub(crate) fn open(file: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    // There is one command line a process, so that nothing can be set already.
    let _ = OPENED.set(Log::open(file, format, debug)?);
    Ok(())
}

/// Logs a step, if the caller asked for that.
pub(crate) fn debug(message: impl fmt::Display) {
    if log().debug {
        log().write("debug", &message.to_string());
    }
}

/// Logs something that the user should know and that stops nothing.
pub(crate) fn warning(message: impl fmt::Display) {
    log().warn(message.to_string());
}

/// The command has succeeded: what has waited is written.
pub(crate) fn settle() {
    log().settle();
}

/// The command has failed: logs the error, and tells standard error where that is not the
/// log already.
pub(crate) fn failure(error: &anyhow::Error) {
    to_standard_error(&log().fail(&sentence(error)));
}

impl Log {
    fn open(file: Option<&Path>, format: Format, debug: bool) -> Result<Self> {
        // Opened now although most commands never write to it: later the path could mean
        // another file. Not O_SYNC: a line that is in the page cache survives our end.
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(path)
                .with_context(|| format!("open the log {}", path.display()))
        };
        let file = file.map(open).transpose()?;
        Ok(Self { file, format, debug, waiting: Mutex::new(Vec::new()) })
    }

    fn warn(&self, message: String) {
        if self.file.is_some()
            && self.format == Format::Json
            && let Ok(mut waiting) = self.waiting.lock()
        {
            waiting.push(message);
        } else {
            self.write("warning", &message);
        }
    }

    fn settle(&self) {
        for message in self.take_waiting() {
            self.write("warning", &message);
        }
    }

    /// Logs the error; what is left to tell standard error is returned.
    fn fail(&self, sentence: &str) -> String {
        self.write("error", sentence);
        if self.file.is_none() {
            return String::new();
        }
        let mut text = String::new();
        for message in self.take_waiting() {
            text.push_str(&format!("warning: {}\n", printable(&message)));
        }
        text.push_str(&format!("{}\n", printable(sentence)));
        text
    }

    fn take_waiting(&self) -> Vec<String> {
        self.waiting.lock().map(|mut waiting| mem::take(&mut *waiting)).unwrap_or_default()
    }

    fn write(&self, level: &str, message: &str) {
        let line = match self.format {
            Format::Json => json_line(level, message, &rfc3339(SystemTime::now())),
            Format::Text if self.file.is_none() && io::stderr().is_terminal() => {
                format!("{level}: {}\n", printable(message))
            }
            Format::Text => text_line(level, message, &rfc3339(SystemTime::now())),
        };
        // One write a line: lines of processes that share the file stay whole.
        if self.file.as_ref().is_none_or(|mut file| file.write_all(line.as_bytes()).is_err()) {
            to_standard_error(&line);
        }
    }
}

/// Whoever has closed standard error does not want to read it.
fn to_standard_error(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// One object, its keys in logrus's order.
fn json_line(level: &str, message: &str, time: &str) -> String {
    let message = serde_json::Value::from(printable(message));
    format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
}

/// logrus's text for a file.
fn text_line(level: &str, message: &str, time: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !message.is_empty() && message.chars().all(bare) {
        return format!("time=\"{time}\" level={level} msg={message}\n");
    }
    let quoted = printable(&message.replace('\\', "\\\\").replace('"', "\\\"")).to_string();
    format!("time=\"{time}\" level={level} msg=\"{quoted}\"\n")
}

/// The error with its causes as one line, in the words that callers look for.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        if !sentence.is_empty() {
            sentence.push_str(": ");
        }
        match cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            Some(errno) => sentence.push_str(&errno_text(errno)),
            None => sentence.push_str(&cause.to_string()),
        }
    }
    if sentence.len() > MAX_SENTENCE_BYTES {
        let end = sentence.floor_char_boundary(MAX_SENTENCE_BYTES);
        sentence.truncate(end);
        sentence.push('…');
    }
    sentence
}

/// The kernel's words for an errno, in lower case as Go writes them: callers compare.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Text from outside, safe for a terminal and a log of lines: control characters, and those
/// that change the direction of writing, are escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const TIME: &str = "2026-11-21T10:11:12Z";

    #[test]
    fn a_json_line_is_what_callers_parse() {
        assert_eq!(
            json_line("error", "exec: \"x\": executable file not found in $PATH", TIME),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": executable file not found in $PATH\",\
             \"time\":\"2026-11-21T10:11:12Z\"}\n"
        );
    }

    #[test]
    fn a_text_line_is_logrus_text() {
        assert_eq!(
            text_line("error", "no \"such\" thing", TIME),
            "time=\"2026-11-21T10:11:12Z\" level=error msg=\"no \\\"such\\\" thing\"\n"
        );
        assert_eq!(
            text_line("warning", "a-b", TIME),
            format!("time=\"{TIME}\" level=warning msg=a-b\n")
        );
    }

    #[test]
    fn no_text_from_outside_starts_a_line_or_moves_the_cursor() {
        let hostile = "a\nlevel=error\r\u{1b}[2J\u{7f}\u{9b}2J\u{202e}b\0";
        for line in [json_line("error", hostile, TIME), text_line("error", hostile, TIME)] {
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        }
        assert_eq!(printable(hostile), "a\\nlevel=error\\r\\x1b[2J\\x7f\\u009b2J\\u202eb\\x00");
        assert_eq!(printable("naïve \\ 漢"), "naïve \\ 漢");
    }

    /// A log in a file, and what is in it.
    fn in_file(format: Format) -> (Log, impl Fn() -> String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Log::open(Some(file.path()), format, false).unwrap();
        (log, move || std::fs::read_to_string(file.path()).unwrap())
    }

    #[test]
    fn a_failed_command_s_json_log_is_one_document() {
        let (log, content) = in_file(Format::Json);
        log.warn("odd\n".to_owned());
        assert_eq!(log.fail("create failed: \"x\""), "warning: odd\\n\ncreate failed: \"x\"\n");
        let document: serde_json::Value = serde_json::from_str(&content()).unwrap();
        assert_eq!(document["level"], "error");
        assert_eq!(document["msg"], "create failed: \"x\"");
        assert_eq!(document.as_object().unwrap().len(), 3);
    }

    #[test]
    fn warnings_of_a_successful_command_are_in_the_log() {
        let (log, content) = in_file(Format::Json);
        log.warn("odd".to_owned());
        assert_eq!(content(), "");
        log.settle();
        log.settle();
        assert_eq!(content().matches("\"level\":\"warning\",\"msg\":\"odd\"").count(), 1);

        let (log, content) = in_file(Format::Text);
        log.warn("odd".to_owned());
        assert!(content().ends_with("level=warning msg=odd\n"), "{}", content());
    }

    #[test]
    fn the_log_is_added_to() {
        let (log, content) = in_file(Format::Text);
        log.fail("a");
        log.fail("b");
        assert_eq!(content().lines().count(), 2);
        assert!(Log::open(Some(Path::new("/no/such/log")), Format::Text, false).is_err());
    }

    #[test]
    fn a_chain_becomes_one_sentence_in_the_words_callers_match() {
        let error = anyhow::Error::new(io::Error::from_raw_os_error(libc::ENOENT))
            .context("open /x")
            .context("create failed");
        assert_eq!(sentence(&error), "create failed: open /x: no such file or directory");
        assert_eq!(sentence(&anyhow!("a").context("b")), "b: a");
    }
}
