//! `exec`: another process in a container that runs.
//!
//! The runtime enters only the pid namespace, and that only for its children; the clone
//! enters the rest by the first process's pidfd, in one call and so of one process. What
//! the new process may do is the plan's, from the same code as the first process's.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind, Status};

use super::{
    Record,
    create::{next, tell},
    find, foreground, hook_state, status,
};
use crate::{
    attachment::{self, Attached},
    cgroup::{Cgroup, SubCgroups},
    init::{self, Channel, Last, Message},
    log, namespace, process,
    request::{Exec, ExecChanges, ExecProcess, Global},
    seccomp, spec,
};

/// Runs a process in a container; returns its exit code, or 0 when detached.
pub(crate) fn exec(global: &Global, request: &Exec) -> Result<i32> {
    let (dir, record) = find(global, &request.id)?;
    match status::observe(&dir, &record)? {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Creating => bail!("cannot exec in a container that is being created"),
        Status::Paused if !request.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let init = record
        .init
        .as_ref()
        .and_then(|init| init.open())
        .context("cannot exec in a stopped container")?;
    let spec = dir.spec()?;
    let default = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let mut process = match &request.process {
        ExecProcess::File(path) => spec::read_process(path)?,
        ExecProcess::Changed(changes) => {
            change(spec.process.clone().context("the container has no process")?, changes)
        }
    };
    if let Some(container) = &spec.process {
        process::inherit(&mut process, container);
    }
    let mut plan = process::plan(&process, Some(linux))?;
    if !record.namespaces.contains(&NamespaceKind::User) {
        plan.drop_ungrantable_capabilities()?;
    }
    plan.check_host()?;
    plan.warnings.iter().for_each(log::warning);
    let seccomp = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let detach = request.attachment.detach;
    let mut attached = attachment::attach(&request.attachment, plan.terminal, detach)?;
    let sub = SubCgroups::parse(&request.cgroups)?;
    let join = Cgroup::open(&record.cgroup).exec_fds(&sub)?;
    if !detach {
        sys::signal::block_all()?;
    }

    let entering = Entering {
        record: &record,
        linux,
        init: &init,
        seccomp: seccomp.as_ref(),
        join,
        privileged: sys::process::effective_uid() == 0,
    };
    let (pid, pidfd) = enter(&entering, &plan, &attached)?;
    if let Err(error) = attached.finish(&pidfd, pid) {
        let _ = sys::process::send_signal(&pidfd, libc::SIGKILL);
        let _ = sys::process::wait(pid);
        return Err(error);
    }
    if detach {
        return Ok(0);
    }
    foreground::wait(pid, &pidfd, &mut attached, false, None)
}

/// The bundle's process with the changes of the command line.
fn change(mut process: oci::Process, changes: &ExecChanges) -> oci::Process {
    process.args.clone_from(&changes.args);
    process.terminal = changes.terminal;
    if let Some(cwd) = &changes.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(changes.env.iter().cloned());
    if let Some((uid, gid)) = changes.user {
        process.user.uid = uid;
        if let Some(gid) = gid {
            process.user.gid = gid;
        }
    }
    process.user.additional_gids.extend(&changes.additional_gids);
    if let Some(label) = &changes.selinux_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &changes.apparmor_profile {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(no_new_privileges) = changes.no_new_privileges {
        process.no_new_privileges = no_new_privileges;
    }
    if !changes.capabilities.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        // Ambient capabilities need inheritable ones, which are never added here
        // (CVE-2022-29162).
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(changes.capabilities.iter().cloned());
        }
    }
    process
}

struct Entering<'a> {
    record: &'a Record,
    linux: &'a oci::Linux,
    init: &'a OwnedFd,
    seccomp: Option<&'a seccomp::Program>,
    join: crate::cgroup::JoinFds,
    /// Whether the caller has root's privileges on the host.
    privileged: bool,
}

fn enter(
    entering: &Entering<'_>,
    plan: &process::Plan,
    attached: &Attached,
) -> Result<(i32, OwnedFd)> {
    let record = entering.record;
    let flags = record.namespaces.iter().fold(0, |flags, kind| flags | namespace::flag(*kind));
    let flags = i32::try_from(flags).context("impossible namespace flags")?;
    let proc = sys::fd::openat(
        sys::fd::AT_FDCWD,
        c"/proc",
        libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW,
        0,
    )?;
    let (ours, theirs) = Channel::pair()?;
    // The pid namespace is entered for our children. Without privileges on the host it takes
    // those of the container's user namespace, and then this process enters that one too.
    let user = libc::CLONE_NEWUSER;
    let mut early = flags & libc::CLONE_NEWPID;
    if early != 0 && !entering.privileged {
        early |= flags & user;
    }
    if early != 0 {
        sys::namespace::setns(entering.init, early)
            .context("cannot enter the container's pid namespace")?;
    }
    // A process can't enter the user namespace that it is in.
    let flags = flags & !(early & user);
    plan.affinity.apply_initial()?;
    let mut clone = clone_into(entering.join.unified_dir.as_ref());
    if let Err(error) = &clone
        && matches!(error.errno(), libc::EBUSY | libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
        && entering.join.unified_dir.is_some()
    {
        // The container has moved itself into a cgroup below its own (cgroup v2 allows no
        // processes beside sub-cgroups with controllers): where its first process is, there
        // is room for another.
        let init = record.init.as_ref().map_or(0, |init| init.pid);
        let join = Cgroup::open(&record.cgroup).init_fds(init)?;
        clone = clone_into(join.unified_dir.as_ref());
    }
    let (pid, pidfd) = match clone.context("cannot make a process")? {
        sys::namespace::Clone::Child => {
            drop(ours);
            let ran = become_process(entering, plan, attached, flags, proc, &theirs);
            if let Err(error) = ran {
                let _ = theirs.send(&Message::Error(format!("{error:#}")));
            }
            sys::process::exit_now(255)
        }
        sys::namespace::Clone::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let joined = record.resctrl.as_ref().map_or(Ok(()), |group| group.join(pid));
    match joined.and_then(|()| supervise(entering, pid, &pidfd, &ours)) {
        Ok(()) => Ok((pid, pidfd)),
        Err(error) => {
            let _ = sys::process::send_signal(&pidfd, libc::SIGKILL);
            let _ = sys::process::wait(pid);
            Err(error)
        }
    }
}

fn clone_into(cgroup: Option<&OwnedFd>) -> sys::Result<sys::namespace::Clone> {
    sys::namespace::clone(0, cgroup.map(AsFd::as_fd))
}

fn become_process(
    entering: &Entering<'_>,
    plan: &process::Plan,
    attached: &Attached,
    flags: i32,
    proc: OwnedFd,
    channel: &Channel,
) -> Result<()> {
    let record = entering.record;
    let privileged = entering.privileged;
    sys::process::set_parent_death_signal(libc::SIGKILL)?;
    // No process of the container may look into this one: it is already in their pid
    // namespace, and has our descriptors (CVE-2016-9962).
    sys::process::set_dumpable(false)?;
    sys::process::new_session()?;
    init::join_cgroups(&entering.join.tasks)?;
    plan.affinity.apply_final()?;
    if record.namespaces.contains(&NamespaceKind::User) {
        plan.raise_limits(0)?;
        if privileged {
            plan.set_oom_score(&proc, 0)?;
        }
    }
    if flags != 0 {
        sys::namespace::setns(entering.init, flags)
            .context("cannot enter the container's namespaces")?;
    }
    if record.namespaces.contains(&NamespaceKind::User) {
        init::become_root(privileged)?;
    }
    if !record.no_new_keyring {
        init::join_keyring(&record.id, false)?;
    }
    let root = sys::fd::openat(sys::fd::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    if let Some(socket) = &attached.console {
        let peer = init::open_console(root.as_fd(), socket, plan.console_size)?;
        init::take_console(&peer)?;
    }
    plan.set_umask(None);
    if !(privileged && record.namespaces.contains(&NamespaceKind::User)) {
        plan.set_oom_score(&proc, 0)?;
    }
    plan.set_scheduling()?;
    init::finish(
        Last {
            process: plan,
            seccomp: entering.seccomp,
            root,
            proc,
            attached,
            privileged,
            start: None,
            hooks: &[],
            state: None,
        },
        channel,
    )
}

fn supervise(entering: &Entering<'_>, pid: i32, pidfd: &OwnedFd, channel: &Channel) -> Result<()> {
    loop {
        match next(channel)? {
            Message::Listener(number) => {
                let listener = sys::process::take_fd(pidfd, number)
                    .context("cannot take the seccomp listener")?;
                tell(channel, &Message::ListenerTaken)?;
                let state = hook_state(entering.record, Status::Running);
                init::send_listener(entering.linux, state, pid, &listener)?;
            }
            Message::Ready => break,
            other => bail!("unexpected message {other:?} from the process"),
        }
    }
    // The container can end at any moment, and this child with it.
    tell(channel, &Message::Go)?;
    match channel.receive()? {
        None => Ok(()),
        Some(Message::Error(text)) => Err(anyhow!(text)),
        Some(other) => bail!("unexpected message {other:?} from the process"),
    }
}
