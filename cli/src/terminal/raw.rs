//! Raw mode, given back whichever way we leave.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use hull_runtime_sys::tty;
use hull_specs_api::v1::TerminalSize;

/// Standard input in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct Raw(tty::Attributes);

impl Raw {
    /// Begins it, if standard input is a terminal.
    pub(crate) fn begin() -> Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        Ok(Some(Self(tty::make_raw(&stdin).context("the terminal's raw mode")?)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode.
        let _ = tty::restore(io::stdin(), &self.0);
    }
}

/// The size of our terminal; none if standard output is none, or does not know.
pub(crate) fn size() -> Option<TerminalSize> {
    let (rows, columns) = tty::size(io::stdout()).ok()?;
    (rows > 0 && columns > 0).then(|| TerminalSize { columns: columns.into(), rows: rows.into() })
}
