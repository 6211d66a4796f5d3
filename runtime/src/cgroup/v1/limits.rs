//! `linux.resources` as writes to v1 cgroup files. Pure.

use anyhow::{Result, bail, ensure};
use hull_specs_oci as oci;

use crate::cgroup::limit::{self, Check, Limit};

/// The writes that `resources` ask for. `unified_hugetlb` says that the host holds hugetlb in
/// its unified hierarchy, where the files have v2's names.
pub(in crate::cgroup) fn plan(
    resources: &oci::Resources,
    unified_hugetlb: bool,
) -> Result<Vec<Limit>> {
    ensure!(resources.unified.is_empty(), "invalid configuration: cannot use unified on cgroup v1");
    let mut limits = Vec::new();
    if let Some(cpu) = &resources.cpu {
        cpuset(cpu, &mut limits);
    }
    if let Some(memory_) = &resources.memory {
        memory(memory_, &mut limits)?;
    }
    if let Some(cpu_) = &resources.cpu {
        cpu(cpu_, &mut limits);
    }
    if let Some(count) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        limits.push(limit::pids(count));
    }
    if let Some(block_io) = &resources.block_io {
        blkio(block_io, &mut limits);
    }
    let suffix = if unified_hugetlb { "max" } else { "limit_in_bytes" };
    limit::hugetlb(&resources.hugepage_limits, suffix, &mut limits)?;
    if let Some(network) = &resources.network {
        net(network, &mut limits);
    }
    limit::rdma(&resources.rdma, &mut limits);
    Ok(limits)
}

fn cpuset(cpu: &oci::Cpu, limits: &mut Vec<Limit>) {
    if !cpu.cpus.is_empty() {
        limits.push(Limit::new("cpuset", "cpu.cpus", "cpuset.cpus", &cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        limits.push(Limit::new("cpuset", "cpu.mems", "cpuset.mems", &cpu.mems));
    }
}

fn memory(memory: &oci::Memory, limits: &mut Vec<Limit>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    let swap = memory.swap.unwrap_or(0);
    let bytes = |field, file, value: i64| {
        let check = if value < 0 { Check::Trust } else { Check::Bytes };
        Limit::new("memory", field, file, value).later().check(check)
    };
    if limit != 0 {
        limits.push(bytes("memory.limit", "memory.limit_in_bytes", limit));
    }
    let memsw = "memory.memsw.limit_in_bytes";
    if swap != 0 {
        limits.push(bytes("memory.swap", memsw, swap));
    } else if limit == -1 {
        // Memory without a limit means memory and swap without a limit, where swap is counted.
        limits.push(Limit::new("memory", "memory.limit", memsw, -1).absent_is_fine());
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        limits.push(bytes("memory.reservation", "memory.soft_limit_in_bytes", reservation));
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|value| *value != 0) {
        limits.push(bytes("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp));
    }
    if memory.disable_oom_killer == Some(true) {
        limits.push(Limit::new("memory", "memory.disableOOMKiller", "memory.oom_control", 1));
    }
    if let Some(swappiness) = limit::swappiness(memory)? {
        limits.push(
            Limit::new("memory", "memory.swappiness", "memory.swappiness", swappiness)
                .check(Check::Same),
        );
    }
    match memory.use_hierarchy {
        Some(true) => {
            limits.push(Limit::new("memory", "memory.useHierarchy", "memory.use_hierarchy", 1))
        }
        // The kernel's only answer since 5.11 is EINVAL.
        Some(false) => bail!("memory.useHierarchy can't be false: accounting is hierarchical"),
        None => {}
    }
    Ok(())
}

fn cpu(cpu: &oci::Cpu, limits: &mut Vec<Limit>) {
    let mut add = |limit| limits.push(limit);
    if let Some(shares) = cpu.shares.filter(|value| *value != 0) {
        add(Limit::new("cpu", "cpu.shares", "cpu.shares", shares).check(Check::Shares));
    }
    let quota = cpu.quota.filter(|value| *value != 0);
    // Without a new quota there is nothing that could make a refused period or burst valid.
    let ordered = |limit: Limit| if quota.is_some() { limit.later() } else { limit };
    if let Some(period) = cpu.period.filter(|value| *value != 0) {
        let limit = Limit::new("cpu", "cpu.period", "cpu.cfs_period_us", period);
        add(ordered(limit).check(Check::Same));
    }
    if let Some(burst) = cpu.burst {
        let limit = Limit::new("cpu", "cpu.burst", "cpu.cfs_burst_us", burst);
        // A kernel without the knob (before 5.14) has no burst, which is what 0 asks for.
        let limit = if burst == 0 { limit.absent_is_fine() } else { ordered(limit) };
        add(limit.check(Check::Same));
    }
    if let Some(quota) = quota {
        let limit = Limit::new("cpu", "cpu.quota", "cpu.cfs_quota_us", quota);
        // Every negative quota reads back as -1.
        add(if quota > 0 { limit.check(Check::Same) } else { limit });
    }
    if let Some(idle) = cpu.idle {
        add(Limit::new("cpu", "cpu.idle", "cpu.idle", idle).check(Check::Same));
    }
    let runtime = cpu.realtime_runtime.filter(|value| *value != 0);
    if let Some(period) = cpu.realtime_period.filter(|value| *value != 0) {
        let limit = Limit::new("cpu", "cpu.realtimePeriod", "cpu.rt_period_us", period);
        add(if runtime.is_some() { limit.later() } else { limit });
    }
    if let Some(runtime) = runtime {
        add(Limit::new("cpu", "cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime));
    }
}

fn blkio(block_io: &oci::BlockIo, limits: &mut Vec<Limit>) {
    let mut add = |limit| limits.push(limit);
    // CFQ's names until 5.0, BFQ's since.
    let weight = |field, value: u16| {
        Limit::new("blkio", field, "blkio.weight", value).or_else("blkio.bfq.weight", value)
    };
    if let Some(value) = block_io.weight.filter(|value| *value != 0) {
        add(weight("blockIO.weight", value));
    }
    if let Some(value) = block_io.leaf_weight.filter(|value| *value != 0) {
        add(Limit::new("blkio", "blockIO.leafWeight", "blkio.leaf_weight", value));
    }
    for device in &block_io.weight_device {
        let of = |value: u16| format!("{}:{} {value}", device.major, device.minor);
        let field = "blockIO.weightDevice";
        if let Some(value) = device.weight.filter(|value| *value != 0) {
            add(Limit::new("blkio", field, "blkio.weight_device", of(value))
                .or_else("blkio.bfq.weight_device", of(value)));
        }
        if let Some(value) = device.leaf_weight.filter(|value| *value != 0) {
            add(Limit::new("blkio", field, "blkio.leaf_weight_device", of(value)));
        }
    }
    for (devices, field, file) in [
        (
            &block_io.throttle_read_bps_device,
            "blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
        ),
        (
            &block_io.throttle_write_bps_device,
            "blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
        ),
        (
            &block_io.throttle_read_iops_device,
            "blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
        ),
        (
            &block_io.throttle_write_iops_device,
            "blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
        ),
    ] {
        for device in devices {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            add(Limit::new("blkio", field, file, value));
        }
    }
}

fn net(network: &oci::NetworkClass, limits: &mut Vec<Limit>) {
    if let Some(class) = network.class_id.filter(|value| *value != 0) {
        limits.push(
            Limit::new("net_cls", "network.classID", "net_cls.classid", class).check(Check::Same),
        );
    }
    for entry in &network.priorities {
        let value = format!("{} {}", entry.name, entry.priority);
        limits.push(Limit::new("net_prio", "network.priorities", "net_prio.ifpriomap", value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: serde_json::Value) -> Vec<(String, String)> {
        let resources = serde_json::from_value(json).expect("resources");
        let limits = plan(&resources, false).expect("valid");
        limits.into_iter().map(|l| (l.file.into_owned(), l.value)).collect()
    }

    fn check(json: serde_json::Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        assert_eq!(planned(json), expected);
    }

    #[test]
    fn nothing_asked_nothing_written() {
        check(serde_json::json!({}), &[]);
        check(
            serde_json::json!({"memory": {"limit": 0}, "cpu": {"shares": 0, "quota": 0},
            "pids": {}, "blockIO": {"weight": 0}, "network": {"classID": 0}}),
            &[],
        );
    }

    #[test]
    fn memory_and_swap() {
        check(
            serde_json::json!({"memory": {"limit": 1048576, "swap": 2097152, "reservation": 4096,
                "swappiness": 10, "disableOOMKiller": true, "kernelTCP": 8192}}),
            &[
                ("memory.limit_in_bytes", "1048576"),
                ("memory.memsw.limit_in_bytes", "2097152"),
                ("memory.soft_limit_in_bytes", "4096"),
                ("memory.kmem.tcp.limit_in_bytes", "8192"),
                ("memory.oom_control", "1"),
                ("memory.swappiness", "10"),
            ],
        );
        check(
            serde_json::json!({"memory": {"limit": -1}}),
            &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        );
        // Docker writes -1 as an unsigned number for "not set".
        check(serde_json::json!({"memory": {"swappiness": u64::MAX}}), &[]);
    }

    #[test]
    fn cpu_values() {
        check(
            serde_json::json!({"cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 10,
                "idle": 1, "realtimePeriod": 9, "realtimeRuntime": 5, "cpus": "0-1", "mems": "0"}}),
            &[
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_burst_us", "10"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.idle", "1"),
                ("cpu.rt_period_us", "9"),
                ("cpu.rt_runtime_us", "5"),
            ],
        );
    }

    #[test]
    fn pids_and_the_rest() {
        check(serde_json::json!({"pids": {"limit": -1}}), &[("pids.max", "max")]);
        check(serde_json::json!({"pids": {"limit": 0}}), &[("pids.max", "1")]);
        check(
            serde_json::json!({"pids": {"limit": 7}, "blockIO": {"weight": 100,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
                "network": {"classID": 66, "priorities": [{"name": "lo", "priority": 5}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}}}),
            &[
                ("pids.max", "7"),
                ("blkio.weight", "100"),
                ("blkio.weight_device", "8:0 200"),
                ("blkio.throttle.read_bps_device", "8:0 1024"),
                ("hugetlb.2MB.limit_in_bytes", "4194304"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
                ("net_cls.classid", "66"),
                ("net_prio.ifpriomap", "lo 5"),
                ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10"),
            ],
        );
    }

    #[test]
    fn hugetlb_of_the_unified_hierarchy_has_its_names() {
        let resources = serde_json::from_value(
            serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
        )
        .expect("resources");
        let limits = plan(&resources, true).expect("valid");
        assert_eq!(limits[0].file, "hugetlb.2MB.max");
        assert_eq!(limits[1].file, "hugetlb.2MB.rsvd.max");
    }

    #[test]
    fn what_v1_can_not_do_is_refused() {
        for json in [
            serde_json::json!({"unified": {"memory.high": "1"}}),
            serde_json::json!({"memory": {"swappiness": 101}}),
            serde_json::json!({"memory": {"useHierarchy": false}}),
            serde_json::json!({"hugepageLimits": [{"pageSize": "../x", "limit": 0}]}),
        ] {
            let resources = serde_json::from_value(json.clone()).expect("resources");
            assert!(plan(&resources, false).is_err(), "{json}");
        }
    }
}
