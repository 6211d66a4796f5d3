//! The counters of cgroup v2.

use std::path::Path;

use anyhow::Result;
use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat, RdmaEntry, RdmaStat,
};
use protobuf::MessageField;

use super::{Keyed, Rdma, huge_page_sizes, number, rdma, text};

/// Reads every controller of a cgroup.
pub(crate) fn read(dir: &Path) -> Result<Metrics> {
    let file = |name: &str| text(&dir.join(name));
    let count = |name: &str| Ok::<_, anyhow::Error>(number(dir, name)?.unwrap_or(0));
    let pressure =
        |name: &str| Ok::<_, anyhow::Error>(MessageField::from(file(name)?.as_deref().map(psi)));
    let mut metrics = Metrics::new();
    metrics.pids = MessageField::some(PidsStat {
        current: count("pids.current")?,
        limit: count("pids.max")?,
        ..PidsStat::default()
    });
    let mut cpu = CPUStat::new();
    if let Some(stat) = file("cpu.stat")? {
        cpu = cpu_stat(&stat);
        cpu.psi = pressure("cpu.pressure")?;
    }
    metrics.cpu = MessageField::some(cpu);
    let mut memory = MemoryStat::new();
    if let Some(stat) = file("memory.stat")? {
        memory = memory_stat(&stat);
        memory.usage = count("memory.current")?;
        memory.usage_limit = count("memory.max")?;
        memory.max_usage = count("memory.peak")?;
        memory.swap_usage = count("memory.swap.current")?;
        memory.swap_limit = count("memory.swap.max")?;
        memory.swap_max_usage = count("memory.swap.peak")?;
        memory.psi = pressure("memory.pressure")?;
    }
    metrics.memory = MessageField::some(memory);
    metrics.memory_events = file("memory.events")?.as_deref().map(memory_events).into();
    metrics.io = MessageField::some(IOStat {
        usage: file("io.stat")?.as_deref().map(io_entries).unwrap_or_default(),
        psi: pressure("io.pressure")?,
        ..IOStat::default()
    });
    let entries = |name: &str| {
        let text = file(name)?.unwrap_or_default();
        Ok::<_, anyhow::Error>(rdma(&text).map(rdma_entry).collect())
    };
    metrics.rdma = MessageField::some(RdmaStat {
        current: entries("rdma.current")?,
        limit: entries("rdma.max")?,
        ..RdmaStat::default()
    });
    for size in huge_page_sizes() {
        metrics.hugetlb.extend(hugetlb(dir, size)?);
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
        let cpu = sum.cpu.mut_or_insert_default();
        cpu.usage_usec = cpu.usage_usec.saturating_add(one.cpu.usage_usec);
        cpu.user_usec = cpu.user_usec.saturating_add(one.cpu.user_usec);
        cpu.system_usec = cpu.system_usec.saturating_add(one.cpu.system_usec);
        let memory = sum.memory.mut_or_insert_default();
        memory.usage = memory.usage.saturating_add(one.memory.usage);
        let pids = sum.pids.mut_or_insert_default();
        pids.current = pids.current.saturating_add(one.pids.current);
    }
}

fn cpu_stat(text: &str) -> CPUStat {
    let stat = Keyed(text);
    CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        ..CPUStat::default()
    }
}

fn memory_stat(text: &str) -> MemoryStat {
    let stat = Keyed(text);
    MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

fn memory_events(text: &str) -> MemoryEvents {
    let events = Keyed(text);
    MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
        ..MemoryEvents::default()
    }
}

/// Lines of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
fn psi(text: &str) -> PSIStats {
    let mut stats = PSIStats::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let field = match words.next() {
            Some("some") => &mut stats.some,
            Some("full") => &mut stats.full,
            _ => continue,
        };
        let mut data = PSIData::new();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        *field = MessageField::some(data);
    }
    stats
}

/// Lines of "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6". A device that the cgroup
/// has a limit for but has not used has no counters.
fn io_entries(text: &str) -> Vec<IOEntry> {
    let entry = |line: &str| {
        let (device, counters) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let mut entry = IOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..IOEntry::default()
        };
        for (key, value) in counters.split(' ').filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn rdma_entry(entry: Rdma<'_>) -> RdmaEntry {
    RdmaEntry {
        device: entry.device.to_owned(),
        hca_handles: entry.handles,
        hca_objects: entry.objects,
        ..RdmaEntry::default()
    }
}

fn hugetlb(dir: &Path, pagesize: String) -> Result<Option<HugeTlbStat>> {
    let Some(current) = number(dir, &format!("hugetlb.{pagesize}.current"))? else {
        return Ok(None);
    };
    let events = text(&dir.join(format!("hugetlb.{pagesize}.events")))?.unwrap_or_default();
    Ok(Some(HugeTlbStat {
        current,
        max: number(dir, &format!("hugetlb.{pagesize}.max"))?.unwrap_or(0),
        failcnt: Keyed(&events).get("max"),
        pagesize,
        ..HugeTlbStat::default()
    }))
}

#[cfg(test)]
mod tests;
