//! Which sysctls a container may have, and where they are.

use anyhow::{Result, bail};

/// Those of System V IPC, which each IPC namespace has of its own.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The namespaces of its own that the container will have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    pub(super) ipc: bool,
    pub(super) network: bool,
    pub(super) uts: bool,
    pub(super) user: bool,
}

/// A name with dots between its parts. sysctl(8) takes both `net.ipv4.ip_forward` and
/// `net/ipv4/ip_forward`; whichever separator comes first is the one, and in the second
/// form a dot belongs to a part (`net/ipv4/conf/eth0.1/forwarding`).
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The path below /proc/sys.
pub(crate) fn path(name: &str) -> String {
    dotted(name)
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

/// Refuses a sysctl that the container does not have of its own.
pub(super) fn check(name: &str, own: Own) -> Result<()> {
    let plain = dotted(name);
    if plain.split('.').any(|part| part.is_empty() || part == "/" || part == "//") {
        bail!("sysctl {name:?} is not a name");
    }
    if IPC.contains(&plain.as_str()) || plain.starts_with("fs.mqueue.") {
        if own.ipc {
            return Ok(());
        }
        bail!("sysctl {plain:?} is not allowed in the hosts ipc namespace");
    }
    if plain.starts_with("net.") {
        if own.network {
            return Ok(());
        }
        bail!("sysctl {plain:?} not allowed in host network namespace");
    }
    if own.uts && plain == "kernel.domainname" {
        return Ok(());
    }
    if own.uts && plain == "kernel.hostname" {
        bail!("sysctl {plain:?} is not allowed as it conflicts with the OCI \"hostname\" field");
    }
    if plain.starts_with("user.") {
        if own.user {
            return Ok(());
        }
        bail!("setting ucounts without a user namespace not allowed: {plain}");
    }
    bail!("sysctl {plain:?} is not in a separate kernel namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Own = Own { ipc: true, network: true, uts: true, user: true };

    #[test]
    fn both_separators_name_one_file() {
        for (name, file) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(path(name), file);
        }
    }

    #[test]
    fn only_what_is_in_a_namespace_of_its_own_is_allowed() {
        for name in [
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "net.core.somaxconn",
            "user.max_mnt_namespaces",
            "kernel.domainname",
        ] {
            assert!(check(name, ALL).is_ok(), "{name}");
            assert!(check(name, Own::default()).is_err(), "{name}");
        }
        for name in [
            "kernel.hostname",
            "vm.swappiness",
            "kernel.core_pattern",
            "net..x",
            "",
            "net.ipv4.//.x",
            "net/../kernel/core_pattern",
        ] {
            assert!(check(name, ALL).is_err(), "{name}");
        }
    }
}
