//! Versions of the CNI specification. Pure.

use std::{fmt, str::FromStr};

use hull_manager_core::Error;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u8,
    minor: u8,
    patch: u8,
}

impl Version {
    const fn new(major: u8, minor: u8, patch: u8) -> Self {
        Self { major, minor, patch }
    }

    /// What a configuration without a version means.
    pub(crate) const OLDEST: Self = Self::new(0, 1, 0);
    /// From here on a plugin is given the previous result, and CHECK exists.
    pub(crate) const CHECK: Self = Self::new(0, 4, 0);
    /// From here on GC and STATUS exist.
    pub(crate) const GC_AND_STATUS: Self = Self::new(1, 1, 0);

    /// All that we speak, oldest first.
    pub const SPOKEN: [Self; 7] = [
        Self::OLDEST,
        Self::new(0, 2, 0),
        Self::new(0, 3, 0),
        Self::new(0, 3, 1),
        Self::CHECK,
        Self::new(1, 0, 0),
        Self::GC_AND_STATUS,
    ];

    /// Whether we speak it.
    #[must_use]
    pub fn spoken(self) -> bool {
        Self::SPOKEN.contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('.').map(|part| {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(Error::invalid(format!("{text:?} is not a CNI version"))),
        }
    }
}

/// Versions in a sentence.
pub(crate) fn list(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(Version::SPOKEN.is_sorted());
        for (text, shown) in [("1.1.0", Some("1.1.0")), ("01.1.0", Some("1.1.0"))] {
            assert_eq!(text.parse::<Version>().ok().map(|v| v.to_string()).as_deref(), shown);
        }
        for bad in ["", "1", "1.0", "1.0.0.0", "1.0.x", "1.0.-1", "1.0.+1", "256.0.0", "1..0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        assert!("0.4.0".parse::<Version>().unwrap() < "0.10.0".parse().unwrap());
    }
}
