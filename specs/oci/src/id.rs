use std::{fmt, str::FromStr};

/// The longest id that is taken; the id names a directory and a cgroup (NAME_MAX is 255 bytes).
const MAX_LEN: usize = 200;

/// A container's id: one path component of letters, digits and `_ + - .` that is neither
/// `.` nor `..`. The alphabet is runc's, so that every id its callers make is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

/// The text is not a container id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidId(String);

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid container ID format: {:?} (1 to {MAX_LEN} letters, digits, or any of _+-., and not . or ..)",
            self.0
        )
    }
}

impl std::error::Error for InvalidId {}

impl ContainerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
        let valid = (1..=MAX_LEN).contains(&text.len())
            && text.bytes().all(alphabet)
            && text != "."
            && text != "..";
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for ContainerId {
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
}
