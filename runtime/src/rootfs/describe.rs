//! The plan in words, for `explain`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use hull_runtime_sys::mount::Propagation;

use super::{
    devices::Device,
    options::Flags,
    plan::{Entry, Plan, Start},
    steps::{FlagChange, Mapping, Step},
};

impl Plan {
    /// One sentence an operation, in the order in which they happen.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::with_capacity(self.steps.len() + 8);
        match self.start {
            Start::HostNamespace => {
                lines.push("stay in the mount namespace of the host".to_owned());
            }
            Start::OwnNamespace { namespace, root, .. } => {
                lines.push(format!("make the namespace's mounts {}", propagation(namespace)));
                lines.push(format!(
                    "bind {} on itself as the root, {}",
                    self.root.display(),
                    propagation((root, false))
                ));
            }
        }
        lines.extend(self.steps.iter().map(|step| self.describe_step(step)));
        match self.entry {
            Entry::Pivot { .. } => lines.push("pivot into the root and detach the old one".into()),
            Entry::Move { .. } => lines.push("move the root over / and chroot into it".into()),
            Entry::Chroot => lines.push("chroot into the root".into()),
        }
        if let Entry::Pivot { propagation: Some(p), .. } | Entry::Move { propagation: Some(p) } =
            self.entry
        {
            lines.push(format!("make the root {}", propagation(p)));
        }
        let late = self.steps.iter().filter_map(|step| match step {
            Step::FileSystem(fs) if fs.read_only_late => Some(&fs.destination),
            _ => None,
        });
        lines.extend(late.map(|path| format!("make /{} read-only", path.display())));
        if self.seal.read_only_root {
            lines.push("make the root read-only".to_owned());
        }
        let read_only = self.seal.read_only_paths.iter();
        lines.extend(read_only.map(|path| format!("make {} read-only", path.display())));
        let masked = self.seal.masked_paths.iter();
        lines.extend(masked.map(|path| format!("mask {}", path.display())));
        lines
    }

    /// The bind mounts: source on the host, and destination from the container's root.
    pub(crate) fn binds(&self) -> impl Iterator<Item = (&Path, PathBuf)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Bind(bind) => {
                Some((bind.source.as_path(), Path::new("/").join(&bind.destination)))
            }
            _ => None,
        })
    }

    /// The device files, one line each: `/dev/null c 1:3 0666 0:0`.
    pub(crate) fn device_files(&self) -> Vec<String> {
        let devices = self.steps.iter().filter_map(|step| match step {
            Step::Dev(dev) => Some(&dev.devices),
            _ => None,
        });
        devices.flatten().map(device_file).collect()
    }

    fn describe_step(&self, step: &Step) -> String {
        match step {
            Step::Bind(bind) => {
                let depth = if bind.recursive { "bind with all below" } else { "bind" };
                let mut line = format!(
                    "{depth} {} at /{}{}",
                    bind.source.display(),
                    bind.destination.display(),
                    flags(bind.change)
                );
                for p in &bind.propagation {
                    let _ = write!(line, ", {}", propagation(*p));
                }
                match bind.id_map.as_ref().map(|map| &map.mapping) {
                    None => {}
                    Some(Mapping::Ids { .. }) => line.push_str(", id-mapped"),
                    Some(Mapping::Namespace(path)) => {
                        let _ = write!(line, ", id-mapped as {}", path.display());
                    }
                }
                line
            }
            Step::FileSystem(fs) => {
                let mut words = vec![fs.flags.words()];
                words.extend(fs.parameters.iter().map(|p| match &p.value {
                    Some(value) => format!("{}={value}", p.key),
                    None => p.key.clone(),
                }));
                words.retain(|word| !word.is_empty());
                let words = if words.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", words.join(","))
                };
                let copy = if fs.copy_up { ", filled with what is there now" } else { "" };
                format!("mount {} at /{}{words}{copy}", fs.kind, fs.destination.display())
            }
            Step::Cgroup(cgroup) => {
                let view = if self.cgroup_namespace {
                    "mount the cgroup hierarchies"
                } else {
                    "bind the container's cgroups"
                };
                format!("{view} at /{}{}", cgroup.destination.display(), flags(cgroup.change))
            }
            Step::Remount(remount) => {
                format!("remount /{}{}", remount.destination.display(), flags(remount.change))
            }
            Step::Dev(dev) => {
                let names: Vec<_> =
                    dev.devices.iter().map(|d| format!("/{}", d.path.display())).collect();
                let how = if dev.bind { "bind from the host" } else { "make" };
                let links: Vec<_> =
                    dev.links.iter().map(|link| format!("/dev/{}", link.0)).collect();
                format!("{how} {}; link /dev/ptmx {}", names.join(" "), links.join(" "))
            }
        }
    }
}

fn device_file(device: &Device) -> String {
    let kind = match device.mode & libc::S_IFMT {
        libc::S_IFBLK => "b",
        libc::S_IFIFO => "p",
        _ => "c",
    };
    format!(
        "/{} {kind} {}:{} {:04o} {}:{}",
        device.path.display(),
        libc::major(device.number),
        libc::minor(device.number),
        device.mode & 0o7777,
        device.uid,
        device.gid
    )
}

fn propagation((propagation, recursive): (Propagation, bool)) -> String {
    let word = match propagation {
        Propagation::Shared => "shared",
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Unbindable => "unbindable",
    };
    format!("{}{word}", if recursive { "r" } else { "" })
}

fn flags(change: FlagChange) -> String {
    let words = change.set.without(Flags::ACTION).words();
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}
