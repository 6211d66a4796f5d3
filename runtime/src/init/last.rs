//! The last steps of `create` and of `exec` alike: labels, identity, seccomp, exec.
//!
//! What follows the seccomp load makes only the system calls that every program makes:
//! read, write, execve, exit, and close_range where the profile knows it. Everything else,
//! allocation included, is done before.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;
use sys::process::StringArray;

use super::{Channel, Start};
use crate::{attachment::Attached, hooks, process, seccomp};

/// What the last steps need.
pub(crate) struct Last<'a> {
    pub(crate) process: &'a process::Plan,
    pub(crate) seccomp: Option<&'a seccomp::Program>,
    /// The container's root directory.
    pub(crate) root: OwnedFd,
    pub(crate) proc: OwnedFd,
    pub(crate) attached: &'a Attached,
    pub(crate) rootless: bool,
    /// `None` for an `exec`, which starts at once.
    pub(crate) start: Option<Start>,
    pub(crate) hooks: &'a [oci::Hook],
    pub(crate) state: Option<&'a oci::State>,
}

/// Goes on to the program. Returns only with an error that the runtime waits for.
pub(crate) fn finish(last: Last<'_>, channel: &Channel) -> Result<()> {
    let process = last.process;
    if process.no_new_privileges {
        sys::process::set_no_new_privileges()?;
    }
    process.set_apparmor_profile(&last.proc)?;
    process.set_selinux_label(&last.proc)?;
    // Without no_new_privs, loading a filter needs the privileges that go away next. With
    // it, the filter comes as late as can be.
    if !process.no_new_privileges {
        load_seccomp(last.seccomp, channel)?;
    }
    let environment = process.complete_environment(&last.root, last.attached.environment());
    process.finish(&last.root, &last.proc, last.rootless)?;
    let program = process.find_executable(&environment, &last.root)?;
    // A change of ids has cleared it.
    sys::process::set_parent_death_signal(libc::SIGKILL)?;
    sys::signal::reset_dispositions();
    sys::signal::unblock_all()?;
    let hook_environment =
        if last.hooks.is_empty() { Vec::new() } else { environment.pairs() };
    let args = StringArray::new(process.args.clone());
    let env = StringArray::new(environment.variables);
    sys::fd::cloexec_from(3 + last.attached.inherited_fds)?;
    drop((last.root, last.proc));
    if process.no_new_privileges {
        load_seccomp(last.seccomp, channel)?;
    }

    channel.send_tag(b'R', 0)?;
    let report = match (channel.receive_tag()?, &last.start) {
        (Some(b'K'), Some(Start::Fifos { go, report })) => {
            // The runtime ends now, and this process stays.
            sys::process::set_parent_death_signal(0)?;
            let mut byte = [0];
            if sys::fd::read(go, &mut byte)? == 0 {
                bail!("the start FIFO was closed");
            }
            Some(report)
        }
        (Some(b'G'), _) => {
            sys::process::set_parent_death_signal(0)?;
            None
        }
        _ => bail!("the runtime ended before the container could start"),
    };
    let error = match start_hooks(&last, &hook_environment) {
        Ok(()) => exec(&program, &args, &env),
        Err(error) => error,
    };
    match report {
        // `start` reads it; the runtime that made the channel is gone.
        Some(report) => {
            let _ = sys::fd::write_all(report, format!("{error:#}").as_bytes());
            sys::process::exit_now(255)
        }
        None => Err(error),
    }
}

fn start_hooks(last: &Last<'_>, environment: &[(String, String)]) -> Result<()> {
    let Some(state) = last.state.filter(|_| !last.hooks.is_empty()) else { return Ok(()) };
    let state = oci::State { pid: sys::process::id(), ..state.clone() };
    hooks::run("startContainer", last.hooks, &state, environment)
}

fn exec(program: &CStr, args: &StringArray, env: &StringArray) -> anyhow::Error {
    let error = sys::process::execve(program, args, env);
    anyhow!(process::diagnose(program, &error))
}

/// Loads the filter; a listener is left for the runtime to take by its number.
fn load_seccomp(program: Option<&seccomp::Program>, channel: &Channel) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    let Some(listener) = program.load().context("unable to init seccomp")? else { return Ok(()) };
    channel.send_tag(b'S', listener.as_fd().as_raw_fd())?;
    match channel.receive_tag()? {
        Some(b's') => Ok(()),
        _ => bail!("the runtime ended before it took the seccomp listener"),
    }
}
