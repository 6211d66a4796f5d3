//! What can be done with a container: one file an operation.
//!
//! The operations own the order of things and their undoing. How each part is done is
//! elsewhere: `rootfs`, `cgroup`, `seccomp`, `process`, `init`.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod explain;
mod features;
mod foreground;
mod kill;
mod list;
mod notify;
mod pause;
mod plan;
mod processes;
mod record;
mod restore;
mod run;
mod start;
mod state;
mod status;
mod store;
mod update;

use std::fmt;

use anyhow::Result;
use hull_specs_oci as oci;

use crate::request;

pub(crate) use checkpoint::checkpoint;
pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use events::events;
pub(crate) use exec::exec;
pub(crate) use explain::explain;
pub(crate) use features::features;
pub(crate) use kill::kill;
pub(crate) use list::list;
pub(crate) use pause::{pause, resume};
pub(crate) use processes::processes;
pub(crate) use restore::restore;
pub(crate) use run::run;
pub(crate) use start::start;
pub(crate) use state::state;
pub(crate) use update::update;

use record::Record;
use store::{Dir, Lock, Store};

/// The failures whose words callers match on: containerd, podman and CRI-O look for these
/// texts of runc's in the log and on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Exists,
    NotExist,
    NotRunning,
    NotPaused,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "container with given ID already exists",
            Self::NotExist => "container does not exist",
            Self::NotRunning => "container not running",
            Self::NotPaused => "container not paused",
        })
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Whether this failure is at the bottom of `error`.
    pub(crate) fn is(self, error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>() == Some(&self)
    }
}

/// A container that is there, held for one change.
struct Held {
    dir: Dir,
    record: Record,
    _lock: Lock,
}

/// Finds a container and keeps others from changing it until the result is dropped.
fn hold(global: &request::Global, id: &oci::ContainerId) -> Result<Held> {
    let dir = Store::new(&global.root).open(id)?;
    let lock = dir.lock()?;
    dir.check_owner()?;
    let record = dir.record()?.ok_or(Failure::NotExist)?;
    Ok(Held { dir, record, _lock: lock })
}

/// Finds a container without holding it: for looking only.
fn find(global: &request::Global, id: &oci::ContainerId) -> Result<(Dir, Record)> {
    let dir = Store::new(&global.root).open(id)?;
    dir.check_owner()?;
    let record = dir.record()?.ok_or(Failure::NotExist)?;
    Ok((dir, record))
}

/// The state document that hooks read.
fn hook_state(record: &Record, status: oci::Status) -> oci::State {
    let pid = match status {
        oci::Status::Stopped => 0,
        _ => record.init.as_ref().map_or(0, |init| init.pid),
    };
    oci::State {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        status,
        pid,
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}
