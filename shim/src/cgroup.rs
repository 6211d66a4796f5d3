//! The control groups that a container's first process is in: where they are, and what they
//! have counted, in containerd's types.
//!
//! Only read here: making, changing and removing cgroups is the runtime's work.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, bail};
use protobuf::{Message, well_known_types::any::Any};

use crate::{
    mountinfo::{self, Mount},
    stats,
};

/// What `Stats` answers is named by these (typeurl takes a protobuf message's full name).
const V1_URL: &str = "io.containerd.cgroups.v1.Metrics";
const V2_URL: &str = "io.containerd.cgroups.v2.Metrics";

/// The v1 controllers that count something.
const COUNTING: [&str; 7] = ["blkio", "cpu", "cpuacct", "hugetlb", "memory", "pids", "rdma"];

/// A container's control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// The directory of each counting controller that is mounted; controllers that are mounted
    /// together have the same one. Also on a hybrid host: its controllers are v1's.
    V1(Vec<(&'static str, PathBuf)>),
    /// The one directory.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroups of a process, which must not have been reaped.
    ///
    /// # Errors
    /// No cgroup file system is mounted that shows them.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mut mounts = Vec::new();
        // They are among the first; behind them are those of all containers.
        mountinfo::until(|mount| {
            let is_cgroup = matches!(mount.kind.as_str(), "cgroup" | "cgroup2");
            if is_cgroup {
                mounts.push(mount);
            }
            is_cgroup && locate(&text, &mounts).is_ok_and(|found| found.is_whole(&text))
        })?;
        locate(&text, &mounts).with_context(|| format!("find the cgroups of process {pid}"))
    }

    /// Whether no further mount could add to it.
    fn is_whole(&self, memberships: &str) -> bool {
        let names = memberships.lines().filter_map(|line| line.split(':').nth(1));
        let counting = names.flat_map(|names| names.split(',')).filter(|n| COUNTING.contains(n));
        match self {
            Self::V1(dirs) => dirs.len() == counting.count(),
            Self::V2(_) => counting.count() == 0,
        }
    }

    /// Everything that is counted, as `Stats` of the task service answers it.
    pub(crate) fn metrics(&self) -> Result<Any> {
        let (type_url, value) = match self {
            Self::V1(_) => (V1_URL, stats::v1::read(|name| self.dir(name))?.write_to_bytes()),
            Self::V2(dir) => (V2_URL, stats::v2::read(dir)?.write_to_bytes()),
        };
        let value = value.context("encode the metrics")?;
        Ok(Any { type_url: type_url.to_owned(), value, ..Any::default() })
    }

    /// The most memory that was ever in use, in bytes. `None` where it is not counted
    /// (`memory.peak` is from kernel 5.19) and when the cgroup is gone.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let file = match self {
            Self::V1(_) => "memory.max_usage_in_bytes",
            Self::V2(_) => "memory.peak",
        };
        stats::number(self.dir("memory")?, file).ok().flatten()
    }

    /// The directory in which a controller has its files.
    pub(crate) fn dir(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(dirs) => {
                dirs.iter().find(|(name, _)| *name == controller).map(|(_, dir)| dir.as_path())
            }
            Self::V2(dir) => Some(dir),
        }
    }
}

/// What adds up over several cgroups, in the same types: processor time, memory in use,
/// processes. Nothing if there is no cgroup.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn total(cgroups: &[Rc<Cgroup>]) -> Result<Option<Any>> {
    let Some(first) = cgroups.first() else { return Ok(None) };
    let (mut v1, mut v2) = (stats::v1::Total::default(), stats::v2::Total::default());
    for cgroup in cgroups {
        match cgroup.as_ref() {
            Cgroup::V1(_) => v1.add(&stats::v1::read(|name| cgroup.dir(name))?),
            Cgroup::V2(dir) => v2.add(&stats::v2::read(dir)?),
        }
    }
    // A host has one kind.
    let (type_url, value) = match first.as_ref() {
        Cgroup::V1(_) => (V1_URL, v1.0.write_to_bytes()),
        Cgroup::V2(_) => (V2_URL, v2.0.write_to_bytes()),
    };
    let value = value.context("encode the metrics")?;
    Ok(Some(Any { type_url: type_url.to_owned(), value, ..Any::default() }))
}

/// Joins the text of `/proc/PID/cgroup` with the mounted cgroup file systems.
fn locate(memberships: &str, mounts: &[Mount]) -> Result<Cgroup> {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in memberships.lines() {
        // "4:cpu,cpuacct:/path", of v2 "0::/path". The path may hold colons.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("a line without two colons: {line:?}");
        };
        if names.is_empty() {
            v2 = mounts
                .iter()
                .filter(|mount| mount.kind == "cgroup2")
                .find_map(|mount| directory(mount, path));
            continue;
        }
        for name in COUNTING.into_iter().filter(|name| names.split(',').any(|n| n == *name)) {
            let holds =
                |mount: &&Mount| mount.kind == "cgroup" && has_word(&mount.super_options, name);
            let dir = mounts.iter().filter(holds).find_map(|mount| directory(mount, path));
            v1.extend(dir.map(|dir| (name, dir)));
        }
    }
    match v2 {
        _ if !v1.is_empty() => Ok(Cgroup::V1(v1)),
        Some(dir) => Ok(Cgroup::V2(dir)),
        None => bail!("no mounted cgroup file system shows them"),
    }
}

fn has_word(list: &str, word: &str) -> bool {
    list.split(',').any(|w| w == word)
}

/// Where a mount shows a cgroup; nowhere, if it is outside of the part that the mount shows.
fn directory(mount: &Mount, cgroup: &str) -> Option<PathBuf> {
    let below = Path::new(cgroup).strip_prefix(&mount.root).ok()?;
    // A cgroup namespace shows what is outside of it as "/../x".
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| mount.point.join(below))
}

/// Puts a process into the cgroup `name`: below each v1 hierarchy that has it, or in v2.
///
/// # Errors
/// No hierarchy has such a cgroup.
pub(crate) fn join(pid: i32, name: &str) -> Result<()> {
    let relative = Path::new(name.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        bail!("{name:?} is no cgroup's path");
    }
    let mut joined = false;
    let mut places = Vec::new();
    mountinfo::each(|mount| {
        if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
            places.push(mount.point.join(relative).join("cgroup.procs"));
        }
    })?;
    for file in places {
        if file.exists() {
            fs::write(&file, pid.to_string())
                .with_context(|| format!("write {}", file.display()))?;
            joined = true;
        }
    }
    if !joined {
        bail!("there is no cgroup {name}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
