//! The container's file system: a plan of mounts, and its apply.
//!
//! The caller goes through it in this order, all but the first two in the container's
//! process: [`plan()`]; [`Sources::open`] where the container has a user namespace or
//! id-mapped mounts; [`mount_all`]; createContainer hooks; [`enter`]; console, sysctls;
//! [`seal`].
//!
//! Invariants:
//! - A name that the image or the configuration gives for a place in the container is only
//!   ever resolved beneath the root's descriptor, by `sys::path`; what comes out is a
//!   descriptor, and mounts go from descriptor to descriptor. No path of the container is
//!   resolved twice (the classes of CVE-2019-19921, CVE-2021-30465, CVE-2025-52565).
//! - A mount has its flags before it can be reached.
//! - What covers a masked path is made or verified here and held open from then on; the
//!   container's paths are not asked for it again (CVE-2025-31133).
//!
//! Not here: hooks, the pty pair, sysctls, the working directory, and every cgroup
//! operation but mounting.

mod bind;
mod cgroups;
mod copy_up;
mod describe;
mod devices;
mod external;
mod file_system;
mod mask;
mod options;
mod pivot;
mod plan;
mod sources;
mod steps;
mod target;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    fd::{AT_FDCWD, openat, read_to_end},
    mount::{self, Change, Propagation},
    path,
};

pub(crate) use cgroups::{CgroupMounts, Hierarchy, Unified};
pub(crate) use devices::{attach_console, replace_null_stdio};
pub(crate) use external::{make_mount_points, mount_at};
pub(crate) use mask::seal;
pub(crate) use options::known as known_options;
pub(crate) use pivot::enter;
pub(crate) use plan::{Facts, Plan, plan};
pub(crate) use sources::{Sources, UserNamespaces};

use steps::Step;

/// The kernel takes 340 lines of at most 33 bytes.
const UID_MAP_LIMIT_BYTES: usize = 64 << 10;

impl Facts {
    /// Looks at the host.
    pub(crate) fn observe(rootless: bool, no_pivot: bool) -> Result<Self> {
        let map = openat(AT_FDCWD, c"/proc/self/uid_map", libc::O_RDONLY, 0)?;
        let map = read_to_end(map, UID_MAP_LIMIT_BYTES)?;
        let fields = map.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        Ok(Self {
            in_user_namespace: !fields.eq([&b"0"[..], b"0", b"4294967295"]),
            rootless,
            no_pivot,
            kcore: path::stat_at(AT_FDCWD, c"/proc/kcore").is_ok(),
        })
    }
}

/// What [`mount_all`] needs from its caller.
pub(crate) struct Context<'a> {
    /// Called at the first mount of type `cgroup`, if there is one: when it returns, this
    /// process is in its cgroup and, if it shall have one, in its cgroup namespace.
    pub(crate) join_cgroup: &'a mut dyn FnMut() -> Result<CgroupMounts>,
    /// What the parent has opened. Without a user namespace and id-mapped mounts:
    /// `Sources::default()`.
    pub(crate) sources: Sources,
}

/// The container's root, with everything mounted beneath it.
#[derive(Debug)]
pub(crate) struct Root {
    /// The root directory; all lookups begin here.
    pub(crate) fd: OwnedFd,
    /// The container's `/dev/null`, open for reading and writing, if `/dev` was set up here.
    pub(crate) null: Option<OwnedFd>,
    /// Sentences for the user about what was found while mounting.
    pub(crate) warnings: Vec<String>,
    /// Mounts that [`seal`] makes read-only.
    late: Vec<OwnedFd>,
    /// A copy of the host's null device for masks, where `null` is not ours.
    host_null: Option<OwnedFd>,
}

/// Mounts everything that the plan has, in this process's mount namespace. The caller has
/// set the umask to 022: it applies to mount points that are made.
pub(crate) fn mount_all(plan: &Plan, mut context: Context<'_>) -> Result<Root> {
    let mut root = pivot::prepare(plan)?;
    for (index, step) in plan.steps.iter().enumerate() {
        match step {
            Step::Bind(bind) => {
                let given = context.sources.take(index);
                bind::apply(&mut root, bind, given).with_context(|| {
                    format!(
                        "error mounting {:?} to rootfs at \"/{}\"",
                        bind.source,
                        bind.destination.display()
                    )
                })?;
            }
            Step::FileSystem(fs) => {
                file_system::apply(&mut root, fs, &plan.label).with_context(|| {
                    format!(
                        "error mounting {:?} to rootfs at \"/{}\"",
                        fs.source,
                        fs.destination.display()
                    )
                })?;
            }
            Step::Cgroup(cgroup) => {
                let mounts = (context.join_cgroup)()?;
                cgroups::apply(&mut root, cgroup, &mounts, plan).with_context(|| {
                    format!(
                        "error mounting cgroups to rootfs at \"/{}\"",
                        cgroup.destination.display()
                    )
                })?;
            }
            Step::Remount(remount) => file_system::remount(&root, remount).with_context(|| {
                format!("error remounting \"/{}\"", remount.destination.display())
            })?,
            Step::Dev(dev) => {
                devices::apply(&mut root, dev).context("error configuring container /dev")?;
            }
        }
    }
    if root.null.is_none() && !plan.seal.masked_paths.is_empty() {
        root.host_null = Some(mask::host_null()?);
    }
    Ok(root)
}

/// Applies propagation changes in order.
fn propagate(mount: &OwnedFd, changes: &[(Propagation, bool)]) -> Result<()> {
    for (propagation, recursive) in changes {
        let change = Change { propagation: Some(*propagation), ..Change::default() };
        mount::set_attributes(mount, change, *recursive)
            .context("error changing mount propagation")?;
    }
    Ok(())
}
