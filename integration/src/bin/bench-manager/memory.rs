//! Memory of all processes of an engine: those whose command line names its directory. The
//! programs in containers are not among them.

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

/// In KiB.
pub(crate) fn total(directory: &Path, kind: Kind) -> u64 {
    let directory = directory.to_string_lossy();
    let field = match kind {
        Kind::Rss => "Rss:",
        Kind::Pss => "Pss:",
    };
    let mut sum = 0;
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        let command = String::from_utf8_lossy(&command);
        let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
        if own || !command.contains(&*directory) {
            continue;
        }
        let smaps = read("smaps_rollup");
        let smaps = String::from_utf8_lossy(&smaps);
        let line = smaps.lines().find_map(|line| line.strip_prefix(field));
        sum +=
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}
