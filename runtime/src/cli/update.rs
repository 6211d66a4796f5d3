//! The options of `update`, and the resources that they spell.

use anyhow::{Context, Result, anyhow, bail};
use hull_specs_oci as oci;

use super::{
    parse::Given,
    table::{self, Opt},
};
use crate::log;

pub(super) const OPTIONS: &[Opt] = &[
    table::file("resources", "r", "read the limits, as JSON, from FILE or - for standard input"),
    table::whole("blkio-weight", "WEIGHT", "share of block devices' time, from 10 to 1000"),
    table::text("cpu-period", "USEC", "the period that the quota is counted in"),
    table::text("cpu-quota", "USEC", "processor time in a period; -1 for no limit"),
    table::text("cpu-burst", "USEC", "unused quota that may be spent later"),
    table::text("cpu-share", "SHARES", "weight against other containers"),
    table::text("cpu-rt-period", "USEC", "the period of the realtime quota"),
    table::text("cpu-rt-runtime", "USEC", "realtime processor time in a period"),
    table::text("cpuset-cpus", "LIST", "the processors that may be used"),
    table::text("cpuset-mems", "LIST", "the memory nodes that may be used"),
    table::obsolete("kernel-memory"),
    table::obsolete("kernel-memory-tcp"),
    table::text("memory", "BYTES", "memory limit; -1 for none"),
    table::text("cpu-idle", "0|1", "1 lets the container run only on idle processors"),
    table::text("memory-reservation", "BYTES", "memory to fall back to under pressure"),
    table::text("memory-swap", "BYTES", "memory and swap together; -1 for no limit"),
    table::whole("pids-limit", "N", "the largest number of processes; -1 for no limit"),
    table::text("l3-cache-schema", "SCHEMA", "Intel RDT schema of the L3 cache"),
    table::text("mem-bw-schema", "SCHEMA", "Intel RDT schema of the memory bandwidth"),
];

/// The limits that the options change.
pub(super) fn resources(given: &Given<'_>) -> Result<oci::Resources> {
    let cpu = oci::Cpu {
        shares: number(given, "cpu-share")?,
        quota: number(given, "cpu-quota")?,
        burst: number(given, "cpu-burst")?,
        period: number(given, "cpu-period")?,
        realtime_runtime: number(given, "cpu-rt-runtime")?,
        realtime_period: number(given, "cpu-rt-period")?,
        cpus: given.text("cpuset-cpus")?.unwrap_or_default().to_owned(),
        mems: given.text("cpuset-mems")?.unwrap_or_default().to_owned(),
        idle: number(given, "cpu-idle")?,
    };
    let memory = oci::Memory {
        limit: size(given, "memory")?,
        reservation: size(given, "memory-reservation")?,
        swap: size(given, "memory-swap")?,
        kernel: size(given, "kernel-memory")?,
        kernel_tcp: size(given, "kernel-memory-tcp")?,
        ..oci::Memory::default()
    };
    let weight = given.whole("blkio-weight")?.filter(|weight| *weight != 0);
    let weight = weight.map(u16::try_from).transpose().context("invalid value for blkio-weight")?;
    let limit = given.whole("pids-limit")?;
    Ok(oci::Resources {
        cpu: (cpu != oci::Cpu::default()).then_some(cpu),
        memory: (memory != oci::Memory::default()).then_some(memory),
        block_io: weight.map(|_| oci::BlockIo { weight, ..oci::BlockIo::default() }),
        pids: limit.map(|_| oci::Pids { limit }),
        ..oci::Resources::default()
    })
}

/// Makes limits that belong together come together, and drops those that no kernel has any
/// more. Applies to options and files alike.
pub(super) fn complete(resources: &mut oci::Resources) {
    if let Some(memory) = &mut resources.memory {
        if memory.limit == Some(-1) && memory.swap.is_none() {
            // No limit on memory lifts the one on memory and swap too, which could not stay
            // below it; 0 is how the specification's users write "unset".
            memory.swap = Some(0);
        }
        if memory.kernel.take().is_some() | memory.kernel_tcp.take().is_some() {
            log::warning("kernel memory limits are obsolete and have no effect");
        }
    }
    if let Some(cpu) = &mut resources.cpu
        && cpu.idle.is_some()
        && cpu.shares.is_none()
    {
        // The kernel refuses a weight for an idle cgroup: the one set earlier is unset.
        cpu.shares = Some(0);
    }
}

fn number<T: std::str::FromStr>(given: &Given<'_>, name: &str) -> Result<Option<T>> {
    let parse = |text: &str| {
        text.parse().map_err(|_| anyhow!("invalid value for {name}: {text:?} is not a number"))
    };
    given.text(name)?.map(parse).transpose()
}

fn size(given: &Given<'_>, name: &str) -> Result<Option<i64>> {
    let parse = |text: &str| match text {
        "-1" => Ok(-1),
        text => bytes(text).with_context(|| format!("invalid value for {name}")),
    };
    given.text(name)?.map(parse).transpose()
}

/// A size such as `512m`, `1.5GiB`, `1048576` or `64 kb`; units count in 1024.
fn bytes(text: &str) -> Result<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => bail!("invalid suffix: '{unit}'"),
    };
    // Digits and points only: Rust's floats may also be called inf and nan.
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        bail!("invalid size: '{text}'");
    }
    let size: f64 = number.parse().map_err(|_| anyhow!("invalid size: '{text}'"))?;
    let size = size * (1_i64 << shift) as f64;
    if size >= 9.2e18 {
        bail!("invalid size: '{text}' is too large");
    }
    // Fractions of a byte do not count.
    Ok(size as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, size) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32KiB", 32 << 10),
            ("32 mb", 32 << 20),
            ("1.5g", 3 << 29),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
            (".5k", 512),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "m", "-2", "1x", "1kbb", "1ib", "1bb", "1 k b", "1e3", "inf", "1.2.3", "1kib ",
            "9000000p", "1é",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_that_belong_together_come_together() {
        let mut resources: oci::Resources =
            serde_json::from_str(r#"{"memory":{"limit":-1},"cpu":{"idle":1}}"#).unwrap();
        complete(&mut resources);
        assert_eq!(resources.memory.unwrap().swap, Some(0));
        assert_eq!(resources.cpu.unwrap().shares, Some(0));
    }
}
