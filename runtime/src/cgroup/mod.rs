//! Control groups: v1, hybrid and v2, by cgroupfs or by systemd.
//!
//! What a container's life asks for, in order:
//! 1. `Host::observe`, then `locate`: where the cgroups are. Nothing is touched.
//! 2. `Cgroup::create`: the cgroups exist, limited and with devices closed, before any process
//!    of the container runs (with the systemd driver: it is checked that they can be made).
//! 3. `join_fds`: the container's process joins: on v2 it is born in its cgroup
//!    (`CLONE_INTO_CGROUP`); on v1 it writes "0" to each `tasks` file itself, which spares the
//!    global lock that moving a whole process by pid takes.
//! 4. `apply`: with the systemd driver, systemd moves the process into its scope; with
//!    cgroupfs there is nothing left to do.
//! 5. The location is stored; `Cgroup::open` finds everything again for update, pause, stats,
//!    kill, exec and delete.
//!
//! Limits are planned as data (`limit::Limit`) and then written; what the kernel may round is
//! read back. A field of the configuration that can't be honoured is an error that names
//! controller and field.
//!
//! Not here: cgroup mounts inside the container (`mounts_for_container` only says what they
//! are made of), and the decision who is rootless.
//!
//! Why not the crate cgroups-rs: it can't do v2 device control (eBPF), it links zbus and with
//! it some 127 crates and an async runtime into a process that shall stay under 2 MB, it pulls
//! nix 0.25 beside current versions, and its writes go hierarchy by hierarchy through moving
//! pids, which costs an RCU grace period each on v1.

mod describe;
mod devices;
mod file;
mod host;
mod limit;
#[cfg(test)]
mod live;
mod location;
mod mounts;
mod oom;
mod stats;
mod sub;
mod systemd;
mod tree;
mod update;
mod v1;
mod v2;

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_specs_oci as oci;

pub(crate) use describe::{Description, describe};
pub(crate) use devices::rules as device_rules;
pub(crate) use host::{Host, Mode, unescape_mountinfo};
pub(crate) use limit::ignored_fields;
pub(crate) use location::{Driver, Location, Request, locate};
pub(crate) use mounts::mounts_for_container;
pub(crate) use oom::{OomEvent, OomNotifier};
pub(crate) use stats::Stats;
pub(crate) use sub::SubCgroups;
pub(crate) use systemd::user_manager;
pub(crate) use update::merge as merge_update;

use devices::Access;
use limit::Limit;
use tree::Made;

/// How long `destroy` waits for processes that were killed to leave their cgroups.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);

/// What a container gets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// `linux.resources`; its `devices` are not used, see `devices`.
    pub(crate) resources: Option<&'a oci::Resources>,
    /// The device rules in full, from `device_rules`. `None` leaves devices alone: in a user
    /// namespace that isn't the host's, where the kernel refuses rules.
    pub(crate) devices: Option<&'a [oci::DeviceRule]>,
    /// The host's user who shall own the cgroup: the configuration has a cgroup namespace of
    /// its own and mounts the cgroups writable. Honoured by the systemd driver on v2.
    pub(crate) owner_uid: Option<u32>,
}

/// How a process joins. All descriptors are close-on-exec.
#[derive(Debug, Default)]
pub(crate) struct JoinFds {
    /// On v2: the cgroup's directory, for `CLONE_INTO_CGROUP`.
    pub(crate) unified_dir: Option<OwnedFd>,
    /// On v1: files that the process writes "0" to.
    pub(crate) tasks: Vec<OwnedFd>,
}

/// A container's cgroups.
#[derive(Debug)]
pub(crate) struct Cgroup {
    location: Location,
    /// Opened while making them, until they are asked for.
    tasks: Option<Vec<OwnedFd>>,
}

/// The writes and the device access that a configuration asks for; fails on what the host
/// can't do.
fn plan(location: &Location, wanted: &Wanted<'_>) -> Result<(Vec<Limit>, Option<Access>)> {
    let limits = limits(location, wanted.resources)?;
    let access = wanted.devices.map(devices::evaluate).transpose()?;
    Ok((limits, access))
}

fn limits(location: &Location, resources: Option<&oci::Resources>) -> Result<Vec<Limit>> {
    let Some(resources) = resources else { return Ok(Vec::new()) };
    if location.mode == Mode::V2 {
        for name in resources.unified.keys() {
            v2::controller_of(name)?;
        }
        return v2::limits::plan(resources);
    }
    let limits = v1::limits::plan(resources, location.unified_hugetlb())?;
    limit::require(&limits, |controller| location.dir(controller).is_some())?;
    Ok(limits)
}

impl Cgroup {
    /// Makes the cgroups (cgroupfs), or checks that they can be made (systemd). A failure
    /// leaves nothing behind but shared parents.
    ///
    /// # Errors
    /// A cgroup that has processes or is frozen; a limit that the host can't honour.
    pub(crate) fn create(location: Location, wanted: &Wanted<'_>) -> Result<Self> {
        let mut location = location;
        let (limits, access) = plan(&location, wanted)?;
        if location.driver == Driver::Systemd {
            systemd::check(&location)?;
            return Ok(Self { location, tasks: None });
        }
        let mut made = Made::default();
        let resources = wanted.resources.cloned().unwrap_or_default();
        let tasks = if location.mode == Mode::V2 {
            create_v2(&mut location, &mut made, &resources, &limits, access.as_ref())?;
            None
        } else {
            let unified = join_unified(&mut location, &mut made, &limits)?;
            let mut tasks = v1::create(&mut location, &mut made, &limits, access.as_ref())?;
            tasks.extend(unified);
            Some(tasks)
        };
        made.keep();
        Ok(Self { location, tasks })
    }

    /// The cgroups of an existing container.
    pub(crate) fn open(location: &Location) -> Self {
        Self { location: location.clone(), tasks: None }
    }

    /// Where they are. After `create` this is what to store: hierarchies that could not be
    /// joined for want of permission are gone from it.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Completes what `create` began, now that the container's process exists and waits. A
    /// no-op with cgroupfs. With systemd the process is in its cgroups and limited when this
    /// returns.
    pub(crate) fn apply(&self, pid: i32, wanted: &Wanted<'_>) -> Result<()> {
        if self.location.driver == Driver::Cgroupfs {
            return Ok(());
        }
        let (_, access) = plan(&self.location, wanted)?;
        systemd::apply(&self.location, pid, wanted, access.as_ref())
    }

    /// Moves a process that exists into the cgroups, with all its threads: CRIU, whose
    /// children inherit them.
    pub(crate) fn adopt(&self, pid: i32, wanted: &Wanted<'_>) -> Result<()> {
        let unified = self.location.unified.iter().filter(|u| u.joined).map(|u| &u.dir);
        match self.location.driver {
            Driver::Systemd => self.apply(pid, wanted),
            Driver::Cgroupfs => self
                .location
                .hierarchies
                .iter()
                .map(|place| &place.dir)
                .chain(unified)
                .try_for_each(|dir| tree::attach(dir, pid)),
        }
    }

    /// The freezer's directory.
    pub(crate) fn freezer_dir(&self) -> Option<&Path> {
        self.freezer().map(|(_, dir)| dir)
    }

    /// How the container's first process joins. With systemd there is nothing to join by:
    /// `apply` moves it.
    pub(crate) fn join_fds(&mut self) -> Result<JoinFds> {
        if let Some(tasks) = self.tasks.take() {
            return Ok(JoinFds { unified_dir: None, tasks });
        }
        if self.location.driver == Driver::Systemd {
            return Ok(JoinFds::default());
        }
        self.exec_fds(&SubCgroups::default())
    }

    /// How another process joins an existing container, perhaps in sub-cgroups of it.
    ///
    /// On v2 the configured cgroup may be gone or closed to processes (a container that moved
    /// itself into a sub-cgroup, or that enabled controllers for its children); `init_pid`'s
    /// own cgroup is then the next best.
    pub(crate) fn exec_fds(&self, sub: &SubCgroups) -> Result<JoinFds> {
        sub::join(&self.location, sub)
    }

    /// The cgroup of the container's first process, for an exec whose own try failed with
    /// `EBUSY` or found the configured cgroup gone; v2 only.
    pub(crate) fn init_fds(&self, init_pid: i32) -> Result<JoinFds> {
        sub::join_process(&self.location, init_pid)
    }

    /// Changes limits; devices stay as they are. `resources` is the whole of what shall hold
    /// (see `merge_update`).
    pub(crate) fn set(&self, resources: &oci::Resources) -> Result<()> {
        let limits = limits(&self.location, Some(resources))?;
        if self.location.driver == Driver::Systemd {
            return systemd::update(&self.location, resources);
        }
        self.write(resources, &limits)
    }

    fn write(&self, resources: &oci::Resources, limits: &[Limit]) -> Result<()> {
        match self.location.mode {
            Mode::V2 => v2::set(&self.location, resources, limits, None),
            Mode::V1 | Mode::Hybrid => v1::update(&self.location, limits),
        }
    }

    /// Stops every process; returns when all have stopped.
    pub(crate) fn freeze(&self) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some((Mode::V2, dir)) => v2::freezer::freeze(dir),
            Some((_, dir)) => v1::freezer::freeze(dir),
        }
    }

    /// Lets every process run again.
    pub(crate) fn thaw(&self) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some((Mode::V2, dir)) => v2::freezer::thaw(dir),
            Some((_, dir)) => v1::freezer::thaw(dir),
        }
    }

    /// Whether the container is frozen; one without a freezer never is.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        match self.freezer() {
            None => Ok(false),
            Some((Mode::V2, dir)) => v2::freezer::is_frozen(dir),
            Some((_, dir)) => v1::freezer::is_frozen(dir),
        }
    }

    fn freezer(&self) -> Option<(Mode, &Path)> {
        Some((self.location.mode, self.location.dir("freezer")?))
    }

    /// The directory that is asked for processes: they are the same in every hierarchy.
    fn processes_dir(&self) -> Option<&Path> {
        self.location
            .dir("devices")
            .or_else(|| self.location.hierarchies.first().map(|place| place.dir.as_path()))
    }

    /// Every process of the container, sub-cgroups included.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        match self.processes_dir() {
            Some(dir) => tree::pids(dir),
            None => Ok(Vec::new()),
        }
    }

    /// The counters.
    pub(crate) fn stats(&self) -> Result<Stats> {
        match (&self.location.unified, self.location.mode) {
            (Some(unified), Mode::V2) => v2::stats::read(&unified.dir),
            (unified, _) => {
                let mut stats = v1::stats::read(&self.location)?;
                if let Some(unified) = unified.as_ref().filter(|u| u.joined) {
                    stats.hugetlb.append(&mut v2::stats::hugetlb(&unified.dir)?);
                }
                Ok(stats)
            }
        }
    }

    /// Sends `signal` to every process of the container.
    pub(crate) fn kill_all(&self, signal: i32) -> Result<()> {
        let Some(dir) = self.processes_dir().filter(|dir| dir.exists()) else {
            bail!("container's cgroup does not exist");
        };
        let unified = self.location.unified.as_ref().filter(|u| u.joined);
        if let Some(unified) = unified.filter(|_| signal == libc::SIGKILL) {
            match file::write(&unified.dir, "cgroup.kill", "1") {
                // Before 5.14, or a unified cgroup that was never made.
                Err(error) if file::is_missing(&error) => {}
                result => return Ok(result?),
            }
        }
        // Frozen, no process can fork away from the signal. Without a freezer the signals are
        // sent all the same; runc does so too.
        let was_frozen = self.is_frozen().unwrap_or(false);
        let froze = !was_frozen && self.freeze().is_ok();
        let result = tree::signal(dir, signal);
        // On v1 even SIGKILL only acts on a thawed process.
        if froze || was_frozen {
            self.thaw()?;
        }
        result
    }

    /// Whether any of the container's cgroups is there.
    pub(crate) fn exists(&self) -> bool {
        self.processes_dir().is_some_and(Path::exists)
    }

    /// Removes the cgroups with everything below them, and the systemd unit. Kills nothing:
    /// a process that stays makes it fail, after a short wait for those that are ending.
    /// Removing what is gone succeeds.
    pub(crate) fn destroy(&self) -> Result<()> {
        let stopped = match self.location.driver {
            Driver::Systemd => systemd::stop(&self.location),
            Driver::Cgroupfs => Ok(()),
        };
        let deadline = Instant::now() + REMOVAL_PATIENCE;
        let mut failures = Vec::new();
        let unified = self.location.unified.iter().filter(|u| u.joined).map(|u| &u.dir);
        for dir in self.location.hierarchies.iter().map(|place| &place.dir).chain(unified) {
            // One that can't be removed shall not keep the others.
            if let Err(error) = tree::remove(dir, deadline) {
                failures.push(error);
            }
        }
        match failures.into_iter().next() {
            Some(first) => Err(anyhow!(first).context("unable to remove container's cgroup")),
            None => stopped,
        }
    }

    /// Begins to watch for out-of-memory kills.
    pub(crate) fn oom_notifier(&self) -> Result<OomNotifier> {
        oom::watch(&self.location)
    }

    /// How many processes of the container the kernel has killed for want of memory; 0 where
    /// it can't be told. Two numbers around a failed start tell why it failed.
    pub(crate) fn oom_kills(&self) -> u64 {
        oom::kills(&self.location)
    }
}

fn create_v2(
    location: &mut Location,
    made: &mut Made,
    resources: &oci::Resources,
    limits: &[Limit],
    access: Option<&Access>,
) -> Result<()> {
    let needs_domain = v2::limits::needs_domain(resources);
    let place = location.unified.as_ref().context("the host has no unified hierarchy")?;
    match v2::make(place, made, needs_domain) {
        Err(error)
            if error
                .downcast_ref::<hull_runtime_sys::Error>()
                .is_some_and(|cause| location.tolerates(cause)) =>
        {
            if limits.is_empty() && resources.unified.is_empty() {
                location.unified = None;
                return Ok(());
            }
            return Err(error.context(
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
            ));
        }
        result => result?,
    };
    v2::set(location, resources, limits, access)
}

/// Whether a limit lives in a hybrid host's unified hierarchy.
fn unified_resource(location: &Location, limits: &[Limit]) -> bool {
    location.unified_hugetlb() && limits.iter().any(|l| l.controller == "hugetlb")
}

/// Whether the container joins the unified cgroup of a hybrid host.
fn join_unified_too(location: &Location, limits: &[Limit]) -> bool {
    unified_resource(location, limits) || systemd::is_running()
}

/// On a hybrid host: makes and joins the unified cgroup if something needs it. A resource may
/// live there; and where systemd runs, it finds the processes of its units by it, so that
/// stopping the caller's service would otherwise end its containers.
fn join_unified(
    location: &mut Location,
    made: &mut Made,
    limits: &[Limit],
) -> Result<Option<OwnedFd>> {
    let wanted = join_unified_too(location, limits);
    let resource = unified_resource(location, limits);
    let Some(place) = location.unified.as_mut().filter(|_| wanted) else { return Ok(None) };
    let file = v2::make(place, made, resource)
        .and_then(|_| Ok(file::open_write(&place.dir, "cgroup.procs")?));
    match file {
        Ok(file) => {
            place.joined = true;
            Ok(Some(file.into()))
        }
        // Only for systemd's sake: as good as it can be, as runc has it.
        Err(_) if !resource => Ok(None),
        Err(error) => Err(error),
    }
}
