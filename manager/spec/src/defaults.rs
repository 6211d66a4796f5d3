//! What does not depend on the request: the machine, and the manager's configuration.

use std::collections::BTreeSet;

use hull_specs_api::v1;

/// What the machine can do. The manager looks once, when it starts.
#[derive(Clone, Debug)]
pub struct Host {
    /// Only cgroup v2 is there.
    pub cgroup_v2: bool,
    /// The manager's own bounding set, bit n for capability n: more can't be given.
    pub capabilities: u64,
    /// Version and major revision: 6.18 is (6, 18).
    pub kernel: (u32, u32),
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Processors that are online.
    pub cpus: u32,
    /// `/sys/devices/system/cpu/online`: `0-3`. Empty: not checked.
    pub cpuset_cpus: String,
    /// `/sys/devices/system/node/online`. Empty: not checked.
    pub cpuset_mems: String,
    /// The kernel filters system calls.
    pub seccomp: bool,
    /// The kernel schedules groups in real time (`cpu.rt_runtime_us`).
    pub cpu_realtime: bool,
    /// The kernel lets a cgroup's swappiness and its OOM killer be set: cgroup v1.
    pub memory_v1: bool,
    /// The profile for containers, where AppArmor is in force.
    pub apparmor: Option<String>,
    /// SELinux is in force.
    pub selinux: bool,
    /// `/sys/devices/system/cpu/cpu*/thermal_throttle`, those that are there: they are masked (R7).
    pub thermal_throttle: Vec<String>,
    /// Sysctls that are there, of `net.ipv4.ping_group_range` and
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub network_sysctls: BTreeSet<String>,
}

impl Host {
    /// Whether read-only binds can be recursive: mount_setattr(2) is of Linux 5.12.
    #[must_use]
    pub fn recursive_read_only(&self) -> bool {
        self.kernel >= (5, 12)
    }
}

/// What containers get unless they ask otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The machine.
    pub host: Host,
    /// The runtime's name.
    pub runtime: String,
    /// All runtimes' names.
    pub runtimes: BTreeSet<String>,
    /// Driver and options.
    pub log: v1::LogOptions,
    /// Those that a container does not set itself.
    pub ulimits: Vec<v1::Ulimit>,
    /// An init of ours is process 1.
    pub init: bool,
    /// Containers can't gain privileges.
    pub no_new_privileges: bool,
    /// Of /dev/shm.
    pub shm_size_bytes: u64,
    /// systemd makes the cgroups.
    pub systemd_cgroups: bool,
    /// Where containers' cgroups are; empty: `/hull`, or `system.slice` with systemd.
    pub cgroup_parent: String,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// `private`, `host`; empty: private on cgroup v2, else host.
    pub cgroupns_mode: String,
}

impl Defaults {
    /// Docker's, on this machine, with one runtime.
    #[must_use]
    pub fn new(host: Host, runtime: &str) -> Self {
        Self {
            host,
            runtime: runtime.to_owned(),
            runtimes: [runtime.to_owned()].into(),
            log: v1::LogOptions { driver: "json-file".to_owned(), ..Default::default() },
            ulimits: Vec::new(),
            init: false,
            no_new_privileges: false,
            shm_size_bytes: 64 << 20,
            systemd_cgroups: false,
            cgroup_parent: String::new(),
            ipc_mode: "private".to_owned(),
            cgroupns_mode: String::new(),
        }
    }
}

#[cfg(test)]
pub(crate) fn example() -> Defaults {
    let host = Host {
        cgroup_v2: true,
        capabilities: (1 << 41) - 1,
        kernel: (6, 18),
        architecture: "amd64".to_owned(),
        cpus: 4,
        cpuset_cpus: "0-3".to_owned(),
        cpuset_mems: "0".to_owned(),
        seccomp: true,
        cpu_realtime: false,
        memory_v1: false,
        apparmor: None,
        selinux: false,
        thermal_throttle: Vec::new(),
        network_sysctls: BTreeSet::from([
            "net.ipv4.ping_group_range".to_owned(),
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
        ]),
    };
    Defaults::new(host, "hull")
}
