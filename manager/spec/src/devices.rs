//! Devices, and the rules of the device cgroup.

use std::collections::BTreeMap;

use hull_specs_api::v1;
use hull_specs_oci as oci;

use crate::{
    error::{Result, must, refuse},
    path, resources,
};

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Below the path that was asked for; empty for that itself.
    pub below: String,
    /// `c` or `b`.
    pub kind: char,
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The host paths that [`crate::Input::devices`] must have: each with the node that it is, links
/// followed, or the nodes below it if it is a directory.
#[must_use]
pub fn wanted(options: &v1::ContainerOptions) -> Vec<String> {
    let limits = options.resources.iter().flat_map(resources::devices).map(|limit| &limit.path);
    let mut paths: Vec<_> =
        options.devices.iter().map(|device| &device.host_path).chain(limits).cloned().collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Checks devices, and puts in what was left out.
pub(crate) fn check(options: &mut v1::ContainerOptions) -> Result<()> {
    for device in &mut options.devices {
        if device.container_path.is_empty() {
            device.container_path.clone_from(&device.host_path);
        }
        if device.permissions.is_empty() {
            "rwm".clone_into(&mut device.permissions);
        }
        let v1::Device { host_path, container_path, permissions } = device;
        must!(host_path.starts_with('/'), "{host_path:?} is not an absolute path");
        must!(container_path.starts_with('/'), "{container_path} is not an absolute path");
        must!(path::clean(container_path) != "/", "invalid device path: {container_path}");
        must!(are_permissions(permissions), "invalid device mode: {permissions}");
        must!(
            !host_path.contains('\0') && !container_path.contains('\0'),
            "invalid device path: {container_path:?}"
        );
    }
    for rule in &options.device_cgroup_rules {
        parse_rule(rule)?;
    }
    Ok(())
}

fn are_permissions(text: &str) -> bool {
    let once = |c| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
}

/// `c 1:3 rwm`, `b *:* r`, `a *:* rwm`.
fn parse_rule(rule: &str) -> Result<oci::DeviceRule> {
    let parts: Vec<_> = rule.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = parts[..] else {
        refuse!("invalid device cgroup rule format: '{rule}'");
    };
    let number = |text: &str| -> Result<Option<i64>> {
        match text {
            "*" => Ok(None),
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                match digits.parse::<u32>() {
                    Ok(number) => Ok(Some(i64::from(number))),
                    Err(_) => refuse!("invalid device cgroup rule format: '{rule}'"),
                }
            }
            _ => refuse!("invalid device cgroup rule format: '{rule}'"),
        }
    };
    let Some((major, minor)) = numbers.split_once(':').filter(|_| are_permissions(access)) else {
        refuse!("invalid device cgroup rule format: '{rule}'");
    };
    let (major, minor) = (number(major)?, number(minor)?);
    Ok(oci::DeviceRule { allow: true, kind: kind.into(), major, minor, access: access.into() })
}

/// Nodes and rules.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<oci::Device>,
    pub(crate) rules: Vec<oci::DeviceRule>,
}

fn node(path: String, device: &HostDevice) -> oci::Device {
    oci::Device {
        path,
        kind: device.kind.to_string(),
        major: i64::from(device.major),
        minor: i64::from(device.minor),
        file_mode: Some(device.mode & 0o7777),
        uid: Some(device.uid),
        gid: Some(device.gid),
    }
}

fn rule(allow: bool, kind: &str, numbers: Option<(i64, i64)>, access: &str) -> oci::DeviceRule {
    let (major, minor) = numbers.unzip();
    oci::DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
}

/// Closed (R21), but for what is in every container: zero, null, urandom, random, tty, console.
/// The runtime adds the container's own terminals. FUSE is denied by name as docker does.
fn standard_rules() -> Vec<oci::DeviceRule> {
    let mut rules = vec![rule(false, "", None, "rwm")];
    let numbers = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    rules.extend(numbers.map(|numbers| rule(true, "c", Some(numbers), "rwm")));
    rules.push(rule(false, "c", Some((10, 229)), "rwm"));
    rules
}

/// `host`: all of the host's nodes, with paths in `below`, for a privileged container.
pub(crate) fn lower(
    options: &v1::ContainerOptions,
    found: &BTreeMap<String, Vec<HostDevice>>,
    host: &[HostDevice],
) -> Result<Devices> {
    let mut devices = Devices { nodes: Vec::new(), rules: standard_rules() };
    if options.privileged {
        devices.nodes.extend(host.iter().map(|device| node(device.below.clone(), device)));
        devices.rules = vec![rule(true, "", None, "rwm")];
    }
    for asked in &options.devices {
        let there = found.get(&asked.host_path).map_or(&[][..], Vec::as_slice);
        must!(
            !there.is_empty(),
            "error gathering device information while adding custom device {:?}: no such file or directory",
            asked.host_path
        );
        for device in there {
            let path = match device.below.as_str() {
                "" => asked.container_path.clone(),
                below => format!("{}/{below}", asked.container_path.trim_end_matches('/')),
            };
            let path = path::clean(&path);
            devices.nodes.retain(|other| other.path != path);
            devices.nodes.push(node(path, device));
            if !options.privileged {
                let numbers = (i64::from(device.major), i64::from(device.minor));
                let kind = device.kind.to_string();
                devices.rules.push(rule(true, &kind, Some(numbers), &asked.permissions));
            }
        }
    }
    if !options.privileged {
        for text in &options.device_cgroup_rules {
            devices.rules.push(parse_rule(text)?);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null(below: &str) -> HostDevice {
        HostDevice {
            below: below.into(),
            kind: 'c',
            major: 1,
            minor: 3,
            mode: 0o20666,
            uid: 0,
            gid: 6,
        }
    }

    fn options(host_path: &str, container_path: &str, permissions: &str) -> v1::ContainerOptions {
        v1::ContainerOptions {
            devices: vec![v1::Device {
                host_path: host_path.into(),
                container_path: container_path.into(),
                permissions: permissions.into(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn rules_are_parsed_as_docker_does() {
        let any = parse_rule("b *:* r").unwrap();
        assert_eq!((any.kind.as_str(), any.major, any.minor), ("b", None, None));
        assert_eq!(parse_rule("c 1:3 mr").unwrap().minor, Some(3));
        for bad in [
            "",
            "c 1:3",
            "d 1:3 r",
            "c 1:3 x",
            "c  1:3 r",
            "c 1 r",
            "c -1:3 r",
            "c 1:3 rr",
            "c 99999999999:1 r",
        ] {
            let error = parse_rule(bad).unwrap_err().to_string();
            assert_eq!(error, format!("invalid device cgroup rule format: '{bad}'"));
        }
    }

    #[test]
    fn a_device_and_a_directory_of_devices() {
        let mut asked = options("/dev/null", "", "");
        check(&mut asked).unwrap();
        let found = [("/dev/null".to_owned(), vec![null("")])].into();
        let devices = lower(&asked, &found, &[]).unwrap();
        assert_eq!((devices.nodes.len(), devices.nodes[0].file_mode), (1, Some(0o666)));
        assert_eq!(devices.rules.len(), 9);
        assert_eq!(devices.rules[8].access, "rwm");
        let asked = options("/dev/snd", "/dev/x/", "r");
        let found = [("/dev/snd".to_owned(), vec![null("a"), null("b/c")])].into();
        let devices = lower(&asked, &found, &[]).unwrap();
        let paths: Vec<_> = devices.nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(paths, ["/dev/x/a", "/dev/x/b/c"]);
        assert!(lower(&asked, &BTreeMap::new(), &[]).is_err());
    }

    #[test]
    fn everything_begins_closed_unless_privileged() {
        let none = lower(&v1::ContainerOptions::default(), &BTreeMap::new(), &[]).unwrap();
        assert_eq!(none.rules[0], rule(false, "", None, "rwm"));
        let all = v1::ContainerOptions {
            privileged: true,
            device_cgroup_rules: vec!["c 1:3 r".into()],
            ..Default::default()
        };
        let all = lower(&all, &BTreeMap::new(), &[null("/dev/null")]).unwrap();
        assert_eq!(all.rules, [rule(true, "", None, "rwm")]);
        assert_eq!(all.nodes[0].path, "/dev/null");
    }

    #[test]
    fn bad_devices_are_refused() {
        for (host, container, permissions) in [
            ("dev", "", ""),
            ("/dev/x", "x", ""),
            ("/dev/x", "", "rx"),
            ("/dev/x", "/", ""),
            ("/dev/\0", "", ""),
        ] {
            assert!(
                check(&mut options(host, container, permissions)).is_err(),
                "{host} {container}"
            );
        }
    }
}
