//! The counters of cgroup v1.

use std::path::Path;

use anyhow::Result;
use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use protobuf::MessageField;

use super::{Keyed, Rdma, huge_page_sizes, number, parse_number, rdma, text};

/// What `cpuacct.stat` counts in (USER_HZ, the same on every architecture of ours).
const NS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Reads the controllers that `dir` knows the directories of.
pub(crate) fn read<'a>(dir: impl Fn(&str) -> Option<&'a Path>) -> Result<Metrics> {
    let mut metrics = Metrics::new();
    let cpu = metrics.cpu.mut_or_insert_default();
    *cpu = CPUStat {
        usage: MessageField::some(CPUUsage::new()),
        throttling: MessageField::some(Throttle::new()),
        ..CPUStat::default()
    };
    if let Some(text) = dir("cpu").map_or(Ok(None), |dir| text(&dir.join("cpu.stat")))? {
        cpu.throttling = MessageField::some(throttling(&text));
    }
    if let Some(dir) = dir("cpuacct") {
        cpu.usage = MessageField::some(cpu_usage(dir)?);
    }
    if let Some(dir) = dir("memory") {
        memory(dir, &mut metrics)?;
    }
    if let Some(dir) = dir("pids") {
        metrics.pids = pids(dir)?.into();
    }
    if let Some(dir) = dir("blkio") {
        metrics.blkio = MessageField::some(blkio(dir)?);
    }
    if let Some(dir) = dir("rdma") {
        metrics.rdma = rdma_stat(dir)?.into();
    }
    if let Some(dir) = dir("hugetlb") {
        for size in huge_page_sizes() {
            metrics.hugetlb.extend(hugetlb(dir, size)?);
        }
    }
    Ok(metrics)
}

/// The sum of what can be added up.
#[derive(Debug, Default)]
pub(crate) struct Total(pub(crate) Metrics);

impl Total {
    /// Adds one cgroup's counters.
    pub(crate) fn add(&mut self, metrics: &Metrics) {
        let (sum, one) = (&mut self.0, metrics);
        let usage = sum.cpu.mut_or_insert_default().usage.mut_or_insert_default();
        usage.total = usage.total.saturating_add(one.cpu.usage.total);
        usage.kernel = usage.kernel.saturating_add(one.cpu.usage.kernel);
        usage.user = usage.user.saturating_add(one.cpu.usage.user);
        if let Some(one) = one.memory.as_ref() {
            let memory = sum.memory.mut_or_insert_default().usage.mut_or_insert_default();
            memory.usage = memory.usage.saturating_add(one.usage.usage);
        }
        if let Some(one) = one.pids.as_ref() {
            let pids = sum.pids.mut_or_insert_default();
            pids.current = pids.current.saturating_add(one.current);
        }
    }
}

fn throttling(text: &str) -> Throttle {
    let stat = Keyed(text);
    Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
        ..Throttle::default()
    }
}

fn cpu_usage(dir: &Path) -> Result<CPUUsage> {
    let stat = text(&dir.join("cpuacct.stat"))?.unwrap_or_default();
    let per_cpu = text(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
    let stat = Keyed(&stat);
    Ok(CPUUsage {
        total: number(dir, "cpuacct.usage")?.unwrap_or(0),
        user: stat.get("user").saturating_mul(NS_PER_TICK),
        kernel: stat.get("system").saturating_mul(NS_PER_TICK),
        per_cpu: per_cpu.split_whitespace().filter_map(parse_number).collect(),
        ..CPUUsage::default()
    })
}

fn memory(dir: &Path, metrics: &mut Metrics) -> Result<()> {
    let Some(stat) = text(&dir.join("memory.stat"))? else { return Ok(()) };
    let mut memory = memory_stat(&stat);
    for (field, prefix) in [
        (&mut memory.usage, "memory"),
        (&mut memory.swap, "memory.memsw"),
        (&mut memory.kernel, "memory.kmem"),
        (&mut memory.kernel_tcp, "memory.kmem.tcp"),
    ] {
        *field = MessageField::some(memory_entry(dir, prefix)?);
    }
    metrics.memory = MessageField::some(memory);
    if let Some(control) = text(&dir.join("memory.oom_control"))? {
        let control = Keyed(&control);
        metrics.memory_oom_control = MessageField::some(MemoryOomControl {
            oom_kill_disable: control.get("oom_kill_disable"),
            under_oom: control.get("under_oom"),
            oom_kill: control.get("oom_kill"),
            ..MemoryOomControl::default()
        });
    }
    Ok(())
}

fn memory_stat(text: &str) -> MemoryStat {
    let stat = Keyed(text);
    MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        ..MemoryStat::default()
    }
}

/// Swap and kernel memory are counted on some kernels only; what is not is 0.
fn memory_entry(dir: &Path, prefix: &str) -> Result<MemoryEntry> {
    let get =
        |name: &str| Ok::<_, anyhow::Error>(number(dir, &format!("{prefix}.{name}"))?.unwrap_or(0));
    Ok(MemoryEntry {
        usage: get("usage_in_bytes")?,
        max: get("max_usage_in_bytes")?,
        failcnt: get("failcnt")?,
        limit: get("limit_in_bytes")?,
        ..MemoryEntry::default()
    })
}

fn pids(dir: &Path) -> Result<Option<PidsStat>> {
    let Some(current) = number(dir, "pids.current")? else { return Ok(None) };
    // "No limit" is 0 in v1's metrics, and the largest number in v2's.
    let limit = number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Ok(Some(PidsStat { current, limit, ..PidsStat::default() }))
}

/// The counters of CFQ (gone with kernel 5.0) where they count something, or else those of
/// throttling, which always do.
fn blkio(dir: &Path) -> Result<BlkIOStat> {
    let partitions = text(Path::new("/proc/partitions"))?.unwrap_or_default();
    let entries = |name: &str| {
        let text = text(&dir.join(format!("blkio.{name}")))?.unwrap_or_default();
        Ok::<_, anyhow::Error>(blkio_entries(&text, &partitions))
    };
    let mut stat = BlkIOStat::new();
    let mut counted = false;
    for (field, name) in [
        (&mut stat.sectors_recursive, "sectors_recursive"),
        (&mut stat.io_service_bytes_recursive, "io_service_bytes_recursive"),
        (&mut stat.io_serviced_recursive, "io_serviced_recursive"),
        (&mut stat.io_queued_recursive, "io_queued_recursive"),
        (&mut stat.io_service_time_recursive, "io_service_time_recursive"),
        (&mut stat.io_wait_time_recursive, "io_wait_time_recursive"),
        (&mut stat.io_merged_recursive, "io_merged_recursive"),
        (&mut stat.io_time_recursive, "time_recursive"),
    ] {
        *field = entries(name)?;
        counted |= !field.is_empty();
    }
    if !counted {
        stat.io_serviced_recursive = entries("throttle.io_serviced")?;
        stat.io_service_bytes_recursive = entries("throttle.io_service_bytes")?;
    }
    Ok(stat)
}

/// Lines of "8:0 Read 5" or "8:0 5"; the line of the total has no device.
fn blkio_entries(text: &str, partitions: &str) -> Vec<BlkIOEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkIOEntry {
            op: op.to_owned(),
            device: device_name(partitions, major, minor).unwrap_or_default(),
            major,
            minor,
            value: parse_number(value)?,
            ..BlkIOEntry::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// The path of a block device, by the lines of `/proc/partitions`: "8 0 1048576 sda".
fn device_name(partitions: &str, major: u64, minor: u64) -> Option<String> {
    partitions.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let number = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        if number == (major, minor) { Some(format!("/dev/{}", words.nth(1)?)) } else { None }
    })
}

fn rdma_stat(dir: &Path) -> Result<Option<RdmaStat>> {
    let Some(current) = text(&dir.join("rdma.current"))? else { return Ok(None) };
    let limit = text(&dir.join("rdma.max"))?.unwrap_or_default();
    let entries = |text: &str| rdma(text).map(rdma_entry).collect();
    Ok(Some(RdmaStat { current: entries(&current), limit: entries(&limit), ..RdmaStat::default() }))
}

fn rdma_entry(entry: Rdma<'_>) -> RdmaEntry {
    RdmaEntry {
        device: entry.device.to_owned(),
        hca_handles: entry.handles,
        hca_objects: entry.objects,
        ..RdmaEntry::default()
    }
}

fn hugetlb(dir: &Path, pagesize: String) -> Result<Option<HugetlbStat>> {
    let get = |name: &str| number(dir, &format!("hugetlb.{pagesize}.{name}"));
    let Some(usage) = get("usage_in_bytes")? else { return Ok(None) };
    Ok(Some(HugetlbStat {
        usage,
        max: get("max_usage_in_bytes")?.unwrap_or(0),
        failcnt: get("failcnt")?.unwrap_or(0),
        pagesize,
        ..HugetlbStat::default()
    }))
}

#[cfg(test)]
mod tests;
