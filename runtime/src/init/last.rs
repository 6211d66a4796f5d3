//! The last steps of `create` and of `exec` alike: labels, identity, seccomp, exec.
//!
//! What follows the seccomp load makes only the system calls that every program makes:
//! read, write, execve, exit, and close_range where the profile knows it. Everything else,
//! allocation included, is done before.

use std::{
    ffi::{CStr, CString},
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
    /// Whether the caller has root's privileges on the host.
    pub(crate) privileged: bool,
    /// `None` for an `exec`, which starts at once.
    pub(crate) start: Option<Start>,
    pub(crate) hooks: &'a [oci::Hook],
    pub(crate) state: Option<&'a oci::State>,
}

/// Goes on to the program. Returns only with an error that the runtime waits for; the
/// caller reports it and ends the process.
pub(crate) fn finish(last: Last<'_>, channel: &Channel) -> Result<()> {
    let process = last.process;
    process.set_apparmor_profile(&last.proc)?;
    process.set_selinux_label(&last.proc)?;
    // While this is still the runtime's user: another user's could be refused.
    process.set_limits(0)?;
    let mut environment = process.environment.clone();
    environment.add_home(process.user.uid, &last.root);
    process.become_user(&last.root, last.attached.inherited_fds, may_set_groups(&last)?)?;
    let name = process.args.first();
    let program =
        name.map(|name| process::find_executable(name, environment.path())).transpose()?;
    environment.variables.extend(last.attached.environment());
    let hook_environment =
        if last.hooks.is_empty() { Vec::new() } else { pairs(&environment.variables) };
    let args = StringArray::new(process.args.clone());
    let env = StringArray::new(environment.variables);
    sys::signal::reset_dispositions();
    sys::signal::unblock_all()?;

    // Nothing of the host may be left open for the program to be named by, such as
    // /proc/self/fd/7/bin/sh (CVE-2024-21626). What stays until the exec are FIFOs and a
    // socket.
    drop((last.root, last.proc));
    let mut kept = vec![channel.as_fd()];
    if let Some(Start::Fifos { go, report }) = &last.start {
        kept.extend([go.as_fd(), report.as_fd()]);
    }
    sys::fd::close_from(3 + last.attached.inherited_fds, &kept)?;

    if process.no_new_privileges {
        sys::process::set_no_new_privileges()?;
        // What could not be granted was warned of when the plan was made.
        process.set_capabilities()?;
        load_seccomp(last.seccomp, channel)?;
    } else {
        // Without no_new_privs, loading a filter needs the privileges that go away next.
        if last.seccomp.is_some() && process.user.uid != 0 {
            process::make_effective()?;
        }
        load_seccomp(last.seccomp, channel)?;
        process.set_capabilities()?;
    }

    // From here to the go-ahead it is the channel's end that tells of the runtime's death.
    sys::process::set_parent_death_signal(0)?;
    channel.send_tag(b'R', 0)?;
    let report = match (channel.receive_tag()?, &last.start) {
        (Some(b'K'), Some(Start::Fifos { go, report })) => {
            if sys::fd::read(go, &mut [0])? == 0 {
                bail!("the start FIFO was closed");
            }
            Some(report)
        }
        (Some(b'G'), _) => None,
        _ => bail!("the runtime ended before the container could start"),
    };
    let error = match program {
        Some(program) => match start_hooks(last.hooks, last.state, &hook_environment) {
            Ok(()) => exec(&program, &args, &env),
            Err(error) => error,
        },
        None => anyhow!(process::NONE),
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

/// Whether this process may change its supplementary groups: not on behalf of a caller
/// without privileges, and not where a user namespace denies it.
fn may_set_groups(last: &Last<'_>) -> Result<bool> {
    if !last.privileged {
        return Ok(false);
    }
    let mut answer = [0; 8];
    let read = sys::fd::openat(&last.proc, c"self/setgroups", libc::O_RDONLY, 0)
        .and_then(|file| sys::fd::read(&file, &mut answer));
    match read {
        Ok(n) => Ok(!answer[..n].starts_with(b"deny")),
        // A kernel without user namespaces.
        Err(error) if error.errno() == libc::ENOENT => Ok(true),
        Err(error) => Err(error).context("cannot read whether setgroups is allowed"),
    }
}

fn pairs(environment: &[CString]) -> Vec<(String, String)> {
    environment
        .iter()
        .filter_map(|entry| {
            let (name, value) = entry.to_str().ok()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn start_hooks(
    list: &[oci::Hook],
    state: Option<&oci::State>,
    environment: &[(String, String)],
) -> Result<()> {
    let Some(state) = state.filter(|_| !list.is_empty()) else { return Ok(()) };
    let state = oci::State { pid: sys::process::id(), ..state.clone() };
    hooks::run("startContainer", list, &state, environment)
}

fn exec(program: &CStr, args: &StringArray, env: &StringArray) -> anyhow::Error {
    let error = sys::process::execve(program, args, env);
    anyhow!(process::diagnose(program, &error))
}

/// Loads the filter; a listener is left for the runtime to take by its number.
fn load_seccomp(program: Option<&seccomp::Program>, channel: &Channel) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    let Some(listener) = sys::seccomp::load(&program.instructions, program.load_flags())
        .context("unable to init seccomp")?
    else {
        return Ok(());
    };
    channel.send_tag(b'S', listener.as_raw_fd())?;
    match channel.receive_tag()? {
        Some(b's') => Ok(()),
        _ => bail!("the runtime ended before it took the seccomp listener"),
    }
}
