//! `kill`.

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::NamespaceKind;

use super::{Failure, Record, find};
use crate::{
    cgroup::Cgroup,
    request::{Global, Kill},
};

/// Sends a signal to the container's first process, or to all.
pub(crate) fn kill(global: &Global, request: &Kill) -> Result<()> {
    let (_, record) = find(global, &request.id)?;
    if !(0..=64).contains(&request.signal) {
        bail!("unable to signal init: invalid argument: {} is not a signal", request.signal);
    }
    match signal(&record, request.signal, request.all) {
        // runc's word for an obsolete option that its callers still give.
        Err(error) if request.all && Failure::NotRunning.is(&error) => Ok(()),
        result => result,
    }
}

pub(super) fn signal(record: &Record, signal: i32, all: bool) -> Result<()> {
    let cgroup = Cgroup::open(&record.cgroup);
    // The kernel ends a pid namespace with its first process. Without one of its own, a
    // container's other processes would be left behind.
    let alone = !record.namespaces.contains(&NamespaceKind::Pid);
    if all || (alone && signal == libc::SIGKILL) {
        let lives = record.init.as_ref().is_some_and(|init| init.open().is_some());
        if !lives && !cgroup.exists() {
            return Err(Failure::NotRunning.into());
        }
        return cgroup.kill_all(signal).context("unable to kill all processes");
    }
    let pidfd = record.init.as_ref().and_then(|init| init.open()).ok_or(Failure::NotRunning)?;
    match sys::process::send_signal(&pidfd, signal) {
        Err(error) if error.errno() == libc::ESRCH => return Err(Failure::NotRunning.into()),
        result => result.context("unable to signal init")?,
    }
    // On cgroup v1 a frozen process takes the signal only once it is thawed.
    if signal == libc::SIGKILL && cgroup.is_frozen().unwrap_or(false) {
        cgroup.thaw().context("cannot thaw the killed container")?;
    }
    Ok(())
}
