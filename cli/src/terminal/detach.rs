//! The keys that detach: ctrl-p ctrl-q, unless an option or docker's `config.json` says otherwise.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::credentials;

const DEFAULT: &[u8] = &[0x10, 0x11];

/// Looks for the keys in what is typed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keys {
    sequence: Vec<u8>,
    /// How many of them were typed already, and are held back.
    seen: usize,
}

/// What was typed, without the keys.
#[derive(Debug, PartialEq)]
pub(crate) struct Typed {
    pub(crate) bytes: Vec<u8>,
    /// The keys were typed: what came after them is dropped.
    pub(crate) detach: bool,
}

impl Keys {
    /// Those of the option, else of `config.json`. Only a terminal has them, so only for one is
    /// the file read.
    pub(crate) fn of(option: Option<&str>, tty: bool, config_dir: &Path) -> Result<Self> {
        if option.is_some() || !tty {
            return Self::parse(option);
        }
        let config = credentials::read(config_dir)?;
        Self::parse(config.get("detachKeys").and_then(Value::as_str))
            .context("detachKeys in config.json")
    }

    /// Reads `ctrl-p,ctrl-q` or `a,b`; docker's default where nothing is said.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self { sequence: DEFAULT.to_vec(), seen: 0 });
        };
        let mut sequence = Vec::new();
        for key in text.split(',') {
            let byte = match key.as_bytes() {
                [byte] => *byte,
                _ => match key.strip_prefix("ctrl-").map(str::as_bytes) {
                    Some([letter @ (b'a'..=b'z')]) => letter - b'a' + 1,
                    Some(b"@") => 0,
                    Some([mark @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => mark - b'@',
                    _ => bail!("invalid detach keys ({text}): Unknown character: '{key}'"),
                },
            };
            sequence.push(byte);
        }
        Ok(Self { sequence, seen: 0 })
    }

    /// Takes what was typed. Keys that may still become the sequence are held back, and given
    /// later if they don't.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(typed.len() + self.seen);
        for byte in typed {
            if self.sequence.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.sequence.len() {
                    return Typed { bytes, detach: true };
                }
                continue;
            }
            bytes.extend_from_slice(&self.sequence[..self.seen]);
            self.seen = usize::from(self.sequence.first() == Some(byte));
            if self.seen == 0 {
                bytes.push(*byte);
            }
        }
        Typed { bytes, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        for (text, sequence) in [
            (None, &[16, 17][..]),
            (Some(""), &[16, 17]),
            (Some("ctrl-a,x"), &[1, b'x']),
            (Some("ctrl-@,ctrl-["), &[0, 27]),
        ] {
            assert_eq!(Keys::parse(text).unwrap().sequence, sequence);
        }
        for bad in ["foo", "ctrl-A", "ctrl-", "a,,b"] {
            assert!(Keys::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_option_comes_before_the_file_and_the_file_before_the_default() {
        let place = tempfile::tempdir().unwrap();
        let keys = |option, tty| Keys::of(option, tty, place.path()).map(|keys| keys.sequence);
        assert_eq!(keys(None, true).unwrap(), DEFAULT);
        let file = place.path().join("config.json");
        std::fs::write(&file, r#"{"detachKeys":"ctrl-a,d"}"#).unwrap();
        assert_eq!(keys(None, true).unwrap(), [1, b'd']);
        assert_eq!(keys(Some("x"), true).unwrap(), b"x");
        assert_eq!(keys(None, false).unwrap(), DEFAULT);
        std::fs::write(&file, r#"{"detachKeys":"ctrl-A"}"#).unwrap();
        let error = format!("{:#}", keys(None, true).unwrap_err());
        assert!(error.starts_with("detachKeys in config.json: invalid detach keys"), "{error}");
    }

    #[test]
    fn the_sequence_detaches_and_anything_else_passes() {
        for (typed, bytes, detach) in [
            (&[&b"ab"[..]][..], &b"ab"[..], false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"\x10", b"x"], b"\x10x", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x10"], b"", false),
        ] {
            let mut keys = Keys::parse(None).unwrap();
            let mut passed = Vec::new();
            let mut detached = false;
            for part in typed {
                let typed = keys.filter(part);
                passed.extend(typed.bytes);
                detached |= typed.detach;
            }
            assert_eq!((passed.as_slice(), detached), (bytes, detach), "{typed:?}");
        }
    }
}
