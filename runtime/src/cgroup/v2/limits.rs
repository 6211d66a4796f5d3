//! `linux.resources` as writes to v2 cgroup files. Pure, except for the one question whether
//! BFQ's weight file exists, which `Limit::or_else` answers at the write.
//!
//! The specification's fields are v1's; the conversions are runc's.

use anyhow::{Result, bail, ensure};
use hull_specs_oci as oci;

use crate::cgroup::limit::{self, Check, Limit};

/// The writes that `resources` ask for.
pub(in crate::cgroup) fn plan(resources: &oci::Resources) -> Result<Vec<Limit>> {
    let mut limits = Vec::new();
    if let Some(count) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        limits.push(limit::pids(count));
    }
    if let Some(memory_) = &resources.memory {
        memory(memory_, &mut limits)?;
    }
    if let Some(block_io) = &resources.block_io {
        io(block_io, &mut limits)?;
    }
    if let Some(cpu_) = &resources.cpu {
        cpu(cpu_, &mut limits)?;
        for (value, field, file) in
            [(&cpu_.cpus, "cpu.cpus", "cpuset.cpus"), (&cpu_.mems, "cpu.mems", "cpuset.mems")]
        {
            if !value.is_empty() {
                limits.push(Limit::new("cpuset", field, file, value));
            }
        }
    }
    limit::hugetlb(&resources.hugepage_limits, "max", &mut limits)?;
    limit::rdma(&resources.rdma, &mut limits);
    if let Some(network) = &resources.network {
        ensure!(
            network.class_id.unwrap_or(0) == 0,
            "network.classID needs the net_cls controller, which cgroup v2 does not have"
        );
        ensure!(
            network.priorities.is_empty(),
            "network.priorities needs the net_prio controller, which cgroup v2 does not have"
        );
    }
    Ok(limits)
}

/// Whether `resources` ask for a controller that a threaded cgroup can't have.
pub(in crate::cgroup) fn needs_domain(resources: &oci::Resources) -> bool {
    let memory = resources.memory.as_ref().is_some_and(|m| {
        [m.limit, m.reservation, m.swap].iter().any(|v| v.is_some_and(|v| v != 0))
    });
    let io = resources.block_io.as_ref().is_some_and(|io| *io != oci::BlockIo::default());
    let cpu = resources.cpu.as_ref().is_some_and(|cpu| {
        cpu.shares.is_some_and(|v| v != 0)
            || cpu.quota.is_some_and(|v| v != 0)
            || cpu.period.is_some_and(|v| v != 0)
            || cpu.idle.is_some()
            || cpu.burst.is_some()
    });
    memory || io || cpu || !resources.hugepage_limits.is_empty()
}

fn memory(memory: &oci::Memory, limits: &mut Vec<Limit>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    let combined = memory.swap.unwrap_or(0);
    let swap = swap_alone(combined, limit)?;
    if swap != 0 || combined > 0 {
        let file = "memory.swap.max";
        let write = Limit::new("memory", "memory.swap", file, max_or(swap));
        // Without swap accounting there is no swap to limit: none and all are the same.
        limits.push(match swap {
            -1 | 0 => write.absent_is_fine(),
            _ => write.check(Check::Bytes),
        });
    }
    if limit != 0 {
        let write = Limit::new("memory", "memory.limit", "memory.max", max_or(limit));
        limits.push(write.check(Check::Bytes));
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        let write = Limit::new("memory", "memory.reservation", "memory.low", max_or(reservation));
        limits.push(write.check(Check::Bytes));
    }
    ensure!(
        limit::swappiness(memory)?.is_none(),
        "memory.swappiness is not supported by cgroup v2"
    );
    ensure!(
        memory.disable_oom_killer != Some(true),
        "memory.disableOOMKiller is not supported by cgroup v2"
    );
    ensure!(
        memory.use_hierarchy != Some(false),
        "memory.useHierarchy can't be false: accounting is hierarchical"
    );
    Ok(())
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

/// v2's swap limit counts swap alone; the specification's counts memory and swap together.
pub(in crate::cgroup) fn swap_alone(combined: i64, memory: i64) -> Result<i64> {
    Ok(match (combined, memory) {
        // Memory without a limit and swap not mentioned: both without a limit, as on v1.
        (0, -1) => -1,
        (-1 | 0, _) | (_, -1) => combined,
        (_, 0) => bail!("unable to set swap limit without memory limit"),
        (_, memory) if memory < 0 => bail!("invalid memory value: {memory}"),
        (combined, memory) if combined < memory => {
            bail!("memory+swap limit should be >= memory limit")
        }
        (combined, memory) => combined - memory,
    })
}

fn cpu(cpu: &oci::Cpu, limits: &mut Vec<Limit>) -> Result<()> {
    ensure!(
        cpu.realtime_runtime.unwrap_or(0) == 0 && cpu.realtime_period.unwrap_or(0) == 0,
        "cpu.realtimeRuntime and cpu.realtimePeriod are not supported by cgroup v2"
    );
    if let Some(idle) = cpu.idle {
        limits.push(Limit::new("cpu", "cpu.idle", "cpu.idle", idle).check(Check::Same));
    }
    let weight = cpu_weight(cpu.shares.unwrap_or(0));
    if weight != 0 {
        limits.push(Limit::new("cpu", "cpu.shares", "cpu.weight", weight).check(Check::Same));
    }
    let quota = cpu.quota.unwrap_or(0);
    if let Some(burst) = cpu.burst {
        let limit = Limit::new("cpu", "cpu.burst", "cpu.max.burst", burst).check(Check::Same);
        limits.push(if quota != 0 { limit.later() } else { limit });
    }
    let period = cpu.period.unwrap_or(0);
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        // 100 ms is the kernel's default.
        let period = if period == 0 { 100_000 } else { period };
        let value = format!("{quota} {period}");
        limits.push(Limit::new("cpu", "cpu.quota", "cpu.max", value).check(Check::Same));
    }
    Ok(())
}

/// v1's shares (2 to 262144, default 1024) as v2's weight (1 to 10000, default 100): the
/// quadratic on a logarithmic scale that meets minimum, default and maximum of both.
pub(in crate::cgroup) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// blkio's weight (10 to 1000) as io.weight (1 to 10000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

fn io(block_io: &oci::BlockIo, limits: &mut Vec<Limit>) -> Result<()> {
    ensure!(
        block_io.leaf_weight.unwrap_or(0) == 0
            && block_io.weight_device.iter().all(|d| d.leaf_weight.unwrap_or(0) == 0),
        "blockIO.leafWeight is not supported by cgroup v2"
    );
    if let Some(weight) = block_io.weight.filter(|value| *value != 0) {
        ensure!(
            (10..=1000).contains(&weight),
            "blockIO.weight is {weight}, but must be between 10 and 1000"
        );
        // BFQ takes the value as it is; io.weight has another scale.
        limits.push(
            Limit::new("io", "blockIO.weight", "io.bfq.weight", weight)
                .or_else("io.weight", io_weight(weight)),
        );
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight.filter(|value| *value != 0) {
            let of = |weight: u64| format!("{}:{} {weight}", device.major, device.minor);
            limits.push(
                Limit::new("io", "blockIO.weightDevice", "io.bfq.weight", of(weight.into()))
                    .or_else("io.weight", of(io_weight(weight))),
            );
        }
    }
    for (devices, field, key) in [
        (&block_io.throttle_read_bps_device, "blockIO.throttleReadBpsDevice", "rbps"),
        (&block_io.throttle_write_bps_device, "blockIO.throttleWriteBpsDevice", "wbps"),
        (&block_io.throttle_read_iops_device, "blockIO.throttleReadIOPSDevice", "riops"),
        (&block_io.throttle_write_iops_device, "blockIO.throttleWriteIOPSDevice", "wiops"),
    ] {
        for device in devices {
            // 0 means no limit on v1; io.max wants the word.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            limits.push(Limit::new("io", field, "io.max", value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: serde_json::Value) -> Result<Vec<(String, String)>> {
        let resources = serde_json::from_value(json).expect("resources");
        Ok(plan(&resources)?.into_iter().map(|l| (l.file.into_owned(), l.value)).collect())
    }

    fn check(json: serde_json::Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        assert_eq!(planned(json).expect("valid"), expected);
    }

    #[test]
    fn swap_is_what_the_combined_limit_leaves() {
        for (combined, memory, expected) in [
            (0, 0, Some(0)),
            (0, 100, Some(0)),
            (0, -1, Some(-1)),
            (-1, 100, Some(-1)),
            (-1, -1, Some(-1)),
            (100, -1, Some(100)),
            (100, 100, Some(0)),
            (200, 100, Some(100)),
            (100, 0, None),
            (100, -2, None),
            (50, 100, None),
        ] {
            assert_eq!(swap_alone(combined, memory).ok(), expected, "{combined} {memory}");
        }
    }

    #[test]
    fn weight_meets_minimum_default_and_maximum_and_only_grows() {
        for (shares, weight) in
            [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        let weights: Vec<_> = (2..262_144).step_by(97).map(cpu_weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn memory_is_written_after_swap() {
        check(
            serde_json::json!({"memory": {"limit": 100, "swap": 150, "reservation": 50}}),
            &[("memory.swap.max", "50"), ("memory.max", "100"), ("memory.low", "50")],
        );
        check(
            serde_json::json!({"memory": {"limit": 100, "swap": 100}}),
            &[("memory.swap.max", "0"), ("memory.max", "100")],
        );
        check(
            serde_json::json!({"memory": {"limit": -1}}),
            &[("memory.swap.max", "max"), ("memory.max", "max")],
        );
        check(serde_json::json!({"memory": {"limit": 100}}), &[("memory.max", "100")]);
    }

    #[test]
    fn cpu_values() {
        check(
            serde_json::json!({"cpu": {"shares": 1024, "quota": 5000, "burst": 7, "cpus": "0"}}),
            &[
                ("cpu.weight", "100"),
                ("cpu.max.burst", "7"),
                ("cpu.max", "5000 100000"),
                ("cpuset.cpus", "0"),
            ],
        );
        check(serde_json::json!({"cpu": {"period": 2000}}), &[("cpu.max", "max 2000")]);
        check(serde_json::json!({"cpu": {"quota": -1}}), &[("cpu.max", "max 100000")]);
        check(serde_json::json!({"cpu": {"idle": 1, "shares": 0}}), &[("cpu.idle", "1")]);
    }

    #[test]
    fn io_values() {
        assert_eq!(io_weight(10), 1);
        assert_eq!(io_weight(1000), 10_000);
        check(
            serde_json::json!({"blockIO": {"weight": 500,
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 5}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 0}]}}),
            &[("io.bfq.weight", "500"), ("io.max", "8:16 rbps=max"), ("io.max", "8:16 wiops=5")],
        );
    }

    #[test]
    fn what_v2_can_not_do_is_refused() {
        for json in [
            serde_json::json!({"memory": {"swappiness": 10}}),
            serde_json::json!({"memory": {"disableOOMKiller": true}}),
            serde_json::json!({"cpu": {"realtimePeriod": 10}}),
            serde_json::json!({"network": {"classID": 1}}),
            serde_json::json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            serde_json::json!({"blockIO": {"leafWeight": 100}}),
            serde_json::json!({"blockIO": {"weight": 5}}),
        ] {
            assert!(planned(json.clone()).is_err(), "{json}");
        }
        // What callers of v1 habits send without meaning it.
        check(
            serde_json::json!({"memory": {"swappiness": u64::MAX, "disableOOMKiller": false},
                "network": {"classID": 0}}),
            &[],
        );
    }

    #[test]
    fn domain_controllers() {
        let needs = |json| needs_domain(&serde_json::from_value(json).expect("resources"));
        assert!(needs(serde_json::json!({"memory": {"limit": 1}})));
        assert!(!needs(
            serde_json::json!({"pids": {"limit": 1}, "memory": {}, "cpu": {"cpus": "0"}})
        ));
    }
}
