//! What `events --stats` prints about the cgroups. Names and shapes are those of runc's
//! `types/events.go`, which containerd and others parse.

use std::collections::BTreeMap;

use serde::Serialize;

/// The cgroup part of a `stats` event's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Stats {
    /// Processor time and throttling.
    pub(crate) cpu: Cpu,
    /// v1's cpuset flags.
    pub(crate) cpuset: CpuSet,
    /// Memory and swap.
    pub(crate) memory: Memory,
    /// Processes.
    pub(crate) pids: Pids,
    /// Block devices.
    pub(crate) blkio: Blkio,
    /// Page size to use.
    pub(crate) hugetlb: BTreeMap<String, HugeTlb>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu_user: Vec<u64>,
    pub(crate) kernel: u64,
    pub(crate) user: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) throttled_time: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cpus: Vec<u16>,
    pub(crate) cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mems: Vec<u16>,
    pub(crate) mem_hardwall: u64,
    pub(crate) mem_exclusive: u64,
    pub(crate) memory_migrate: u64,
    pub(crate) memory_spread_page: u64,
    pub(crate) memory_spread_slab: u64,
    pub(crate) memory_pressure: u64,
    pub(crate) sched_load_balance: u64,
    pub(crate) sched_relax_domain_level: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) usage: MemoryEntry,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) swap: MemoryEntry,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kernel: MemoryEntry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub(crate) kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) psi: Option<Psi>,
}

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct MemoryEntry {
    pub(crate) limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max: u64,
    pub(crate) failcnt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) current: u64,
    /// 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct BlkioEntry {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) major: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) op: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct HugeTlb {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max: u64,
    pub(crate) failcnt: u64,
}

/// Pressure stall information.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Psi {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) some: PsiData,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) full: PsiData,
}

/// Shares of time in percent over the last seconds, and microseconds in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct PsiData {
    pub(crate) avg10: f64,
    pub(crate) avg60: f64,
    pub(crate) avg300: f64,
    pub(crate) total: u64,
}

/// The names that cgroup files use for the page sizes of `/sys/kernel/mm/hugepages`.
pub(super) fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<_> =
        entries.filter_map(|e| page_size_name(e.file_name().to_str()?)).collect();
    sizes.sort();
    sizes
}

fn page_size_name(file: &str) -> Option<String> {
    let kib: u64 = file.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_named_as_in_cgroup_files() {
        for (file, name) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-2048", None),
            ("other", None),
        ] {
            assert_eq!(page_size_name(file).as_deref(), name);
        }
    }

    #[test]
    fn an_empty_document_has_runcs_shape() {
        let json = serde_json::to_value(Stats::default()).expect("serializes");
        let zeros = serde_json::json!({
            "cpu": {},
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
                "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                "sched_load_balance": 0, "sched_relax_domain_level": 0
            },
            "memory": {}, "pids": {}, "blkio": {}, "hugetlb": {}
        });
        assert_eq!(json, zeros);
    }

    #[test]
    fn names_are_runcs() {
        let entry = BlkioEntry { major: 8, minor: 0, op: "Read".into(), value: 5 };
        let stats = Stats {
            blkio: Blkio {
                io_queued_recursive: vec![entry.clone()],
                io_service_bytes_recursive: vec![entry],
                ..Blkio::default()
            },
            cpu: Cpu {
                throttling: Throttling { throttled_time: 1, ..Throttling::default() },
                ..Cpu::default()
            },
            memory: Memory {
                kernel_tcp: MemoryEntry { limit: 3, ..MemoryEntry::default() },
                ..Memory::default()
            },
            ..Stats::default()
        };
        let json = serde_json::to_value(stats).expect("serializes");
        let entry = serde_json::json!([{"major": 8, "op": "Read", "value": 5}]);
        assert_eq!(json["blkio"]["ioQueueRecursive"], entry);
        assert_eq!(json["blkio"]["ioServiceBytesRecursive"], entry);
        assert_eq!(json["cpu"]["throttling"], serde_json::json!({"throttledTime": 1}));
        assert_eq!(json["memory"]["kernelTCP"], serde_json::json!({"limit": 3, "failcnt": 0}));
    }
}
