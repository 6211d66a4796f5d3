//! v2's freezer: `cgroup.freeze`, since 5.2.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cgroup::file;

const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes the cgroup and waits until every process has stopped.
pub(in crate::cgroup) fn freeze(dir: &Path) -> Result<()> {
    file::write(dir, "cgroup.freeze", "1").context("freezer not supported")?;
    if !wait_frozen(dir)? {
        bail!("timeout of {} s reached waiting for the cgroup to freeze", PATIENCE.as_secs());
    }
    Ok(())
}

pub(in crate::cgroup) fn thaw(dir: &Path) -> Result<()> {
    match file::write(dir, "cgroup.freeze", "0") {
        // No freezer, or no cgroup any more: nothing is frozen.
        Err(error) if file::is_missing(&error) => Ok(()),
        result => Ok(result?),
    }
}

/// Whether the cgroup itself is frozen. A cgroup that is gone, or a kernel without the
/// freezer, isn't.
pub(in crate::cgroup) fn is_frozen(dir: &Path) -> Result<bool> {
    match file::read(dir, "cgroup.freeze") {
        Err(error) if file::is_missing(&error) => Ok(false),
        text => match text?.trim() {
            "0" => Ok(false),
            "1" => wait_frozen(dir),
            other => bail!("unknown \"cgroup.freeze\" state: {other:?}"),
        },
    }
}

fn wait_frozen(dir: &Path) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    loop {
        match file::read(dir, "cgroup.events") {
            Err(error) if file::is_missing(&error) => return Ok(false),
            text => match file::value_of(&text?, "frozen") {
                Some(1) => return Ok(true),
                Some(_) if Instant::now() < deadline => {}
                _ => return Ok(false),
            },
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
