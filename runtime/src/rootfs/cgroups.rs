//! Mounts of type `cgroup`: the container's view of its own cgroups.
//!
//! On cgroup v1, and on hybrid hosts, a tmpfs with one directory a hierarchy, and a link
//! for each controller of a hierarchy that has several. On v2 the one hierarchy itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use hull_runtime_sys::{
    fd::{mkdirat, openat},
    mount::{self, Attributes, Change},
    path::{self, c_path},
};

use super::{
    Plan, Root, bind, file_system,
    options::Flags,
    propagate,
    steps::Cgroup,
    target::{self, What},
};

/// What the cgroup module tells about the host, once this process is in its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupMounts {
    /// The v1 hierarchies, in the order in which they shall be mounted. Empty on v2.
    pub(crate) v1: Vec<Hierarchy>,
    /// The v2 hierarchy. Used only if there is no v1: on hybrid hosts containers do not
    /// see it, as under runc.
    pub(crate) unified: Option<Unified>,
}

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The name of its directory: the last component of its mount point on the host, such
    /// as `cpu,cpuacct` or `systemd`.
    pub(crate) directory: String,
    /// What it is mounted with: controllers, or `name=systemd`.
    pub(crate) options: Vec<String>,
    /// The container's own cgroup in it, as a path of the host.
    pub(crate) own: PathBuf,
}

/// The v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unified {
    /// Where it is mounted on the host.
    pub(crate) mount_point: PathBuf,
    /// The container's own cgroup in it, as a path of the host.
    pub(crate) own: PathBuf,
}

/// What every mount of a v1 view has.
const ATTRIBUTES: [Attributes; 3] = [Attributes::NO_EXEC, Attributes::NO_SUID, Attributes::NO_DEV];

pub(super) fn apply(
    root: &mut Root,
    cgroup: &Cgroup,
    mounts: &CgroupMounts,
    plan: &Plan,
) -> Result<()> {
    match &mounts.unified {
        _ if !mounts.v1.is_empty() => {
            for parameter in &cgroup.parameters {
                root.warnings.push(format!(
                    "mount option {} has no meaning for cgroup v1 and is left out",
                    parameter.key
                ));
            }
            hierarchies(root, cgroup, &mounts.v1, plan)
        }
        Some(unified) => self::unified(root, cgroup, unified, plan),
        None => bail!("no cgroup file system is mounted on the host"),
    }
}

fn unified(root: &Root, cgroup: &Cgroup, unified: &Unified, plan: &Plan) -> Result<()> {
    let target = target::open(root, &cgroup.destination, false, What::Other)?;
    let mut parameters = Vec::with_capacity(cgroup.parameters.len());
    for parameter in &cgroup.parameters {
        parameters.push((parameter.key.as_str(), parameter.value.as_deref().unwrap_or("")));
    }
    let source = if cgroup.source.is_empty() { "cgroup" } else { &cgroup.source };
    let attributes = cgroup.change.set.attributes();
    let mount = match file_system::pseudo("cgroup2", source, &parameters, attributes) {
        Ok(mount) => mount,
        // A user namespace without a cgroup namespace of its own may not mount it; what it
        // may see is bound instead.
        Err(error) if is_refusal(&error) => {
            let source = if plan.cgroup_namespace { &unified.own } else { &unified.mount_point };
            let copy = mount::copy_at(source, false)?;
            bind::set_flags(&copy, cgroup.change, false)?;
            copy
        }
        Err(error) => return Err(error),
    };
    mount::attach(&mount, &target.fd)?;
    propagate(&mount, &cgroup.propagation)
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<hull_runtime_sys::Error>().map(hull_runtime_sys::Error::errno);
    matches!(errno, Some(libc::EPERM | libc::EBUSY))
}

fn hierarchies(root: &Root, cgroup: &Cgroup, all: &[Hierarchy], plan: &Plan) -> Result<()> {
    let target = target::open(root, &cgroup.destination, false, What::Other)?;
    let mut parameters = vec![("mode", "755")];
    if !plan.label.is_empty() {
        parameters.push(("context", plan.label.as_str()));
    }
    let attributes = ATTRIBUTES.into_iter().fold(Attributes::NONE, |all, a| all | a);
    let view = file_system::pseudo("tmpfs", "tmpfs", &parameters, attributes)?;
    for hierarchy in all {
        let (name, directory) = (c_path(&hierarchy.directory)?, &hierarchy.directory);
        mkdirat(&view, &name, 0o755)?;
        for controller in directory.split(',').filter(|_| directory.contains(',')) {
            match path::symlink(&name, &view, &c_path(controller)?) {
                Err(error) if error.errno() != libc::EEXIST => return Err(error.into()),
                _ => {}
            }
        }
    }
    // Nothing can be mounted on a detached mount before kernel 6.15.
    mount::attach(&view, &target.fd)?;
    for hierarchy in all {
        add(&view, cgroup, hierarchy, attributes, plan.cgroup_namespace)
            .with_context(|| format!("error mounting cgroup hierarchy {}", hierarchy.directory))?;
    }
    if cgroup.change.set.has(Flags::READ_ONLY) {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::set_attributes(&view, change, false)?;
    }
    propagate(&view, &cgroup.propagation)
}

fn add(
    view: &std::os::fd::OwnedFd,
    cgroup: &Cgroup,
    hierarchy: &Hierarchy,
    attributes: Attributes,
    namespace: bool,
) -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = openat(view, &c_path(&hierarchy.directory)?, flags, 0)?;
    let mount = if namespace {
        let read_only = cgroup.change.set.attributes().both(Attributes::READ_ONLY);
        let parameters: Vec<_> =
            hierarchy.options.iter().map(|o| o.split_once('=').unwrap_or((o, ""))).collect();
        let source = if hierarchy.directory == "systemd" { "systemd" } else { "cgroup" };
        file_system::pseudo("cgroup", source, &parameters, attributes | read_only)?
    } else {
        let copy = mount::copy_at(&hierarchy.own, true)?;
        bind::set_flags(&copy, cgroup.change, false)?;
        copy
    };
    mount::attach(&mount, directory)?;
    propagate(&mount, &cgroup.propagation)
}
