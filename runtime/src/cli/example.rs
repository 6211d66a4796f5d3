//! `spec`: a config.json to start from, with runc's content and more masks.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

use super::output;

/// Writes config.json, which must not be there yet.
pub(super) fn write(bundle: &Path, rootless: bool) -> Result<()> {
    // Only a cgroup v2 mount has this file at its root; with cgroup v1 a namespace would
    // hide little and the example leaves it out.
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut spec = spec(unified);
    if rootless {
        make_rootless(&mut spec, sys::process::effective_uid(), sys::process::effective_gid());
    }
    let path = bundle.join("config.json");
    let document = output::pretty(&spec, b"\t")?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow!("file {} exists, remove it first", path.display()),
        _ => anyhow!(error).context(format!("create {}", path.display())),
    })?;
    file.write_all(&document).with_context(|| format!("write {}", path.display()))
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: strings(options),
        ..oci::Mount::default()
    }
}

fn namespace(kind: oci::NamespaceKind) -> oci::Namespace {
    oci::Namespace { kind, path: String::new() }
}

fn spec(cgroup_namespace: bool) -> oci::Spec {
    use oci::NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let capabilities = strings(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces: Vec<_> = [Pid, Network, Ipc, Uts, Mount].map(namespace).into();
    namespaces.extend(cgroup_namespace.then(|| namespace(Cgroup)));
    oci::Spec {
        oci_version: oci::VERSION.to_owned(),
        process: Some(oci::Process {
            terminal: true,
            args: strings(&["sh"]),
            env: strings(&[
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ]),
            cwd: "/".to_owned(),
            capabilities: Some(oci::Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..oci::Capabilities::default()
            }),
            rlimits: vec![oci::Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
            no_new_privileges: true,
            ..oci::Process::default()
        }),
        root: Some(oci::Root { path: "rootfs".to_owned(), readonly: true }),
        hostname: "hull".to_owned(),
        mounts: mounts(),
        linux: Some(oci::Linux {
            resources: Some(oci::Resources {
                devices: vec![oci::DeviceRule {
                    access: "rwm".to_owned(),
                    ..oci::DeviceRule::default()
                }],
                ..oci::Resources::default()
            }),
            namespaces,
            masked_paths: masked_paths(Path::new("/sys/devices/system/cpu")),
            readonly_paths: strings(&[
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]),
            ..oci::Linux::default()
        }),
        ..oci::Spec::default()
    }
}

/// What tells a container of the host, its processors' power and heat among it. Each
/// processor has counters of its own, where it has any.
fn masked_paths(processors: &Path) -> Vec<String> {
    let mut paths = strings(&[
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    let entries = fs::read_dir(processors).into_iter().flatten().flatten();
    let throttles = entries.map(|entry| entry.path().join("thermal_throttle"));
    let throttles = throttles.filter(|path| path.is_dir());
    let mut throttles: Vec<_> = throttles.map(|path| path.display().to_string()).collect();
    throttles.sort_unstable();
    paths.extend(throttles);
    paths
}

fn mounts() -> Vec<oci::Mount> {
    const QUIET: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let quiet = |more: &[&'static str]| [&QUIET[..], more].concat();
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &quiet(&["mode=1777", "size=65536k"])),
        mount("/dev/mqueue", "mqueue", "mqueue", &QUIET),
        mount("/sys", "sysfs", "sysfs", &quiet(&["ro"])),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &quiet(&["relatime", "ro"])),
    ]
}

/// Takes out what an unprivileged user may not do, and maps root to that user.
fn make_rootless(spec: &mut oci::Spec, uid: u32, gid: u32) {
    if let Some(linux) = &mut spec.linux {
        linux.namespaces.retain(|namespace| namespace.kind != oci::NamespaceKind::Network);
        linux.namespaces.push(namespace(oci::NamespaceKind::User));
        let to = |host_id| vec![oci::IdMapping { container_id: 0, host_id, size: 1 }];
        linux.uid_mappings = to(uid);
        linux.gid_mappings = to(gid);
        linux.resources = None;
    }
    for mount in &mut spec.mounts {
        if mount.destination == "/sys" {
            // A sysfs can only be mounted by the owner of the network namespace.
            *mount =
                self::mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once() {
        let bundle = tempfile::tempdir().unwrap();
        write(bundle.path(), false).unwrap();
        let first = fs::read(bundle.path().join("config.json")).unwrap();
        let spec: oci::Spec = serde_json::from_slice(&first).unwrap();
        assert_eq!(spec.process.unwrap().args, ["sh"]);
        let error = write(bundle.path(), true).unwrap_err().to_string();
        assert!(error.ends_with("config.json exists, remove it first"), "{error}");
        assert_eq!(fs::read(bundle.path().join("config.json")).unwrap(), first);
        assert!(write(&bundle.path().join("missing"), false).is_err());
    }

    #[test]
    fn each_processor_that_tells_of_its_heat_is_masked() {
        let cpu = tempfile::tempdir().unwrap();
        for name in ["cpu1/thermal_throttle", "cpu0/thermal_throttle", "cpu2", "cpuidle"] {
            fs::create_dir_all(cpu.path().join(name)).unwrap();
        }
        let paths = masked_paths(cpu.path());
        let at = |name: &str| cpu.path().join(name).display().to_string();
        assert_eq!(
            paths[paths.len() - 3..],
            [
                "/sys/devices/virtual/powercap".to_owned(),
                at("cpu0/thermal_throttle"),
                at("cpu1/thermal_throttle"),
            ]
        );
        assert_eq!(masked_paths(Path::new("/nowhere")).len(), paths.len() - 2);
    }

    #[test]
    fn a_cgroup_namespace_belongs_to_cgroup_v2() {
        let kinds = |unified| -> Vec<_> {
            let linux = spec(unified).linux.unwrap();
            linux.namespaces.iter().map(|namespace| namespace.kind.as_str()).collect()
        };
        assert_eq!(kinds(false), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(kinds(true), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn the_rootless_form_needs_no_privileges() {
        let mut spec = spec(false);
        make_rootless(&mut spec, 1000, 100);
        let linux = spec.linux.unwrap();
        let kinds: Vec<_> = linux.namespaces.iter().map(|n| n.kind.as_str()).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "user"]);
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (1000, 100));
        assert_eq!(linux.resources, None);
        let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
        assert_eq!((sys.kind.as_str(), sys.source.as_str()), ("none", "/sys"));
        assert!(spec.mounts.iter().flat_map(|m| &m.options).all(|o| !o.starts_with("gid=")));
    }
}
