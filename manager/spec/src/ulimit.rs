//! Limits of the process: setrlimit(2).

use hull_specs_api::v1;
use hull_specs_oci as oci;

use crate::error::{Result, must};

/// Docker's names. `as` is not among them: it would be in force for the runtime, too.
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Checks names and values.
///
/// # Errors
/// For the first thing that is wrong.
pub fn check(limits: &[v1::Ulimit]) -> Result<()> {
    for v1::Ulimit { name, soft, hard } in limits {
        must!(NAMES.contains(&name.as_str()), "invalid ulimit type: {name}");
        must!(*soft >= -1 && *hard >= -1, "invalid ulimit {name}: {soft}:{hard}");
        must!(
            *hard == -1 || *soft != -1,
            "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        );
        must!(
            *hard == -1 || soft <= hard,
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        );
    }
    let mut names: Vec<_> = limits.iter().map(|limit| &limit.name).collect();
    names.sort();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    must!(twice.is_none(), "ulimit {} is given twice", twice.map_or("", |pair| pair[0].as_str()));
    Ok(())
}

/// The container's, and the manager's for those it does not set.
pub(crate) fn merge(asked: &[v1::Ulimit], defaults: &[v1::Ulimit]) -> Vec<v1::Ulimit> {
    let missing =
        defaults.iter().filter(|limit| !asked.iter().any(|other| other.name == limit.name));
    asked.iter().chain(missing).cloned().collect()
}

pub(crate) fn lower(limits: &[v1::Ulimit]) -> Vec<oci::Rlimit> {
    // -1 is RLIM_INFINITY.
    let number = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    limits
        .iter()
        .map(|limit| oci::Rlimit {
            kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
            soft: number(limit.soft),
            hard: number(limit.hard),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: i64, hard: i64) -> v1::Ulimit {
        v1::Ulimit { name: name.into(), soft, hard }
    }

    #[test]
    fn names_and_order_are_checked() {
        for (limits, error) in [
            (vec![limit("nofile", 1, 2), limit("nproc", 5, -1), limit("core", -1, -1)], None),
            (vec![limit("as", 1, 2)], Some("invalid ulimit type: as")),
            (
                vec![limit("nofile", 3, 2)],
                Some("ulimit soft limit must be less than or equal to hard limit: 3 > 2"),
            ),
            (
                vec![limit("nofile", -1, 2)],
                Some(
                    "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 2",
                ),
            ),
            (vec![limit("nofile", -2, 2)], Some("invalid ulimit nofile: -2:2")),
            (
                vec![limit("nofile", 1, 2), limit("nofile", 1, 2)],
                Some("ulimit nofile is given twice"),
            ),
        ] {
            assert_eq!(check(&limits).err().map(|e| e.to_string()).as_deref(), error, "{limits:?}");
        }
    }

    #[test]
    fn the_managers_are_added_and_minus_one_is_infinity() {
        let merged = merge(&[limit("core", -1, -1)], &[limit("core", 1, 1), limit("nofile", 2, 3)]);
        let lowered = lower(&merged);
        assert_eq!(
            lowered,
            [
                oci::Rlimit { kind: "RLIMIT_CORE".into(), soft: u64::MAX, hard: u64::MAX },
                oci::Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 2, hard: 3 }
            ]
        );
    }
}
