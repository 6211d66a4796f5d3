//! Sysctls: only those that a container has of its own.

use std::collections::BTreeMap;

use hull_specs_api::v1;

use crate::error::{Result, must, refuse};

/// Those of each IPC namespace.
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

pub(crate) fn check(options: &v1::ContainerOptions) -> Result<()> {
    for (name, value) in &options.sysctls {
        must!(!value.contains(char::is_control), "sysctl '{name}' has a control character");
        // As the file's path it would leave its directory (CVE-2022-0811 was such a value).
        let plain = !name.contains('/') && !name.split('.').any(str::is_empty);
        if plain && (IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.")) {
            must!(
                options.ipc_mode != "host",
                "sysctl '{name}' is not allowed in the host's ipc namespace"
            );
        } else if plain && name.starts_with("net.") {
            must!(
                options.network_mode != "host",
                "sysctl '{name}' is not allowed in the host's network namespace"
            );
        } else {
            refuse!("sysctl '{name}' is not allowed");
        }
    }
    Ok(())
}

/// With those that docker sets in a network namespace of the container's own: any user may ping
/// and listen on ports below 1024, which it could by its capabilities as root.
pub(crate) fn lower(
    options: &v1::ContainerOptions,
    own_network: bool,
    user_namespace: bool,
    known: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    let mut put = |name: &str, value: &str| drop(sysctls.insert(name.to_owned(), value.to_owned()));
    // Groups that a user namespace does not map can't be in the range.
    if own_network && !user_namespace && known("net.ipv4.ping_group_range") {
        put("net.ipv4.ping_group_range", "0 2147483647");
    }
    if own_network && known("net.ipv4.ip_unprivileged_port_start") {
        put("net.ipv4.ip_unprivileged_port_start", "0");
    }
    if !options.domainname.is_empty() {
        // A field of its own is only in version 1.1 of the OCI specification.
        put("kernel.domainname", &options.domainname);
    }
    sysctls.extend(options.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    sysctls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_of_a_namespace_of_its_own() {
        for (name, ipc, network, allowed) in [
            ("kernel.shmmax", "private", "none", true),
            ("kernel.shmmax", "host", "none", false),
            ("fs.mqueue.msg_max", "", "none", true),
            ("net.ipv4.ip_forward", "", "none", true),
            ("net.ipv4.ip_forward", "", "host", false),
            ("kernel.core_pattern", "", "none", false),
            ("kernel.hostname", "", "none", false),
            ("vm.swappiness", "", "none", false),
            ("net.ipv4/../../kernel/core_pattern", "", "none", false),
            ("net..x", "", "none", false),
            ("", "", "none", false),
        ] {
            let options = v1::ContainerOptions {
                sysctls: [(name.to_owned(), "1".to_owned())].into(),
                ipc_mode: ipc.to_owned(),
                network_mode: network.to_owned(),
                ..Default::default()
            };
            assert_eq!(check(&options).is_ok(), allowed, "{name} {ipc} {network}");
        }
    }

    #[test]
    fn what_was_asked_for_wins() {
        let options = v1::ContainerOptions {
            sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into(),
            domainname: "example".into(),
            ..Default::default()
        };
        let all = lower(&options, true, false, |_| true);
        assert_eq!(all["net.ipv4.ip_unprivileged_port_start"], "80");
        assert_eq!(all["net.ipv4.ping_group_range"], "0 2147483647");
        assert_eq!(all["kernel.domainname"], "example");
        assert_eq!(lower(&options, true, true, |_| true).get("net.ipv4.ping_group_range"), None);
        assert_eq!(lower(&options, false, false, |_| true).len(), 2);
    }
}
