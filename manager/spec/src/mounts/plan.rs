//! The mounts of a container, in the order in which the runtime makes them.

use hull_specs_api::v1::{self, mount::Type};
use hull_specs_oci as oci;

use super::{check::kind, propagation};
use crate::{
    config::{Input, is_private_user_namespace},
    error::{Result, refuse},
    mounts::tmpfs,
    names::container_of,
};

/// A mount that was asked for, and where its source is now.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// What was asked for: its target is clean.
    pub mount: v1::Mount,
    /// The path on the host: of a bind the path itself; of a volume or an image its directory, or
    /// that of its subpath. Not looked at for a tmpfs.
    pub source: String,
}

/// What becomes of the root besides mounts on it.
pub(crate) struct Plan {
    pub(crate) mounts: Vec<oci::Mount>,
    pub(crate) root_propagation: String,
}

/// Where an init of ours is in the container; docker has it there, too.
pub(crate) const INIT: &str = "/sbin/docker-init";

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: target.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn lower(input: &Input<'_>, init: Option<&str>) -> Result<Plan> {
    let options = input.options;
    let mut mounts = standard(input);
    let taken = |target: &str| input.mounts.iter().any(|asked| asked.mount.target == target);
    // A user's /dev comes without ours below it.
    let own_dev = taken("/dev");
    mounts.retain(|mount| {
        !(taken(&mount.destination) || own_dev && mount.destination.starts_with("/dev/"))
    });
    if options.read_only {
        // These are the container's own and hold nothing that lasts; docker leaves them writable.
        let writable = ["/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"];
        for mount in
            mounts.iter_mut().filter(|mount| !writable.contains(&mount.destination.as_str()))
        {
            if !mount.options.iter().any(|option| option == "ro") {
                mount.options.push("ro".to_owned());
            }
        }
    }
    let mut asked = Vec::new();
    for resolved in &input.mounts {
        asked.push(user_mount(input, resolved)?);
    }
    for (target, source) in [
        ("/etc/resolv.conf", &input.files.resolv_conf),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
    ] {
        if let Some(source) = source.as_deref().filter(|_| !taken(target)) {
            let mut bind = mount(target, "bind", source, &["rbind", "rprivate"]);
            if options.read_only {
                bind.options.insert(1, "ro".to_owned());
            }
            asked.push(bind);
        }
    }
    // Parents first; of equals the order in which they were asked for.
    asked.sort_by_key(|mount| mount.destination.matches('/').count());
    mounts.extend(asked);
    if let Some(path) = init {
        mounts.push(mount(INIT, "bind", path, &["bind", "ro"]));
    }
    let root_propagation = propagation::of_root(&input.mounts, input.mountinfo)?.to_owned();
    Ok(Plan { mounts, root_propagation })
}

/// Docker's mounts of every container.
fn standard(input: &Input<'_>) -> Vec<oci::Mount> {
    let options = input.options;
    let privileged = options.privileged;
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // A group that the user namespace does not map can't own anything.
    let maps_tty = |map: &oci::IdMapping| map.container_id <= 5 && 5 - map.container_id < map.size;
    if input.gid_mappings.is_empty() || input.gid_mappings.iter().any(maps_tty) {
        pts.push("gid=5");
    }
    mounts.push(mount("/dev/pts", "devpts", "devpts", &pts));
    let mut sys = vec!["nosuid", "noexec", "nodev"];
    if !privileged {
        sys.push("ro");
    }
    mounts.push(match input.sys {
        Some(path) => mount("/sys", "bind", path, &["rbind", "rprivate"]),
        None => mount("/sys", "sysfs", "sysfs", &sys),
    });
    let mut cgroup = vec!["nosuid", "noexec", "nodev"];
    let writable = input.security.writable_cgroups.unwrap_or(privileged)
        // A remount in a user namespace can't change what the mount above it locks.
        || is_private_user_namespace(input);
    if !writable {
        cgroup.insert(0, "ro");
    }
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup));
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    let size = format!("size={}", options.shm_size_bytes);
    let shm = &["nosuid", "noexec", "nodev", "mode=1777", &size];
    match (options.ipc_mode.as_str(), input.shm) {
        ("none", _) => {}
        ("host", _) => mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])),
        // It outlives the container's first process, so that others can join.
        (mode, Some(path)) if mode == "shareable" || container_of(mode).is_some() => {
            mounts.push(mount("/dev/shm", "bind", path, &["rbind", "rprivate"]));
        }
        _ => mounts.push(mount("/dev/shm", "tmpfs", "shm", shm)),
    }
    mounts
}

fn user_mount(input: &Input<'_>, resolved: &Resolved) -> Result<oci::Mount> {
    let Resolved { mount: asked, source } = resolved;
    let Some(kind) = kind(asked) else { refuse!("mount type unknown") };
    if kind == Type::Tmpfs {
        let options = tmpfs::options(asked)?;
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        return Ok(mount(&asked.target, "tmpfs", "tmpfs", &options));
    }
    let mut options = vec![if asked.non_recursive { "bind" } else { "rbind" }];
    if asked.read_only || kind == Type::Image {
        let recursive = input.defaults.host.recursive_read_only() && !asked.read_only_non_recursive;
        options.push(if recursive { "rro" } else { "ro" });
    }
    options.push(match asked.propagation.as_str() {
        "" => "rprivate",
        propagation => propagation,
    });
    let mut lowered = mount(&asked.target, "bind", source, &options);
    // The manager's own directories have the ids of no container in particular: they are shown
    // with those of this one. A path of the host is shown as it is, unless asked otherwise.
    if (kind != Type::Bind || asked.id_mapped) && is_private_user_namespace(input) {
        lowered.uid_mappings.clone_from(&input.uid_mappings);
        lowered.gid_mappings.clone_from(&input.gid_mappings);
    }
    Ok(lowered)
}
