//! Capabilities (capabilities(7)).

use hull_specs_oci as oci;

use crate::error::{Error, Result, must};

/// All of Linux 6.18, by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has unless it asks otherwise, in docker's order.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL: &str = "ALL";

fn available(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| name)
}

/// `net_admin` as `CAP_NET_ADMIN`, sorted and once; `ALL` stays.
pub(crate) fn normalise(list: &[String], mask: u64, what: &str) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(list.len());
    for given in list {
        let upper = given.to_uppercase();
        let name = match upper.as_str() {
            ALL => upper,
            name if name.starts_with("CAP_") => upper,
            name => format!("CAP_{name}"),
        };
        let known = name == ALL || NAMES.contains(&name.as_str());
        must!(known, "invalid {what}: unknown capability: {name:?}");
        let here = name == ALL || available(mask).any(|other| other == name);
        must!(
            here,
            "invalid {what}: capability not supported by your kernel or not available in the current environment: {name:?}"
        );
        names.push(name);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The container's, from lists that [`normalise`] made.
pub(crate) fn of_container(
    add: &[String],
    drop: &[String],
    privileged: bool,
    mask: u64,
) -> Vec<String> {
    let has = |list: &[String], name: &str| list.iter().any(|other| other == name);
    let all = privileged || has(add, ALL);
    if !all && has(drop, ALL) {
        return add.to_vec();
    }
    let base: Vec<&str> = if all {
        available(mask).collect()
    } else {
        // Docker asks for all 14 and fails in a container that lacks one of them.
        DEFAULT.into_iter().filter(|name| available(mask).any(|other| other == *name)).collect()
    };
    let kept = base.into_iter().filter(|name| privileged || !has(drop, name)).map(str::to_owned);
    let mut names: Vec<String> = kept.collect();
    if !all {
        names.extend(add.iter().filter(|name| !has(&names, name)).cloned().collect::<Vec<_>>());
    }
    names
}

/// The sets of a process: never inheritable, never ambient (R6). Who is not root has none but the
/// bounding set, as execve(2) would leave it: the exec itself is not made with more.
pub(crate) fn sets(names: &[String], uid: u32) -> oci::Capabilities {
    let held = if uid == 0 { names.to_vec() } else { Vec::new() };
    oci::Capabilities {
        bounding: names.to_vec(),
        effective: held.clone(),
        permitted: held,
        ..Default::default()
    }
}

/// All that the manager may give.
pub(crate) fn all(mask: u64) -> Vec<String> {
    available(mask).map(str::to_owned).collect()
}

/// Checks both lists.
pub(crate) fn check(add: &mut Vec<String>, drop: &mut Vec<String>, mask: u64) -> Result<(), Error> {
    *add = normalise(add, mask, "CapAdd")?;
    // What can't be given can be taken.
    *drop = normalise(drop, u64::MAX, "CapDrop")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = (1 << 41) - 1;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn container(add: &str, drop: &str, privileged: bool, mask: u64) -> Vec<String> {
        let (mut add, mut drop) = (words(add), words(drop));
        check(&mut add, &mut drop, mask).unwrap();
        of_container(&add, &drop, privileged, mask)
    }

    #[test]
    fn names_with_and_without_prefix_in_any_case() {
        assert_eq!(
            normalise(&words("net_admin CAP_CHOWN all Chown"), EVERY, "CapAdd").unwrap(),
            words("ALL CAP_CHOWN CAP_NET_ADMIN")
        );
        for (name, mask, error) in [
            ("foo", EVERY, "invalid CapAdd: unknown capability: \"CAP_FOO\""),
            (
                "BPF",
                1,
                "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \"CAP_BPF\"",
            ),
        ] {
            assert_eq!(normalise(&words(name), mask, "CapAdd").unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn adding_and_dropping() {
        let default = DEFAULT.map(str::to_owned).to_vec();
        let without =
            |name: &str| default.iter().filter(|n| *n != name).cloned().collect::<Vec<_>>();
        assert_eq!(container("", "", false, EVERY), default);
        assert_eq!(container("", "CHOWN", false, EVERY), without("CAP_CHOWN"));
        assert_eq!(container("", "ALL", false, EVERY), words(""));
        assert_eq!(container("CHOWN", "ALL", false, EVERY), words("CAP_CHOWN"));
        assert_eq!(container("ALL", "", false, EVERY), NAMES.map(str::to_owned));
        assert_eq!(container("ALL", "SYS_ADMIN", false, EVERY).len(), 40);
        assert_eq!(container("ALL", "ALL", false, EVERY).len(), 41);
        assert_eq!(container("CHOWN SYS_TIME", "", false, EVERY).len(), 15);
        assert_eq!(container("CHOWN", "CHOWN", false, EVERY).last().unwrap(), "CAP_CHOWN");
        assert_eq!(container("", "ALL", true, EVERY).len(), 41);
    }

    #[test]
    fn no_more_than_the_manager_has() {
        let mask = EVERY & !1;
        assert!(!container("", "", false, mask).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(container("", "", true, mask).len(), 40);
    }
}
