//! What a container sees of itself, on either version of cgroups.

/// A line of shell that prints a limit of the container's own cgroup.
pub(crate) fn limit(name: &str) -> String {
    let (v1, v2) = match name {
        "memory" => ("memory/memory.limit_in_bytes", "memory.max"),
        "pids" => ("pids/pids.max", "pids.max"),
        "cpus" => ("cpuset/cpuset.cpus", "cpuset.cpus"),
        "quota" => ("cpu/cpu.cfs_quota_us", "cpu.max"),
        "shares" => ("cpu/cpu.shares", "cpu.weight"),
        _ => panic!("no limit is called {name}"),
    };
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/{v2}")
}

/// Whether cgroups are only of version 2 here.
pub(crate) fn unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// One field of a container's `/proc/self/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// A line of shell that prints the name of the container's first process. Its program
/// is a shell, but start may be over before that has taken the runtime's place.
pub(crate) const INIT: &str =
    "until grep -qx sh /proc/1/comm; do sleep 0.05; done; cat /proc/1/comm";
