//! What the host is and can, for `info` and `version`: read where the kernel tells it.

use std::{ffi::OsStr, fs, path::Path, process::Stdio, time::Duration};

use hull_manager_containers as containers;
use hull_manager_spec::{
    Host,
    apparmor::{PROFILE, Support},
};

/// For a program that tells its version.
const LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn kernel() -> String {
    line("/proc/sys/kernel/osrelease")
}

pub(crate) fn name() -> String {
    line("/proc/sys/kernel/hostname")
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// os-release(5)'s PRETTY_NAME.
pub(crate) fn operating_system() -> String {
    os_release("PRETTY_NAME=").unwrap_or_else(|| "Linux".into())
}

pub(crate) fn os_version() -> String {
    os_release("VERSION_ID=").unwrap_or_default()
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    text.unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
}

/// The file system that a directory is on, by docker's names of them.
pub(crate) fn file_system(directory: &Path) -> String {
    let opened = fs::File::open(directory).ok();
    let magic = opened.and_then(|file| hull_runtime_sys::path::file_system(file).ok());
    let name = match magic.map(|found| found.magic) {
        Some(0xef53) => "extfs",
        Some(0x5846_5342) => "xfs",
        Some(0x9123_683e) => "btrfs",
        Some(0x0102_1994) => "tmpfs",
        Some(0x2fc1_2fc1) => "zfs",
        Some(0xf2f5_2010) => "f2fs",
        Some(0x794c_7630) => "overlayfs",
        Some(0x6969) => "nfs",
        _ => "<unknown>",
    };
    name.to_owned()
}

pub(crate) fn memory_bytes() -> u64 {
    field("/proc/meminfo", "MemTotal:").unwrap_or(0) * 1024
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a graph")]
pub(crate) fn resident_bytes() -> Option<f64> {
    field("/proc/self/status", "VmRSS:").map(|kilobytes| (kilobytes * 1024) as f64)
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// User and system time: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u32>().ok().map(f64::from);
    Some((ticks(fields.next())? + ticks(fields.next())?) / 100.0)
}

pub(crate) fn cgroup_version() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if Path::new("/sys/fs/cgroup/unified").exists() {
        "hybrid"
    } else {
        "v1"
    }
}

/// What containers can be given here. Looked at once, when the manager starts.
pub(crate) fn facts() -> Host {
    let v2 = cgroup_version() == "v2";
    let exists = |path: &str| Path::new(path).exists();
    Host {
        cgroup_v2: v2,
        capabilities: bounding_set(),
        kernel: version(&kernel()),
        architecture: hull_specs_image::Platform::host().architecture,
        cpus: u32::try_from(std::thread::available_parallelism().map_or(1, usize::from))
            .unwrap_or(1),
        cpuset_cpus: line("/sys/devices/system/cpu/online"),
        cpuset_mems: line("/sys/devices/system/node/online"),
        seccomp: exists("/proc/sys/kernel/seccomp/actions_avail"),
        cpu_realtime: exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"),
        memory_v1: exists("/sys/fs/cgroup/memory/memory.swappiness"),
        apparmor: apparmor(),
        selinux: exists("/sys/fs/selinux/enforce"),
        thermal_throttle: thermal_throttle(),
        network_sysctls: ["net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"]
            .into_iter()
            .filter(|name| exists(&format!("/proc/sys/{}", name.replace('.', "/"))))
            .map(Into::into)
            .collect(),
    }
}

/// The profile for containers, which is loaded now. Where that fails a container that needs it
/// is refused, and says why.
fn apparmor() -> Option<String> {
    match containers::apparmor::support() {
        Support::None => None,
        Support::NoParser => {
            tracing::warn!(
                "AppArmor is enabled, but apparmor_parser is not installed: containers are not confined by it"
            );
            None
        }
        Support::Full => {
            if let Err(error) = containers::apparmor::load() {
                tracing::error!("{error:#}");
            }
            Some(PROFILE.to_owned())
        }
    }
}

fn bounding_set() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = text.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// `6.18.3-amd64` is (6, 18).
fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn thermal_throttle() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let mut paths: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    paths.sort();
    paths
}

/// In docker's form: what containers get.
pub(crate) fn security_options() -> Vec<String> {
    let mut options = Vec::new();
    if containers::apparmor::support() == Support::Full {
        options.push("name=apparmor".into());
    }
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        options.push("name=seccomp,profile=builtin".into());
    }
    if cgroup_version() == "v2" {
        options.push("name=cgroupns".into());
    }
    options
}

/// What a container may ask for and this host can't do.
pub(crate) fn warnings() -> Vec<String> {
    let controllers = match cgroup_version() {
        "v2" => fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default(),
        _ => fs::read_dir("/sys/fs/cgroup")
            .map(|entries| {
                entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().replace(',', " "))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .unwrap_or_default(),
    };
    let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
    let mut warnings: Vec<String> =
        [("memory", "memory"), ("cpu", "cpu"), ("cpuset", "cpuset"), ("pids", "pids")]
            .into_iter()
            .filter(|(controller, _)| !has(controller))
            .map(|(_, what)| format!("no {what} limit: the kernel has no such cgroup controller"))
            .collect();
    if cgroup_version() != "v2"
        && !Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    {
        warnings.push("no swap limit: the kernel does not account for swap".into());
    }
    warnings
}

/// Shims have a line `Version: 1`, runtimes begin with `NAME version 1`.
fn version_in(text: &str) -> &str {
    let of_shim = text.lines().find_map(|line| line.trim().strip_prefix("Version:"));
    of_shim.or_else(|| text.lines().next()).unwrap_or_default().trim()
}

/// The line about its version that a program says of itself; empty if it can't be run.
pub(crate) async fn version_of(program: &Path, args: &[&str]) -> String {
    let output = tokio::process::Command::new(program)
        .args(args.iter().map(OsStr::new))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(LIMIT, output).await {
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            version_in(&text).chars().take(200).collect()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_known() {
        assert_eq!(
            (version("6.18.3-amd64"), version("5.4"), version("")),
            ((6, 18), (5, 4), (0, 0))
        );
        assert!(bounding_set() != 0);
        assert!(!kernel().is_empty() && !name().is_empty() && !operating_system().is_empty());
        assert_eq!(file_system(Path::new("/dev/shm")), "tmpfs");
        assert_eq!(file_system(Path::new("/proc")), "<unknown>");
        assert!(memory_bytes() > 64 << 20);
        assert!(resident_bytes().unwrap() > 0.0 && cpu_seconds().unwrap() >= 0.0);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_says_nothing() {
        assert_eq!(version_of(Path::new("/nonexistent"), &[]).await, "");
        assert_eq!(version_of(Path::new("/bin/echo"), &["a"]).await, "a");
        assert_eq!(version_in("shim:\n  Version:  0.1.0\n  Revision: 1\n"), "0.1.0");
        assert_eq!(version_in("runc version 1.1.5\ncommit: x\n"), "runc version 1.1.5");
    }
}
