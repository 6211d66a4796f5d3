//! Devices by name, from documents that vendors install (the Container Device Interface, 0.8).

mod yaml;

use std::collections::BTreeMap;

use hull_specs_oci as oci;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    devices::HostDevice,
    error::{Error, Result, must, refuse},
};

/// The most bytes of a document.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// One document: devices of one kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    cdi_version: String,
    kind: String,
    /// For those who read the document.
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    #[serde(default)]
    container_edits: Edits,
    devices: Vec<Device>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    /// For those who read the document.
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<oci::IntelRdt>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Node {
    path: String,
    host_path: String,
    r#type: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    r#type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

impl Document {
    /// Reads a document in JSON.
    ///
    /// # Errors
    /// If it is none, or of a kind or version that is none.
    pub fn parse_json(bytes: &[u8]) -> Result<Self> {
        let document = serde_json::from_slice(bytes)
            .map_err(|error| Error::new(format!("not a CDI document: {error}")))?;
        Self::checked(document)
    }

    /// Reads a document in YAML, without aliases.
    ///
    /// # Errors
    /// The same.
    pub fn parse_yaml(bytes: &[u8]) -> Result<Self> {
        let refused = |why: String| Error::new(format!("not a CDI document: {why}"));
        let text = str::from_utf8(bytes).map_err(|error| refused(error.to_string()))?;
        let value = yaml::to_json(text).map_err(refused)?;
        Self::checked(serde_json::from_value(value).map_err(|error| refused(error.to_string()))?)
    }

    fn checked(document: Self) -> Result<Self> {
        let version = document.cdi_version.strip_prefix("0.");
        let known = version.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        must!(
            known.is_some_and(|minor| (3..=8).contains(&minor)) || document.cdi_version == "1.0.0",
            "CDI version {:?} is not supported",
            document.cdi_version
        );
        let kind = document.kind.split_once('/');
        must!(
            kind.is_some_and(|(vendor, class)| is_word(vendor) && is_word(class)),
            "invalid CDI kind {:?}",
            document.kind
        );
        for device in &document.devices {
            must!(is_name(&device.name), "invalid CDI device name {:?}", device.name);
        }
        Ok(document)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

/// `vendor/class=name`, in its kind and its name.
pub(crate) fn parse_name(text: &str) -> Result<(&str, &str)> {
    let parts = text.split_once('=').filter(|(kind, name)| {
        let kind = kind.split_once('/');
        kind.is_some_and(|(vendor, class)| is_word(vendor) && is_word(class)) && is_name(name)
    });
    match parts {
        Some(parts) => Ok(parts),
        None => refuse!("unresolvable CDI devices {text}"),
    }
}

/// The edits for devices: first those of each document that is used, once, then the device's.
fn edits<'a>(names: &[String], documents: &'a [Document]) -> Result<Vec<&'a Edits>> {
    let (mut found, mut used) = (Vec::new(), Vec::new());
    for full in names {
        let (kind, name) = parse_name(full)?;
        let of_kind = documents.iter().filter(|document| document.kind == kind);
        let device = of_kind
            .flat_map(|document| document.devices.iter().map(move |device| (document, device)))
            .find(|(_, device)| device.name == name);
        let Some((document, device)) = device else {
            refuse!("CDI device injection failed: unresolvable CDI devices {full}");
        };
        if !used.iter().any(|&other| std::ptr::eq(other, document)) {
            used.push(document);
            found.push(&document.container_edits);
        }
        found.push(&device.container_edits);
    }
    Ok(found)
}

/// The host paths of device nodes whose numbers the documents leave open:
/// [`crate::Input::devices`] must have them.
///
/// # Errors
/// If a device is in no document.
pub fn wanted_devices(names: &[String], documents: &[Document]) -> Result<Vec<String>> {
    let nodes = edits(names, documents)?.into_iter().flat_map(|edits| &edits.device_nodes);
    Ok(nodes.filter(|node| node.is_open()).map(|node| node.host().to_owned()).collect())
}

impl Node {
    fn host(&self) -> &str {
        if self.host_path.is_empty() { &self.path } else { &self.host_path }
    }

    fn is_open(&self) -> bool {
        self.r#type.is_empty() || self.r#type != "p" && self.major == 0 && self.minor == 0
    }
}

/// Puts the devices into a configuration.
pub(crate) fn inject(
    spec: &mut oci::Spec,
    names: &[String],
    documents: &[Document],
    devices: &BTreeMap<String, Vec<HostDevice>>,
) -> Result<()> {
    for edits in edits(names, documents)? {
        apply(spec, edits, devices)?;
    }
    // Its mounts are sorted among the others: parents first.
    if !names.is_empty() {
        spec.mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    }
    Ok(())
}

fn apply(
    spec: &mut oci::Spec,
    edits: &Edits,
    devices: &BTreeMap<String, Vec<HostDevice>>,
) -> Result<()> {
    let process = spec.process.get_or_insert_default();
    process.env = crate::env::replace(std::mem::take(&mut process.env), &edits.env);
    for gid in &edits.additional_gids {
        if *gid != 0 && !process.user.additional_gids.contains(gid) {
            process.user.additional_gids.push(*gid);
        }
    }
    let linux = spec.linux.get_or_insert_default();
    for node in &edits.device_nodes {
        let (device, rule) = lower(node, devices)?;
        linux.devices.retain(|other| other.path != device.path);
        linux.devices.push(device);
        linux.resources.get_or_insert_default().devices.push(rule);
    }
    if edits.intel_rdt.is_some() {
        linux.intel_rdt.clone_from(&edits.intel_rdt);
    }
    for mount in &edits.mounts {
        let kind = if mount.r#type.is_empty() { "bind" } else { &mount.r#type };
        let mut options = mount.options.clone();
        if kind == "bind" && !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".to_owned());
        }
        spec.mounts.retain(|other| other.destination != mount.container_path);
        spec.mounts.push(oci::Mount {
            destination: mount.container_path.clone(),
            kind: kind.to_owned(),
            source: mount.host_path.clone(),
            options,
            ..Default::default()
        });
    }
    for hook in &edits.hooks {
        let hooks = spec.hooks.get_or_insert_default();
        let list = match hook.hook_name.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => refuse!("CDI device injection failed: unknown hook name {other:?}"),
        };
        let Hook { path, args, env, timeout, .. } = hook.clone();
        list.push(oci::Hook { path, args, env, timeout });
    }
    Ok(())
}

fn lower(
    node: &Node,
    devices: &BTreeMap<String, Vec<HostDevice>>,
) -> Result<(oci::Device, oci::DeviceRule)> {
    let mut device = oci::Device {
        path: node.path.clone(),
        kind: node.r#type.clone(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        uid: node.uid,
        gid: node.gid,
    };
    if node.is_open() {
        let found = devices.get(node.host()).and_then(|found| found.first());
        let Some(found) = found else {
            refuse!("CDI device injection failed: no device {}", node.host());
        };
        let kind = found.kind.to_string();
        must!(
            device.kind.is_empty() || device.kind == kind,
            "CDI device injection failed: {} is not a device of type {}",
            node.host(),
            device.kind
        );
        (device.kind, device.major, device.minor) =
            (kind, i64::from(found.major), i64::from(found.minor));
        device.file_mode = device.file_mode.or(Some(found.mode & 0o7777));
        device.uid = device.uid.or(Some(found.uid));
        device.gid = device.gid.or(Some(found.gid));
    }
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let rule = oci::DeviceRule {
        allow: true,
        kind: device.kind.clone(),
        major: Some(device.major),
        minor: Some(device.minor),
        access: access.to_owned(),
    };
    Ok((device, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "annotations": {"a": "b"},
        "containerEdits": {"env": ["ALL=1"], "hooks": [
            {"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"]}]},
        "devices": [
            {"name": "gpu0", "containerEdits": {
                "env": ["FOO=bar"],
                "deviceNodes": [{"path": "/dev/gpu0", "type": "c", "major": 195, "minor": 0, "fileMode": 432, "permissions": "rw"}],
                "mounts": [{"hostPath": "/lib/gpu.so", "containerPath": "/usr/lib/gpu.so", "options": ["ro"]}],
                "additionalGids": [44, 0]}},
            {"name": "null", "containerEdits": {"deviceNodes": [{"path": "/dev/nothing", "hostPath": "/dev/null"}]}}]}"#;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_device_brings_its_edits_and_its_documents_once() {
        let documents = [Document::parse_json(DOCUMENT.as_bytes()).unwrap()];
        let names = names("vendor.com/gpu=gpu0 vendor.com/gpu=null");
        assert_eq!(wanted_devices(&names, &documents).unwrap(), ["/dev/null"]);
        let null = HostDevice {
            below: String::new(),
            kind: 'c',
            major: 1,
            minor: 3,
            mode: 0o20666,
            uid: 0,
            gid: 0,
        };
        let found = [("/dev/null".to_owned(), vec![null])].into();
        let mut spec = oci::Spec::default();
        inject(&mut spec, &names, &documents, &found).unwrap();
        let (process, linux) = (spec.process.unwrap(), spec.linux.unwrap());
        assert_eq!(process.env, ["ALL=1", "FOO=bar"]);
        assert_eq!(process.user.additional_gids, [44]);
        assert_eq!(linux.devices[0].major, 195);
        assert_eq!((linux.devices[1].path.as_str(), linux.devices[1].minor), ("/dev/nothing", 3));
        let rules = linux.resources.unwrap().devices;
        assert_eq!((rules[0].access.as_str(), rules[1].access.as_str()), ("rw", "rwm"));
        assert_eq!(spec.mounts[0].options, ["ro", "rbind"]);
        assert_eq!(spec.hooks.unwrap().create_container.len(), 1);
    }

    #[test]
    fn a_document_in_yaml_says_the_same() {
        let yaml = r#"---
cdiVersion: 0.6.0
kind: vendor.com/gpu
annotations: {a: b}
containerEdits:
  env: [ALL=1]
  hooks:
  - hookName: createContainer
    path: /bin/hook
    args: [hook, x]
devices:
- name: gpu0
  containerEdits:
    env:
    - FOO=bar
    deviceNodes:
    - path: /dev/gpu0
      type: c
      major: 195
      minor: 0
      fileMode: 0660
      permissions: rw
    mounts:
    - {hostPath: /lib/gpu.so, containerPath: /usr/lib/gpu.so, options: [ro]}
    additionalGids: [44, 0]
- name: "null"
  containerEdits:
    deviceNodes:
    - path: /dev/nothing
      hostPath: /dev/null
"#;
        let json = Document::parse_json(DOCUMENT.as_bytes()).unwrap();
        assert_eq!(Document::parse_yaml(yaml.as_bytes()).unwrap(), json);
        for (from, to) in [("0.6.0", "0.9.0"), ("fileMode", "fileMod"), ("kind: v", "kind: &a v")] {
            assert!(Document::parse_yaml(yaml.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let documents = [Document::parse_json(DOCUMENT.as_bytes()).unwrap()];
        for name in ["vendor.com/gpu=gpu1", "vendor.com/net=gpu0", "gpu0", "a/b", "/b=c"] {
            let error = edits(&names(name), &documents).unwrap_err().to_string();
            assert!(error.ends_with(&format!("unresolvable CDI devices {name}")), "{error}");
        }
        let mut spec = oci::Spec::default();
        let error = inject(&mut spec, &names("vendor.com/gpu=null"), &documents, &BTreeMap::new());
        assert_eq!(
            error.unwrap_err().to_string(),
            "CDI device injection failed: no device /dev/null"
        );
    }

    #[test]
    fn documents_are_checked() {
        for (from, to) in [
            ("0.6.0", "0.9.0"),
            ("0.6.0", "2.0.0"),
            ("vendor.com/gpu", "gpu"),
            ("\"gpu0\"", "\"../gpu0\""),
            ("deviceNodes", "deviceNods"),
        ] {
            assert!(Document::parse_json(DOCUMENT.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
