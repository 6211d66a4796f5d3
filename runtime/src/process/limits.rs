//! Resource limits and the out-of-memory score.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

/// The names in order of the kernel's numbers (asm-generic; the same on every
/// architecture we build for).
const RESOURCES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) resource: u8,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl Limit {
    /// `RLIMIT_NOFILE` and so on.
    pub(crate) fn name(&self) -> &'static str {
        RESOURCES[usize::from(self.resource)]
    }
}

pub(super) fn plan(configured: &[oci::Rlimit]) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(configured.len());
    for limit in configured {
        let kind = &limit.kind;
        let Some(resource) = (0..).zip(RESOURCES).find(|(_, name)| name == kind) else {
            bail!("wrong rlimit value: {kind}");
        };
        let resource = resource.0;
        if limits.iter().any(|earlier| earlier.resource == resource) {
            bail!("rlimit {kind} is given more than once");
        }
        if limit.soft > limit.hard {
            bail!(
                "rlimit {kind}: the soft limit {} is above the hard limit {}",
                limit.soft,
                limit.hard
            );
        }
        limits.push(Limit { resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

pub(super) fn plan_oom_score(configured: Option<i32>) -> Result<Option<i32>> {
    match configured {
        Some(score) if !(-1000..=1000).contains(&score) => {
            bail!("oomScoreAdj {score} is not in the range -1000 to 1000")
        }
        score => Ok(score),
    }
}

pub(super) fn apply(limits: &[Limit], pid: i32) -> Result<()> {
    for limit in limits {
        sys::process::set_limit(pid, limit.resource.into(), limit.soft, limit.hard)
            .with_context(|| format!("error setting rlimit type {}", limit.resource))?;
    }
    Ok(())
}

/// Raises the hard limits that are below the configured ones.
pub(super) fn raise(pid: i32, limits: &[Limit]) -> Result<()> {
    for limit in limits {
        let (soft, hard) = sys::process::limit(pid, limit.resource.into())?;
        if limit.hard > hard {
            sys::process::set_limit(pid, limit.resource.into(), soft, limit.hard)
                .with_context(|| format!("error setting rlimit type {}", limit.resource))?;
        }
    }
    Ok(())
}

/// Writes a process's score through a private procfs, which no container can have put
/// something over (CVE-2019-16884 and its kin).
pub(super) fn apply_oom_score(score: Option<i32>, procfs: impl AsFd, pid: i32) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let process = if pid == 0 { "self".to_owned() } else { pid.to_string() };
    let write = || {
        let path = sys::path::c_path(format!("{process}/oom_score_adj"))?;
        let file = sys::fd::openat(procfs, &path, libc::O_WRONLY, 0)?;
        sys::fd::write_all(file, score.to_string().as_bytes())
    };
    write().with_context(|| format!("failed to set oomScoreAdj to {score}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> oci::Rlimit {
        oci::Rlimit { kind: kind.to_owned(), soft, hard }
    }

    #[test]
    fn names_have_the_kernels_numbers() {
        for (name, number) in [
            ("RLIMIT_CPU", libc::RLIMIT_CPU),
            ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
            ("RLIMIT_DATA", libc::RLIMIT_DATA),
            ("RLIMIT_STACK", libc::RLIMIT_STACK),
            ("RLIMIT_CORE", libc::RLIMIT_CORE),
            ("RLIMIT_RSS", libc::RLIMIT_RSS),
            ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
            ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
            ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
            ("RLIMIT_AS", libc::RLIMIT_AS),
            ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
            ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
            ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
            ("RLIMIT_NICE", libc::RLIMIT_NICE),
            ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
            ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        ] {
            let planned = plan(&[limit(name, 1, u64::MAX)]).unwrap();
            assert_eq!(u32::from(planned[0].resource), number, "{name}");
            assert_eq!(planned[0].name(), name);
        }
    }

    #[test]
    fn bad_limits_are_refused() {
        let check = |limits: &[oci::Rlimit], why: &str| {
            assert_eq!(plan(limits).unwrap_err().to_string(), why);
        };
        check(&[limit("RLIMIT_FOO", 1, 1)], "wrong rlimit value: RLIMIT_FOO");
        check(&[limit("NOFILE", 1, 1)], "wrong rlimit value: NOFILE");
        check(
            &[limit("RLIMIT_CPU", 1, 1), limit("RLIMIT_AS", 1, 1), limit("RLIMIT_CPU", 1, 1)],
            "rlimit RLIMIT_CPU is given more than once",
        );
        check(
            &[limit("RLIMIT_CORE", 2, 1)],
            "rlimit RLIMIT_CORE: the soft limit 2 is above the hard limit 1",
        );
    }

    #[test]
    fn the_score_has_a_range() {
        assert_eq!(plan_oom_score(None).unwrap(), None);
        assert_eq!(plan_oom_score(Some(-1000)).unwrap(), Some(-1000));
        assert_eq!(plan_oom_score(Some(1000)).unwrap(), Some(1000));
        for score in [-1001, 1001, i32::MIN, i32::MAX] {
            assert!(plan_oom_score(Some(score)).is_err());
        }
    }
}
