//! Networks and endpoints as messages.

use std::sync::Arc;

use hull_manager_core::{Error, Result, filter::Filters};
use hull_specs_api::v1;

use crate::{
    DEFAULT_NETWORK, Inner,
    catalog::Known,
    definition::{Definition, Driver, id_of},
    records::{Endpoint, Sandbox},
};

/// The two networks that are none: listed because docker lists them.
pub(crate) fn built_in(text: &str) -> Option<v1::Network> {
    [("none", "null"), ("host", "host")].into_iter().find_map(|(name, driver)| {
        let id = id_of(name);
        (text == name || text == id || text.len() >= 12 && id.starts_with(text)).then(|| {
            v1::Network {
                id,
                name: name.into(),
                driver: driver.into(),
                ipv4: true,
                scope: "local".into(),
                ipam: Some(v1::Ipam { driver: "default".into(), ..Default::default() }),
                ..Default::default()
            }
        })
    })
}

fn message(known: &Known) -> v1::Network {
    let network = &known.definition;
    let plugins: Vec<String> = match &network.driver {
        Driver::Plugins(list) => list["plugins"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|plugin| Some(plugin["type"].as_str()?.to_owned()))
            .collect(),
        _ => Vec::new(),
    };
    let (ipv4, ipv6) = match network.driver {
        Driver::Configuration(wish) => (wish.ipv4 != Some(false), wish.ipv6 == Some(true)),
        _ => (
            network.pools(true).next().is_some() || !plugins.is_empty(),
            network.pools(false).next().is_some(),
        ),
    };
    let ipam_driver = match &network.driver {
        Driver::Plugins(list) => list["plugins"][0]["ipam"]["type"].as_str().unwrap_or("null"),
        _ => "default",
    };
    v1::Network {
        id: network.id.clone(),
        name: network.name.clone(),
        driver: network.driver.name().into(),
        options: network.options.clone().into_iter().collect(),
        labels: network.labels.clone().into_iter().collect(),
        internal: network.internal,
        attachable: network.attachable,
        ipv4,
        ipv6,
        ipam: Some(v1::Ipam {
            driver: ipam_driver.into(),
            options: Default::default(),
            pools: network.pools.iter().map(crate::ipam::Pool::to_message).collect(),
        }),
        created: Some(network.created.into()),
        scope: "local".into(),
        members: Vec::new(),
        config_path: known.file.display().to_string(),
        plugins,
        interface: network.interface().into(),
        config_only: matches!(network.driver, Driver::Configuration(_)),
        config_from: network.config_from.clone(),
    }
}

impl Inner {
    pub(crate) fn list(
        &self,
        request: &v1::ListNetworksRequest,
    ) -> Result<v1::ListNetworksResponse> {
        let keys = ["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];
        let filters = Filters::parse(&request.filters, &keys)?;
        for kind in filters.values("type") {
            if !matches!(kind.as_str(), "builtin" | "custom") {
                return Err(Error::invalid(format!(
                    "invalid filter 'type={}'",
                    kind.escape_debug()
                )));
            }
        }
        let dangling = match filters.has("dangling") {
            true => Some(filters.flag("dangling", false)?),
            false => None,
        };
        let mut networks: Vec<_> = {
            let mut state = self.state();
            state.catalog.refresh()?;
            state.catalog.all().map(message).collect()
        };
        networks.extend(["none", "host"].into_iter().filter_map(built_in));
        let is_ours = |name: &str| matches!(name, DEFAULT_NETWORK | "none" | "host");
        let names = filters.names()?;
        networks.retain(|network| {
            let kind = if is_ours(&network.name) { "builtin" } else { "custom" };
            filters.any("driver", |driver| *driver == network.driver)
                && filters.any("id", |part| network.id.starts_with(part.as_str()))
                && names.have(&network.name)
                && filters.any("scope", |scope| *scope == network.scope)
                && filters.any("type", |wanted| wanted == kind)
                && filters.labels(|key| network.labels.get(key))
        });
        if let Some(wanted) = dangling {
            let mut left = Vec::new();
            for network in networks {
                let free = !is_ours(&network.name) && self.records.members(&network.id)?.is_empty();
                if free == wanted {
                    left.push(network);
                }
            }
            networks = left;
        }
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(v1::ListNetworksResponse { networks })
    }

    pub(crate) fn inspect(&self, text: &str) -> Result<v1::Network> {
        let known = {
            let mut state = self.state();
            state.catalog.refresh()?;
            match state.catalog.find(text) {
                Ok(known) => known,
                Err(error) => return built_in(text).ok_or(error),
            }
        };
        let mut network = message(&known);
        for endpoint in self.records.members(&known.definition.id)? {
            let name = self.records.sandbox(&endpoint.container)?.map(|sandbox| sandbox.name);
            let text = |net: Option<ipnet::IpNet>| net.map(|n| n.to_string()).unwrap_or_default();
            network.members.push(v1::NetworkMember {
                name: name.unwrap_or_default(),
                mac_address: endpoint.mac.to_string(),
                ipv4_address: text(endpoint.ipv4),
                ipv6_address: text(endpoint.ipv6),
                container_id: endpoint.container,
                endpoint_id: endpoint.id,
                traffic: None,
            });
        }
        network.members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(network)
    }

    /// Adds what went through the interfaces of a network's members.
    pub(crate) fn count(&self, network: &mut v1::Network) -> Result<()> {
        for member in &mut network.members {
            let endpoints = self.records.of_container(&member.container_id)?;
            let own = endpoints.into_iter().find(|endpoint| endpoint.id == member.endpoint_id);
            // One that ends meanwhile has nothing to tell any more.
            let counted = self.counters(&member.container_id).unwrap_or_default();
            member.traffic = own.and_then(|endpoint| {
                counted.into_iter().find(|interface| interface.name == endpoint.interface)
            });
        }
        Ok(())
    }
}

/// What others on a network find a container by.
pub(crate) fn dns_names(sandbox: &Sandbox, endpoint: &Endpoint) -> Vec<String> {
    let short = sandbox.container.get(..12).unwrap_or(&sandbox.container);
    let mut names = vec![sandbox.name.clone()];
    let more = endpoint.options.aliases.iter().map(String::as_str);
    for name in more.chain([short, sandbox.hostname.as_str()]) {
        if !name.is_empty() && !names.iter().any(|other| other == name) {
            names.push(name.into());
        }
    }
    names
}

/// A container's places as messages.
pub(crate) fn endpoints(
    container: &Sandbox,
    places: &[(Endpoint, Arc<Definition>)],
) -> Vec<v1::Endpoint> {
    places
        .iter()
        .map(|(endpoint, network)| {
            let part = |net: Option<ipnet::IpNet>| match net {
                Some(net) => (
                    net.addr().to_string(),
                    u32::from(net.prefix_len()),
                    // As docker: that of its network, whether or not it is in use.
                    network.route(net.addr()).or_else(|| {
                        let mut told = endpoint.gateways.iter().copied();
                        told.find(|gateway| gateway.is_ipv4() == net.addr().is_ipv4())
                    }),
                ),
                None => (String::new(), 0, None),
            };
            let (ipv4_address, ipv4_prefix_length, gateway) = part(endpoint.ipv4);
            let (ipv6_address, ipv6_prefix_length, gateway6) = part(endpoint.ipv6);
            let text = |gateway: Option<std::net::IpAddr>| {
                gateway.filter(|_| !network.internal).map(|g| g.to_string()).unwrap_or_default()
            };
            v1::Endpoint {
                id: endpoint.id.clone(),
                network: network.name.clone(),
                network_id: network.id.clone(),
                mac_address: endpoint.mac.to_string(),
                ipv4_address,
                ipv4_prefix_length,
                ipv4_gateway: text(gateway),
                ipv6_address,
                ipv6_prefix_length,
                ipv6_gateway: text(gateway6),
                dns_names: match network.name == DEFAULT_NETWORK {
                    true => Vec::new(),
                    false => dns_names(container, endpoint),
                },
                interface: endpoint.interface.clone(),
            }
        })
        .collect()
}
