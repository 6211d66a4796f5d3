//! v1 hierarchies through the cgroup file system. Each hierarchy is touched once: one mkdir,
//! the writes that are needed, one open of `tasks`.

mod cpuset;
pub(super) mod freezer;
pub(super) mod limits;
pub(super) mod stats;

use std::{fs, os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    devices::{self, Access},
    file,
    limit::{self, Limit},
    location::{Location, Place},
    tree::{self, Made},
};

/// Makes the container's cgroup in every hierarchy of `location`, with its limits and devices,
/// and opens the files by which the container's process joins. A hierarchy that may be left
/// out for want of permission is removed from `location`.
pub(super) fn create(
    location: &mut Location,
    made: &mut Made,
    limits: &[Limit],
    access: Option<&Access>,
) -> Result<Vec<OwnedFd>> {
    let mut tasks = Vec::with_capacity(location.hierarchies.len());
    let mut kept = Vec::with_capacity(location.hierarchies.len());
    let mut fresh_devices = false;
    for place in std::mem::take(&mut location.hierarchies) {
        match enter(&place, made, limits) {
            Ok((new, file)) => {
                fresh_devices |= new && place.holds("devices");
                tasks.push(file);
                kept.push(place);
            }
            Err(error) => {
                let tolerated = error
                    .downcast_ref::<hull_runtime_sys::Error>()
                    .is_some_and(|cause| location.tolerates(cause));
                // runc joins named hierarchies if it can and says nothing if it can't.
                let named = place.controllers.iter().all(|c| c.starts_with("name="));
                if !tolerated && !named {
                    return Err(error);
                }
                made.undo(&place.dir);
            }
        }
    }
    location.hierarchies = kept;
    let rest: Vec<_> = limits.iter().filter(|l| l.controller != "cpuset").cloned().collect();
    limit::apply(&rest, |controller| location.dir(controller))?;
    if let Some(access) = access {
        set_devices(location, access, fresh_devices)?;
    }
    Ok(tasks)
}

/// Makes one directory and opens its `tasks`; says whether the directory is new.
fn enter(place: &Place, made: &mut Made, limits: &[Limit]) -> Result<(bool, OwnedFd)> {
    let dir = place.dir.as_path();
    let cpuset = place.holds("cpuset");
    let parents = |parent: &Path| {
        if cpuset { cpuset::make_parents(parent) } else { Ok(tree::make_parents(parent)?) }
    };
    let new = made.mkdir(dir, parents)?;
    if !new {
        refuse_used(place)?;
    }
    if cpuset {
        let own: Vec<_> = limits.iter().filter(|l| l.controller == "cpuset").cloned().collect();
        limit::apply(&own, |_| Some(dir))?;
        cpuset::inherit(dir, new, &own)?;
    }
    // `tasks` moves one thread: writing it does not take the lock that `cgroup.procs` takes
    // against every fork and exit of the host, and which costs an RCU grace period.
    Ok((new, file::open_write(dir, "tasks")?.into()))
}

/// A cgroup that was there before must be empty and thawed.
fn refuse_used(place: &Place) -> Result<()> {
    if place.holds("devices") {
        tree::refuse_populated(&place.dir)?;
    }
    if place.holds("freezer") && freezer::is_frozen(&place.dir)? {
        bail!("container's cgroup unexpectedly frozen");
    }
    Ok(())
}

fn set_devices(location: &Location, access: &Access, fresh: bool) -> Result<()> {
    let Some(dir) = location.dir("devices") else {
        // Left out above: not privileged, and not asked to be anywhere.
        return Ok(());
    };
    let result =
        if fresh { devices::v1::initialise(dir, access) } else { devices::v1::update(dir, access) };
    // Without privileges there is no way to set rules, and no way to open a device either.
    if location.rootless { Ok(()) } else { result.context("cannot set device rules") }
}

/// Changes limits of cgroups in use.
pub(super) fn update(location: &Location, limits: &[Limit]) -> Result<()> {
    limit::apply(limits, |controller| location.dir(controller))
}

/// Opens the files by which a process joins the container's cgroups, or the sub-cgroups that
/// `sub` gives for each controller.
pub(super) fn open_tasks(
    location: &Location,
    sub: impl Fn(&Place) -> Result<Option<std::path::PathBuf>>,
) -> Result<Vec<OwnedFd>> {
    let mut tasks = Vec::with_capacity(location.hierarchies.len());
    for place in &location.hierarchies {
        let dir = sub(place)?.unwrap_or_else(|| place.dir.clone());
        match file::open_write(&dir, "tasks") {
            Ok(file) => tasks.push(file.into()),
            Err(error) if location.rootless && file::is_denied(&error) => {}
            Err(error) => {
                return Err(anyhow!(error).context("error adding process to cgroups"));
            }
        }
    }
    Ok(tasks)
}

/// Moves a process into every hierarchy but systemd's own; for the systemd driver, which puts
/// it only into the hierarchies that systemd knows.
pub(super) fn attach(location: &Location, made: &mut Made, pid: i32) -> Result<()> {
    for place in location.hierarchies.iter().filter(|place| !place.holds("name=systemd")) {
        if place.holds("cpuset") {
            let new = made.mkdir(&place.dir, cpuset::make_parents)?;
            cpuset::inherit(&place.dir, new, &[])?;
        } else if !fs::exists(&place.dir).unwrap_or(false) {
            made.mkdir(&place.dir, |parent| Ok(tree::make_parents(parent)?))?;
        }
        tree::attach(&place.dir, pid)?;
    }
    Ok(())
}
