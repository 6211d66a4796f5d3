//! Room on the disk that is kept for taking things away: that writes, too, and a full disk must
//! not stand in its own way.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::error::{ErrorKind, Result};

/// A removal writes some pages of 4 KiB; so this is for dozens, until they have made room.
const BYTES: u64 = 1 << 20;
/// So much is given up at once.
const STEP: u64 = BYTES / 8;

/// A file that holds nothing but its place.
pub(crate) struct Reserve {
    path: PathBuf,
    /// How much of it there is.
    held: Mutex<u64>,
}

impl Reserve {
    pub(crate) fn open(path: PathBuf) -> Self {
        let held = path.metadata().map_or(0, |found| found.len());
        Self { path, held: Mutex::new(held) }
    }

    /// Does something for which the reserve is given up as far as needed, and then taken again.
    pub(crate) fn behind<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            match work() {
                Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                    if !self.give_up() {
                        return Err(error);
                    }
                }
                result => {
                    self.refill();
                    return result;
                }
            }
        }
    }

    /// Takes what is missing, as far as the disk has it.
    fn refill(&self) {
        let mut held = self.held();
        if *held >= BYTES {
            return;
        }
        let fill = |held: &mut u64| -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            // Written, not fallocate(2): not every file system has that.
            let page = [0xff; 4096];
            while *held < BYTES {
                *held += file.write(&page)? as u64;
            }
            Ok(())
        };
        if let Err(error) = fill(&mut held) {
            tracing::debug!(%error, held = *held, "the reserve is not whole");
        }
    }

    /// Gives up a part; false if there is nothing to give.
    fn give_up(&self) -> bool {
        let mut held = self.held();
        let left = held.saturating_sub(STEP);
        let given = *held > 0
            && OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|file: File| file.set_len(left))
                .is_ok();
        *held = if given { left } else { 0 };
        given
    }

    fn held(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_was_given_up_is_taken_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("reserve");
        let size = || path.metadata().unwrap().len();
        let full = || Err::<(), _>(Error::exhausted("the disk is full"));
        let reserve = Reserve::open(path.clone());
        reserve.behind(|| Ok(())).unwrap();
        assert_eq!(size(), BYTES);
        let twice = reserve.behind(|| if size() > BYTES - 2 * STEP { full() } else { Ok(()) });
        assert!(twice.is_ok() && size() == BYTES);
        // Nothing helps; and as after a restart.
        assert!(reserve.behind(full).is_err());
        assert_eq!(size(), 0);
        let reserve = Reserve::open(path.clone());
        assert!(reserve.behind(|| Err::<(), _>(Error::conflict("no"))).is_err());
        assert_eq!(size(), BYTES);
    }
}
