//! The rules between the parts of a configuration (config.md, config-linux.md), applied
//! before anything is made. What belongs to one part alone is checked where that part is
//! planned.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hull_specs_oci::{Linux, NamespaceKind, Spec};

use super::sysctl;
use crate::hooks;

/// What is known of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether the caller has the privileges of root on the host.
    pub(crate) privileged: bool,
    /// Whether a network namespace that is joined by path is the host's.
    pub(crate) joins_host_network: bool,
    /// Whether SELinux is in force.
    pub(crate) selinux: bool,
    /// Whether AppArmor is in force.
    pub(crate) apparmor: bool,
}

/// Refuses a configuration that contradicts itself; returns what is worth a warning.
pub(crate) fn validate(spec: &Spec, facts: Facts) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    version(&spec.oci_version)?;
    let Some(root) = &spec.root else { bail!("root must be specified") };
    if root.path.is_empty() {
        bail!("root.path must not be empty");
    }
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let has = |kind| linux.namespaces.iter().any(|namespace| namespace.kind == kind);
    namespaces(linux)?;

    for (name, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if value.is_empty() {
            continue;
        }
        if !has(NamespaceKind::Uts) {
            bail!("unable to set {name} without a private UTS namespace");
        }
        if value.len() > 64 || value.chars().any(char::is_control) {
            bail!("{name} must be at most 64 bytes without control characters");
        }
    }
    let restricted = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
    if restricted && !has(NamespaceKind::Mount) {
        bail!("unable to restrict sys entries without a private MNT namespace");
    }
    let own = sysctl::Own {
        ipc: has(NamespaceKind::Ipc),
        network: has(NamespaceKind::Network) && !facts.joins_host_network,
        uts: has(NamespaceKind::Uts),
        user: has(NamespaceKind::User),
    };
    for (name, value) in &linux.sysctl {
        sysctl::check(name, own)?;
        if value.contains(['\0', '\n']) {
            bail!("sysctl {name:?}: the value holds a line break or a NUL byte");
        }
    }
    if !linux.net_devices.is_empty() {
        net_devices(linux, has(NamespaceKind::Network), facts)?;
    }
    if let Some(process) = &spec.process {
        if !process.selinux_label.is_empty() && !facts.selinux {
            bail!("selinux label is specified in config, but selinux is disabled or not supported");
        }
        if !process.apparmor_profile.is_empty() && !facts.apparmor {
            bail!("apparmor failed to apply profile: AppArmor is not enabled on this kernel");
        }
        if !process.user.username.is_empty() {
            warnings.push("process.user.username means nothing on Linux and is ignored".to_owned());
        }
    }
    if let Some(hooks) = &spec.hooks {
        hooks::validate(hooks)?;
    }
    Ok(warnings)
}

/// Takes every version 1.x: later ones only add (the specification follows semver).
fn version(text: &str) -> Result<()> {
    let mut parts = text.split(['-', '+']).next().unwrap_or_default().split('.');
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number(), number(), parts.next()) {
        (Some(1), Some(_), Some(_), None) => Ok(()),
        (Some(_), Some(_), Some(_), None) => {
            bail!("unsupported ociVersion {text:?}: this runtime takes 1.x")
        }
        _ => bail!("ociVersion {text:?} is not a version"),
    }
}

fn namespaces(linux: &Linux) -> Result<()> {
    let mut seen = BTreeSet::new();
    for namespace in &linux.namespaces {
        let name = namespace.kind.as_str();
        if !seen.insert(name) {
            bail!("malformed spec file: duplicated ns {name:?}");
        }
        if !namespace.path.is_empty() && !namespace.path.starts_with('/') {
            bail!("namespace {name}: path {:?} is not absolute", namespace.path);
        }
        if namespace.path.contains('\0') {
            bail!("namespace {name}: the path holds a NUL byte");
        }
    }
    let find = |kind| linux.namespaces.iter().find(|namespace| namespace.kind == kind);
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match find(NamespaceKind::User) {
        Some(user) if user.path.is_empty() && !mapped => bail!(
            "user namespaces enabled, but no namespace path to join nor mappings to apply specified"
        ),
        Some(user)
            if user.path.is_empty()
                && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) =>
        {
            bail!("a new user namespace needs both uidMappings and gidMappings")
        }
        None if mapped => bail!(
            "user namespace mappings specified, but user namespace isn't enabled in the config"
        ),
        _ => {}
    }
    match find(NamespaceKind::Time) {
        Some(time) if !time.path.is_empty() && !linux.time_offsets.is_empty() => bail!(
            "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
        ),
        None if !linux.time_offsets.is_empty() => bail!(
            "time namespace offsets specified, but time namespace isn't enabled in the config"
        ),
        _ => {}
    }
    for clock in linux.time_offsets.keys() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            bail!("timeOffsets: clock {clock:?} has no offset; monotonic and boottime have");
        }
    }
    Ok(())
}

fn net_devices(linux: &Linux, own_network: bool, facts: Facts) -> Result<()> {
    if !own_network {
        bail!("unable to move network devices without a NET namespace");
    }
    if !facts.privileged {
        bail!("network devices are not supported for rootless containers");
    }
    // 15 bytes: IFNAMSIZ less the NUL.
    let valid = |name: &str| {
        (1..16).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(['/', ':', '\0'])
            && !name.contains(char::is_whitespace)
    };
    let mut targets = BTreeSet::new();
    for (name, device) in &linux.net_devices {
        let target = if device.name.is_empty() { name } else { &device.name };
        for name in [name, target] {
            if !valid(name) {
                bail!("invalid network device name {name:?}");
            }
        }
        if !targets.insert(target) {
            bail!("two network devices would be named {target:?} in the container");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts =
        Facts { privileged: true, joins_host_network: false, selinux: false, apparmor: false };

    fn check(json: &str) -> Result<Vec<String>> {
        validate(&serde_json::from_str(json).unwrap(), FACTS)
    }

    #[test]
    fn the_smallest_configuration_is_valid() {
        assert!(check(r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#).unwrap().is_empty());
    }

    #[test]
    fn contradictions_are_named() {
        for (json, text) in [
            (r#"{"ociVersion":"2.0.0","root":{"path":"r"}}"#, "unsupported ociVersion"),
            (r#"{"ociVersion":"x","root":{"path":"r"}}"#, "is not a version"),
            (r#"{"ociVersion":"1.0.0"}"#, "root must be specified"),
            (r#"{"ociVersion":"1.0.0","root":{"path":"r"},"hostname":"x"}"#, "private UTS"),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"maskedPaths":["/x"]}}"#,
                "private MNT",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}}"#,
                "duplicated ns",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"user"}]}}"#,
                "no namespace path",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}}"#,
                "isn't enabled",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"timeOffsets":{"boottime":{"secs":1}}}}"#,
                "isn't enabled",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"sysctl":{"vm.swappiness":"1"}}}"#,
                "separate kernel namespace",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"netDevices":{"eth0":{}}}}"#,
                "without a NET namespace",
            ),
            (
                r#"{"ociVersion":"1.0.0","root":{"path":"r"},"process":{"cwd":"/","selinuxLabel":"x"}}"#,
                "selinux",
            ),
        ] {
            let error = check(json).unwrap_err().to_string();
            assert!(error.contains(text), "{json}: {error}");
        }
    }
}
