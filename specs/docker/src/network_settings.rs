//! `NetworkSettings` of a container.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use serde::Serialize;
use serde_json::Value;

use crate::ports;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub sandbox_key: String,
    pub ports: BTreeMap<String, Value>,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u32,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Value>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Value>>,
    #[serde(flatten)]
    pub endpoint: Endpoint,
    pub networks: BTreeMap<String, Network>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u32,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u32,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<IpamConfig>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i32,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(flatten)]
    pub endpoint: Endpoint,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// The addresses that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IpamConfig {
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
}

/// The name of the network that a mode means; none for another container's.
#[must_use]
pub fn of_mode(mode: &str) -> Option<&str> {
    match mode {
        "" | "default" => Some("bridge"),
        _ if mode.starts_with("container:") => None,
        name => Some(name),
    }
}

/// The networks that a container is in, or will be once it runs.
#[must_use]
pub fn names(of: &v1::Container) -> Vec<String> {
    if !of.endpoints.is_empty() {
        return of.endpoints.iter().map(|at| at.network.clone()).collect();
    }
    let options = of.options.clone().unwrap_or_default();
    let mut names: Vec<_> = match options.left_network {
        true => Vec::new(),
        false => of_mode(&options.network_mode).map(ToOwned::to_owned).into_iter().collect(),
    };
    for endpoint in &options.networks {
        let name = of_mode(&endpoint.network).unwrap_or_default();
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

impl Network {
    fn new(asked: Option<&v1::EndpointOptions>, has: Option<&v1::Endpoint>) -> Self {
        let asked = asked.cloned().unwrap_or_default();
        let ipam = IpamConfig {
            ipv4_address: asked.ipv4_address,
            ipv6_address: asked.ipv6_address,
            link_local_ips: asked.link_local_addresses,
        };
        let mut endpoint = has.map(Endpoint::from).unwrap_or_default();
        if has.is_none() {
            endpoint.mac_address = asked.mac_address;
        }
        Self {
            ipam_config: (ipam != IpamConfig::default()).then_some(ipam),
            links: some(&asked.links),
            aliases: some(&asked.aliases),
            driver_opts: (!asked.driver_options.is_empty())
                .then(|| asked.driver_options.into_iter().collect()),
            gw_priority: asked.gateway_priority,
            network_id: has.map(|has| has.network_id.clone()).unwrap_or_default(),
            endpoint,
            dns_names: has.and_then(|has| some(&has.dns_names)),
        }
    }
}

impl From<&v1::Endpoint> for Endpoint {
    fn from(of: &v1::Endpoint) -> Self {
        Self {
            endpoint_id: of.id.clone(),
            gateway: of.ipv4_gateway.clone(),
            global_ipv6_address: of.ipv6_address.clone(),
            global_ipv6_prefix_len: of.ipv6_prefix_length,
            ip_address: of.ipv4_address.clone(),
            ip_prefix_len: of.ipv4_prefix_length,
            ipv6_gateway: of.ipv6_gateway.clone(),
            mac_address: of.mac_address.clone(),
        }
    }
}

impl NetworkSettings {
    pub(crate) fn new(of: &v1::Container, namespace: &str) -> Self {
        let options = of.options.clone().unwrap_or_default();
        let networks: BTreeMap<_, _> = names(of)
            .into_iter()
            .map(|name| {
                let asked = options
                    .networks
                    .iter()
                    .find(|asked| of_mode(&asked.network) == Some(name.as_str()));
                let has = of.endpoints.iter().find(|has| has.network == name);
                let network = Network::new(asked, has);
                (name, network)
            })
            .collect();
        Self {
            // Docker's is a random number; what it stands for is the namespace.
            sandbox_id: if namespace.is_empty() { String::new() } else { of.id.clone() },
            sandbox_key: namespace.to_owned(),
            ports: ports::map(of),
            endpoint: networks
                .get("bridge")
                .map(|network| network.endpoint.clone())
                .unwrap_or_default(),
            networks,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(mode: &str, networks: &[&str], endpoints: &[&str]) -> v1::Container {
        v1::Container {
            options: Some(v1::ContainerOptions {
                network_mode: mode.into(),
                networks: networks
                    .iter()
                    .map(|&network| v1::EndpointOptions {
                        network: network.into(),
                        aliases: vec!["alias".into()],
                        ipv4_address: "10.0.0.9".into(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }),
            endpoints: endpoints
                .iter()
                .map(|&network| v1::Endpoint {
                    network: network.into(),
                    id: "e1".into(),
                    ipv4_address: "10.0.0.2".into(),
                    ipv4_prefix_length: 24,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn networks_are_those_that_it_has_or_will_have() {
        for (mode, asked, has, expected) in [
            ("", &[][..], &[][..], &["bridge"][..]),
            ("", &["default"], &[], &["bridge"]),
            ("foo", &["foo", "bar"], &[], &["foo", "bar"]),
            ("foo", &["foo"], &["bar"], &["bar"]),
            ("container:x", &[], &[], &[]),
            ("none", &[], &[], &["none"]),
        ] {
            assert_eq!(names(&container(mode, asked, has)), expected, "{mode} {asked:?}");
        }
    }

    #[test]
    fn what_was_asked_for_and_what_it_has_are_told_together() {
        let settings = NetworkSettings::new(&container("", &["default"], &["bridge"]), "/run/ns");
        let json = serde_json::to_value(settings).unwrap();
        for (pointer, value) in [
            ("/IPAddress", "\"10.0.0.2\""),
            ("/SandboxKey", "\"/run/ns\""),
            ("/Networks/bridge/IPAddress", "\"10.0.0.2\""),
            ("/Networks/bridge/IPPrefixLen", "24"),
            ("/Networks/bridge/IPAMConfig", "{\"IPv4Address\":\"10.0.0.9\"}"),
            ("/Networks/bridge/Aliases", "[\"alias\"]"),
            ("/Networks/bridge/Links", "null"),
        ] {
            let found = json.pointer(pointer).map(ToString::to_string);
            assert_eq!(found.as_deref(), Some(value), "{pointer}");
        }
    }
}
