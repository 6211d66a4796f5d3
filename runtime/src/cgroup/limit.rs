//! One resource limit as one write to one cgroup file, and the short loop that performs a
//! list of them.
//!
//! The lists are made by `v1::limits` and `v2::limits` without touching the system. Writing
//! needs no reading first: where the kernel checks two values against each other (memory and
//! memory+swap, quota and period), the write that comes too early fails with `EINVAL` and is
//! repeated after the others of its controller. What the kernel may round or clamp is read
//! back through the same descriptor.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::OpenOptions,
    io::{Read, Seek},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

use super::{file, host::Mode};

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The controller whose directory holds the file.
    pub(super) controller: &'static str,
    /// The field below `linux.resources` that asks for it.
    pub(super) field: &'static str,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// The file, and the value in its terms, where the kernel lacks the first.
    pub(super) instead: Option<(&'static str, String)>,
    pub(super) on_failure: OnFailure,
    pub(super) check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    Fail,
    /// `EINVAL`: repeat after the controller's other writes.
    Later,
    /// The file isn't there: what was asked for is already so.
    Absent,
}

/// What must be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The kernel takes this value as it is or refuses it.
    Trust,
    /// The first word of the file is the value.
    Same,
    /// As many bytes as asked for, less at most a page.
    Bytes,
    /// cpu.shares, which the kernel clamps silently.
    Shares,
}

/// The largest page of any architecture: memory limits are rounded down to a page.
const MAX_PAGE_BYTES: u64 = 64 << 10;

impl Limit {
    pub(super) fn new(
        controller: &'static str,
        field: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller,
            field,
            file: file.into(),
            value: value.to_string(),
            instead: None,
            on_failure: OnFailure::Fail,
            check: Check::Trust,
        }
    }

    pub(super) fn later(self) -> Self {
        Self { on_failure: OnFailure::Later, ..self }
    }

    pub(super) fn absent_is_fine(self) -> Self {
        Self { on_failure: OnFailure::Absent, ..self }
    }

    pub(super) fn check(self, check: Check) -> Self {
        Self { check, ..self }
    }

    pub(super) fn or_else(self, file: &'static str, value: impl ToString) -> Self {
        Self { instead: Some((file, value.to_string())), ..self }
    }
}

/// Writes `limits` in order. `dir` finds a controller's directory.
pub(super) fn apply<'a>(limits: &[Limit], dir: impl Fn(&str) -> Option<&'a Path>) -> Result<()> {
    for group in limits.chunk_by(|a, b| a.controller == b.controller) {
        let controller = group[0].controller;
        let Some(dir) = dir(controller) else {
            bail!(
                "cannot set {controller} limit: container could not join or create cgroup ({})",
                group[0].field
            );
        };
        let mut late = Vec::new();
        for limit in group {
            match write(dir, limit) {
                Err(error)
                    if limit.on_failure == OnFailure::Later && error.errno() == libc::EINVAL =>
                {
                    late.push(limit);
                }
                Err(error)
                    if limit.on_failure == OnFailure::Absent && error.errno() == libc::ENOENT => {}
                result => finish(dir, limit, result)?,
            }
        }
        for limit in late {
            finish(dir, limit, write(dir, limit))?;
        }
    }
    Ok(())
}

/// The text that was read back, for a limit that is checked.
fn write(dir: &Path, limit: &Limit) -> sys::Result<Option<String>> {
    match write_file(dir, &limit.file, &limit.value, limit.check) {
        Err(error) if error.errno() == libc::ENOENT => match &limit.instead {
            Some((name, value)) => write_file(dir, name, value, limit.check),
            None => Err(error),
        },
        result => result,
    }
}

fn write_file(dir: &Path, name: &str, value: &str, check: Check) -> sys::Result<Option<String>> {
    let path = dir.join(name);
    let check = check != Check::Trust;
    let mut file = OpenOptions::new()
        .write(true)
        .read(check)
        .open(&path)
        .map_err(|e| file::error("open", &e, &path))?;
    file::write_open(&mut file, &path, value)?;
    if !check {
        return Ok(None);
    }
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.take(4096).read_to_string(&mut text))
        .map_err(|e| file::error("read", &e, &path))?;
    Ok(Some(text))
}

fn finish(dir: &Path, limit: &Limit, result: sys::Result<Option<String>>) -> Result<()> {
    match result {
        Ok(None) => Ok(()),
        Ok(Some(text)) => verify(limit, text.trim()),
        Err(error) => Err(explain(dir, limit, error)),
    }
}

fn verify(limit: &Limit, now: &str) -> Result<()> {
    let asked = limit.value.as_str();
    let first = now.split_whitespace().next().unwrap_or_default();
    let applied = match limit.check {
        Check::Trust => true,
        // "max 100000" and "50000 100000" are compared whole, single values by the first word.
        Check::Same if asked.contains(' ') => now == asked,
        Check::Same => first == asked,
        Check::Bytes => match (asked.parse::<u64>(), file::parse_number(first)) {
            (Ok(asked), Some(now)) => {
                now <= asked && asked - now < MAX_PAGE_BYTES
                    // Beyond the counter's range means no limit.
                    || now == u64::MAX && asked > i64::MAX as u64 - MAX_PAGE_BYTES
            }
            _ => first == asked,
        },
        Check::Shares => match (asked.parse::<u64>(), first.parse::<u64>()) {
            (Ok(asked), Ok(now)) if asked > now => bail!("the maximum allowed cpu-shares is {now}"),
            (Ok(asked), Ok(now)) if asked < now => bail!("the minimum allowed cpu-shares is {now}"),
            _ => first == asked,
        },
    };
    if applied {
        return Ok(());
    }
    Err(anyhow!(
        "cannot set {} limit: {} is {asked:?}, but the kernel made it {now:?} in {}",
        limit.controller,
        limit.field,
        limit.file
    ))
}

/// Why the write failed, in the caller's terms.
fn explain(dir: &Path, limit: &Limit, error: sys::Error) -> anyhow::Error {
    let (controller, field) = (limit.controller, limit.field);
    if error.errno() == libc::ENOENT && dir.is_dir() {
        let on_v2 = file::read(dir, "cgroup.controllers").ok();
        let enabled =
            on_v2.as_ref().is_none_or(|list| list.split_whitespace().any(|c| c == controller));
        let why = if enabled {
            format!("this kernel's {controller} controller has no {}", limit.file)
        } else {
            format!("controller {controller} is not available in {}", dir.display())
        };
        return anyhow::Error::new(error)
            .context(format!("cannot set {controller} limit ({field}): {why}"));
    }
    // v1 refuses a limit that the usage exceeds; v2 starts to reclaim and kill instead.
    if error.errno() == libc::EBUSY && limit.file == "memory.limit_in_bytes" {
        let usage = file::read_number(dir, "memory.usage_in_bytes").unwrap_or_default();
        let peak = file::read_number(dir, "memory.max_usage_in_bytes").unwrap_or_default();
        return anyhow::Error::new(error).context(format!(
            "unable to set memory limit to {} (current usage: {usage}, peak usage: {peak})",
            limit.value
        ));
    }
    anyhow::Error::new(error)
        .context(format!("failed to write {:?}", limit.value))
        .context(format!("cannot set {controller} limit ({field})"))
}

/// Refuses a limit whose controller no hierarchy of the container holds, before anything is made.
pub(super) fn require(limits: &[Limit], available: impl Fn(&str) -> bool) -> Result<()> {
    match limits.iter().find(|limit| !available(limit.controller)) {
        None => Ok(()),
        Some(limit) => {
            Err(anyhow!("controller {} is not available on this host", limit.controller))
                .with_context(|| format!("cannot set {} limit ({})", limit.controller, limit.field))
        }
    }
}

/// Fields that are accepted and have no effect: the specification's leftovers of kernel memory
/// limits, which no current kernel enforces. The text is runc's warning.
pub(crate) fn ignored_fields(mode: Mode, resources: &oci::Resources) -> Option<&'static str> {
    let memory = resources.memory.as_ref()?;
    let ignored = memory.kernel.is_some() || mode == Mode::V2 && memory.kernel_tcp.is_some();
    ignored.then_some("Kernel memory settings are ignored and will be removed")
}

/// `pids.limit`: 0 becomes 1 because systemd refuses 0, and both drivers shall agree; negative
/// means no limit.
pub(super) fn pids(limit: i64) -> Limit {
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    Limit::new("pids", "pids.limit", "pids.max", value).check(Check::Same)
}

/// `hugepageLimits`: usage and, where the kernel (5.7) counts them, reservations.
pub(super) fn hugetlb(
    asked: &[oci::HugepageLimit],
    suffix: &str,
    limits: &mut Vec<Limit>,
) -> Result<()> {
    for oci::HugepageLimit { page_size, limit } in asked {
        ensure!(
            !page_size.is_empty() && page_size.bytes().all(|b| b.is_ascii_alphanumeric()),
            "hugepageLimits: {page_size:?} is not a page size (such as 2MB or 1GB)"
        );
        let of = |part: &str| {
            Limit::new(
                "hugetlb",
                "hugepageLimits",
                format!("hugetlb.{page_size}.{part}{suffix}"),
                limit,
            )
        };
        limits.push(of("").check(Check::Bytes));
        limits.push(of("rsvd.").absent_is_fine());
    }
    Ok(())
}

/// `rdma`, a line for each device.
pub(super) fn rdma(asked: &BTreeMap<String, oci::Rdma>, limits: &mut Vec<Limit>) {
    for (device, rdma) in asked {
        let mut line = device.clone();
        if let Some(handles) = rdma.hca_handles {
            line.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = rdma.hca_objects {
            line.push_str(&format!(" hca_object={objects}"));
        }
        limits.push(Limit::new("rdma", "rdma", "rdma.max", line));
    }
}

/// `memory.swappiness`; callers write "not set" as -1 in an unsigned field.
pub(super) fn swappiness(memory: &oci::Memory) -> Result<Option<u64>> {
    match memory.swappiness {
        None | Some(u64::MAX) => Ok(None),
        Some(value @ 0..=100) => Ok(Some(value)),
        Some(value) => bail!("invalid memory swappiness value: {value} (valid range is 0-100)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn limit(value: &str, check: Check) -> Limit {
        Limit::new("memory", "memory.limit", "memory.max", value).check(check)
    }

    #[test]
    fn rounding_to_a_page_is_accepted_and_nothing_else() {
        assert!(verify(&limit("10000", Check::Bytes), "8192").is_ok());
        assert!(verify(&limit("10000", Check::Bytes), "12288").is_err(), "never rounded up");
        assert!(verify(&limit("10000000", Check::Bytes), "4096").is_err());
        assert!(verify(&limit("10000", Check::Bytes), "max").is_err());
        assert!(verify(&limit("9223372036854775807", Check::Bytes), "9223372036854771712").is_ok());
        assert!(verify(&limit("9223372036854775807", Check::Bytes), "max").is_ok());
        assert!(verify(&limit("max", Check::Bytes), "max").is_ok());
        assert!(verify(&limit("-1", Check::Bytes), "-1").is_ok());
    }

    #[test]
    fn other_checks() {
        assert!(verify(&limit("12", Check::Same), "12").is_ok());
        assert!(verify(&limit("12", Check::Same), "13").is_err());
        assert!(verify(&limit("50000 100000", Check::Same), "50000 100000").is_ok());
        assert!(verify(&limit("50000 100000", Check::Same), "50000 100001").is_err());
        let error = verify(&limit("1", Check::Shares), "2").expect_err("clamped");
        assert_eq!(error.to_string(), "the minimum allowed cpu-shares is 2");
    }

    #[test]
    fn a_missing_file_names_controller_and_field() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("cgroup.controllers"), "cpu pids\n").expect("writes");
        let error = apply(&[limit("1", Check::Trust)], |_| Some(dir.path())).expect_err("no file");
        let text = format!("{error:#}");
        assert!(text.contains("controller memory is not available"), "{text}");
        assert!(text.contains("memory.limit"), "{text}");
        let absent = limit("max", Check::Trust).absent_is_fine();
        assert!(apply(&[absent], |_| Some(dir.path())).is_ok());
    }

    #[test]
    fn the_other_name_of_a_file_is_used() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("blkio.bfq.weight"), "").expect("writes");
        let limit = Limit::new("blkio", "blockIO.weight", "blkio.weight", 100)
            .or_else("blkio.bfq.weight", 100);
        apply(&[limit], |_| Some(dir.path())).expect("writes");
        assert_eq!(fs::read_to_string(dir.path().join("blkio.bfq.weight")).expect("reads"), "100");
    }

    #[test]
    fn a_controller_without_a_directory_is_named() {
        let error = apply(&[limit("1", Check::Trust)], |_| None).expect_err("no cgroup");
        assert!(error.to_string().starts_with("cannot set memory limit"), "{error}");
        let error = require(&[limit("1", Check::Trust)], |_| false).expect_err("no controller");
        assert!(format!("{error:#}").contains("controller memory is not available"), "{error:#}");
    }
}
