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
    let (cache, bandwidth) = (&request.l3_cache_schema, &request.mem_bw_schema);
    if cache.is_some() || bandwidth.is_some() {
        let Some(group) = &held.record.resctrl else {
            bail!("the container was created without intelRdt, so that it has no schema to change");
        };
        group.update(cache.as_deref(), bandwidth.as_deref())?;
    }
    let resources = cgroup::merge_update(&held.record.resources, &request.resources);
    Cgroup::open(&held.record.cgroup)
        .set(&resources)
        .context("cannot change the container's resources")?;
    held.record.resources = resources;
    held.dir.save(&held.record)
}
