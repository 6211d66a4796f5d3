//! Reading v2's counters, in v1's terms where `events` has only those.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

use crate::cgroup::{
    file,
    stats::{BlkioEntry, HugeTlb, MemoryEntry, Pids, Psi, PsiData, Stats, page_sizes},
};

/// Reads what the cgroup counts; a controller that isn't enabled counts nothing.
pub(in crate::cgroup) fn read(dir: &Path) -> Result<Stats> {
    let mut stats = Stats { pids: pids(dir)?, ..Stats::default() };
    memory(dir, &mut stats)?;
    io(dir, &mut stats)?;
    if let Some(text) = optional(dir, "cpu.stat")? {
        cpu(&text, &mut stats);
    }
    stats.cpu.psi = psi(dir, "cpu.pressure")?;
    stats.memory.psi = psi(dir, "memory.pressure")?;
    stats.blkio.psi = psi(dir, "io.pressure")?;
    stats.hugetlb = hugetlb(dir)?;
    Ok(stats)
}

fn optional(dir: &Path, name: &str) -> Result<Option<String>> {
    match file::read(dir, name) {
        // Pressure of a kernel that has it switched off answers EOPNOTSUPP.
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::EOPNOTSUPP) => Ok(None),
        text => Ok(Some(text?)),
    }
}

fn number(dir: &Path, name: &str) -> Result<Option<u64>> {
    let Some(text) = optional(dir, name)? else { return Ok(None) };
    file::parse_number(text.trim())
        .map(Some)
        .with_context(|| format!("{} holds {text:?}, not a number", dir.join(name).display()))
}

fn pids(dir: &Path) -> Result<Pids> {
    let Some(current) = number(dir, "pids.current")? else {
        // Without the controller the processes can still be counted.
        let text = match optional(dir, "cgroup.procs")? {
            Some(text) => text,
            None => file::read(dir, "cgroup.threads")?,
        };
        return Ok(Pids { current: text.lines().count() as u64, limit: 0 });
    };
    let limit = number(dir, "pids.max")?.unwrap_or(u64::MAX);
    Ok(Pids { current, limit: if limit == u64::MAX { 0 } else { limit } })
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let Some(text) = optional(dir, "memory.stat")? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.raw = text
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), file::parse_number(value)?))
        })
        .collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    let swap = entry(dir, "memory.swap")?;
    // v1 counts memory and swap together; peaks can't be added.
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    if swap.limit == u64::MAX {
        memory.swap.limit = u64::MAX;
    }
    Ok(())
}

fn entry(dir: &Path, prefix: &str) -> Result<MemoryEntry> {
    let number = |suffix: &str| number(dir, &format!("{prefix}.{suffix}"));
    let Some(usage) = number("current")? else { return Ok(MemoryEntry::default()) };
    Ok(MemoryEntry {
        limit: number("max")?.unwrap_or(0),
        usage,
        // memory.peak since 5.19, memory.swap.peak since 6.5.
        max: number("peak")?.unwrap_or(0),
        failcnt: 0,
    })
}

fn cpu(text: &str, stats: &mut Stats) {
    const NS_PER_US: u64 = 1000;
    let value = |key| file::value_of(text, key).unwrap_or(0);
    let cpu = &mut stats.cpu;
    cpu.usage.total = value("usage_usec").saturating_mul(NS_PER_US);
    cpu.usage.user = value("user_usec").saturating_mul(NS_PER_US);
    cpu.usage.kernel = value("system_usec").saturating_mul(NS_PER_US);
    cpu.throttling.periods = value("nr_periods");
    cpu.throttling.throttled_periods = value("nr_throttled");
    cpu.throttling.throttled_time = value("throttled_usec").saturating_mul(NS_PER_US);
}

fn io(dir: &Path, stats: &mut Stats) -> Result<()> {
    let Some(text) = optional(dir, "io.stat")? else { return Ok(()) };
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let blkio = &mut stats.blkio;
            let (op, table) = match key {
                "rbytes" => ("Read", &mut blkio.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut blkio.io_service_bytes_recursive),
                "rios" => ("Read", &mut blkio.io_serviced_recursive),
                "wios" => ("Write", &mut blkio.io_serviced_recursive),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                table.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    Ok(())
}

fn psi(dir: &Path, name: &str) -> Result<Option<Psi>> {
    Ok(optional(dir, name)?.map(|text| parse_psi(&text)))
}

fn parse_psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let data = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        *data = parse_psi_data(fields);
    }
    psi
}

fn parse_psi_data<'a>(fields: impl Iterator<Item = &'a str>) -> PsiData {
    let mut data = PsiData::default();
    for (key, value) in fields.filter_map(|field| field.split_once('=')) {
        let share = || value.parse().unwrap_or(0.0);
        match key {
            "avg10" => data.avg10 = share(),
            "avg60" => data.avg60 = share(),
            "avg300" => data.avg300 = share(),
            "total" => data.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}

/// Huge pages by size; also used for the unified hierarchy of a hybrid host.
pub(in crate::cgroup) fn hugetlb(dir: &Path) -> Result<BTreeMap<String, HugeTlb>> {
    let mut found = BTreeMap::new();
    for size in page_sizes() {
        let usage = match number(dir, &format!("hugetlb.{size}.rsvd.current"))? {
            None => number(dir, &format!("hugetlb.{size}.current"))?,
            usage => usage,
        };
        if let Some(usage) = usage {
            let events = optional(dir, &format!("hugetlb.{size}.events"))?.unwrap_or_default();
            let failcnt = file::value_of(&events, "max").unwrap_or(0);
            found.insert(size, HugeTlb { usage, max: 0, failcnt });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_cgroup_with_all_controllers() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("memory.stat", "anon 100\nfile 4096\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "1000\n"),
            ("memory.peak", "9000\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "max\n"),
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nthrottled_usec 4\n",
            ),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\n"),
        ] {
            fs::write(dir.path().join(name), text).expect("writes");
        }
        let stats = read(dir.path()).expect("reads");
        assert_eq!(stats.pids, Pids { current: 3, limit: 0 });
        assert_eq!((stats.memory.cache, stats.memory.usage.max), (4096, 9000));
        assert_eq!((stats.memory.swap.usage, stats.memory.swap.limit), (8202, u64::MAX));
        assert_eq!((stats.cpu.usage.total, stats.cpu.throttling.throttled_time), (5000, 4000));
        assert_eq!(stats.blkio.io_service_bytes_recursive.len(), 2);
        assert_eq!(stats.blkio.io_serviced_recursive[1].op, "Write");
        let some = stats.cpu.psi.expect("pressure").some;
        assert_eq!((some.avg10, some.avg300, some.total), (1.5, 0.25, 77));
        assert!(stats.memory.psi.is_none());
    }

    #[test]
    fn a_cgroup_without_controllers_counts_its_processes() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("cgroup.procs"), "1\n2\n").expect("writes");
        let stats = read(dir.path()).expect("reads");
        assert_eq!(stats.pids, Pids { current: 2, limit: 0 });
    }
}
