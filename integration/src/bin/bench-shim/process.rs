//! What the kernel says of processes.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// The processes whose command line names a place.
pub(crate) fn naming(place: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries
        .filter_map(|entry| {
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let names = String::from_utf8_lossy(&command).contains(place);
            entry.file_name().to_str()?.parse().ok().filter(|_| names)
        })
        .collect()
}

/// CPU time in seconds of a process with all its threads, in user and kernel mode.
pub(crate) fn cpu_s(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold anything. Fields 14 and 15.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("Linux has ticks");
    ticks / per_second as f64
}

/// A line of `smaps_rollup` in KiB.
pub(crate) fn memory_kib(pid: i32, name: &str) -> f64 {
    number(&format!("/proc/{pid}/smaps_rollup"), name)
}

/// How many descriptors a process has.
pub(crate) fn descriptors(pid: i32) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count() as f64
}

/// How often the threads of a process have gone to sleep, or were made to wait.
pub(crate) fn switches(pid: i32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    threads
        .map(|thread| {
            let status = thread.path().join("status");
            let status = status.to_str().expect("the path is text");
            number(status, "voluntary_ctxt_switches") + number(status, "nonvoluntary_ctxt_switches")
        })
        .sum()
}

fn number(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{file} has no {name}"))
}
