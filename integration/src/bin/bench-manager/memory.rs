//! Memory of processes.

use std::fs;
use std::path::Path;

/// Which figure of smaps_rollup.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Resident, shared pages in full.
    Rss,
    /// Resident, shared pages in parts.
    Pss,
}

/// Of all processes of an engine: those whose command line names its directory. The programs in
/// containers are not among them. In KiB.
pub(crate) fn total(directory: &Path, kind: Kind) -> u64 {
    let directory = directory.to_string_lossy();
    let mut sum = 0;
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid != std::process::id() && String::from_utf8_lossy(&command).contains(&*directory) {
            sum += figure(pid, kind);
        }
    }
    sum
}

/// Of one process, in KiB; 0 once it is gone.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    figure(pid, Kind::Pss)
}

fn figure(pid: u32, kind: Kind) -> u64 {
    let field = match kind {
        Kind::Rss => "Rss:",
        Kind::Pss => "Pss:",
    };
    let smaps = fs::read(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let smaps = String::from_utf8_lossy(&smaps);
    let line = smaps.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
