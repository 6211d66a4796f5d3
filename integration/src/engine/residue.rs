//! What an engine left behind: processes, mounts, cgroups.

use std::fs;
use std::path::{Path, PathBuf};

/// A process that belongs to a site.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) shown: String,
}

/// The processes whose command line names the site's directory, or that are in its
/// cgroups.
pub(super) fn processes(directory: &Path, tag: &str) -> Vec<Process> {
    let directory = directory.to_string_lossy();
    let own = i32::try_from(std::process::id()).expect("process ids are positive");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default())
                .into_owned()
        };
        let command = read("cmdline").replace('\0', " ");
        if is_zombie(&read("stat")) {
            // Its parent is to blame, and is in the list when it is ours.
            continue;
        }
        if command.contains(&*directory) || read("cgroup").contains(tag) {
            found.push(Process { pid, shown: format!("{pid}: {command}{}", read("comm").trim()) });
        }
    }
    found
}

/// The processes in cgroups whose names have the tag, and those that name the directory and
/// whose parent is gone.
pub(crate) fn orphans(directory: &Path, tag: &str) -> Vec<i32> {
    let mut found = processes(directory, tag);
    found.retain(|process| {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", process.pid)).unwrap_or_default()
        };
        let stat = read("stat");
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        read("cgroup").contains(tag) || parent == Some("1")
    });
    found.into_iter().map(|process| process.pid).collect()
}

fn is_zombie(stat: &str) -> bool {
    // The name is in parentheses and may hold anything, parentheses too.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The mount points below a directory, the last mounted first.
pub(crate) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(directory) && point != directory)
        .collect();
    found.reverse();
    found
}

/// The cgroups below every cgroup called `tag`, itself included, children first.
pub(super) fn cgroups(tag: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        if after.starts_with("cgroup ") || after.starts_with("cgroup2 ") {
            collect(&Path::new(point).join(tag), &mut found);
        }
    }
    found
}

pub(crate) fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
    found.push(directory.to_owned());
}
