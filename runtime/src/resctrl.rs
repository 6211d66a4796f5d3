//! `linux.intelRdt`: a share of cache and memory bandwidth, by the resctrl file system
//! (config-linux.md, IntelRdt; the kernel's filesystems/resctrl.rst).
//!
//! A class of service (CLOS) is a directory of that file system, and so is a monitoring
//! group inside one. The plan says which there shall be and what is written; the apply
//! makes them and moves the container's process in.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hull_specs_oci::IntelRdt;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// Names at the top of the file system that are no class of service.
const RESERVED: [&str; 3] = ["info", "mon_data", "mon_groups"];

/// Where a container is. Remembered, for exec, update and delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    mount: PathBuf,
    /// The directory of its class of service.
    clos: PathBuf,
    /// The class is the container's own, and goes with it.
    own: bool,
    /// Its monitoring group, which is always its own.
    monitor: Option<PathBuf>,
}

/// What is done for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) group: Group,
    /// The directory of the class has to be made.
    make: bool,
    /// The lines for its `schemata`.
    schemata: Vec<String>,
}

/// What there is on the host.
#[derive(Clone, Debug, Default)]
struct Host {
    mount: PathBuf,
    cache: bool,
    bandwidth: bool,
    /// The kernel rounds bandwidths up to a multiple of this, in percent.
    bandwidth_step: u64,
}

/// Plans from the configuration and the host's resctrl file system.
pub(crate) fn plan(rdt: &IntelRdt, id: &str) -> Result<Plan> {
    let Some(host) = Host::observe()? else {
        bail!("intelRdt is specified in config, but Intel RDT is not enabled");
    };
    host.plan(rdt, id, |clos| read(&clos.join("schemata")))
}

impl Host {
    fn observe() -> Result<Option<Self>> {
        let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
        mount_point(&table).map(Self::at).transpose()
    }

    fn at(mount: PathBuf) -> Result<Self> {
        let info = mount.join("info");
        let step = read(&info.join("MB/bandwidth_gran"))?.unwrap_or_default();
        Ok(Self {
            cache: info.join("L3").exists() || info.join("L3CODE").exists(),
            bandwidth: info.join("MB").exists(),
            bandwidth_step: step.trim().parse().unwrap_or(1).max(1),
            mount,
        })
    }

    /// `existing` gives the `schemata` of a class of service that is there.
    fn plan(
        &self,
        rdt: &IntelRdt,
        id: &str,
        existing: impl Fn(&Path) -> Result<Option<String>>,
    ) -> Result<Plan> {
        check(rdt)?;
        for (schema, field, there) in [
            (&rdt.l3_cache_schema, "l3CacheSchema", self.cache),
            (&rdt.mem_bw_schema, "memBwSchema", self.bandwidth),
        ] {
            ensure!(
                there || schema.is_empty(),
                "intelRdt.{field} is specified in config, but this machine's resctrl has no such resource"
            );
        }
        let named = !rdt.clos_id.is_empty();
        let name = if named { rdt.clos_id.as_str() } else { id };
        ensure!(!RESERVED.contains(&name), "{name:?} cannot be the name of a class of service");
        let clos = match name {
            "/" => self.mount.clone(),
            name => self.mount.join(name),
        };
        let current = existing(&clos)?;
        let schemata = lines(&rdt.l3_cache_schema, &rdt.mem_bw_schema, &rdt.schemata);
        match &current {
            None if named && schemata.is_empty() => {
                bail!("intelRdt.closID {name:?} does not exist, and no schema says what it is")
            }
            // Others may be in it: it is checked, not changed (config-linux.md).
            Some(current) if named => {
                for schema in [&rdt.l3_cache_schema, &rdt.mem_bw_schema] {
                    self.compare(schema, current)
                        .with_context(|| format!("intelRdt.closID {name:?}"))?;
                }
            }
            _ => {}
        }
        Ok(Plan {
            make: current.is_none(),
            group: Group {
                mount: self.mount.clone(),
                own: !named && current.is_none(),
                monitor: rdt.enable_monitoring.then(|| clos.join("mon_groups").join(id)),
                clos,
            },
            schemata,
        })
    }

    /// Refuses a schema that says something else than the class's own.
    fn compare(&self, wanted: &str, current: &str) -> Result<()> {
        let current: BTreeMap<_, _> = current.lines().filter_map(parse).collect();
        for line in wanted.lines() {
            let (resource, values) =
                parse(line).with_context(|| format!("{line:?} is no schema"))?;
            let there = current.get(resource).with_context(|| format!("it has no {resource}"))?;
            for (domain, value) in values {
                let rounded = match resource {
                    "MB" => value.next_multiple_of(self.bandwidth_step),
                    _ => value,
                };
                let same = there.get(&domain).is_some_and(|now| [value, rounded].contains(now));
                ensure!(same, "{line:?} does not match what is there");
            }
        }
        Ok(())
    }
}

/// The rules that need no host.
fn check(rdt: &IntelRdt) -> Result<()> {
    let clos = rdt.clos_id.as_str();
    if matches!(clos, "." | "..") || clos.len() > 1 && clos.contains('/') || clos.contains('\0') {
        bail!("invalid intelRdt.ClosID {clos:?}");
    }
    if !rdt.mem_bw_schema.is_empty() && !rdt.mem_bw_schema.starts_with("MB:") {
        bail!("intelRdt.memBwSchema must start with MB:");
    }
    if rdt.mem_bw_schema.contains('\n') || rdt.schemata.iter().any(|line| line.contains('\n')) {
        bail!("a schema of intelRdt holds a line break");
    }
    Ok(())
}

fn lines(cache: &str, bandwidth: &str, others: &[String]) -> Vec<String> {
    let others = others.iter().map(String::as_str);
    [cache, bandwidth].into_iter().chain(others).filter(|l| !l.is_empty()).map(Into::into).collect()
}

/// `L3:0=ff;1=c0`: a resource and a value for each of its domains.
fn parse(line: &str) -> Option<(&str, BTreeMap<u32, u64>)> {
    let (resource, values) = line.trim().split_once(':')?;
    let radix = if resource == "MB" { 10 } else { 16 };
    let value = |pair: &str| {
        let (domain, value) = pair.split_once('=')?;
        Some((domain.trim().parse().ok()?, u64::from_str_radix(value.trim(), radix).ok()?))
    };
    Some((resource, values.split(';').map(value).collect::<Option<_>>()?))
}

/// Where resctrl is mounted, from a mountinfo table.
fn mount_point(table: &str) -> Option<PathBuf> {
    let line = table.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(|field| cgroup::unescape_mountinfo(field).into())
}

impl Plan {
    /// Makes what is planned and moves process `pid` in. A failure leaves what `remove`
    /// takes away.
    pub(crate) fn apply(&self, pid: i32) -> Result<()> {
        if self.make {
            self.group.do_with("make", &self.group.clos, |path| match fs::create_dir(path) {
                // Another container of the same class was quicker.
                Err(e) if !self.group.own && e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result,
            })?;
        }
        self.group.write_schemata(&self.schemata)?;
        if let Some(monitor) = &self.group.monitor {
            self.group.do_with("make", monitor, |path| fs::create_dir(path))?;
        }
        self.group.join(pid)
    }

    /// What is done, in words.
    pub(crate) fn describe(&self) -> Vec<String> {
        let clos = self.group.clos.display();
        let made = if self.make { "made" } else { "there already" };
        let mut list = vec![format!("class of service {clos}, {made}")];
        list.extend(self.schemata.iter().map(|line| format!("schema {line}")));
        list.extend(self.group.monitor.iter().map(|m| format!("monitored in {}", m.display())));
        list
    }
}

impl Group {
    /// Moves a process in. The class first: a change of class ends the monitoring.
    pub(crate) fn join(&self, pid: i32) -> Result<()> {
        for dir in [Some(&self.clos), self.monitor.as_ref()].into_iter().flatten() {
            let tasks = dir.join("tasks");
            self.do_with("write to", &tasks, |path| fs::write(path, pid.to_string()))?;
        }
        Ok(())
    }

    /// Changes what the class may have.
    pub(crate) fn update(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        let cache = cache.unwrap_or_default().to_owned();
        let bandwidth = bandwidth.unwrap_or_default().to_owned();
        let lines = lines(&cache, &bandwidth, &[]);
        check(&IntelRdt { mem_bw_schema: bandwidth, ..IntelRdt::default() })?;
        self.write_schemata(&lines)
    }

    fn write_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        self.do_with("write to", &self.clos.join("schemata"), |path| fs::write(path, &text))
    }

    /// Removes what is the container's own. What is gone already is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        for dir in [self.monitor.as_ref(), self.own.then_some(&self.clos)].into_iter().flatten() {
            self.do_with("remove", dir, |path| match fs::remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            })?;
        }
        Ok(())
    }

    /// The kernel says more of a failure in a file than in its error number.
    fn do_with(
        &self,
        verb: &str,
        path: &Path,
        change: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<()> {
        change(path).with_context(|| {
            let status = read(&self.mount.join("info/last_cmd_status")).ok().flatten();
            let status = status.as_deref().map(str::trim).filter(|text| !text.is_empty());
            let why = status.map(|text| format!(" ({text})")).unwrap_or_default();
            format!("cannot {verb} {}{why}", path.display())
        })
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => Ok(Some(result.with_context(|| format!("cannot read {}", path.display()))?)),
    }
}

#[cfg(test)]
mod tests;
