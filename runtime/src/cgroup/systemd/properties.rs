//! `linux.resources` as properties of a systemd unit. Pure.
//!
//! systemd must know the limits that it has names for, or it would reset them the next time it
//! touches the unit. What it has no name for is written to cgroupfs afterwards.

use anyhow::{Context, Result, bail, ensure};
use hull_specs_oci as oci;

use super::{Property, wire::Value};
use crate::cgroup::{
    devices::{Access, Kind},
    host::Mode,
    v2::{controller_of, limits as convert},
};

/// `CPUQuotaPeriodUSec`.
const QUOTA_PERIOD_SINCE: u32 = 242;
/// `AllowedCPUs` and `AllowedMemoryNodes`.
const CPUSET_SINCE: u32 = 244;
/// `CPUWeight=idle`.
const IDLE_SINCE: u32 = 252;
/// `OOMPolicy` of a scope.
const OOM_POLICY_SINCE: u32 = 253;
/// Devices by number, whether or not a node exists.
const DEVICE_NUMBERS_SINCE: u32 = 240;

const DEFAULT_PERIOD_US: u64 = 100_000;

fn property(name: &str, value: Value) -> Property {
    Property { name: name.to_owned(), value }
}

fn number(name: &str, value: u64) -> Property {
    property(name, Value::Uint64(value))
}

/// A limit in the configuration's terms, where -1 is none; systemd's "infinity" has all bits set.
fn bytes(name: &str, value: i64) -> Property {
    number(name, if value < 0 { u64::MAX } else { value.cast_unsigned() })
}

/// The limits of `resources` for a systemd of this `version`.
pub(super) fn limits(
    resources: &oci::Resources,
    mode: Mode,
    version: u32,
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    if mode == Mode::V2 {
        v2(resources, version, &mut properties)?;
    } else {
        v1(resources, &mut properties);
    }
    if let Some(cpu) = &resources.cpu {
        quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), version, &mut properties);
        if version >= CPUSET_SINCE {
            for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
                if !list.is_empty() {
                    properties.push(mask(name, list)?);
                }
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        properties.push(tasks(limit));
    }
    if mode == Mode::V2 {
        unified(resources, version, &mut properties)?;
    }
    Ok(properties)
}

fn v1(resources: &oci::Resources, properties: &mut Vec<Property>) {
    if let Some(limit) = resources.memory.as_ref().and_then(|m| m.limit).filter(|v| *v != 0) {
        properties.push(bytes("MemoryLimit", limit));
    }
    if let Some(shares) = resources.cpu.as_ref().and_then(|c| c.shares).filter(|v| *v != 0) {
        properties.push(number("CPUShares", shares));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|b| b.weight).filter(|v| *v != 0) {
        properties.push(number("BlockIOWeight", weight.into()));
    }
}

fn v2(resources: &oci::Resources, version: u32, properties: &mut Vec<Property>) -> Result<()> {
    if let Some(memory) = &resources.memory {
        let limit = memory.limit.unwrap_or(0);
        if limit != 0 {
            properties.push(bytes("MemoryMax", limit));
        }
        if let Some(reservation) = memory.reservation.filter(|v| *v != 0) {
            properties.push(bytes("MemoryLow", reservation));
        }
        let combined = memory.swap.unwrap_or(0);
        let swap = convert::swap_alone(combined, limit)?;
        // 0 after subtraction is "no swap"; 0 before it is "not set".
        if swap != 0 || combined > 0 {
            properties.push(bytes("MemorySwapMax", swap));
        }
    }
    if let Some(cpu) = &resources.cpu {
        let weight = convert::cpu_weight(cpu.shares.unwrap_or(0));
        if cpu.idle == Some(1) && version >= IDLE_SINCE {
            // 0 is systemd's number for "idle".
            properties.push(number("CPUWeight", 0));
        } else if weight != 0 {
            properties.push(number("CPUWeight", weight));
        }
    }
    Ok(())
}

fn tasks(limit: i64) -> Property {
    // systemd refuses 0.
    if limit < 0 { number("TasksMax", u64::MAX) } else { bytes("TasksMax", limit.max(1)) }
}

fn quota(quota: i64, period: u64, version: u32, properties: &mut Vec<Property>) {
    if period != 0 && version >= QUOTA_PERIOD_SINCE {
        properties.push(number("CPUQuotaPeriodUSec", period));
    }
    if quota != 0 || period != 0 {
        properties.push(number("CPUQuotaPerSecUSec", per_second(quota, period)));
    }
}

/// A quota as microseconds a second, rounded up to systemd's step of a hundredth.
fn per_second(quota: i64, period: u64) -> u64 {
    const STEP: u64 = 10_000;
    if quota <= 0 {
        return u64::MAX;
    }
    let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
    let exact = u128::from(quota.cast_unsigned()) * 1_000_000 / u128::from(period);
    u64::try_from(exact).map_or(u64::MAX, |value| value.div_ceil(STEP).saturating_mul(STEP))
}

/// The quota that systemd will make of `cpu`'s, so that writing it to cgroupfs afterwards
/// changes nothing.
pub(super) fn round_quota(cpu: &mut oci::Cpu) {
    if let Some(quota) = cpu.quota.filter(|quota| *quota > 0) {
        let period = cpu.period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD_US);
        let rounded = u128::from(per_second(quota, period)) * u128::from(period) / 1_000_000;
        cpu.quota = Some(i64::try_from(rounded).unwrap_or(quota).max(quota));
    }
}

/// A list such as "0-2,5" as systemd's bit mask, lowest bits first.
fn mask(name: &str, list: &str) -> Result<Property> {
    // The kernel's own bound on processors and nodes (CONFIG_NR_CPUS) is 8192.
    const MAX_BITS: usize = 1 << 16;
    let mut bits: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.parse::<usize>().ok().filter(|n| *n < MAX_BITS);
        let (Some(from), Some(to)) = (parse(from), parse(to)) else {
            bail!("{list:?} is not a list of numbers");
        };
        ensure!(from <= to, "invalid range: {part}");
        if bits.len() <= to / 8 {
            bits.resize(to / 8 + 1, 0);
        }
        for bit in from..=to {
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    ensure!(!bits.is_empty(), "{list:?} is an empty list");
    let bytes = bits.into_iter().map(Value::Byte).collect();
    Ok(property(name, Value::Array("y".into(), bytes)))
}

/// What systemd knows of `unified`; the rest is written to cgroupfs only.
fn unified(resources: &oci::Resources, version: u32, properties: &mut Vec<Property>) -> Result<()> {
    let map = &resources.unified;
    let idle = map.get("cpu.idle").is_some_and(|v| v.trim() == "1") && version >= IDLE_SINCE;
    for (key, value) in map {
        controller_of(key)?;
        let value = value.trim();
        let context = || format!("unified resource {key:?} value conversion error");
        let or_max = || match value {
            "max" => Ok(u64::MAX),
            _ => value.parse().with_context(context),
        };
        match key.as_str() {
            "cpu.idle" if idle => properties.push(number("CPUWeight", 0)),
            // CPUWeight can be given once, and idle is the stronger.
            "cpu.weight" if !idle => {
                properties.push(number("CPUWeight", value.parse().with_context(context)?));
            }
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let (Some(first), second, None) = (words.next(), words.next(), words.next()) else {
                    bail!("unified resource {key:?} value invalid: {value:?}");
                };
                let limit = if first == "max" { 0 } else { first.parse().with_context(context)? };
                let period = second.map(str::parse).transpose().with_context(context)?;
                quota(limit, period.unwrap_or(DEFAULT_PERIOD_US), version, properties);
            }
            "cpuset.cpus" | "cpuset.mems" if version >= CPUSET_SINCE => {
                let name = if key == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                properties.push(mask(name, value).with_context(context)?);
            }
            "memory.high" => properties.push(number("MemoryHigh", or_max()?)),
            "memory.low" => properties.push(number("MemoryLow", or_max()?)),
            "memory.min" => properties.push(number("MemoryMin", or_max()?)),
            "memory.max" => properties.push(number("MemoryMax", or_max()?)),
            "memory.swap.max" => properties.push(number("MemorySwapMax", or_max()?)),
            "pids.max" => properties.push(number("TasksMax", or_max()?.max(1))),
            _ => {}
        }
    }
    Ok(())
}

/// `memory.oom.group` has a property that can only be set when the unit starts.
pub(super) fn oom_policy(resources: &oci::Resources, version: u32) -> Result<Option<Property>> {
    let Some(value) = resources.unified.get("memory.oom.group") else { return Ok(None) };
    let group: u64 = value
        .trim()
        .parse()
        .with_context(|| "unified resource \"memory.oom.group\" value conversion error")?;
    let policy = match group {
        0 => "continue",
        1 => "kill",
        _ => return Ok(None),
    };
    let policy = property("OOMPolicy", Value::String(policy.to_owned()));
    Ok((version >= OOM_POLICY_SINCE).then_some(policy))
}

/// The device rules as systemd can say them. Rules that it can't (`*:minor`, a default of
/// allow with exceptions) are missing until the runtime sets its own rules over systemd's,
/// which happens before the container's program runs.
pub(super) fn devices(access: &Access, groups: &str, version: u32) -> Vec<Property> {
    let policy = |name: &str| property("DevicePolicy", Value::String(name.to_owned()));
    let allow = |entries| property("DeviceAllow", Value::Array("(ss)".into(), entries));
    // An empty list clears what the unit had.
    let clear = allow(Vec::new());
    if access.allows_by_default() {
        return if access.exceptions().is_empty() {
            vec![clear, policy("auto")]
        } else {
            vec![clear, policy("strict")]
        };
    }
    let mut entries = Vec::new();
    for (devices, modes) in access.exceptions() {
        let prefix = match devices.kind {
            Kind::Block => "block",
            Kind::Char => "char",
        };
        let path = match (devices.major, devices.minor) {
            (None, None) => format!("{prefix}-*"),
            (None, Some(_)) => continue,
            (Some(major), None) if version >= DEVICE_NUMBERS_SINCE => format!("{prefix}-{major}"),
            (Some(major), None) => match group(groups, devices.kind, major) {
                Some(name) => format!("{prefix}-{name}"),
                None => continue,
            },
            (Some(major), Some(minor)) => format!("/dev/{prefix}/{major}:{minor}"),
        };
        entries.push(Value::Struct(vec![Value::String(path), Value::String(modes.to_string())]));
    }
    vec![clear, policy("strict"), allow(entries)]
}

/// The name of a major number in the text of `/proc/devices`.
fn group(text: &str, kind: Kind, major: u32) -> Option<&str> {
    let mut current = None;
    for line in text.lines().map(str::trim) {
        match line {
            "Character devices:" => current = Some(Kind::Char),
            "Block devices:" => current = Some(Kind::Block),
            _ => {
                let (number, name) = line.split_once(' ').unwrap_or_default();
                if current == Some(kind) && number.parse() == Ok(major) {
                    return Some(name.trim());
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::evaluate;

    const NEW: u32 = 255;

    fn of(json: serde_json::Value, mode: Mode, version: u32) -> Result<Vec<(String, Value)>> {
        let resources = serde_json::from_value(json).expect("resources");
        Ok(limits(&resources, mode, version)?.into_iter().map(|p| (p.name, p.value)).collect())
    }

    fn check(json: serde_json::Value, mode: Mode, expected: &[(&str, u64)]) {
        let expected: Vec<_> =
            expected.iter().map(|(n, v)| ((*n).to_owned(), Value::Uint64(*v))).collect();
        assert_eq!(of(json, mode, NEW).expect("valid"), expected);
    }

    #[test]
    fn limits_on_v2() {
        check(
            serde_json::json!({"memory": {"limit": 100, "swap": 150, "reservation": 50},
                "cpu": {"shares": 1024, "quota": 5000, "period": 10000}, "pids": {"limit": 0}}),
            Mode::V2,
            &[
                ("MemoryMax", 100),
                ("MemoryLow", 50),
                ("MemorySwapMax", 50),
                ("CPUWeight", 100),
                ("CPUQuotaPeriodUSec", 10_000),
                ("CPUQuotaPerSecUSec", 500_000),
                ("TasksMax", 1),
            ],
        );
        check(
            serde_json::json!({"memory": {"limit": -1}, "cpu": {"idle": 1, "shares": 5}, "pids": {"limit": -1}}),
            Mode::V2,
            &[
                ("MemoryMax", u64::MAX),
                ("MemorySwapMax", u64::MAX),
                ("CPUWeight", 0),
                ("TasksMax", u64::MAX),
            ],
        );
    }

    #[test]
    fn limits_on_v1() {
        check(
            serde_json::json!({"memory": {"limit": 100, "swap": 150}, "cpu": {"shares": 512},
                "blockIO": {"weight": 300}}),
            Mode::Hybrid,
            &[("MemoryLimit", 100), ("CPUShares", 512), ("BlockIOWeight", 300)],
        );
    }

    #[test]
    fn the_unified_map() {
        check(
            serde_json::json!({"unified": {"cpu.idle": "1", "cpu.weight": "50", "memory.high": "max",
                "memory.swap.max": " 7\n", "pids.max": "0", "io.max": "8:0 rbps=1",
                "cpu.max": "max 50000"}}),
            Mode::V2,
            &[
                ("CPUWeight", 0),
                ("CPUQuotaPeriodUSec", 50_000),
                ("CPUQuotaPerSecUSec", u64::MAX),
                ("MemoryHigh", u64::MAX),
                ("MemorySwapMax", 7),
                ("TasksMax", 1),
            ],
        );
        for (key, value) in [("a/b.c", "1"), ("x", "1"), ("cpu.max", "1 2 3"), ("pids.max", "y")] {
            assert!(
                of(serde_json::json!({"unified": {key: value}}), Mode::V2, NEW).is_err(),
                "{key}"
            );
        }
    }

    #[test]
    fn an_old_systemd_is_not_asked_for_what_it_does_not_know() {
        let json =
            serde_json::json!({"cpu": {"quota": 5000, "period": 10000, "cpus": "0", "idle": 1}});
        let names: Vec<_> =
            of(json, Mode::V2, 0).expect("valid").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["CPUQuotaPerSecUSec"]);
    }

    #[test]
    fn a_quota_is_rounded_up_and_the_same_is_written() {
        for (quota, period, rounded) in
            [(5000, 10_000, 5000), (12_345, 100_000, 13_000), (-1, 100_000, -1), (1, 0, 1000)]
        {
            let mut cpu =
                oci::Cpu { quota: Some(quota), period: Some(period), ..Default::default() };
            round_quota(&mut cpu);
            assert_eq!(cpu.quota, Some(rounded), "{quota}/{period}");
        }
    }

    #[test]
    fn lists_become_masks() {
        let bits = |list| match mask("AllowedCPUs", list).map(|p| p.value) {
            Ok(Value::Array(_, bytes)) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(bits("0-2,5"), [Value::Byte(0b10_0111)]);
        assert_eq!(bits("8, 1"), [Value::Byte(2), Value::Byte(1)]);
        for bad in ["", "x", "3-1", "0-99999999999", ","] {
            assert!(mask("AllowedCPUs", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn device_rules() {
        let rule = |allow, kind: &str, major: i64, minor: i64| oci::DeviceRule {
            allow,
            kind: kind.to_owned(),
            major: Some(major),
            minor: Some(minor),
            access: "rw".to_owned(),
        };
        let list = |rules: &[oci::DeviceRule], version| {
            let access = evaluate(rules).expect("valid");
            let text = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
            devices(&access, text, version)
        };
        let paths = |properties: &[Property]| match &properties.last().expect("some").value {
            Value::Array(_, entries) => entries
                .iter()
                .map(|entry| match entry {
                    Value::Struct(fields) => fields[0].as_text().expect("text").to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let rules = [
            rule(true, "c", 1, 3),
            rule(true, "c", 136, -1),
            rule(true, "b", -1, -1),
            rule(true, "c", -1, 7),
        ];
        assert_eq!(paths(&list(&rules, NEW)), ["/dev/char/1:3", "char-136", "block-*"]);
        assert_eq!(paths(&list(&rules, 239)), ["/dev/char/1:3", "char-pts", "block-*"]);
        let all = list(&[rule(true, "a", -1, -1)], NEW);
        assert_eq!(all[1].value, Value::String("auto".into()));
        let but = list(&[rule(true, "a", -1, -1), rule(false, "c", 1, 3)], NEW);
        assert_eq!(but[1].value, Value::String("strict".into()));
    }

    #[test]
    fn the_oom_policy_of_a_group() {
        let of = |value: &str, version| {
            let resources =
                serde_json::from_value(serde_json::json!({"unified": {"memory.oom.group": value}}))
                    .expect("resources");
            oom_policy(&resources, version)
        };
        let policy = of("1", NEW).expect("valid").expect("set");
        assert_eq!(policy.value, Value::String("kill".into()));
        assert!(of("1", 252).expect("valid").is_none());
        assert!(of("x", NEW).is_err());
    }
}
