//! Limits of the container's cgroup.

use hull_specs_api::v1;
use hull_specs_oci as oci;

use crate::{
    defaults::Host,
    error::{Result, must, refuse},
};

const MIN_MEMORY: u64 = 6 << 20;

/// The kernel's bounds of cpu.shares (v1).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// A processor-second has so many nanoseconds, a period of ours so many microseconds.
const NANOS: u64 = 1_000_000_000;
const PERIOD_US: u64 = 100_000;

/// Checks limits, puts in what follows from others, and says what the machine can't do. `update`:
/// they are changes of limits that are there.
///
/// # Errors
/// In docker's words.
pub fn check(r: &mut v1::Resources, host: &Host, update: bool) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    memory(r, host, update, &mut warnings)?;
    cpu(r, host)?;
    must!(
        r.blkio_weight == 0 || (10..=1000).contains(&r.blkio_weight),
        "Range of blkio weight is from 10 to 1000"
    );
    for limit in &r.blkio_weight_device {
        must!(
            (10..=1000).contains(&limit.value),
            "invalid weight for device: {}:{}",
            limit.path,
            limit.value
        );
    }
    for limit in devices(r) {
        must!(limit.path.starts_with("/dev/"), "bad format for device path: {}", limit.path);
    }
    Ok(warnings)
}

fn memory(
    r: &mut v1::Resources,
    host: &Host,
    update: bool,
    warnings: &mut Vec<String>,
) -> Result<()> {
    must!(
        r.memory_bytes == 0 || r.memory_bytes >= MIN_MEMORY,
        "Minimum memory limit allowed is 6MB"
    );
    must!(r.memory_swap_bytes >= -1, "invalid memory swap limit: {}", r.memory_swap_bytes);
    for (name, value) in
        [("memory", r.memory_bytes), ("memory reservation", r.memory_reservation_bytes)]
    {
        must!(i64::try_from(value).is_ok(), "invalid {name} limit: {value}");
    }
    if let swap @ 1.. = r.memory_swap_bytes.unsigned_abs()
        && r.memory_swap_bytes > 0
    {
        must!(
            r.memory_bytes == 0 || swap >= r.memory_bytes,
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        );
        must!(
            r.memory_bytes != 0 || update,
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        );
    }
    if r.memory_bytes != 0 && r.memory_swap_bytes == 0 && !update {
        r.memory_swap_bytes = i64::try_from(r.memory_bytes.saturating_mul(2)).unwrap_or(i64::MAX);
    }
    if let Some(swappiness) = r.memory_swappiness {
        must!(
            swappiness <= 100,
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        );
        if !host.memory_v1 {
            warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".to_owned());
            r.memory_swappiness = None;
        }
    }
    must!(
        r.memory_reservation_bytes == 0 || r.memory_reservation_bytes >= MIN_MEMORY,
        "Minimum memory reservation allowed is 6MB"
    );
    must!(
        r.memory_bytes == 0 || r.memory_reservation_bytes <= r.memory_bytes,
        "Minimum memory limit can not be less than memory reservation limit, see usage"
    );
    if r.oom_kill_disable && !host.memory_v1 {
        warnings.push(
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
        );
        r.oom_kill_disable = false;
    }
    if r.oom_kill_disable && r.memory_bytes == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    Ok(())
}

fn cpu(r: &mut v1::Resources, host: &Host) -> Result<()> {
    must!(
        r.nano_cpus == 0 || r.cpu_period_us == 0,
        "Conflicting options: Nano CPUs and CPU Period cannot both be set"
    );
    must!(
        r.nano_cpus == 0 || r.cpu_quota_us == 0,
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
    );
    must!(
        r.nano_cpus <= u64::from(host.cpus) * NANOS,
        "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
        host.cpus
    );
    if r.cpu_shares != 0 {
        r.cpu_shares = r.cpu_shares.clamp(*SHARES.start(), *SHARES.end());
    }
    must!(
        r.cpu_period_us == 0 || (1_000..=1_000_000).contains(&r.cpu_period_us),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    );
    must!(
        r.cpu_quota_us <= 0 || r.cpu_quota_us >= 1_000,
        "CPU cfs quota can not be less than 1ms (i.e. 1000)"
    );
    if r.cpu_realtime_period_us != 0 || r.cpu_realtime_runtime_us != 0 {
        must!(host.cpu_realtime, "kernel does not support CPU real-time scheduler");
        must!(
            r.cpu_realtime_period_us == 0
                || i128::from(r.cpu_realtime_runtime_us) <= i128::from(r.cpu_realtime_period_us),
            "cpu real-time runtime cannot be higher than cpu real-time period"
        );
    }
    for (what, noun, asked, online) in [
        ("cpus", "CPUs", &r.cpuset_cpus, &host.cpuset_cpus),
        ("mems", "memory nodes", &r.cpuset_mems, &host.cpuset_mems),
    ] {
        let (Some(wanted), Some(there)) = (ranges(asked), ranges(online)) else {
            refuse!("Invalid value {asked} for cpuset {what}");
        };
        let inside = |(first, last): &(u32, u32)| {
            (*first..=*last).all(|n| there.iter().any(|(from, to)| (from..=to).contains(&&n)))
        };
        must!(
            online.is_empty() || wanted.iter().all(inside),
            "Requested {noun} are not available - requested {asked}, available: {online}"
        );
    }
    Ok(())
}

/// `0-2,7`, as the kernel reads it; no list is longer than the kernel's own bound of 8192.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last < 8192).then_some((first, last))
        })
        .collect()
}

/// All limits of devices.
pub(crate) fn devices(r: &v1::Resources) -> impl Iterator<Item = &v1::DeviceLimit> {
    [
        &r.blkio_weight_device,
        &r.device_read_bps,
        &r.device_write_bps,
        &r.device_read_iops,
        &r.device_write_iops,
    ]
    .into_iter()
    .flatten()
}

fn positive<T: PartialEq + Default>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn signed(value: u64) -> Option<i64> {
    positive(value).map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// What the runtime is told, for a start or an update. `number` gives a device's major and minor.
///
/// # Errors
/// If a device is not there.
pub fn lower(
    r: &v1::Resources,
    number: impl Fn(&str) -> Option<(i64, i64)>,
) -> Result<oci::Resources> {
    let memory = oci::Memory {
        limit: signed(r.memory_bytes),
        reservation: signed(r.memory_reservation_bytes),
        swap: positive(r.memory_swap_bytes),
        swappiness: r.memory_swappiness,
        disable_oom_killer: r.oom_kill_disable.then_some(true),
        ..Default::default()
    };
    let quota = r.nano_cpus / (NANOS / PERIOD_US);
    let cpu = oci::Cpu {
        shares: positive(r.cpu_shares),
        quota: signed(quota).or(positive(r.cpu_quota_us)),
        period: positive(r.nano_cpus).map(|_| PERIOD_US).or(positive(r.cpu_period_us)),
        realtime_runtime: positive(r.cpu_realtime_runtime_us),
        realtime_period: positive(r.cpu_realtime_period_us),
        cpus: r.cpuset_cpus.clone(),
        mems: r.cpuset_mems.clone(),
        ..Default::default()
    };
    let find = |path: &str| match number(path) {
        Some(numbers) => Ok(numbers),
        None => refuse!("stat {path}: no such file or directory"),
    };
    let throttle = |limits: &[v1::DeviceLimit]| -> Result<Vec<oci::ThrottleDevice>> {
        limits
            .iter()
            .map(|limit| {
                let (major, minor) = find(&limit.path)?;
                Ok(oci::ThrottleDevice { major, minor, rate: limit.value })
            })
            .collect()
    };
    let weight = |value: u64| u16::try_from(value).ok();
    let block_io = oci::BlockIo {
        weight: positive(u64::from(r.blkio_weight)).and_then(weight),
        weight_device: r
            .blkio_weight_device
            .iter()
            .map(|limit| {
                let (major, minor) = find(&limit.path)?;
                Ok(oci::WeightDevice {
                    major,
                    minor,
                    weight: weight(limit.value),
                    leaf_weight: None,
                })
            })
            .collect::<Result<_>>()?,
        throttle_read_bps_device: throttle(&r.device_read_bps)?,
        throttle_write_bps_device: throttle(&r.device_write_bps)?,
        throttle_read_iops_device: throttle(&r.device_read_iops)?,
        throttle_write_iops_device: throttle(&r.device_write_iops)?,
        ..Default::default()
    };
    Ok(oci::Resources {
        memory: positive(memory),
        cpu: positive(cpu),
        block_io: positive(block_io),
        // 0 is docker's other word for no limit; the runtime's is -1.
        pids: r
            .pids_limit
            .map(|limit| oci::Pids { limit: Some(if limit <= 0 { -1 } else { limit }) }),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::example;

    type Set = fn(&mut v1::Resources);

    fn resources(set: Set) -> v1::Resources {
        let mut resources = v1::Resources::default();
        set(&mut resources);
        resources
    }

    #[test]
    fn limits_are_checked_in_dockers_words() {
        let cases: [(Set, Option<&str>); 19] = [
            (|r| r.memory_bytes = 6 << 20, None),
            (|r| r.memory_bytes = (6 << 20) - 1, Some("Minimum memory limit allowed is 6MB")),
            (
                |r| {
                    r.memory_bytes = 8 << 20;
                    r.memory_swap_bytes = 7 << 20
                },
                Some("Minimum memoryswap limit should be larger than memory limit, see usage"),
            ),
            (
                |r| r.memory_swap_bytes = 7 << 20,
                Some(
                    "You should always set the Memory limit when using Memoryswap limit, see usage",
                ),
            ),
            (|r| r.memory_swap_bytes = -2, Some("invalid memory swap limit: -2")),
            (
                |r| r.memory_swappiness = Some(101),
                Some("Invalid value: 101, valid memory swappiness range is 0-100"),
            ),
            (
                |r| {
                    r.memory_bytes = 8 << 20;
                    r.memory_reservation_bytes = 9 << 20
                },
                Some(
                    "Minimum memory limit can not be less than memory reservation limit, see usage",
                ),
            ),
            (
                |r| {
                    r.nano_cpus = 1;
                    r.cpu_quota_us = 1
                },
                Some("Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
            ),
            (
                |r| r.nano_cpus = 4_000_000_001,
                Some("range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
            ),
            (
                |r| r.cpu_period_us = 999,
                Some(
                    "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
                ),
            ),
            (|r| r.cpu_quota_us = -1, None),
            (|r| r.cpu_quota_us = 999, Some("CPU cfs quota can not be less than 1ms (i.e. 1000)")),
            (|r| r.cpuset_cpus = "0-2,3".into(), None),
            (
                |r| r.cpuset_cpus = "2-4".into(),
                Some("Requested CPUs are not available - requested 2-4, available: 0-3"),
            ),
            (|r| r.cpuset_cpus = "a".into(), Some("Invalid value a for cpuset cpus")),
            (
                |r| r.cpuset_mems = "1".into(),
                Some("Requested memory nodes are not available - requested 1, available: 0"),
            ),
            (|r| r.blkio_weight = 9, Some("Range of blkio weight is from 10 to 1000")),
            (
                |r| r.cpu_realtime_runtime_us = 1,
                Some("kernel does not support CPU real-time scheduler"),
            ),
            (
                |r| r.device_read_bps = vec![v1::DeviceLimit { path: "sda".into(), value: 1 }],
                Some("bad format for device path: sda"),
            ),
        ];
        for (set, error) in cases {
            let mut given = resources(set);
            let found = check(&mut given, &example().host, false).err().map(|e| e.to_string());
            assert_eq!(found.as_deref(), error, "{given:?}");
        }
    }

    #[test]
    fn swap_is_twice_the_memory_and_what_v2_lacks_is_warned_of() {
        let mut given = resources(|r| {
            r.memory_bytes = 8 << 20;
            r.memory_swappiness = Some(1);
            r.oom_kill_disable = true;
            r.cpu_shares = 1;
        });
        let warnings = check(&mut given, &example().host, false).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!((given.memory_swap_bytes, given.cpu_shares), (16 << 20, 2));
        assert!(!given.oom_kill_disable && given.memory_swappiness.is_none());
    }

    #[test]
    fn the_runtime_is_told() {
        let given = resources(|r| {
            r.nano_cpus = 1_500_000_000;
            r.memory_bytes = 8 << 20;
            r.memory_swap_bytes = -1;
            r.pids_limit = Some(0);
            r.blkio_weight = 300;
            r.device_write_bps = vec![v1::DeviceLimit { path: "/dev/sda".into(), value: 7 }];
        });
        let lowered = lower(&given, |_| Some((8, 0))).unwrap();
        let cpu = lowered.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
        let memory = lowered.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(8 << 20), Some(-1)));
        assert_eq!(lowered.pids.unwrap().limit, Some(-1));
        let block = lowered.block_io.unwrap();
        assert_eq!((block.weight, block.throttle_write_bps_device[0].rate), (Some(300), 7));
        assert_eq!(
            lower(&given, |_| None).unwrap_err().to_string(),
            "stat /dev/sda: no such file or directory"
        );
        assert_eq!(lower(&v1::Resources::default(), |_| None).unwrap(), oci::Resources::default());
    }
}
