//! `pause` and `resume`.

use anyhow::{Context, Result, bail};
use hull_specs_oci::{ContainerId, Status};

use super::{Failure, hold, status};
use crate::{cgroup::Cgroup, request::Global};

/// Freezes the container's processes.
pub(crate) fn pause(global: &Global, id: &ContainerId) -> Result<()> {
    let held = hold(global, id)?;
    match status::observe(&held.dir, &held.record)? {
        Status::Running | Status::Created => {
            Cgroup::open(&held.record.cgroup).freeze().context("cannot pause the container")
        }
        Status::Paused => bail!("container already paused"),
        _ => Err(Failure::NotRunning.into()),
    }
}

/// Thaws the container's processes.
pub(crate) fn resume(global: &Global, id: &ContainerId) -> Result<()> {
    let held = hold(global, id)?;
    match status::observe(&held.dir, &held.record)? {
        Status::Paused => {
            Cgroup::open(&held.record.cgroup).thaw().context("cannot resume the container")
        }
        _ => Err(Failure::NotPaused.into()),
    }
}
