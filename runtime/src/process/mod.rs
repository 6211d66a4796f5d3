//! What the container's process is: from `process` of the configuration to the moment
//! before its exec.
//!
//! [`plan`] checks everything that can be known without the container and turns names into
//! the kernel's numbers. The methods of [`Plan`] then apply it in the container's own,
//! single-threaded process, in the order that the caller chooses; each does one thing and
//! makes as few system calls as it can, since every container's start waits for them.
//!
//! Not here: namespaces and mounts, seccomp, the terminal, hooks, the session keyring.
//!
//! Order that the kernel demands: limits and the out-of-memory score before the user
//! changes; [`Plan::become_user`] before [`Plan::set_capabilities`]; a seccomp filter
//! without `noNewPrivileges` between the two (after [`capabilities::make_effective`] if the
//! user is not 0); descriptors closed right before the exec (CVE-2024-21626: the executable
//! or the working directory could be one of ours).

mod capabilities;
mod describe;
mod diagnose;
mod environment;
mod executable;
mod finish;
mod id_set;
mod identity;
mod labels;
mod limits;
mod scheduling;

use std::{ffi::CString, os::fd::AsFd};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

pub(crate) use capabilities::{known as known_capabilities, make_effective};
pub(crate) use describe::{Description, one_line};
pub(crate) use diagnose::diagnose;
pub(crate) use executable::find_executable;
pub(crate) use scheduling::{MEMORY_FLAGS, MEMORY_MODES, place_elsewhere, reset_affinity};

use environment::Environment;
use identity::User;
use limits::Limit;
use scheduling::{Affinity, IoPriority, MemoryPolicy, Personality, Scheduler};

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsoleSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Why a container cannot start that has no process; runc's words.
pub(crate) const NONE: &str = "process property must not be empty";

/// A checked process, in the kernel's terms.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Empty where the configuration has no process.
    pub(crate) args: Vec<CString>,
    pub(crate) environment: Environment,
    pub(crate) cwd: CString,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    pub(crate) capabilities: Option<capabilities::Sets>,
    pub(crate) no_new_privileges: bool,
    pub(crate) limits: Vec<Limit>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) affinity: Affinity,
    pub(crate) personality: Option<Personality>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// What was left out, and why; for the log.
    pub(crate) warnings: Vec<String>,
}

/// Checks the process of a container, which may have none until `start` (config.md, Process):
/// then one without arguments and rights waits in its place.
pub(crate) fn plan_first(
    process: Option<&oci::Process>,
    linux: Option<&oci::Linux>,
) -> Result<Plan> {
    match process {
        Some(process) => plan(process, linux),
        None => translate(&oci::Process { cwd: "/".to_owned(), ..Default::default() }, linux),
    }
}

/// Checks a process. `linux` is the container's, for what the specification keeps there:
/// personality and memory policy.
pub(crate) fn plan(process: &oci::Process, linux: Option<&oci::Linux>) -> Result<Plan> {
    if process.cwd.is_empty() {
        bail!("Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        bail!("Cwd must be an absolute path");
    }
    if process.args.is_empty() {
        bail!("args must not be empty");
    }
    translate(process, linux)
}

fn translate(process: &oci::Process, linux: Option<&oci::Linux>) -> Result<Plan> {
    let text = |what: &str, text: &str| {
        CString::new(text).with_context(|| format!("{what} {text:?} is not usable"))
    };
    let args = process.args.iter().map(|arg| text("argument", arg)).collect::<Result<_>>()?;
    let limited_to_cpus = linux
        .and_then(|linux| linux.resources.as_ref())
        .and_then(|resources| resources.cpu.as_ref())
        .is_some_and(|cpu| !cpu.cpus.is_empty());
    let mut warnings = Vec::new();
    Ok(Plan {
        args,
        environment: Environment::plan(&process.env)?,
        cwd: text("cwd", &process.cwd)?,
        terminal: process.terminal,
        console_size: console_size(process)?,
        user: User::plan(&process.user, &mut warnings)?,
        // Not named is not granted, as with runc 1.1.
        capabilities: Some(capabilities::Sets::plan(
            process.capabilities.as_ref().unwrap_or(&oci::Capabilities::default()),
            &mut warnings,
        )),
        no_new_privileges: process.no_new_privileges,
        limits: limits::plan(&process.rlimits)?,
        oom_score_adj: limits::plan_oom_score(process.oom_score_adj)?,
        apparmor_profile: labels::plan("apparmorProfile", &process.apparmor_profile)?,
        selinux_label: labels::plan("selinuxLabel", &process.selinux_label)?,
        scheduler: process
            .scheduler
            .as_ref()
            .map(|scheduler| Scheduler::plan(scheduler, limited_to_cpus))
            .transpose()?,
        io_priority: process.io_priority.as_ref().map(IoPriority::plan).transpose()?,
        affinity: match &process.exec_cpu_affinity {
            Some(affinity) => Affinity::plan(affinity)?,
            None => Affinity::default(),
        },
        personality: linux
            .and_then(|linux| linux.personality.as_ref())
            .map(Personality::plan)
            .transpose()?,
        memory_policy: linux
            .and_then(|linux| linux.memory_policy.as_ref())
            .map(MemoryPolicy::plan)
            .transpose()?,
        warnings,
    })
}

/// Gives a process that joins a container what the container's own process has, where it
/// does not say otherwise itself, as runc does.
pub(crate) fn inherit(process: &mut oci::Process, container: &oci::Process) {
    fn or<T: Clone>(own: &mut Option<T>, inherited: &Option<T>) {
        if own.is_none() {
            own.clone_from(inherited);
        }
    }
    or(&mut process.capabilities, &container.capabilities);
    or(&mut process.user.umask, &container.user.umask);
    or(&mut process.oom_score_adj, &container.oom_score_adj);
    or(&mut process.io_priority, &container.io_priority);
    or(&mut process.scheduler, &container.scheduler);
    or(&mut process.exec_cpu_affinity, &container.exec_cpu_affinity);
    if process.apparmor_profile.is_empty() {
        process.apparmor_profile.clone_from(&container.apparmor_profile);
    }
    if process.selinux_label.is_empty() {
        process.selinux_label.clone_from(&container.selinux_label);
    }
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&container.rlimits);
    }
}

/// Without a terminal the size is ignored, as the specification says.
fn console_size(process: &oci::Process) -> Result<Option<ConsoleSize>> {
    let Some(size) = process.console_size.as_ref().filter(|_| process.terminal) else {
        return Ok(None);
    };
    match (u16::try_from(size.height), u16::try_from(size.width)) {
        (Ok(0), _) | (_, Ok(0)) => Ok(None),
        (Ok(rows), Ok(columns)) => Ok(Some(ConsoleSize { rows, columns })),
        _ => bail!("consoleSize {} x {} is larger than a terminal can be", size.height, size.width),
    }
}

impl Plan {
    /// Refuses what this host would not honour. For the parent, before anything is made.
    pub(crate) fn check_host(&self) -> Result<()> {
        labels::check_selinux(self.selinux_label.as_ref())
    }

    /// Takes out of the capability sets what this runtime does not have itself, with a
    /// warning. For the parent, of a process that gets no user namespace of its own.
    pub(crate) fn drop_ungrantable_capabilities(&mut self) -> Result<()> {
        match &mut self.capabilities {
            Some(sets) => sets.drop_ungrantable(&mut self.warnings),
            None => Ok(()),
        }
    }

    /// Sets the resource limits of a process; 0 is this one.
    ///
    /// To raise a hard limit takes CAP_SYS_RESOURCE in the initial user namespace, so for a
    /// process in another one the runtime does it. To change another user's process takes
    /// CAP_SYS_RESOURCE at all, so it is done before [`Self::become_user`].
    pub(crate) fn set_limits(&self, pid: i32) -> Result<()> {
        limits::apply(&self.limits, pid)
    }

    /// Raises the hard limits of a process that is about to lose the privilege to do so, and
    /// lowers nothing: 0 is this one.
    pub(crate) fn raise_limits(&self, pid: i32) -> Result<()> {
        limits::raise(pid, &self.limits)
    }

    /// Sets the out-of-memory score of a process through a private procfs; 0 is this one.
    ///
    /// A process that has entered a user namespace and is not dumpable can't: the file belongs to
    /// the root of where its program was executed. So somebody outside does it.
    pub(crate) fn set_oom_score(&self, procfs: impl AsFd, pid: i32) -> Result<()> {
        limits::apply_oom_score(self.oom_score_adj, procfs, pid)
    }

    /// Names the AppArmor profile of the next exec, through a private procfs.
    pub(crate) fn set_apparmor_profile(&self, procfs: impl AsFd) -> Result<()> {
        labels::apply_apparmor(self.apparmor_profile.as_ref(), procfs)
    }

    /// Names the SELinux label of the next exec, through a private procfs.
    pub(crate) fn set_selinux_label(&self, procfs: impl AsFd) -> Result<()> {
        labels::apply_selinux(self.selinux_label.as_ref(), procfs)
    }

    /// Sets the file creation mask, or `default` if none is configured.
    pub(crate) fn set_umask(&self, default: Option<u32>) {
        if let Some(umask) = self.user.umask.or(default) {
            sys::process::set_umask(umask);
        }
    }

    /// Sets scheduler, I/O priority, personality and memory policy.
    pub(crate) fn set_scheduling(&self) -> Result<()> {
        if let Some(scheduler) = &self.scheduler {
            scheduler.apply()?;
        }
        if let Some(priority) = self.io_priority {
            priority.apply()?;
        }
        if let Some(personality) = self.personality {
            personality.apply()?;
        }
        match &self.memory_policy {
            Some(policy) => policy.apply(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
