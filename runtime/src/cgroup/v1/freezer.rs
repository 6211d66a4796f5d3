//! v1's freezer.

use std::{path::Path, thread::sleep, time::Duration};

use anyhow::{Result, bail};

use crate::cgroup::file;

const STATE: &str = "freezer.state";

/// v1 can stay in FREEZING while new processes keep appearing; thawing for a moment now and
/// then lets it through. The bounds are runc's, found by experiment on slow machines.
const MAX_ATTEMPTS: u32 = 1000;
const THAW_EVERY: u32 = 50;
const PAUSE_EVERY: u32 = 25;

/// Freezes the cgroup, or leaves it thawed and fails.
pub(in crate::cgroup) fn freeze(dir: &Path) -> Result<()> {
    let result = try_freeze(dir);
    if result.is_err() {
        // A cgroup that stays half frozen is worse than a failed pause; the error is reported.
        let _ = file::write(dir, STATE, "THAWED");
    }
    result
}

fn try_freeze(dir: &Path) -> Result<()> {
    for attempt in 1..=MAX_ATTEMPTS {
        if attempt % THAW_EVERY == 0 {
            file::write(dir, STATE, "THAWED")?;
            sleep(Duration::from_millis(10));
        }
        file::write(dir, STATE, "FROZEN")?;
        if attempt % PAUSE_EVERY == 0 {
            sleep(Duration::from_micros(10));
        }
        match file::read(dir, STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => bail!("unexpected state {other} while freezing"),
        }
    }
    bail!("unable to freeze")
}

pub(in crate::cgroup) fn thaw(dir: &Path) -> Result<()> {
    Ok(file::write(dir, STATE, "THAWED")?)
}

/// Whether the cgroup itself (not only an ancestor) is frozen. A cgroup that is gone isn't.
pub(in crate::cgroup) fn is_frozen(dir: &Path) -> Result<bool> {
    // FREEZING is a passing state; the bound is as long as the longest freeze.
    for _ in 0..MAX_ATTEMPTS {
        let state = match file::read(dir, STATE) {
            Err(error) if file::is_missing(&error) => return Ok(false),
            state => state?,
        };
        match state.trim() {
            "THAWED" => return Ok(false),
            "FROZEN" => {
                return match file::read(dir, "freezer.self_freezing") {
                    Err(error) if file::is_missing(&error) => Ok(true),
                    own => Ok(own?.trim() == "1"),
                };
            }
            "FREEZING" => sleep(Duration::from_millis(1)),
            other => bail!("unknown freezer.state {other:?}"),
        }
    }
    // Some process can't be stopped; as a whole the container isn't frozen.
    Ok(false)
}
