//! `features`: what this runtime can do (features.md). Every list is taken from the code
//! that honours it. It is about the program, "irrespective of the availability on the host"
//! (features-linux.md), as runc has it: SELinux, the user's systemd and resctrl are true
//! because the code is there; README says what has been tried where.

use std::collections::BTreeMap;

use hull_specs_oci::{
    self as oci,
    features::{
        Cgroup, Enabled, Features, IntelRdt, Linux, MemoryPolicy, MountExtensions, Seccomp,
    },
};

use crate::{process, rootfs, seccomp};

/// Describes the runtime. Says what it has been built to do, not what this host allows.
pub(crate) fn features() -> Features {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let yes = || Some(Enabled { enabled: Some(true) });
    Features {
        oci_version_min: "1.0.0".to_owned(),
        oci_version_max: oci::VERSION.to_owned(),
        hooks: strings(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]),
        mount_options: rootfs::known_options().map(str::to_owned).collect(),
        linux: Some(Linux {
            namespaces: oci::NamespaceKind::ALL.iter().map(|k| k.as_str().to_owned()).collect(),
            capabilities: process::known_capabilities(),
            cgroup: Some(Cgroup {
                v1: Some(true),
                v2: Some(true),
                systemd: Some(true),
                systemd_user: Some(true),
                rdma: Some(true),
            }),
            seccomp: Some(Seccomp {
                enabled: Some(true),
                actions: strings(&seccomp::known_actions()),
                operators: strings(&seccomp::known_operators()),
                archs: strings(&seccomp::known_architectures()),
                known_flags: strings(&seccomp::known_flags()),
                supported_flags: strings(&seccomp::supported_flags()),
            }),
            apparmor: yes(),
            selinux: yes(),
            intel_rdt: Some(IntelRdt {
                enabled: Some(true),
                schemata: Some(true),
                monitoring: Some(true),
            }),
            memory_policy: Some(MemoryPolicy {
                modes: strings(&process::MEMORY_MODES.map(|(name, _)| name)),
                flags: strings(&process::MEMORY_FLAGS.map(|(name, _)| name)),
            }),
            mount_extensions: Some(MountExtensions { idmap: yes() }),
            net_devices: yes(),
        }),
        annotations: BTreeMap::new(),
        potentially_unsafe_config_annotations: strings(&[
            "org.systemd.property.",
            "org.criu.config",
        ]),
    }
}
