//! Networks that are done by plugins: a user's configuration lists.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use hull_manager_cni as cni;
use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::{
    Inner,
    catalog::Known,
    definition::{Definition, Driver},
    records::Endpoint,
};

type Places = [(Endpoint, Arc<Definition>)];

/// The capability arguments of an endpoint (CNI conventions), for the plugins that take them.
fn capabilities(
    endpoint: &Endpoint,
    ports: &[v1::PublishedPort],
    container: &v1::ContainerOptions,
) -> Map<String, Value> {
    let mut capabilities = Map::new();
    let dns = [
        ("servers", &container.dns),
        ("searches", &container.dns_search),
        ("options", &container.dns_options),
    ];
    let dns: Map<_, _> = dns
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(key, list)| (key.to_owned(), json!(list)))
        .collect();
    if !dns.is_empty() {
        capabilities.insert("dns".into(), Value::Object(dns));
    }
    let options = &endpoint.options;
    if !options.mac_address.is_empty() {
        capabilities.insert("mac".into(), json!(options.mac_address));
    }
    let fixed = [&options.ipv4_address, &options.ipv6_address];
    let fixed: Vec<_> = fixed.into_iter().filter(|text| !text.is_empty()).collect();
    if !fixed.is_empty() {
        capabilities.insert("ips".into(), json!(fixed));
    }
    if !options.aliases.is_empty() {
        let aliases = json!({ &options.network: options.aliases });
        capabilities.insert("aliases".into(), aliases);
    }
    let mapping = |port: &v1::PublishedPort| {
        let mut mapping = json!({
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol,
        });
        if !matches!(port.host_ip.as_str(), "0.0.0.0" | "::") {
            mapping["hostIP"] = json!(port.host_ip);
        }
        mapping
    };
    if !ports.is_empty() {
        capabilities.insert("portMappings".into(), ports.iter().map(mapping).collect());
    }
    capabilities
}

impl Inner {
    /// Has plugins connect a container's places that are theirs, and writes down what they gave.
    pub(crate) fn add_by_plugins(&self, container: &str, places: &mut Places) -> Result<()> {
        let ports = self.mapped(container, places);
        let options = self.sandbox(container)?.options;
        for (endpoint, network) in places {
            if !matches!(network.driver, Driver::Plugins(_)) {
                continue;
            }
            let file = self.state().catalog.find(&network.id)?.file;
            let list = cni::Network::load(&file)?;
            let not_ready = |error: Error| error.context(format!("network {}", network.name));
            self.wait(self.cni.status(&list)).map_err(not_ready)?;
            let attachment = cni::Attachment {
                container_id: container.into(),
                netns: self.host.namespaces.path(container),
                interface: endpoint.interface.clone(),
                args: vec![("IgnoreUnknown".into(), "1".into())],
                capabilities: capabilities(
                    endpoint,
                    if list.has_capability("portMappings") { &ports } else { &[] },
                    &options,
                ),
            };
            let added = self.wait(self.cni.add(&list, attachment))?;
            take(endpoint, &added);
            self.records.set_addresses(endpoint)?;
        }
        Ok(())
    }

    /// Has plugins disconnect what they have connected of a container; `interface` is one, none
    /// all.
    pub(crate) fn delete_by_plugins(
        &self,
        container: &str,
        endpoints: &[Endpoint],
        interface: Option<&str>,
    ) -> Result<()> {
        if !self.is_by_plugins(endpoints) {
            return Ok(());
        }
        let mut failed = None;
        for recorded in self.cni.attachments()? {
            let attachment = &recorded.attachment;
            let meant = attachment.container_id == container
                && interface.is_none_or(|interface| interface == attachment.interface);
            if !meant {
                continue;
            }
            let delete = self.cni.del(&recorded.network, container, &attachment.interface);
            if let Err(error) = self.wait(delete) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Has plugins look whether what a container has is as they made it. They only say so: what
    /// they complain of is in the log.
    pub(crate) fn check_by_plugins(&self, container: &str, places: &Places) {
        for (endpoint, network) in places {
            if !matches!(network.driver, Driver::Plugins(_)) {
                continue;
            }
            let (cni, container) = (self.cni.clone(), container.to_owned());
            let (network, interface) = (network.name.clone(), endpoint.interface.clone());
            // They may take long.
            self.runtime.spawn(async move {
                if let Err(error) = cni.check(&network, &container, &interface).await {
                    tracing::warn!(%network, %container, %error, "not as its plugins made it");
                }
            });
        }
    }

    /// Whether a container has something by plugins.
    pub(crate) fn is_by_plugins(&self, endpoints: &[Endpoint]) -> bool {
        let state = self.state();
        !endpoints.iter().all(|endpoint| {
            let known = state.catalog.by_id(&endpoint.network);
            known.is_some_and(|known| !matches!(known.definition.driver, Driver::Plugins(_)))
        })
    }

    /// Has plugins take away what they have for containers that are none any more, all networks'
    /// at once. Those of a network that nothing is recorded of have nothing of ours.
    pub(crate) fn collect_by_plugins(&self) -> Result<()> {
        let recorded: BTreeSet<_> =
            self.cni.attachments()?.into_iter().map(|recorded| recorded.network).collect();
        let networks: Vec<_> = {
            let state = self.state();
            let wanted = |known: &&Known| {
                matches!(known.definition.driver, Driver::Plugins(_))
                    && recorded.contains(&known.definition.name)
            };
            state.catalog.all().filter(wanted).cloned().collect()
        };
        for known in networks {
            let (cni, records) = (self.cni.clone(), self.records.clone());
            let network = Arc::clone(&known.definition);
            let id = network.id.clone();
            let valid = move || {
                let endpoints = records.of_network(&id)?;
                Ok(endpoints.into_iter().map(|e| (e.container, e.interface)).collect())
            };
            self.runtime.spawn(async move {
                let collected = match cni::Network::load(&known.file) {
                    Ok(list) => cni.gc(&list, valid).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = collected {
                    tracing::warn!(network = %network.name, %error, "not collected");
                }
            });
        }
        Ok(())
    }

    /// How names are resolved in the networks that are done by plugins, as these say.
    pub(crate) fn dns_by_plugins(&self, container: &str, places: &Places) -> Result<cni::Dns> {
        let mut all = cni::Dns::default();
        for (endpoint, network) in places {
            if !matches!(network.driver, Driver::Plugins(_)) {
                continue;
            }
            let attached = self.cni.attached(&network.name, container, &endpoint.interface)?;
            let Some(cni::Addition { dns, .. }) = attached else { continue };
            all.nameservers.extend(dns.nameservers);
            // resolv.conf(5): the local domain is a search list of one.
            let domain = dns.search.is_empty() && !dns.domain.is_empty();
            all.search.extend(domain.then_some(dns.domain));
            all.search.extend(dns.search);
            all.options.extend(dns.options);
        }
        Ok(all)
    }

    /// Waits for what is asynchronous, from a thread that may block.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// What the plugins gave becomes the endpoint's.
fn take(endpoint: &mut Endpoint, added: &cni::Addition) {
    let inside = |index: Option<usize>| {
        let interface = index.and_then(|index| added.interfaces.get(index));
        interface.is_none_or(|interface| interface.name == endpoint.interface)
    };
    let first = |ipv4: bool| {
        let mine = |address: &&cni::Address| {
            address.address.is_ipv4() == ipv4 && inside(address.interface)
        };
        let found = added.ips.iter().find(mine)?;
        Some((IpNet::new(found.address, found.prefix).ok()?, found.gateway))
    };
    let (ipv4, ipv6) = (first(true), first(false));
    let gateway = |found: Option<(IpNet, Option<IpAddr>)>| found.and_then(|(_, gateway)| gateway);
    endpoint.ipv4 = ipv4.map(|(net, _)| net);
    endpoint.ipv6 = ipv6.map(|(net, _)| net);
    endpoint.gateways = [gateway(ipv4), gateway(ipv6)].into_iter().flatten().collect();
    let name = endpoint.interface.clone();
    let own = added
        .interfaces
        .iter()
        .find(|interface| interface.name == name && !interface.sandbox.is_empty());
    if let Some(mac) = own.and_then(|interface| interface.mac.parse().ok()) {
        endpoint.mac = mac;
    }
}
