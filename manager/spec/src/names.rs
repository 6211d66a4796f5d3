//! Hostnames, and the names in namespace modes.

use hull_specs_api::v1;

use crate::error::{Result, must, refuse};

/// `HOST_NAME_MAX`.
const MAX_HOSTNAME: usize = 64;

/// The container that a mode names: `container:NAME`.
#[must_use]
pub fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// What a container calls itself: as asked, the host's name where it shares that, else the start
/// of its id. With a network of another container it is that one's, which the caller knows.
#[must_use]
pub fn hostname(options: &v1::ContainerOptions, id: &str, of_host: &str) -> String {
    if !options.hostname.is_empty() {
        return options.hostname.clone();
    }
    if options.uts_mode == "host" || options.network_mode == "host" {
        return of_host.to_owned();
    }
    id.chars().take(12).collect()
}

/// These stand in files (`hosts`, `hostname`) and in the environment (R26).
pub(crate) fn check(options: &v1::ContainerOptions) -> Result<()> {
    let v1::ContainerOptions { hostname, domainname, .. } = options;
    must!(
        hostname.len() <= MAX_HOSTNAME,
        "hostname {hostname:?} is too long (maximum {MAX_HOSTNAME} bytes)"
    );
    must!(
        domainname.len() <= MAX_HOSTNAME,
        "domainname {domainname:?} is too long (maximum {MAX_HOSTNAME} bytes)"
    );
    for (what, name) in [("hostname", hostname), ("domainname", domainname)] {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        must!(name.chars().all(good), "invalid {what} format: {name:?}");
    }
    Ok(())
}

/// Namespaces by mode, and what does not go together.
pub(crate) fn check_modes(options: &v1::ContainerOptions) -> Result<()> {
    let kinds: [(&str, &str, &[&str], bool); 5] = [
        ("IPC", &options.ipc_mode, &["", "none", "private", "shareable", "host"], true),
        ("PID", &options.pid_mode, &["", "private", "host"], true),
        ("UTS", &options.uts_mode, &["", "private", "host"], true),
        ("cgroup namespace", &options.cgroupns_mode, &["", "private", "host"], false),
        ("user namespace", &options.userns_mode, &["", "private", "host", "auto"], false),
    ];
    for (what, mode, modes, joins) in kinds {
        let other = container_of(mode).is_some_and(|name| joins && !name.is_empty());
        let auto = what == "user namespace" && mode.starts_with("auto:");
        must!(modes.contains(&mode) || other || auto, "invalid {what} mode: {mode}");
    }
    userns_auto_size(&options.userns_mode)?;
    let named = !options.hostname.is_empty();
    let has_mac = options.networks.iter().any(|endpoint| !endpoint.mac_address.is_empty());
    if options.network_mode == "host" {
        must!(
            !options.networks.iter().any(|endpoint| !endpoint.links.is_empty()),
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
        );
        must!(!has_mac, "conflicting options: mac-address and the network mode");
    }
    if let Some(other) = container_of(&options.network_mode) {
        must!(
            !other.is_empty(),
            "invalid network mode: invalid container format container:<name|id>"
        );
        must!(!named, "conflicting options: hostname and the network mode");
        must!(
            !options.networks.iter().any(|endpoint| !endpoint.links.is_empty()),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior"
        );
        must!(
            options.dns.is_empty()
                && options.dns_search.is_empty()
                && options.dns_options.is_empty(),
            "conflicting options: dns and the network mode"
        );
        must!(
            options.extra_hosts.is_empty(),
            "conflicting options: custom host-to-IP mapping and the network mode"
        );
        must!(!has_mac, "conflicting options: mac-address and the network mode");
        must!(
            options.publish.is_empty() && !options.publish_all,
            "conflicting options: port publishing and the container type network mode"
        );
        must!(
            options.expose.is_empty(),
            "conflicting options: port exposing and the container type network mode"
        );
    }
    if options.uts_mode == "host" || container_of(&options.uts_mode).is_some() {
        must!(!named, "conflicting options: hostname and the UTS mode");
        // It would be set in a namespace that is not the container's.
        must!(options.domainname.is_empty(), "conflicting options: domainname and the UTS mode");
    }
    let own_ids = options.userns_mode.starts_with("auto");
    must!(
        own_ids || !options.mounts.iter().any(|mount| mount.id_mapped),
        "an id-mapped mount needs a user namespace of the container's own: --userns=auto"
    );
    if own_ids {
        must!(
            !options.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"
        );
        must!(
            options.network_mode != "host",
            "cannot share the host's network namespace when user namespaces are enabled"
        );
        must!(
            options.pid_mode != "host",
            "cannot share the host PID namespace when user namespaces are enabled"
        );
    }
    Ok(())
}

/// The ids that `auto:size=N` asks for; none: as many as the image needs.
pub(crate) fn userns_auto_size(mode: &str) -> Result<Option<u32>> {
    let Some(rest) = mode.strip_prefix("auto:") else { return Ok(None) };
    match rest.strip_prefix("size=").and_then(|size| size.parse::<u32>().ok()) {
        Some(size @ 1..) => Ok(Some(size)),
        _ => refuse!("invalid user namespace mode: {mode}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(set: impl FnOnce(&mut v1::ContainerOptions)) -> v1::ContainerOptions {
        let mut options = v1::ContainerOptions::default();
        set(&mut options);
        options
    }

    #[test]
    fn hostnames() {
        let id = "0123456789abcdef";
        assert_eq!(hostname(&options(|_| {}), id, "metal"), "0123456789ab");
        assert_eq!(hostname(&options(|o| o.hostname = "a".into()), id, "metal"), "a");
        assert_eq!(hostname(&options(|o| o.network_mode = "host".into()), id, "metal"), "metal");
        for bad in ["a b", "a\nb", "a/b", &"a".repeat(65)] {
            assert!(check(&options(|o| o.hostname = bad.into())).is_err(), "{bad:?}");
            assert!(check(&options(|o| o.domainname = bad.into())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_and_conflicts() {
        type Set = fn(&mut v1::ContainerOptions);
        let cases: [(Set, Option<&str>); 20] = [
            (|_| {}, None),
            (|o| o.ipc_mode = "shareable".into(), None),
            (|o| o.ipc_mode = "container:a".into(), None),
            (|o| o.userns_mode = "auto:size=65536".into(), None),
            (
                |o| o.userns_mode = "auto:size=0".into(),
                Some("invalid user namespace mode: auto:size=0"),
            ),
            (|o| o.ipc_mode = "container:".into(), Some("invalid IPC mode: container:")),
            (|o| o.ipc_mode = "x".into(), Some("invalid IPC mode: x")),
            (|o| o.pid_mode = "shareable".into(), Some("invalid PID mode: shareable")),
            (|o| o.uts_mode = "x".into(), Some("invalid UTS mode: x")),
            (
                |o| o.cgroupns_mode = "container:a".into(),
                Some("invalid cgroup namespace mode: container:a"),
            ),
            (
                |o| o.network_mode = "container:".into(),
                Some("invalid network mode: invalid container format container:<name|id>"),
            ),
            (
                |o| {
                    o.network_mode = "container:a".into();
                    o.hostname = "b".into()
                },
                Some("conflicting options: hostname and the network mode"),
            ),
            (
                |o| {
                    o.network_mode = "container:a".into();
                    o.publish_all = true;
                    o.expose = vec!["80/tcp".into()];
                },
                Some("conflicting options: port publishing and the container type network mode"),
            ),
            (
                |o| {
                    o.network_mode = "container:a".into();
                    o.dns = vec!["1.1.1.1".into()];
                },
                Some("conflicting options: dns and the network mode"),
            ),
            (
                |o| {
                    o.network_mode = "host".into();
                    o.networks = vec![v1::EndpointOptions {
                        mac_address: "02:42:00:00:00:01".into(),
                        ..Default::default()
                    }];
                },
                Some("conflicting options: mac-address and the network mode"),
            ),
            (
                |o| {
                    o.uts_mode = "host".into();
                    o.hostname = "b".into()
                },
                Some("conflicting options: hostname and the UTS mode"),
            ),
            (
                |o| {
                    o.uts_mode = "host".into();
                    o.domainname = "b".into()
                },
                Some("conflicting options: domainname and the UTS mode"),
            ),
            (
                |o| o.mounts = vec![v1::Mount { id_mapped: true, ..Default::default() }],
                Some(
                    "an id-mapped mount needs a user namespace of the container's own: --userns=auto",
                ),
            ),
            (
                |o| {
                    o.userns_mode = "auto".into();
                    o.pid_mode = "host".into()
                },
                Some("cannot share the host PID namespace when user namespaces are enabled"),
            ),
            (
                |o| {
                    o.userns_mode = "auto".into();
                    o.network_mode = "host".into()
                },
                Some("cannot share the host's network namespace when user namespaces are enabled"),
            ),
        ];
        for (set, error) in cases {
            let options = options(set);
            assert_eq!(
                check_modes(&options).err().map(|e| e.to_string()).as_deref(),
                error,
                "{options:?}"
            );
        }
    }
}
