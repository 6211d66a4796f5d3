//! The report: identity, limits, descriptors, mounts, namespaces of this process.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Map, Value, json};

use crate::action::examine;

/// Everything about this process, and what is at each of `paths`.
pub(crate) fn report(paths: &[&str]) -> Value {
    // First, before anything here opens a file.
    let descriptors = descriptors();
    let status = status();
    let status = |name: &str| status.get(name).cloned();
    let numbers = |name: &str| status(name).map(|text| numbers(&text));
    json!({
        "fds": descriptors,
        "args": std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": environment(),
        "cwd": link("/proc/self/cwd"),
        "exe": link("/proc/self/exe"),
        "pid": std::process::id(),
        "ppid": numbers("PPid").and_then(|all| all.first().copied()),
        "uid": numbers("Uid"),
        "gid": numbers("Gid"),
        "groups": numbers("Groups"),
        "umask": status("Umask"),
        "capabilities": {
            "inheritable": status("CapInh"),
            "permitted": status("CapPrm"),
            "effective": status("CapEff"),
            "bounding": status("CapBnd"),
            "ambient": status("CapAmb"),
        },
        "noNewPrivs": status("NoNewPrivs"),
        "seccomp": status("Seccomp"),
        "seccompFilters": status("Seccomp_filters"),
        "cpus": status("Cpus_allowed_list"),
        "mems": status("Mems_allowed_list"),
        "signalsBlocked": status("SigBlk"),
        "signalsIgnored": status("SigIgn"),
        "rlimits": limits(),
        "mounts": mounts(),
        "namespaces": namespaces(),
        "hostname": text("/proc/sys/kernel/hostname"),
        "domainname": text("/proc/sys/kernel/domainname"),
        "oomScoreAdj": text("/proc/self/oom_score_adj").and_then(|text| text.parse::<i64>().ok()),
        "personality": text("/proc/self/personality"),
        "scheduler": scheduler(),
        "cgroups": lines("/proc/self/cgroup"),
        "uidMap": lines("/proc/self/uid_map"),
        "gidMap": lines("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "timeOffsets": lines("/proc/self/timens_offsets"),
        "keyring": text("/proc/self/attr/current"),
        "paths": paths.iter().map(|path| ((*path).to_owned(), examine(path))).collect::<Map<_, _>>(),
    })
}

fn text(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn lines(path: &str) -> Option<Vec<String>> {
    text(path).map(|text| {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    })
}

fn link(path: &str) -> Option<String> {
    fs::read_link(path).ok().map(|to| to.to_string_lossy().into_owned())
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn environment() -> Vec<String> {
    std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect()
}

fn status() -> BTreeMap<String, String> {
    text("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn descriptors() -> Option<Map<String, Value>> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    let numbers: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // The directory that was read above is closed by now and is left out.
    Some(
        numbers
            .into_iter()
            .filter_map(|number| {
                link(&format!("/proc/self/fd/{number}")).map(|to| (number, json!(to)))
            })
            .collect(),
    )
}

/// `/proc/self/limits`: name → [soft, hard], by the resource's own short name.
fn limits() -> Option<Map<String, Value>> {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "CPU"),
        ("Max file size", "FSIZE"),
        ("Max data size", "DATA"),
        ("Max stack size", "STACK"),
        ("Max core file size", "CORE"),
        ("Max resident set", "RSS"),
        ("Max processes", "NPROC"),
        ("Max open files", "NOFILE"),
        ("Max locked memory", "MEMLOCK"),
        ("Max address space", "AS"),
        ("Max file locks", "LOCKS"),
        ("Max pending signals", "SIGPENDING"),
        ("Max msgqueue size", "MSGQUEUE"),
        ("Max nice priority", "NICE"),
        ("Max realtime priority", "RTPRIO"),
        ("Max realtime timeout", "RTTIME"),
    ];
    let table = text("/proc/self/limits")?;
    let mut out = Map::new();
    for line in table.lines() {
        for (long, short) in NAMES {
            if let Some(rest) = line.strip_prefix(long) {
                let words: Vec<&str> = rest.split_whitespace().take(2).collect();
                out.insert(short.to_owned(), json!(words));
            }
        }
    }
    Some(out)
}

/// `/proc/self/mountinfo`, in order.
fn mounts() -> Option<Vec<Value>> {
    let table = text("/proc/self/mountinfo")?;
    Some(
        table
            .lines()
            .filter_map(|line| {
                let (before, after) = line.split_once(" - ")?;
                let before: Vec<&str> = before.split(' ').collect();
                let after: Vec<&str> = after.split(' ').collect();
                Some(json!({
                    "id": before.first()?,
                    "parent": before.get(1)?,
                    "root": before.get(3)?,
                    "at": before.get(4)?,
                    "options": before.get(5)?.split(',').collect::<Vec<_>>(),
                    "propagation": before.get(6..).unwrap_or_default(),
                    "type": after.first()?,
                    "source": after.get(1)?,
                    "superOptions": after.get(2).map(|all| all.split(',').collect::<Vec<_>>()),
                }))
            })
            .collect(),
    )
}

fn namespaces() -> Map<String, Value> {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .into_iter()
        .map(|name| (name.to_owned(), json!(link(&format!("/proc/self/ns/{name}")))))
        .collect()
}

/// Policy, real-time priority and nice value, fields 41, 40 and 19 of proc(5)'s `stat`.
fn scheduler() -> Option<Value> {
    let stat = text("/proc/self/stat")?;
    // The name in parentheses may hold spaces; field 3 follows the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|word| word.parse::<i64>().ok());
    Some(json!({ "policy": field(41), "priority": field(40), "nice": field(19) }))
}
