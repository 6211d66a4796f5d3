//! What a sandbox is asked to be, and that it can be that.
//!
//! A sandbox here is the shim: it groups containers. It has no process, so nothing holds
//! namespaces, mounts or a cgroup for it, and whoever asks for those is told so; the CRI is, too,
//! whose pods need them (its own sandboxer, "podsandbox", makes them by a container).

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail, ensure};
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use serde_json::Value;

use crate::task::{Config, container_id};
use crate::ttrpc::{Failure, Kind};

/// What of a configuration asks for nothing.
const HARMLESS: [&str; 2] = ["ociVersion", "annotations"];

/// Reads and judges a request.
///
/// # Errors
/// It asks for what this sandbox cannot have.
pub(super) fn check(request: &CreateSandboxRequest) -> Result<(), Failure> {
    container_id(&request.sandbox_id)?;
    let bundle = Path::new(&request.bundle_path);
    if !bundle.is_absolute() {
        let text = format!("the bundle {:?} is no absolute path", request.bundle_path);
        return Err(Failure::new(Kind::InvalidArgument, text));
    }
    let config = Config::read_as(bundle)?.unwrap_or_default();
    judge(request, &config).map_err(|error| Failure::new(Kind::Unimplemented, error.to_string()))
}

fn judge(request: &CreateSandboxRequest, config: &BTreeMap<String, Value>) -> Result<()> {
    const WHY: &str = "a sandbox of this shim has no process of its own";
    ensure!(request.rootfs.is_empty(), "a root file system for the sandbox: {WHY}");
    ensure!(request.netns_path.is_empty(), "a network namespace for the sandbox: {WHY}");
    if let Some(options) = request.options.as_ref().filter(|options| !options.value.is_empty()) {
        bail!("options of type {:?} for the sandbox: {WHY}", options.type_url);
    }
    let asked: Vec<_> = config
        .iter()
        .filter(|(name, value)| !HARMLESS.contains(&name.as_str()) && !is_empty(value))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(asked.is_empty(), "{asked:?} in the sandbox's configuration: {WHY}");
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::types::mount::Mount;
    use protobuf::{MessageField, well_known_types::any::Any};
    use serde_json::json;

    use super::*;

    fn verdict(request: &CreateSandboxRequest, config: Value) -> Result<()> {
        judge(request, &serde_json::from_value(config).unwrap())
    }

    #[test]
    fn a_sandbox_that_only_groups_is_made() {
        let options = MessageField::some(Any { type_url: "x".into(), ..Any::default() });
        let request = CreateSandboxRequest { options, ..Default::default() };
        for config in [
            json!({}),
            json!({"ociVersion": "1.2.0", "annotations": {"a": "b"}}),
            json!({"process": null, "mounts": [], "linux": {}, "hostname": ""}),
        ] {
            verdict(&request, config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
        }
    }

    #[test]
    fn what_needs_a_process_is_refused_by_its_name() {
        let plain = CreateSandboxRequest::default;
        let options = Any {
            type_url: "runtime.v1.PodSandboxConfig".into(),
            value: vec![1],
            ..Any::default()
        };
        for (request, config, text) in [
            (
                CreateSandboxRequest { netns_path: "/n".into(), ..plain() },
                json!({}),
                "network namespace",
            ),
            (
                CreateSandboxRequest { rootfs: vec![Mount::default()], ..plain() },
                json!({}),
                "root file system",
            ),
            (
                CreateSandboxRequest { options: MessageField::some(options), ..plain() },
                json!({}),
                "\"runtime.v1.PodSandboxConfig\"",
            ),
            (plain(), json!({"process": {"args": ["pause"]}, "hostname": "h"}), "\"process\""),
            (plain(), json!({"linux": {"sysctl": {"a": "b"}}}), "[\"linux\"]"),
            (plain(), json!({"new": false}), "[\"new\"]"),
        ] {
            let error = verdict(&request, config).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("no process"), "{error}");
        }
    }
}
