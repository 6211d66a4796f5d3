//! A request that makes no sense, in one sentence.

use std::fmt;

/// Why a request is refused. There is only one kind: the argument is invalid, whatever the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// What the functions of this package give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// The same, of what is named.
    pub(crate) fn of(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Leaves with an [`Error`].
macro_rules! refuse {
    ($($word:tt)*) => { return Err($crate::error::Error::new(format!($($word)*))) };
}
/// Leaves with an [`Error`] unless something holds.
macro_rules! must {
    ($holds:expr, $($word:tt)*) => { if !$holds { $crate::error::refuse!($($word)*) } };
}
pub(crate) use {must, refuse};
