//! What a container sees of itself, on either version of cgroups and from any engine.

use hull_integration::Output;
use hull_integration::engine::Terminal;

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

/// The capability sets of a container's `/proc/self/status`: inheritable, permitted,
/// effective, bounding, ambient.
pub(crate) fn capability_sets(status: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| {
        u64::from_str_radix(field(status, name), 16).expect("capabilities are a number")
    })
}

/// A person at a shell, whose window changes.
pub(crate) fn converse(mut terminal: Terminal) {
    terminal.read_until("/ #");
    terminal.write("tty; [ -t 2 ] && echo all three\n");
    terminal.read_until("/dev/pts/0");
    terminal.read_until("all three\r\n");
    // The engine sets the size after the start, at some moment.
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    terminal.write("until stty size | grep -q '50 101'; do sleep 0.05; done; echo resized\n");
    terminal.resize_until(50, "\r\nresized");
    let job = "trap 'exit 9' INT; echo waiting; while :; do sleep 0.1; done";
    terminal.write(&format!("sh -c \"{job}\"\n"));
    terminal.read_until("\r\nwaiting");
    terminal.write("\x03");
    terminal.read_until("/ #");
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

/// The limits that an engine gives to a process. `shell` runs a line in a new container.
pub(crate) fn process_limits_hold(shell: impl Fn(&[&str], &str) -> Output) {
    let limits = ["--ulimit", "nofile=77:88", "--ulimit", "nproc=66:99"];
    let script = "ulimit -n; ulimit -Hn; ulimit -u; ulimit -Hu";
    shell(&limits, script).ok().says("77\n88\n66\n99");
    shell(&["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj").ok().says("321");
}

/// The standard devices, and one that was asked for.
pub(crate) fn devices_are_there(shell: impl Fn(&[&str], &str) -> Output) {
    let extra = ["--device", "/dev/null:/dev/nothing:rw"];
    shell(&extra, "echo > /dev/nothing; ls -l /dev/nothing | cut -c1").ok().says("c");
    let standard = "for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo no $name; done";
    shell(&[], standard).ok().says("");
}
