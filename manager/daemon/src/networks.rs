//! What containers see of networks: the modes, and for all others the networks themselves.

use std::path::Path;

use futures_util::future::BoxFuture;
use hull_manager_containers::{Attached, Attachment, Namespace, Network};
use hull_manager_core::{Error, Result};
use hull_manager_networks::{Container, DefaultNetwork, Networks, Settings, SubnetSource};
use hull_specs_api::v1;

use crate::config::{Config, DEFAULT_EXEC_ROOT};

/// Networks as containers see them.
pub(crate) struct Adapter(pub(crate) Networks);

/// The settings of networks.
pub(crate) fn settings(config: &Config, id: &str) -> Settings {
    let given = &config.network;
    let default = given.default.as_ref().map(|given| {
        let own = DefaultNetwork::default();
        DefaultNetwork {
            bridge: if given.bridge.is_empty() { own.bridge } else { given.bridge.clone() },
            bip: given.bip,
            bip6: given.bip6,
            fixed_cidr: given.fixed_cidr,
            fixed_cidr_v6: given.fixed_cidr_v6,
            gateway: given.gateway,
            gateway_v6: given.gateway_v6,
            icc: given.icc,
        }
    });
    Settings {
        default,
        pools: given.pools.iter().map(|&(base, size)| SubnetSource { base, size }).collect(),
        ipv6: given.ipv6,
        mtu: given.mtu,
        ip_forward: given.ip_forward,
        ip_masq: given.ip_masq,
        iptables: given.iptables,
        userland_proxy: given.userland_proxy,
        table: table(config, id),
        bind: given.bind,
        dns: given.dns.clone(),
        dns_search: given.dns_search.clone(),
        dns_options: given.dns_options.clone(),
        host_gateway: given.host_gateway.clone(),
        ..Settings::new(config.data_root.join("networks"), config.exec_root.join("netns"))
    }
}

/// The name of the packet filter's tables. A second manager on the host has its own.
fn table(config: &Config, id: &str) -> String {
    if config.exec_root == Path::new(DEFAULT_EXEC_ROOT) {
        return "hull".to_owned();
    }
    format!("hull-{}", id.get(..8).unwrap_or(id))
}

fn container(of: Attachment<'_>) -> Container {
    Container {
        id: of.id.to_owned(),
        name: of.name.to_owned(),
        hostname: of.hostname.to_owned(),
        options: of.options.clone(),
    }
}

fn connected(of: hull_manager_networks::Attached) -> Attached {
    Attached {
        namespace: Namespace::Path(of.namespace),
        hosts: of.hosts,
        resolv_conf: of.resolv_conf,
        endpoints: of.endpoints,
        published: of.published,
    }
}

impl Adapter {
    /// What a container has that is in no network of its own.
    fn unconnected(&self, of: Attachment<'_>) -> Result<Attached> {
        let is_host = of.options.network_mode == "host";
        let (hosts, resolv_conf) = self.0.unconnected(of.options, is_host)?;
        Ok(Attached {
            namespace: match of.joined {
                Some(path) => Namespace::Path(path.to_owned()),
                None if is_host => Namespace::Host,
                None => Namespace::New,
            },
            hosts,
            resolv_conf,
            endpoints: Vec::new(),
            published: Vec::new(),
        })
    }

    fn is_connected(&self, options: &v1::ContainerOptions) -> bool {
        options.left_network || !self.0.wanted(options).is_empty()
    }
}

impl Network for Adapter {
    fn accept(&self, options: &v1::ContainerOptions) -> Result<()> {
        let is_default = matches!(options.network_mode.as_str(), "" | "default");
        let publishes = !options.publish.is_empty() || options.publish_all;
        if is_default && publishes && !self.is_connected(options) {
            return Err(Error::invalid(
                "published ports need a network, and this manager has no default one: use --network",
            ));
        }
        self.0.accept(options)
    }

    fn recover<'a>(&'a self, live: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.recover(live))
    }

    fn attach<'a>(&'a self, of: Attachment<'a>) -> BoxFuture<'a, Result<Attached>> {
        Box::pin(async move {
            if !self.is_connected(of.options) {
                return self.unconnected(of);
            }
            self.0.attach(container(of)).await.map(connected)
        })
    }

    fn check<'a>(&'a self, of: Attachment<'a>) -> BoxFuture<'a, Result<Attached>> {
        Box::pin(async move {
            if !self.is_connected(of.options) {
                return self.unconnected(of);
            }
            self.0.check(of.id, of.name).await.map(connected)
        })
    }

    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.detach(id))
    }

    fn rename<'a>(&'a self, id: &'a str, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.rename(id, name))
    }

    fn name_of<'a>(&'a self, network: &'a str) -> BoxFuture<'a, Result<String>> {
        let request = v1::InspectNetworkRequest { network: network.to_owned(), traffic: false };
        Box::pin(async move { Ok(self.0.inspect(request).await?.name) })
    }

    fn connect<'a>(
        &'a self,
        id: &'a str,
        endpoint: &'a v1::EndpointOptions,
    ) -> BoxFuture<'a, Result<Attached>> {
        Box::pin(async move { self.0.connect(id, endpoint.clone()).await.map(connected) })
    }

    fn disconnect<'a>(&'a self, id: &'a str, network: &'a str) -> BoxFuture<'a, Result<Attached>> {
        Box::pin(async move { self.0.disconnect(id, network).await.map(connected) })
    }
}

/// What hull can have networks with.
pub(crate) const DRIVERS: [&str; 5] = ["bridge", "host", "ipvlan", "macvlan", "null"];
