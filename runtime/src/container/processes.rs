//! `ps`: the container's processes.

use anyhow::{Context, Result};
use hull_specs_oci::ContainerId;

use super::find;
use crate::{cgroup::Cgroup, request::Global};

/// The ids of the container's processes, in the runtime's pid namespace, sorted.
pub(crate) fn processes(global: &Global, id: &ContainerId) -> Result<Vec<i32>> {
    let (_, record) = find(global, id)?;
    let cgroup = Cgroup::open(&record.cgroup);
    if !cgroup.exists() {
        return Ok(Vec::new());
    }
    let mut pids = cgroup.pids().context("unable to get all container pids")?;
    pids.sort_unstable();
    Ok(pids)
}
