//! What `update` makes of the resources that a container has and those that are asked for.
//! Pure; the rules are runc's, because its callers send what those rules expect.

use hull_specs_oci as oci;

/// The resources that hold after `asked` is applied to `old`. Device rules stay.
pub(crate) fn merge(old: &oci::Resources, asked: &oci::Resources) -> oci::Resources {
    let mut new = old.clone();
    if let Some(asked) = &asked.memory {
        memory(new.memory.get_or_insert_default(), asked);
    }
    // An absent object counts as an empty one: some of its fields are taken over as they are.
    cpu(new.cpu.get_or_insert_default(), &asked.cpu.clone().unwrap_or_default());
    new.pids = asked.pids.clone();
    if let Some(asked) = &asked.block_io {
        block_io(new.block_io.get_or_insert_default(), asked);
    }
    // runc leaves these three as they are; its callers do send them, so they are honoured.
    if !asked.hugepage_limits.is_empty() {
        new.hugepage_limits.clone_from(&asked.hugepage_limits);
    }
    if !asked.rdma.is_empty() {
        new.rdma.clone_from(&asked.rdma);
    }
    if asked.network.is_some() {
        new.network.clone_from(&asked.network);
    }
    new.unified = asked.unified.clone();
    new
}

fn take<T: Clone>(old: &mut Option<T>, asked: &Option<T>) {
    if asked.is_some() {
        old.clone_from(asked);
    }
}

fn memory(old: &mut oci::Memory, asked: &oci::Memory) {
    take(&mut old.limit, &asked.limit);
    take(&mut old.reservation, &asked.reservation);
    take(&mut old.swap, &asked.swap);
    take(&mut old.kernel_tcp, &asked.kernel_tcp);
    take(&mut old.swappiness, &asked.swappiness);
    take(&mut old.disable_oom_killer, &asked.disable_oom_killer);
    take(&mut old.check_before_update, &asked.check_before_update);
    if asked.limit == Some(-1) && asked.swap.is_none() {
        // The old sum of memory and swap means nothing without a limit for memory.
        old.swap = Some(0);
    }
}

fn cpu(old: &mut oci::Cpu, asked: &oci::Cpu) {
    match (asked.period.unwrap_or(0), asked.quota.unwrap_or(0)) {
        // One alone leaves the other as it was; both or none replace both.
        (period, 0) if period != 0 => old.period = asked.period,
        (0, quota) if quota != 0 => old.quota = asked.quota,
        _ => (old.period, old.quota) = (asked.period, asked.quota),
    }
    take(&mut old.shares, &asked.shares);
    if asked.idle.is_some() && asked.shares.is_none() {
        // An idle cgroup takes no weight.
        old.shares = Some(0);
    }
    take(&mut old.realtime_period, &asked.realtime_period);
    take(&mut old.realtime_runtime, &asked.realtime_runtime);
    old.burst = asked.burst;
    old.cpus.clone_from(&asked.cpus);
    old.mems.clone_from(&asked.mems);
    old.idle = asked.idle;
}

fn block_io(old: &mut oci::BlockIo, asked: &oci::BlockIo) {
    take(&mut old.weight, &asked.weight);
    take(&mut old.leaf_weight, &asked.leaf_weight);
    for device in &asked.weight_device {
        let same = |d: &&mut oci::WeightDevice| (d.major, d.minor) == (device.major, device.minor);
        match old.weight_device.iter_mut().find(same) {
            Some(existing) => {
                take(&mut existing.weight, &device.weight);
                take(&mut existing.leaf_weight, &device.leaf_weight);
            }
            None => old.weight_device.push(device.clone()),
        }
    }
    throttle(&mut old.throttle_read_bps_device, &asked.throttle_read_bps_device);
    throttle(&mut old.throttle_write_bps_device, &asked.throttle_write_bps_device);
    throttle(&mut old.throttle_read_iops_device, &asked.throttle_read_iops_device);
    throttle(&mut old.throttle_write_iops_device, &asked.throttle_write_iops_device);
}

fn throttle(old: &mut Vec<oci::ThrottleDevice>, asked: &[oci::ThrottleDevice]) {
    for device in asked {
        let same =
            |d: &&mut oci::ThrottleDevice| (d.major, d.minor) == (device.major, device.minor);
        match old.iter_mut().find(same) {
            Some(existing) => existing.rate = device.rate,
            None => old.push(device.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(old: serde_json::Value, asked: serde_json::Value) -> oci::Resources {
        let parse = |json| serde_json::from_value(json).expect("resources");
        merge(&parse(old), &parse(asked))
    }

    #[test]
    fn memory_fields_are_taken_one_by_one() {
        let new = merged(
            serde_json::json!({"memory": {"limit": 100, "swap": 200, "swappiness": 5}}),
            serde_json::json!({"memory": {"limit": 150}}),
        );
        let memory = new.memory.expect("memory");
        assert_eq!((memory.limit, memory.swap, memory.swappiness), (Some(150), Some(200), Some(5)));
        let new = merged(
            serde_json::json!({"memory": {"limit": 100, "swap": 200}}),
            serde_json::json!({"memory": {"limit": -1}}),
        );
        assert_eq!(new.memory.expect("memory").swap, Some(0));
    }

    #[test]
    fn quota_and_period() {
        let old = serde_json::json!({"cpu": {"quota": 1000, "period": 2000, "shares": 5}});
        for (asked, quota, period) in [
            (serde_json::json!({"quota": 7}), Some(7), Some(2000)),
            (serde_json::json!({"period": 8}), Some(1000), Some(8)),
            (serde_json::json!({"quota": 7, "period": 8}), Some(7), Some(8)),
            (serde_json::json!({}), None, None),
        ] {
            let new = merged(old.clone(), serde_json::json!({"cpu": asked})).cpu.expect("cpu");
            assert_eq!((new.quota, new.period, new.shares), (quota, period, Some(5)));
        }
        let new = merged(old, serde_json::json!({"cpu": {"idle": 1}})).cpu.expect("cpu");
        assert_eq!((new.idle, new.shares), (Some(1), Some(0)));
    }

    #[test]
    fn devices_of_block_io_are_replaced_or_added() {
        let new = merged(
            serde_json::json!({"blockIO": {"weight": 100, "throttleReadBpsDevice":
                [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2}]}}),
            serde_json::json!({"blockIO": {"throttleReadBpsDevice":
                [{"major": 8, "minor": 0, "rate": 9}, {"major": 9, "minor": 0, "rate": 3}]}}),
        );
        let io = new.block_io.expect("block_io");
        let rates: Vec<_> = io.throttle_read_bps_device.iter().map(|d| d.rate).collect();
        assert_eq!((io.weight, rates), (Some(100), vec![9, 2, 3]));
    }

    #[test]
    fn device_rules_and_the_untouched_stay() {
        let old = serde_json::json!({"devices": [{"allow": false, "access": "rwm"}],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "pids": {"limit": 4}});
        let new = merged(old, serde_json::json!({"pids": {"limit": 9}}));
        assert_eq!((new.devices.len(), new.hugepage_limits.len()), (1, 1));
        assert_eq!(new.pids.and_then(|p| p.limit), Some(9));
    }
}
