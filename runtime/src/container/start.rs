//! `start`: lets a created container's process go on to its program.
//!
//! The container's first process holds two FIFOs of the container's directory open in both
//! directions: it reads one byte from `exec.fifo`, and keeps `report.fifo` until its exec.
//! So opening `exec.fifo` for writing fails once nobody waits there, and the end of
//! `report.fifo` means that the exec succeeded; if it failed, the reason comes first.
//! `start` ends when both are closed, so that nobody finds the container `created` after it.

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{ContainerId, Status};

use super::{Dir, Held, Record, delete, hold, hook_state, notify, status};
use crate::{hooks, request::Global};

/// The FIFO on which the container's process reports why its exec failed.
pub(super) const REPORT_FIFO: &std::ffi::CStr = c"report.fifo";

/// The longest reason that is read, in bytes.
const MAX_REPORT_BYTES: usize = 8192;

/// Starts a created container. Returns once its program runs, or says that it is ready.
pub(crate) fn start(global: &Global, id: &ContainerId) -> Result<()> {
    let held = hold(global, id)?;
    match status::observe(&held.dir, &held.record)? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        status => bail!("cannot start a container in the {status} state"),
    }
    let listener = notify::Caller::find()?
        .map(|caller| notify::Listener::bind(&held.dir, caller))
        .transpose()?;
    let init = held.record.init.as_ref().and_then(|init| init.open());
    release(&held.dir).inspect_err(|_| {
        // The process has said why it ends; once it has, the container is stopped.
        if let Some(init) = init {
            let _ = sys::process::wait_readable(&init, delete::KILL_TIMEOUT_MS);
        }
    })?;
    let spec = held.dir.spec()?;
    after_start(&held.record, &spec.hooks.unwrap_or_default())?;
    // The wait has no limit but the container's life, which others may end.
    let Held { record, _lock: lock, .. } = held;
    drop(lock);
    match (listener, record.init.as_ref().and_then(|init| Some((init.open()?, init.pid)))) {
        (Some(listener), Some((pidfd, pid))) => listener.wait(&pidfd, pid),
        _ => Ok(()),
    }
}

fn release(dir: &Dir) -> Result<()> {
    let report = sys::fd::openat(&dir.fd, REPORT_FIFO, libc::O_RDONLY | libc::O_NONBLOCK, 0)
        .context("cannot reach the container's process")?;
    let go = sys::fd::openat(&dir.fd, status::START_FIFO, libc::O_WRONLY | libc::O_NONBLOCK, 0)
        .context("cannot reach the container's process")?;
    sys::fd::set_nonblocking(&report, false)?;
    sys::fd::write_all(&go, b"g").context("cannot reach the container's process")?;
    let reason = sys::fd::read_to_end(&report, MAX_REPORT_BYTES)
        .context("cannot hear from the container's process")?;
    // The exec closes one FIFO after the other. A FIFO without a reader is an error to its
    // writer, which poll(2) reports unasked.
    sys::process::wait_readable(&go, -1).context("cannot hear from the container's process")?;
    if reason.is_empty() {
        Ok(())
    } else {
        Err(anyhow!(String::from_utf8_lossy(&reason).into_owned()))
    }
}

/// Runs the poststart hooks. A failing one stops the container (runtime.md, Lifecycle 9).
pub(super) fn after_start(record: &Record, hooks: &hull_specs_oci::Hooks) -> Result<()> {
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    let state = hook_state(record, Status::Running);
    let result = hooks::run("poststart", &hooks.poststart, &state, &[]);
    if result.is_err() {
        let _ = delete::end(record);
    }
    result
}
