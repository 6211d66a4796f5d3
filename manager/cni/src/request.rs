//! What a plugin is given: its request on standard input, and its environment (specification
//! 1.1, sections 2 and 3). Pure.

use std::path::PathBuf;

use hull_manager_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    network::{Network, Plugin, check_interface, check_name, shown},
    version::Version,
};

/// An interface of a container that is attached to a network: the parameters of ADD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container's id.
    pub container_id: String,
    /// The file of its network namespace.
    pub netns: PathBuf,
    /// The interface's name inside.
    pub interface: String,
    /// `CNI_ARGS`, such as `IP=10.1.0.9`: given to every plugin.
    #[serde(default)]
    pub args: Vec<(String, String)>,
    /// Capability arguments by name (`portMappings`, `bandwidth`, `ips`, `mac`, `dns`, `aliases`,
    /// `ipRanges`, …), given to the plugins that ask for them.
    #[serde(default)]
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// Refuses what would be another parameter, or a path.
    pub(crate) fn check(&self) -> Result<()> {
        check_name("container", &self.container_id)?;
        check_interface(&self.interface)?;
        for (key, value) in &self.args {
            let alone =
                |text: &str| !text.chars().any(|c| matches!(c, ';' | '=') || c.is_control());
            if key.is_empty() || !alone(key) || !alone(value) {
                return Err(Error::invalid(format!(
                    "{}={} is no CNI argument",
                    shown(key),
                    shown(value)
                )));
            }
        }
        Ok(())
    }
}

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

impl Command {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// The environment of a plugin, without `CNI_PATH`. A namespace that is gone is not named.
pub(crate) fn environment(
    command: Command,
    attachment: Option<&Attachment>,
    netns: bool,
) -> Vec<(&'static str, String)> {
    let mut environment = vec![("CNI_COMMAND", command.name().to_owned())];
    if let Some(attachment) = attachment {
        let args: Vec<String> =
            attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let netns = netns.then(|| attachment.netns.to_string_lossy().into_owned());
        environment.extend([
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", netns.unwrap_or_default()),
            ("CNI_IFNAME", attachment.interface.clone()),
            ("CNI_ARGS", args.join(";")),
        ]);
    }
    environment
}

/// The request of ADD, CHECK or DEL ("deriving request configuration from plugin configuration").
pub(crate) fn attachment(
    network: &Network,
    plugin: &Plugin,
    version: Version,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut request = common(network, plugin, version);
    let wanted: Map<String, Value> = plugin
        .capabilities()
        .filter_map(|name| {
            attachment.capabilities.get(name).map(|value| (name.to_owned(), value.clone()))
        })
        .collect();
    if !wanted.is_empty() {
        request.insert("runtimeConfig".into(), Value::Object(wanted));
    }
    if let Some(previous) = previous {
        request.insert("prevResult".into(), previous.clone());
    }
    request
}

/// The request of STATUS, and with `valid` that of GC.
pub(crate) fn of_network(
    network: &Network,
    plugin: &Plugin,
    version: Version,
    valid: Option<&[(String, String)]>,
) -> Map<String, Value> {
    let mut request = common(network, plugin, version);
    if let Some(valid) = valid {
        let valid: Value = valid
            .iter()
            .map(|(container, interface)| json!({"containerID": container, "ifname": interface}))
            .collect();
        // The second is what some plugins read: libcni had the wrong name first (its #1101).
        request.insert("cni.dev/valid-attachments".into(), valid.clone());
        request.insert("cni.dev/attachments".into(), valid);
    }
    request
}

/// What is in every request. Keys that are the runtime's are not taken from the configuration.
fn common(network: &Network, plugin: &Plugin, version: Version) -> Map<String, Value> {
    let mut request = plugin.fields.clone();
    request.retain(|key, _| {
        !matches!(key.as_str(), "capabilities" | "runtimeConfig" | "prevResult")
            && !key.starts_with("cni.dev/")
    });
    request.insert("cniVersion".into(), version.to_string().into());
    request.insert("name".into(), network.name.clone().into());
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let text =
            br#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "portmap", "x": [1],
            "runtimeConfig": {"evil": 1}, "prevResult": {}, "cni.dev/valid-attachments": [],
            "capabilities": {"portMappings": true, "mac": false, "ips": true}}]}"#;
        Network::parse(text).unwrap()
    }

    fn web() -> Attachment {
        let capabilities = json!({"portMappings": [{"hostPort": 8080}], "mac": "02::1"});
        Attachment {
            container_id: "web".into(),
            netns: "/run/netns/web".into(),
            interface: "eth0".into(),
            args: vec![("IgnoreUnknown".into(), "1".into()), ("IP".into(), "10.0.0.9".into())],
            capabilities: capabilities.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn a_request_has_the_capabilities_that_are_asked_for_and_given() {
        let (network, version) = (network(), "1.0.0".parse().unwrap());
        let previous = json!({"ips": []});
        let request = attachment(&network, &network.plugins[0], version, &web(), Some(&previous));
        let expected = json!({"type": "portmap", "x": [1], "name": "n", "cniVersion": "1.0.0",
            "runtimeConfig": {"portMappings": [{"hostPort": 8080}]}, "prevResult": {"ips": []}});
        assert_eq!(Value::Object(request), expected);
        let bare = attachment(&network, &network.plugins[0], version, &Attachment::default(), None);
        assert!(!bare.contains_key("runtimeConfig") && !bare.contains_key("prevResult"));
    }

    #[test]
    fn only_gc_names_the_valid_attachments() {
        let (network, version) = (network(), "1.1.0".parse().unwrap());
        let valid = [("a".to_owned(), "eth0".to_owned())];
        let gc = of_network(&network, &network.plugins[0], version, Some(&valid));
        let expected = json!([{"containerID": "a", "ifname": "eth0"}]);
        assert_eq!(gc["cni.dev/valid-attachments"], expected);
        let status = of_network(&network, &network.plugins[0], version, None);
        assert!(!status.contains_key("cni.dev/valid-attachments"));
    }

    #[test]
    fn the_environment_is_the_attachment() {
        let shown = |netns| {
            let environment = environment(Command::Del, Some(&web()), netns);
            environment.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(true).join(" "),
            "CNI_COMMAND=DEL CNI_CONTAINERID=web CNI_NETNS=/run/netns/web CNI_IFNAME=eth0 \
             CNI_ARGS=IgnoreUnknown=1;IP=10.0.0.9"
        );
        assert_eq!(shown(false)[2], "CNI_NETNS=");
        assert_eq!(environment(Command::Status, None, true).len(), 1);
    }

    #[test]
    fn arguments_can_not_hold_another() {
        web().check().unwrap();
        for (key, value) in [("A;B", "1"), ("A", "1;B=2"), ("A=B", "1"), ("", "1"), ("A", "1\n")] {
            let args = vec![(key.to_owned(), value.to_owned())];
            assert!(Attachment { args, ..web() }.check().is_err(), "{key} {value}");
        }
        for id in ["", "../a", "-a", "a/b"] {
            assert!(Attachment { container_id: id.into(), ..web() }.check().is_err(), "{id}");
        }
        assert!(Attachment { interface: "a/b".into(), ..web() }.check().is_err());
    }
}
