//! `create`, and the making that `run` shares with it.
//!
//! `plan` says what the container will be; `launch` makes it, with everything undone if it
//! fails; the caller decides what the finished process waits for.
//!
//! If the runtime is killed on any line of `launch`: the process it made reads the end of
//! its channel, or gets its parent's death signal, and ends; the directory and the record
//! in it, written before the first cgroup is made, let `delete` find everything else.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind, Status};

use super::{
    Dir, Lock, Record, Store, delete, hook_state, notify,
    plan::{self, Prepared},
    record::{Phase, ProcessIdentity, VERSION},
    start::REPORT_FIFO,
    status::START_FIFO,
};
use crate::{
    attachment::{self, Attached},
    cgroup, criu, hooks, idmap,
    init::{self, Channel, Message, Start},
    log, net_devices, process,
    request::{Create, Global},
    rootfs,
};

/// A container whose process waits to be told to go on.
pub(super) struct Launched {
    pub(super) dir: Dir,
    pub(super) record: Record,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: Channel,
    pub(super) attached: Attached,
    /// Until the container may be changed by others.
    lock: Option<Lock>,
}

/// Creates a container; its process waits for `start`.
pub(crate) fn create(global: &Global, request: &Create) -> Result<()> {
    let prepared = plan::prepare(global, request, Waits::ForStart)?;
    let attached = attachment::attach(&request.attachment, prepared.process.terminal, true)?;
    let mut launched = launch(global, request, &prepared, attached, Waits::ForStart)?;
    let finish = |launched: &mut Launched| {
        launched.attached.finish(&launched.pidfd, launched.pid())?;
        launched.channel.send(&Message::Commit)
    };
    match finish(&mut launched) {
        Ok(()) => Ok(()),
        Err(error) => Err(launched.undo(error)),
    }
}

/// What the process waits for once it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For `start`, on a FIFO: the runtime ends before that.
    ForStart,
    /// For this runtime.
    ForUs,
}

/// Makes the container. On failure nothing is left of it.
pub(super) fn launch(
    global: &Global,
    request: &Create,
    prepared: &Prepared,
    mut attached: Attached,
    waits: Waits,
) -> Result<Launched> {
    let (dir, lock) = Store::new(&global.root).create(&request.id)?;
    let mut record = record(request, prepared);
    let mut made = Made::default();
    let result = make(&dir, &mut record, request, prepared, &mut attached, waits, &mut made);
    let error = match (result, made.child) {
        (Ok(()), Some((pidfd, channel))) => {
            return Ok(Launched { dir, record, pidfd, channel, attached, lock: Some(lock) });
        }
        (Ok(()), None) => anyhow!("the container's process was not made"),
        (Err(error), child) => {
            if let Some((pidfd, _)) = &child {
                let _ = sys::process::send_signal(pidfd, libc::SIGKILL);
            }
            if let Some(init) = &record.init {
                let _ = sys::process::wait(init.pid);
            }
            if made.cgroup && cgroup::Cgroup::open(&record.cgroup).oom_kills() > 0 {
                error.context("container init was OOM-killed (memory limit too low?)")
            } else {
                error
            }
        }
    };
    Err(undo(dir, &record, error, made.cgroup))
}

/// What is remembered of a container that is about to be made.
pub(super) fn record(request: &Create, prepared: &Prepared) -> Record {
    Record {
        version: VERSION,
        phase: Phase::Creating,
        id: request.id.to_string(),
        oci_version: prepared.spec.oci_version.clone(),
        bundle: prepared.bundle.display().to_string(),
        rootfs: prepared.rootfs.root.display().to_string(),
        created: oci::time::rfc3339_nano(std::time::SystemTime::now()),
        owner: sys::process::effective_uid(),
        init: None,
        annotations: prepared.spec.annotations.clone(),
        namespaces: prepared.namespaces.own.clone(),
        cgroup: prepared.location.clone(),
        resctrl: prepared.rdt.as_ref().map(|plan| plan.group.clone()),
        resources: prepared.resources().cloned().unwrap_or_default(),
        rootless: prepared.rootless,
        no_new_keyring: request.no_new_keyring,
        descriptors: match prepared.process.terminal {
            true => criu::Descriptors::new(),
            false => criu::descriptors_of(sys::process::id()),
        },
    }
}

/// Takes back what was made, and adds what could not be taken back to the error.
pub(super) fn undo(
    dir: Dir,
    record: &Record,
    error: anyhow::Error,
    own_cgroup: bool,
) -> anyhow::Error {
    match delete::destroy(dir, record, own_cgroup, None) {
        Ok(_) => error,
        Err(left) => error.context(format!("(and cleaning up failed: {left:#})")),
    }
}

impl Launched {
    pub(super) fn pid(&self) -> i32 {
        self.record.init.as_ref().map_or(0, |init| init.pid)
    }

    /// Lets others change the container, which is complete.
    pub(super) fn release(&mut self) {
        self.lock = None;
    }

    pub(super) fn into_parts(self) -> (Dir, Record) {
        (self.dir, self.record)
    }

    /// Ends the process and takes everything back.
    pub(super) fn undo(self, error: anyhow::Error) -> anyhow::Error {
        let _ = sys::process::send_signal(&self.pidfd, libc::SIGKILL);
        let _ = sys::process::wait(self.pid());
        undo(self.dir, &self.record, error, true)
    }
}

/// What there is so far, for its undoing.
#[derive(Default)]
struct Made {
    child: Option<(OwnedFd, Channel)>,
    cgroup: bool,
}

fn make(
    dir: &Dir,
    record: &mut Record,
    request: &Create,
    prepared: &Prepared,
    attached: &mut Attached,
    waits: Waits,
    made: &mut Made,
) -> Result<()> {
    let default = oci::Linux::default();
    let linux = prepared.spec.linux.as_ref().unwrap_or(&default);
    let spec = &prepared.spec;
    let namespaces = &prepared.namespaces;
    // What the child needs from outside, opened while we are still outside.
    if prepared.notify.is_some() {
        notify::make_directory(dir)?;
    }
    let start = match waits {
        Waits::ForUs => Start::Told,
        Waits::ForStart => {
            Start::Fifos { go: fifo(dir, START_FIFO)?, report: fifo(dir, REPORT_FIFO)? }
        }
    };
    let proc = sys::fd::openat(
        sys::fd::AT_FDCWD,
        c"/proc",
        libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW,
        0,
    )?;
    let sources = rootfs::Sources::open(&prepared.rootfs, &mut IdMaps)?;

    let rules = cgroup::device_rules(linux.resources.as_ref(), &linux.devices);
    let wanted = cgroup::Wanted {
        resources: linux.resources.as_ref(),
        devices: (!plan::in_user_namespace()).then_some(rules.as_slice()),
        owner_uid: plan::owner_of_cgroup(spec, linux),
    };
    // On cgroup v2 the process is born where it belongs. On v1 its cgroups are made while
    // it is at work on its mounts.
    let at_birth = prepared.host.mode() == cgroup::Mode::V2;
    let mut cgroup = None;
    let mut born_in = None;
    if at_birth {
        remember(dir, record, prepared)?;
        let created = cgroup.insert(cgroup::Cgroup::create(prepared.location.clone(), &wanted)?);
        made.cgroup = true;
        born_in = created.join_fds()?.unified_dir;
    }

    let hooks = spec.hooks.clone().unwrap_or_default();
    let runtime_hooks = !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty();
    let needs_hook_stop = runtime_hooks || !linux.net_devices.is_empty();
    // Asked out here: in a user namespace everybody can be its root.
    let privileged = sys::process::effective_uid() == 0;
    let (ours, theirs) = Channel::pair()?;
    let staged = namespaces.is_staged();
    // The second stage is a child of the first, which joins the pid namespace itself: from
    // inside it would tell us a pid of the inside, which is somebody else's out here.
    let pid_namespace = namespaces.joins(NamespaceKind::Pid).filter(|_| !staged);
    if let Some(fd) = pid_namespace {
        // Only our children will be in it; we come back below, as the hooks are to run here.
        sys::namespace::setns(fd, libc::CLONE_NEWPID).context("cannot enter the pid namespace")?;
    }
    let flags = if staged { 0 } else { init::first_clone_flags(namespaces) };
    let clone = sys::namespace::clone(flags, born_in.as_ref().map(AsFd::as_fd))
        .context("cannot make the container's process")?;
    let (mut pid, mut pidfd) = match clone {
        sys::namespace::Clone::Child => {
            drop(ours);
            init::run(
                init::Init {
                    spec,
                    linux,
                    id: request.id.as_str(),
                    namespaces,
                    rootfs: &prepared.rootfs,
                    sources,
                    process: &prepared.process,
                    seccomp: prepared.seccomp.as_ref(),
                    state: hook_state(record, Status::Created),
                    proc,
                    start,
                    cgroup_mounts: plan::cgroup_mounts(&prepared.host, &prepared.location),
                    unjoined_mounts: prepared.rootless.then(|| plan::unjoined_mounts(prepared)),
                    stop_for_hooks: needs_hook_stop,
                    no_new_keyring: request.no_new_keyring,
                    privileged,
                    attached,
                },
                &theirs,
            )
        }
        sys::namespace::Clone::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    process::place_elsewhere(pid);
    let first = pid;
    made.child = Some((pidfd.try_clone().context("cannot duplicate a descriptor")?, ours));
    let channel = &made.child.as_ref().context("just set")?.1;
    if pid_namespace.is_some() {
        let own = fs::File::open("/proc/self/ns/pid").context("cannot find our pid namespace")?;
        sys::namespace::setns(own, libc::CLONE_NEWPID).context("cannot leave the pid namespace")?;
    }

    let mapped = |pid: i32| -> Result<()> {
        idmap::write(
            pid,
            &linux.uid_mappings,
            &linux.gid_mappings,
            sys::process::effective_uid() == 0,
        )?;
        tell(channel, &Message::Mapped)
    };
    if staged {
        // The first stage ends when the second one is made; see `namespace`.
        loop {
            match next(channel)? {
                Message::UserNamespace => mapped(pid)?,
                Message::Pid(second) => {
                    pid = second;
                    pidfd = sys::process::pidfd(second)?;
                    break;
                }
                other => bail!("unexpected message {other:?} from the container's process"),
            }
        }
        sys::process::wait(first)?;
    } else if namespaces.makes(NamespaceKind::User) {
        mapped(pid)?;
    }
    if namespaces.has(NamespaceKind::User) {
        prepared.process.raise_limits(pid)?;
        if privileged {
            prepared.process.set_oom_score(&proc, pid)?;
        }
    }
    record.init = Some(ProcessIdentity::of(pid)?);
    if staged {
        let channel = made.child.take().context("just set")?.1;
        made.child = Some((pidfd.try_clone().context("cannot duplicate a descriptor")?, channel));
    }
    let channel = &made.child.as_ref().context("just set")?.1;

    let mut cgroup = match cgroup {
        Some(cgroup) => cgroup,
        None => {
            remember(dir, record, prepared)?;
            cgroup::Cgroup::create(prepared.location.clone(), &wanted)?
        }
    };
    made.cgroup = true;
    cgroup.apply(pid, &wanted)?;
    if let Some(rdt) = &prepared.rdt {
        rdt.apply(pid).context("unable to apply Intel RDT configuration")?;
    }
    let join = if at_birth { cgroup::JoinFds::default() } else { cgroup.join_fds()? };
    tell(channel, &Message::Cgroups(join.tasks))?;
    record.cgroup = cgroup.location().clone();

    // The child is at work. What does not need it follows here.
    loop {
        match next(channel)? {
            Message::Hooks => {
                net_devices::move_into(pid, &linux.net_devices)?;
                let state = hook_state(record, Status::Creating);
                hooks::run("prestart", &hooks.prestart, &state, &[])?;
                hooks::run("createRuntime", &hooks.create_runtime, &state, &[])?;
                tell(channel, &Message::HooksDone)?;
            }
            Message::Listener(number) => {
                let listener = sys::process::take_fd(&pidfd, number)
                    .context("cannot take the seccomp listener")?;
                tell(channel, &Message::ListenerTaken)?;
                let state = hook_state(record, Status::Creating);
                init::send_listener(linux, state, pid, &listener)?;
            }
            Message::Ready => break,
            other => bail!("unexpected message {other:?} from the container's process"),
        }
    }
    record.phase = Phase::Created;
    dir.save(record)
}

/// Writes down what `delete` needs if this runtime is killed from here on.
fn remember(dir: &Dir, record: &Record, prepared: &Prepared) -> Result<()> {
    dir.save_spec(&prepared.content)?;
    dir.save(record)
}

/// The user namespaces of id-mapped mounts.
struct IdMaps;

impl rootfs::UserNamespaces for IdMaps {
    fn user_namespace(
        &mut self,
        uids: &[oci::IdMapping],
        gids: &[oci::IdMapping],
    ) -> Result<OwnedFd> {
        idmap::namespace(uids, gids)
    }
}

/// Sends a message; to a child that has ended, the reason that it gave is the error.
pub(super) fn tell(channel: &Channel, message: &Message) -> Result<()> {
    channel.send(message).map_err(|error| next(channel).err().unwrap_or(error))
}

/// The next message of a child that is still expected to say something.
pub(super) fn next(channel: &Channel) -> Result<Message> {
    match channel.receive()? {
        Some(Message::Error(text)) => Err(anyhow!(text)),
        Some(Message::Warning(text)) => {
            log::warning(text);
            next(channel)
        }
        Some(message) => Ok(message),
        None => bail!("the container's process was killed"),
    }
}

fn fifo(dir: &Dir, name: &std::ffi::CStr) -> Result<OwnedFd> {
    sys::fd::mkfifoat(&dir.fd, name, 0o600)?;
    // Open in both directions: opening never waits, and reading waits even while nobody
    // else has it open for writing.
    Ok(sys::fd::openat(&dir.fd, name, libc::O_RDWR | libc::O_NOFOLLOW, 0)?)
}
