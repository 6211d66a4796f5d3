//! What a container will be: the bundle read, every part planned, nothing changed.
//!
//! `create`, `run` and `restore` act on a [`Prepared`]; `explain` shows its [`Plans`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind};

use super::{Store, create::Waits, notify};
use crate::{
    cgroup, idmap, log, namespace, process,
    request::{Create, Global},
    resctrl, rootfs, seccomp, spec,
};

/// Everything that was read and planned. Nothing has been changed yet.
pub(super) struct Prepared {
    pub(super) spec: oci::Spec,
    pub(super) process: process::Plan,
    pub(super) content: Vec<u8>,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: rootfs::Plan,
    pub(super) namespaces: namespace::Plan,
    pub(super) seccomp: Option<seccomp::Program>,
    pub(super) host: cgroup::Host,
    pub(super) location: cgroup::Location,
    pub(super) rdt: Option<resctrl::Plan>,
    pub(super) rootless: bool,
    /// Who wants to hear that the container is ready.
    pub(super) notify: Option<notify::Caller>,
}

impl Prepared {
    pub(super) fn resources(&self) -> Option<&oci::Resources> {
        self.spec.linux.as_ref()?.resources.as_ref()
    }
}

/// Reads the bundle and plans everything.
pub(super) fn prepare(global: &Global, request: &Create, waits: Waits) -> Result<Prepared> {
    let (content, mut spec) = spec::read(&request.bundle.join("config.json"))?;
    let notify = notify::Caller::find()?;
    if notify.is_some() {
        notify::add(&mut spec, &Store::new(&global.root).path(&request.id));
    }
    let plan = plan(global, &request.bundle, &request.id, &spec, request.no_pivot)?;
    let root = fs::metadata(&plan.rootfs.root).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        anyhow!(sys::Error::new("stat", errno).on(plan.rootfs.root.display()))
    });
    if !root.context("invalid rootfs")?.is_dir() {
        bail!("invalid rootfs: {} is not a directory", plan.rootfs.root.display());
    }
    if spec.process.is_none() && waits == Waits::ForUs {
        bail!(process::NONE);
    }
    let mut process = process::plan_first(spec.process.as_ref(), spec.linux.as_ref())?;
    process.check_host()?;
    if !plan.namespaces.has(NamespaceKind::User) {
        process.drop_ungrantable_capabilities()?;
    }
    let seccomp_warnings = plan.seccomp.iter().flat_map(|program| &program.warnings);
    let warnings = plan.warnings.iter().chain(&plan.rootfs.warnings).chain(&process.warnings);
    warnings.chain(seccomp_warnings).for_each(log::warning);
    plan.rootfs.describe().iter().for_each(log::debug);
    Ok(Prepared {
        spec,
        process,
        content,
        bundle: request.bundle.clone(),
        rootfs: plan.rootfs,
        namespaces: plan.namespaces,
        seccomp: plan.seccomp,
        host: plan.host,
        location: plan.location,
        rdt: plan.rdt,
        rootless: plan.rootless,
        notify,
    })
}

/// The parts of a plan that do not depend on the process.
pub(crate) struct Plans {
    pub(crate) rootfs: rootfs::Plan,
    pub(crate) namespaces: namespace::Plan,
    pub(crate) seccomp: Option<seccomp::Program>,
    pub(crate) host: cgroup::Host,
    pub(crate) location: cgroup::Location,
    pub(crate) rdt: Option<resctrl::Plan>,
    pub(crate) rootless: bool,
    pub(crate) warnings: Vec<String>,
}

/// Plans a bundle, for `create` as for `explain`.
pub(crate) fn plan(
    global: &Global,
    bundle: &Path,
    id: &oci::ContainerId,
    spec: &oci::Spec,
    no_pivot: bool,
) -> Result<Plans> {
    let default = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let privileged = sys::process::effective_uid() == 0;
    let rootless = global.rootless.unwrap_or(!privileged);
    let joins_host_network = joins_own(linux, NamespaceKind::Network);
    let facts = spec::Facts {
        privileged,
        joins_host_network,
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        apparmor: is_yes("/sys/module/apparmor/parameters/enabled"),
    };
    let mut warnings = spec::validate(spec, facts)?;
    idmap::validate("uidMappings", &linux.uid_mappings)?;
    idmap::validate("gidMappings", &linux.gid_mappings)?;
    if !privileged && !linux.namespaces.iter().any(|n| n.kind == NamespaceKind::User) {
        bail!("rootless container requires user namespaces");
    }
    let rdt = linux.intel_rdt.as_ref().map(|rdt| resctrl::plan(rdt, id.as_str())).transpose()?;
    let namespaces = namespace::Plan::new(linux)?;
    let host = cgroup::Host::observe()?;
    let driver =
        if global.systemd_cgroup { cgroup::Driver::Systemd } else { cgroup::Driver::Cgroupfs };
    let user_manager = match (driver, rootless) {
        (cgroup::Driver::Systemd, true) => Some(cgroup::user_manager()?),
        _ => None,
    };
    let location = cgroup::locate(
        &host,
        &cgroup::Request {
            driver,
            cgroups_path: &linux.cgroups_path,
            id,
            rootless,
            annotations: &spec.annotations,
            user_manager: user_manager.as_deref(),
        },
    )?;
    let facts = rootfs::Facts::observe(!privileged, no_pivot)?;
    if let Some(resources) = &linux.resources
        && let Some(warning) = cgroup::ignored_fields(host.mode(), resources)
    {
        warnings.push(warning.to_owned());
    }
    let rootfs = rootfs::plan(spec, bundle, facts)?;
    let seccomp = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    Ok(Plans { rootfs, namespaces, seccomp, host, location, rdt, rootless, warnings })
}

/// Whether the runtime itself is in a user namespace that does not map every id.
pub(super) fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
}

fn is_yes(path: &str) -> bool {
    fs::read(path).is_ok_and(|content| content.first() == Some(&b'Y'))
}

/// Whether a namespace that is joined by path is the runtime's own.
fn joins_own(linux: &oci::Linux, kind: NamespaceKind) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let file = match kind {
        NamespaceKind::Network => "/proc/self/ns/net",
        _ => return false,
    };
    linux
        .namespaces
        .iter()
        .find(|namespace| namespace.kind == kind && !namespace.path.is_empty())
        .and_then(|namespace| identity(&namespace.path))
        .is_some_and(|joined| Some(joined) == identity(file))
}

/// The host's user who shall own the cgroup: the container's root, where the container has
/// a user and a cgroup namespace of its own and mounts its cgroup writable.
pub(super) fn owner_of_cgroup(spec: &oci::Spec, linux: &oci::Linux) -> Option<u32> {
    let has = |kind| linux.namespaces.iter().any(|n| n.kind == kind && n.path.is_empty());
    if !has(NamespaceKind::Cgroup) || !has(NamespaceKind::User) {
        return None;
    }
    let mount = spec.mounts.iter().rfind(|mount| mount.destination == "/sys/fs/cgroup")?;
    if mount.options.iter().any(|option| option == "ro") {
        return None;
    }
    idmap::to_host(&linux.uid_mappings, 0)
}

/// What a mount of type `cgroup` shows of hierarchies in which no cgroup could be made for
/// want of permission: there the container stays where the runtime is.
pub(super) fn unjoined_mounts(prepared: &Prepared) -> rootfs::CgroupMounts {
    let nowhere = cgroup::Location { hierarchies: Vec::new(), ..prepared.location.clone() };
    cgroup_mounts(&prepared.host, &nowhere)
}

/// What a mount of type `cgroup` shows.
pub(super) fn cgroup_mounts(
    host: &cgroup::Host,
    location: &cgroup::Location,
) -> rootfs::CgroupMounts {
    let mounts = cgroup::mounts_for_container(host, location);
    rootfs::CgroupMounts {
        v1: mounts
            .hierarchies
            .into_iter()
            .map(|hierarchy| rootfs::Hierarchy {
                directory: hierarchy.name,
                options: hierarchy.options.split(',').map(str::to_owned).collect(),
                own: hierarchy.container_dir,
            })
            .collect(),
        unified: mounts.unified.map(|unified| rootfs::Unified {
            mount_point: unified.host_mount,
            own: unified.container_dir,
        }),
    }
}
