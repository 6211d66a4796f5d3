//! The container's first process, from its clone to its exec.
//!
//! It is a copy of the runtime: it has every plan in memory and nothing is sent to it but
//! descriptors and go-aheads (see [`channel`]). Until its exec it is not dumpable, and it
//! runs nothing but this code and the operator's hooks.

pub(crate) mod channel;
mod console;
mod keyring;
mod last;
mod listener;

use std::{
    mem,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind};

use crate::{attachment::Attached, hooks, namespace, process, rootfs, seccomp, spec};

pub(crate) use channel::{Channel, Message};
pub(crate) use console::{open as open_console, take as take_console};
pub(crate) use keyring::join as join_keyring;
pub(crate) use last::{Last, finish};
pub(crate) use listener::send as send_listener;

/// What the finished process waits for.
#[derive(Debug)]
pub(crate) enum Start {
    /// The runtime's word on the channel.
    Told,
    /// A byte in `go`; `report` takes the reason if the exec fails, and its end says that
    /// the exec succeeded.
    Fifos { go: OwnedFd, report: OwnedFd },
}

/// Everything the process needs.
pub(crate) struct Init<'a> {
    pub(crate) spec: &'a oci::Spec,
    pub(crate) linux: &'a oci::Linux,
    pub(crate) id: &'a str,
    pub(crate) namespaces: &'a namespace::Plan,
    pub(crate) rootfs: &'a rootfs::Plan,
    pub(crate) sources: rootfs::Sources,
    pub(crate) process: &'a process::Plan,
    pub(crate) seccomp: Option<&'a seccomp::Program>,
    /// What the container's own hooks read.
    pub(crate) state: oci::State,
    /// The host's /proc. Everything below it is per process or per namespace as the
    /// kernel sees the reader, and no container can put anything over it.
    pub(crate) proc: OwnedFd,
    pub(crate) start: Start,
    pub(crate) cgroup_mounts: rootfs::CgroupMounts,
    /// The same without cgroups of the container's own, where making them may fail.
    pub(crate) unjoined_mounts: Option<rootfs::CgroupMounts>,
    /// Whether the runtime has work to do once the mounts are made.
    pub(crate) stop_for_hooks: bool,
    pub(crate) no_new_keyring: bool,
    /// Whether the caller has root's privileges on the host.
    pub(crate) privileged: bool,
    pub(crate) attached: &'a Attached,
}

/// The flags of the first clone: what the kernel can only give at birth. The others are
/// unshared by the process itself, which costs as much but costs it while the runtime is
/// making the cgroups.
pub(crate) fn first_clone_flags(namespaces: &namespace::Plan) -> u64 {
    let at_birth = namespace::flag(NamespaceKind::Pid) | namespace::flag(NamespaceKind::User);
    namespaces.clone_flags() & at_birth
}

/// Becomes the container's first process. Does not return.
pub(crate) fn run(init: Init<'_>, channel: &Channel) -> ! {
    if let Err(error) = prepare(init, channel) {
        let _ = channel.send(&Message::Error(format!("{error:#}")));
    }
    sys::process::exit_now(1)
}

fn prepare(mut init: Init<'_>, channel: &Channel) -> Result<()> {
    sys::process::set_parent_death_signal(libc::SIGKILL)?;
    // A runtime without privileges may map the ids only of a process that it could trace.
    // Until they are mapped nobody of a container is beside this one.
    let maps = init.namespaces.makes(NamespaceKind::User);
    if !maps {
        sys::process::set_dumpable(false)?;
    }
    // The runtime has had us start on a processor that it does not use itself.
    process::reset_affinity();
    // For the mount points and directories that are made on the way.
    sys::process::set_umask(0o022);
    enter_namespaces(&init, channel)?;
    sys::process::set_dumpable(false)?;
    sys::process::new_session()?;
    if init.namespaces.has(NamespaceKind::User) {
        become_root(init.privileged)?;
    }
    if !init.no_new_keyring {
        keyring::join(init.id, true)?;
    }
    if init.namespaces.makes(NamespaceKind::Network) {
        sys::netlink::raise_loopback().context("cannot bring up the loopback interface")?;
    }
    // From here on: what needs the host's mounts.
    let mut cgroup_namespace = init.namespaces.makes(NamespaceKind::Cgroup);
    let mut joined = false;
    let mut join = || -> Result<()> {
        if !joined {
            let message = channel.expect("its cgroups", |m| matches!(m, Message::Cgroups(_)))?;
            if let Message::Cgroups(tasks) = message {
                join_cgroups(&tasks)?;
            }
            if cgroup_namespace {
                sys::namespace::unshare(libc::CLONE_NEWCGROUP)
                    .context("cannot make a cgroup namespace")?;
                cgroup_namespace = false;
            }
            joined = true;
        }
        Ok(())
    };
    let own_mounts = init.namespaces.has(NamespaceKind::Mount);
    let cgroup_mounts = &init.cgroup_mounts;
    let mut root = rootfs::mount_all(
        init.rootfs,
        rootfs::Context {
            join_cgroup: &mut || {
                join()?;
                Ok(made_mounts(cgroup_mounts, init.unjoined_mounts.as_ref()))
            },
            sources: mem::take(&mut init.sources),
        },
    )?;
    for warning in root.warnings.drain(..) {
        channel.send(&Message::Warning(warning))?;
    }
    join()?;
    process::reset_affinity();
    if init.stop_for_hooks {
        channel.send(&Message::Hooks)?;
        channel.expect("the runtime's hooks", |m| matches!(m, Message::HooksDone))?;
    }
    let container_hooks = init.spec.hooks.as_ref();
    if let Some(hooks) = container_hooks
        && !hooks.create_container.is_empty()
    {
        let state = oci::State { status: oci::Status::Creating, ..init.state.clone() };
        hooks::run("createContainer", &hooks.create_container, &state, &[])?;
    }
    rootfs::enter(init.rootfs, &root)?;

    if let Some(socket) = &init.attached.console {
        let peer = console::open(root.fd.as_fd(), socket, init.process.console_size)?;
        if own_mounts {
            rootfs::attach_console(&root, peer.as_fd())?;
        }
        console::take(&peer)?;
    }
    if own_mounts {
        rootfs::replace_null_stdio(&root)?;
    }
    if !init.spec.hostname.is_empty() {
        sys::namespace::set_hostname(&init.spec.hostname)?;
    }
    if !init.spec.domainname.is_empty() {
        sys::namespace::set_domainname(&init.spec.domainname)?;
    }
    write_sysctls(&init)?;
    init.process.make_cwd(&root.fd)?;
    rootfs::seal(init.rootfs, &root)?;

    init.process.set_umask(Some(0o022));
    if !(init.privileged && init.namespaces.has(NamespaceKind::User)) {
        init.process.set_oom_score(&init.proc, 0)?;
    }
    init.process.set_scheduling()?;
    let start_hooks =
        container_hooks.map(|hooks| hooks.start_container.as_slice()).unwrap_or_default();
    finish(
        Last {
            process: init.process,
            seccomp: init.seccomp,
            root: root.fd,
            proc: init.proc,
            attached: init.attached,
            privileged: init.privileged,
            start: Some(init.start),
            hooks: start_hooks,
            state: Some(&init.state),
        },
        channel,
    )
}

/// The cgroups that are there: the container's own, or else the runtime's.
fn made_mounts(
    own: &rootfs::CgroupMounts,
    unjoined: Option<&rootfs::CgroupMounts>,
) -> rootfs::CgroupMounts {
    let mut mounts = own.clone();
    for hierarchy in &mut mounts.v1 {
        let other = unjoined.and_then(|unjoined| {
            unjoined.v1.iter().find(|other| other.directory == hierarchy.directory)
        });
        if let Some(other) = other
            && !hierarchy.own.exists()
        {
            hierarchy.own.clone_from(&other.own);
        }
    }
    mounts
}

/// Enters and makes the namespaces, in one stage or two.
fn enter_namespaces(init: &Init<'_>, channel: &Channel) -> Result<()> {
    let namespaces = init.namespaces;
    let mapped = || channel.expect("its ids", |m| matches!(m, Message::Mapped)).map(drop);
    if !namespaces.is_staged() {
        if namespaces.makes(NamespaceKind::User) {
            mapped()?;
        }
        namespaces.join()?;
        let rest = namespaces.clone_flags() & !first_clone_flags(namespaces);
        if rest != 0 {
            let rest = i32::try_from(rest).context("impossible namespace flags")?;
            sys::namespace::unshare(rest).context("cannot make the namespaces")?;
        }
        return Ok(());
    }
    namespaces.stage(&mut || {
        channel.send(&Message::UserNamespace)?;
        mapped()
    })?;
    if namespaces.makes(NamespaceKind::Time) {
        write_time_offsets(init)?;
    }
    let flags = (namespaces.new & namespace::flag(NamespaceKind::Pid))
        | u64::from(libc::CLONE_PARENT.cast_unsigned());
    match sys::namespace::clone(flags, None).context("cannot make the second stage")? {
        sys::namespace::Clone::Parent { pid, .. } => {
            let sent = channel.send(&Message::Pid(pid));
            sys::process::exit_now(i32::from(sent.is_err()))
        }
        sys::namespace::Clone::Child => {
            sys::process::set_parent_death_signal(libc::SIGKILL)?;
            Ok(())
        }
    }
}

fn write_time_offsets(init: &Init<'_>) -> Result<()> {
    let text: String = init
        .linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
        .collect();
    if text.is_empty() {
        return Ok(());
    }
    let file = sys::fd::openat(&init.proc, c"self/timens_offsets", libc::O_WRONLY, 0)
        .context("cannot set the clocks of the time namespace")?;
    sys::fd::write_all(file, text.as_bytes()).context("cannot set the clocks of the time namespace")
}

/// Takes the ids that the user namespace gives to its root, so that what is made here
/// belongs to it.
pub(crate) fn become_root(privileged: bool) -> Result<()> {
    sys::process::set_gid(0).context("cannot become root in the user namespace")?;
    sys::process::set_uid(0).context("cannot become root in the user namespace")?;
    // Leaves the caller's groups behind; not permitted where setgroups is denied.
    match sys::process::set_groups(&[]) {
        Err(error) if privileged || error.errno() != libc::EPERM => {
            Err(error).context("cannot drop the runtime's groups")
        }
        _ => Ok(()),
    }?;
    // The change of ids made this process dumpable by its user again.
    sys::process::set_dumpable(false)?;
    Ok(())
}

fn write_sysctls(init: &Init<'_>) -> Result<()> {
    for (name, value) in &init.linux.sysctl {
        let path = std::ffi::CString::new(format!("sys/{}", spec::sysctl_path(name)))
            .context("the name of a sysctl holds a NUL byte")?;
        let write = || -> sys::Result<()> {
            let file = sys::fd::openat(&init.proc, &path, libc::O_WRONLY | libc::O_NOFOLLOW, 0)?;
            sys::fd::write_all(file, value.as_bytes())
        };
        write().with_context(|| format!("cannot set sysctl {name} to {value:?}"))?;
    }
    Ok(())
}

/// Moves this process into cgroups, by their `tasks` files. "0" is the writer itself, and
/// only that spares the kernel its lock of all thread groups, with its wait for an RCU
/// grace period.
pub(crate) fn join_cgroups(fds: &[OwnedFd]) -> Result<()> {
    for fd in fds {
        sys::fd::write_all(fd, b"0").context("cannot join a cgroup")?;
    }
    Ok(())
}
