//! Why an archive is not taken.

use std::fmt;

/// The archive's own fault: it is damaged, contradicts itself, asks for what it may not have, or
/// is larger than the budgets. Found in the chain of an [`anyhow::Error`] by `downcast_ref`; all
/// other errors are the machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// The refusal in an error's chain: its own, or one that travelled in an `io::Error`.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<&Self> {
        error.chain().find_map(|cause| {
            cause.downcast_ref::<Self>().or_else(|| {
                cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<Self>()
            })
        })
    }
}

/// Returns a [`Refused`] of this text.
macro_rules! refuse {
    ($($text:tt)*) => {
        return Err(anyhow::Error::new($crate::error::Refused(format!($($text)*))))
    };
}
pub(crate) use refuse;

/// A name as it may be shown: short, and without control characters.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 120;
        let text = String::from_utf8_lossy(self.0);
        write!(f, "\"{}", text.chars().take(MAX).flat_map(char::escape_debug).collect::<String>())?;
        f.write_str(if text.chars().nth(MAX).is_some() { "…\"" } else { "\"" })
    }
}
