//! `delete`, and the same undoing for a `run` that has ended or a `create` that failed.

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind, Status};

use super::{Dir, Failure, Record, Store, hook_state, kill, record::Phase, status};
use crate::{
    cgroup::Cgroup,
    hooks, log,
    request::{Delete, Global},
};

/// How long a killed process may take to end, in milliseconds.
pub(super) const KILL_TIMEOUT_MS: i32 = 10_000;

/// Removes a stopped or created container; with `force`, any.
pub(crate) fn delete(global: &Global, request: &Delete) -> Result<()> {
    let dir = match Store::new(&global.root).open(&request.id) {
        Err(error) if request.force && Failure::NotExist.is(&error) => return Ok(()),
        result => result?,
    };
    let _lock = match dir.lock() {
        Err(error) if request.force && Failure::NotExist.is(&error) => return Ok(()),
        result => result?,
    };
    dir.check_owner()?;
    let Some(record) = dir.record()? else {
        // A create that was killed before it had made anything but the directory, or a
        // delete that finished while we waited for the lock.
        dir.remove()?;
        return if request.force { Ok(()) } else { Err(Failure::NotExist.into()) };
    };
    match status::observe(&dir, &record)? {
        Status::Stopped => {}
        Status::Created => end(&record)?,
        _ if request.force => end(&record)?,
        status => bail!("cannot delete container {} that is not stopped: {status}", request.id),
    }
    destroy(dir, &record, true, None)
}

/// Kills the container's processes and waits until they have ended.
pub(super) fn end(record: &Record) -> Result<()> {
    let Some(pidfd) = record.init.as_ref().and_then(|init| init.open()) else { return Ok(()) };
    match kill::signal(record, libc::SIGKILL, false) {
        Err(error) if Failure::NotRunning.is(&error) => return Ok(()),
        result => result?,
    }
    if !sys::process::wait_readable(&pidfd, KILL_TIMEOUT_MS)? {
        bail!("container init still running");
    }
    Ok(())
}

/// Removes a container whose end this process has waited for, unless somebody else has been
/// quicker.
pub(super) fn destroy_ended(dir: Dir, record: &Record, spec: Option<&oci::Spec>) -> Result<()> {
    let _lock = match dir.lock() {
        Err(error) if Failure::NotExist.is(&error) => return Ok(()),
        result => result?,
    };
    // A directory that was removed while we waited has no name left.
    match sys::path::stat(&dir.fd)?.st_nlink {
        0 => Ok(()),
        _ => destroy(dir, record, true, spec),
    }
}

/// Removes everything of a container whose first process has ended: what is left in its
/// cgroup, the cgroup, its directory; then runs its poststop hooks.
/// `spec` is the configuration, where the caller has it at hand.
/// Without `own_cgroup` the cgroup is left alone: a failed create had not made it.
pub(super) fn destroy(
    dir: Dir,
    record: &Record,
    own_cgroup: bool,
    spec: Option<&oci::Spec>,
) -> Result<()> {
    let cgroup = Cgroup::open(&record.cgroup);
    // An unfinished create had one process, which ended with it. Whoever else is in the
    // cgroup was there before.
    let finished = record.phase == Phase::Created;
    if own_cgroup
        && finished
        // Ends by itself where there is a pid namespace.
        && !record.namespaces.contains(&NamespaceKind::Pid)
        && cgroup.exists()
    {
        match cgroup.kill_all(libc::SIGKILL) {
            // systemd removes a scope whose last process has ended, perhaps just now.
            Err(error) if !record.rootless && cgroup.exists() => {
                return Err(error).context("unable to kill the container's processes");
            }
            _ => {}
        }
    }
    if own_cgroup {
        match cgroup.destroy() {
            Err(error) if !finished => log::warning(format!("{error:#}")),
            result => result?,
        }
        if let Some(group) = &record.resctrl {
            group.remove().context("unable to remove the container's Intel RDT group")?;
        }
    }
    let kept = match spec {
        Some(_) => None,
        // A create that was killed before it kept the configuration had run no hook.
        None => dir.spec().ok(),
    };
    let hooks = spec.or(kept.as_ref()).and_then(|spec| spec.hooks.as_ref());
    let poststop = hooks.map(|hooks| hooks.poststop.clone()).unwrap_or_default();
    dir.remove()?;
    // The specification asks for a warning and for the rest of the hooks to run.
    let state = hook_state(record, Status::Stopped);
    for hook in poststop {
        if let Err(error) = hooks::run("poststop", &[hook], &state, &[]) {
            log::warning(format!("{error:#}"));
        }
    }
    Ok(())
}
