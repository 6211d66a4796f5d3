//! Reading v1's counters.

use std::path::Path;

use anyhow::{Context, Result};
use hull_runtime_sys as sys;

use crate::cgroup::{
    file,
    location::Location,
    stats::{BlkioEntry, CpuSet, CpuUsage, HugeTlb, Memory, MemoryEntry, Pids, Stats, page_sizes},
};

const NS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Reads all controllers that the container has.
pub(in crate::cgroup) fn read(location: &Location) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = location.dir("cpu") {
        throttling(dir, &mut stats)?;
    }
    if let Some(dir) = location.dir("cpuacct") {
        stats.cpu.usage = cpu_usage(dir)?;
    }
    if let Some(dir) = location.dir("cpuset") {
        stats.cpuset = cpuset(dir)?;
    }
    if let Some(dir) = location.dir("memory") {
        stats.memory = memory(dir)?;
    }
    if let Some(dir) = location.dir("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = location.dir("blkio") {
        blkio(dir, &mut stats)?;
    }
    if let Some(place) = location.hierarchies.iter().find(|place| place.holds("hugetlb")) {
        for size in page_sizes() {
            if let Some(entry) = hugetlb(&place.dir, &size)? {
                stats.hugetlb.insert(size, entry);
            }
        }
    }
    Ok(stats)
}

/// `None` for a file that this kernel doesn't have.
fn optional(dir: &Path, name: &str) -> Result<Option<String>> {
    match file::read(dir, name) {
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        text => Ok(Some(text?)),
    }
}

fn optional_number(dir: &Path, name: &str) -> Result<Option<u64>> {
    match file::read_number(dir, name) {
        Err(error)
            if error.downcast_ref::<sys::Error>().is_some_and(|e| e.errno() == libc::ENOENT) =>
        {
            Ok(None)
        }
        value => value.map(Some),
    }
}

fn throttling(dir: &Path, stats: &mut Stats) -> Result<()> {
    if let Some(text) = optional(dir, "cpu.stat")? {
        let value = |key| file::value_of(&text, key).unwrap_or(0);
        stats.cpu.throttling.periods = value("nr_periods");
        stats.cpu.throttling.throttled_periods = value("nr_throttled");
        stats.cpu.throttling.throttled_time = value("throttled_time");
    }
    Ok(())
}

fn cpu_usage(dir: &Path) -> Result<CpuUsage> {
    let ticks = file::read(dir, "cpuacct.stat")?;
    let of = |key| {
        file::value_of(&ticks, key)
            .map(|ticks| ticks.saturating_mul(NS_PER_TICK))
            .with_context(|| format!("{}/cpuacct.stat has no {key:?}", dir.display()))
    };
    let per_cpu = file::read(dir, "cpuacct.usage_percpu")?;
    let (percpu_kernel, percpu_user) =
        optional(dir, "cpuacct.usage_all")?.map(|text| per_mode(&text)).unwrap_or_default();
    Ok(CpuUsage {
        total: file::read_number(dir, "cpuacct.usage")?,
        percpu: per_cpu.split_whitespace().filter_map(|v| v.parse().ok()).collect(),
        percpu_kernel,
        percpu_user,
        kernel: of("system")?,
        user: of("user")?,
    })
}

/// Lines of "cpu user system" below a header.
fn per_mode(text: &str) -> (Vec<u64>, Vec<u64>) {
    let lines = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split(' ').skip(1).map(|v| v.parse::<u64>().ok());
        let (user, kernel) = (fields.next()??, fields.next()??);
        Some((kernel, user))
    });
    lines.unzip()
}

fn cpuset(dir: &Path) -> Result<CpuSet> {
    let number = |name| Ok::<_, anyhow::Error>(optional_number(dir, name)?.unwrap_or(0));
    let list = |name| {
        let text = optional(dir, name)?.unwrap_or_default();
        parse_list(text.trim())
            .with_context(|| format!("{}/{name} holds {text:?}, not a list", dir.display()))
    };
    let level = optional(dir, "cpuset.sched_relax_domain_level")?.unwrap_or_default();
    Ok(CpuSet {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: number("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: number("cpuset.mem_hardwall")?,
        mem_exclusive: number("cpuset.mem_exclusive")?,
        memory_migrate: number("cpuset.memory_migrate")?,
        memory_spread_page: number("cpuset.memory_spread_page")?,
        memory_spread_slab: number("cpuset.memory_spread_slab")?,
        memory_pressure: number("cpuset.memory_pressure")?,
        sched_load_balance: number("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    })
}

/// "0-2,5" as its numbers.
fn parse_list(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        if from > to {
            return None;
        }
        numbers.extend(from..=to);
    }
    Some(numbers)
}

fn memory(dir: &Path) -> Result<Memory> {
    let text = file::read(dir, "memory.stat")?;
    let raw: std::collections::BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), file::parse_number(value)?))
        })
        .collect();
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry(dir, "memory")?.unwrap_or_default(),
        swap: entry(dir, "memory.memsw")?.unwrap_or_default(),
        kernel: entry(dir, "memory.kmem")?.unwrap_or_default(),
        kernel_tcp: entry(dir, "memory.kmem.tcp")?.unwrap_or_default(),
        raw,
        psi: None,
    })
}

/// Swap and kernel memory are counted on some kernels only.
fn entry(dir: &Path, prefix: &str) -> Result<Option<MemoryEntry>> {
    let number = |suffix: &str| optional_number(dir, &format!("{prefix}.{suffix}"));
    let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
    Ok(Some(MemoryEntry {
        limit: number("limit_in_bytes")?.unwrap_or(0),
        usage,
        max: number("max_usage_in_bytes")?.unwrap_or(0),
        failcnt: number("failcnt")?.unwrap_or(0),
    }))
}

fn pids(dir: &Path) -> Result<Pids> {
    let limit = file::read_number(dir, "pids.max")?;
    Ok(Pids {
        current: file::read_number(dir, "pids.current")?,
        limit: if limit == u64::MAX { 0 } else { limit },
    })
}

/// The first of these groups of files that has anything is taken: BFQ with and without
/// debugging, CFQ, and the throttling counters that are always there.
fn blkio(dir: &Path, stats: &mut Stats) -> Result<()> {
    const DETAILED: [&str; 8] = [
        "sectors",
        "io_service_time",
        "io_wait_time",
        "io_merged",
        "io_queued",
        "time",
        "io_serviced",
        "io_service_bytes",
    ];
    for (prefix, names, suffix) in [
        ("blkio.bfq.", &DETAILED[..], "_recursive"),
        ("blkio.bfq.", &DETAILED[6..], "_recursive"),
        ("blkio.", &DETAILED[..], "_recursive"),
        ("blkio.throttle.", &DETAILED[6..], "_recursive"),
        ("blkio.throttle.", &DETAILED[6..], ""),
    ] {
        for (index, name) in names.iter().enumerate() {
            let text = optional(dir, &format!("{prefix}{name}{suffix}"))?;
            let entries = text.as_deref().map(blkio_entries).unwrap_or_default();
            if entries.is_empty() {
                if index == 0 {
                    break;
                }
                return Ok(());
            }
            let blkio = &mut stats.blkio;
            *match *name {
                "sectors" => &mut blkio.sectors_recursive,
                "io_service_time" => &mut blkio.io_service_time_recursive,
                "io_wait_time" => &mut blkio.io_wait_time_recursive,
                "io_merged" => &mut blkio.io_merged_recursive,
                "io_queued" => &mut blkio.io_queued_recursive,
                "time" => &mut blkio.io_time_recursive,
                "io_serviced" => &mut blkio.io_serviced_recursive,
                _ => &mut blkio.io_service_bytes_recursive,
            } = entries;
            if index + 1 == names.len() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Lines of "8:0 Read 5" or "8:0 5"; the line of the total is left out.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let fields: Vec<_> = line.split([' ', ':']).collect();
        let (op, value) = match fields.as_slice() {
            [_, _, value] => ("", value),
            [_, _, op, value] => (*op, value),
            _ => return None,
        };
        Some(BlkioEntry {
            major: fields[0].parse().ok()?,
            minor: fields[1].parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(dir: &Path, size: &str) -> Result<Option<HugeTlb>> {
    // Reservations say more than use, where the kernel (5.7) counts them.
    for part in [".rsvd", ""] {
        let number = |name: &str| optional_number(dir, &format!("hugetlb.{size}{part}.{name}"));
        if let Some(usage) = number("usage_in_bytes")? {
            return Ok(Some(HugeTlb {
                usage,
                max: number("max_usage_in_bytes")?.unwrap_or(0),
                failcnt: number("failcnt")?.unwrap_or(0),
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_and_lines() {
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(parse_list("x"), None);
        let text = "8:0 Read 10\n8:0 Write 20\n8:16 5\nTotal 30\n";
        let entries = blkio_entries(text);
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[1].op.as_str(), entries[1].value), ("Write", 20));
        assert_eq!((entries[2].minor, entries[2].op.as_str()), (16, ""));
        assert_eq!(per_mode("cpu user system\n0 5 6\n1 7 8\n"), (vec![6, 8], vec![5, 7]));
    }

    #[test]
    fn memory_without_swap_accounting() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("memory.stat", "cache 4096\nrss -1\nhierarchical_memory_limit 9223372036854771712\n"),
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.max_usage_in_bytes", "16384\n"),
            ("memory.limit_in_bytes", "1048576\n"),
            ("memory.failcnt", "3\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("writes");
        }
        let memory = memory(dir.path()).expect("reads");
        assert_eq!(memory.cache, 4096);
        assert_eq!(memory.raw["rss"], 0, "a negative counter is 0");
        assert_eq!(
            memory.usage,
            MemoryEntry { limit: 1_048_576, usage: 8192, max: 16384, failcnt: 3 }
        );
        assert_eq!(memory.swap, MemoryEntry::default());
    }

    #[test]
    fn the_throttle_counters_serve_when_no_scheduler_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("blkio.bfq.io_serviced_recursive", ""),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\nTotal 1\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\nTotal 512\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("writes");
        }
        let mut stats = Stats::default();
        blkio(dir.path(), &mut stats).expect("reads");
        assert_eq!(stats.blkio.io_serviced_recursive[0].value, 1);
        assert_eq!(stats.blkio.io_service_bytes_recursive[0].value, 512);
    }
}
