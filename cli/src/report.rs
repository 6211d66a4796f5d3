//! The one place that writes errors, warnings and remarks for the person, to standard error.

use std::io::{IsTerminal as _, Write as _};

use crate::format::text;

/// A line. Where standard error is closed there is nobody to tell.
pub(crate) fn line(message: &str) {
    let mut stderr = std::io::stderr().lock();
    let safe = if stderr.is_terminal() { text::escape(message) } else { message.to_owned() };
    let _ = writeln!(stderr, "{safe}");
}

/// An error's sentence.
pub(crate) fn error(error: &anyhow::Error) {
    let message = format!("{error:#}");
    if !message.is_empty() {
        line(&format!("hull: {message}"));
    }
}
