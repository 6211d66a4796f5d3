//! Output that could not be written: counted for the record of the exit, and logged.

use std::cell::Cell;

use crate::{log, output::WriteError};

/// What a process's streams have lost, in bytes.
#[derive(Default)]
pub(super) struct Losses(Cell<u64>);

impl Losses {
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// The account of one stream.
    pub(super) fn account(&self) -> Account<'_> {
        Account { losses: self, failing: None }
    }
}

/// What one stream loses. The log has two lines of each time that its target refuses: why, when
/// that begins, and how much was lost, when it ends.
pub(super) struct Account<'a> {
    losses: &'a Losses,
    /// What was lost since its target refuses.
    failing: Option<u64>,
}

impl Account<'_> {
    pub(super) fn enter(&mut self, written: Result<(), WriteError>) {
        let Err(error) = written else { return self.close() };
        if self.failing.is_none() {
            log::error(&format!("output is lost: {}", error.cause));
        }
        self.failing = Some(self.failing.unwrap_or(0) + error.dropped_bytes);
        self.losses.0.set(self.losses.bytes() + error.dropped_bytes);
    }

    fn close(&mut self) {
        if let Some(bytes) = self.failing.take() {
            log::error(&format!("{bytes} bytes of output were lost"));
        }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_streams_of_a_process_lose_is_summed_up() {
        let losses = Losses::default();
        let lost = |bytes| {
            let cause = std::io::ErrorKind::StorageFull.into();
            Err(WriteError { dropped_bytes: bytes, cause })
        };
        let (mut one, mut other) = (losses.account(), losses.account());
        one.enter(lost(3));
        other.enter(Ok(()));
        one.enter(lost(4));
        assert_eq!((one.failing, other.failing), (Some(7), None));
        one.enter(Ok(()));
        assert_eq!(one.failing, None);
        other.enter(lost(5));
        drop((one, other));
        assert_eq!(losses.bytes(), 12);
    }
}
