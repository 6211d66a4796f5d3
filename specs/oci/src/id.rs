use std::{fmt, str::FromStr};

/// The longest id that is taken; the id names a directory and a cgroup (NAME_MAX is 255 bytes).
const MAX_LEN: usize = 200;

/// The longest id of an exec; it is part of a file's name.
const MAX_EXEC_LEN: usize = 128;

/// A container's id: one path component of letters, digits and `_ + - .` that is neither
/// `.` nor `..`. The alphabet is runc's, so that every id its callers make is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The id of a further process of a container, as containerd's clients choose it: one path
/// component of the same alphabet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecId(String);

/// The text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidId {
    of: &'static str,
    max_len: usize,
    text: String,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, max_len, text } = self;
        write!(
            f,
            "invalid {of} ID format: {text:?} (1 to {max_len} letters, digits, or any of _+-., and not . or ..)"
        )
    }
}

impl std::error::Error for InvalidId {}

/// The text itself, if it is one component of at most `max_len` letters.
fn component(text: &str, of: &'static str, max_len: usize) -> Result<String, InvalidId> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    let valid = (1..=max_len).contains(&text.len())
        && text.bytes().all(alphabet)
        && text != "."
        && text != "..";
    if valid {
        Ok(text.to_owned())
    } else {
        Err(InvalidId { of, max_len, text: text.chars().take(80).collect() })
    }
}

impl ContainerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExecId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        component(text, "container", MAX_LEN).map(Self)
    }
}

impl FromStr for ExecId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        component(text, "exec", MAX_EXEC_LEN).map(Self)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_known_callers_are_taken() {
        for id in ["a", "f00d", "a_b+c-d.e", &"0".repeat(64), ".hidden", "..."] {
            assert!(id.parse::<ContainerId>().is_ok(), "{id}");
        }
    }

    #[test]
    fn paths_and_control_text_are_refused() {
        for id in ["", ".", "..", "a/b", "../a", "a b", "a\n", "é", "a\0b", &"x".repeat(201)] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
    }

    #[test]
    fn exec_ids_are_components_that_fit_a_files_name() {
        for id in ["e", "0", "a-b_c.d+e", &"0".repeat(128)] {
            assert_eq!(id.parse::<ExecId>().unwrap().as_str(), id);
        }
        for id in ["", ".", "..", "a/b", "../x", "a b", "a\n", "é", &"x".repeat(129)] {
            assert!(id.parse::<ExecId>().is_err(), "{id:?}");
        }
        let error = "a/b".parse::<ExecId>().unwrap_err().to_string();
        assert!(error.starts_with("invalid exec ID format: \"a/b\""), "{error}");
    }
}
