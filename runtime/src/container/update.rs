//! `update`: other limits for a container that exists.

use anyhow::{Context, Result, bail};
use hull_specs_oci::Status;

use super::{Failure, hold, status};
use crate::{
    cgroup::{self, Cgroup},
    request,
};

/// Applies the resources that the request names; the rest stay.
pub(crate) fn update(global: &request::Global, request: &request::Update) -> Result<()> {
    let mut held = hold(global, &request.id)?;
    if status::observe(&held.dir, &held.record)? == Status::Stopped {
        return Err(Failure::NotRunning.into());
    }
    if request.l3_cache_schema.is_some() || request.mem_bw_schema.is_some() {
        bail!("Intel RDT is not enabled on this machine");
    }
    let resources = cgroup::merge_update(&held.record.resources, &request.resources);
    Cgroup::open(&held.record.cgroup)
        .set(&resources)
        .context("cannot change the container's resources")?;
    held.record.resources = resources;
    held.dir.save(&held.record)
}
