//! What the name service knows of a container, and what its resolver asks.

use std::{net::SocketAddr, os::fd::AsFd as _, sync::Arc};

use anyhow::Context as _;
use hull_manager_cni::Dns;
use hull_manager_core::Result;
use hull_manager_names::{ADDRESS, Forward, Link, Member, Sockets, View};
use hull_specs_api::v1;

use crate::{
    DEFAULT_NETWORK, Inner,
    definition::Definition,
    files::{self, Ask, Resolver},
    list,
    options::address,
    records::{Endpoint, Sandbox},
};

type Places = [(Endpoint, Arc<Definition>)];

const DNS_PORT: u16 = 53;

/// Whether a network's members find each other by name: docker's rule, all but the default one.
pub(crate) fn has_names(network: &Definition) -> bool {
    network.name != DEFAULT_NETWORK
}

/// A container's place as others find it.
fn member(sandbox: &Sandbox, endpoint: &Endpoint) -> Member {
    Member {
        id: sandbox.container.clone(),
        names: list::dns_names(sandbox, endpoint),
        addresses: endpoint.addresses().map(|net| net.addr()).collect(),
    }
}

/// What a container sees.
fn view(places: &Places, servers: &[std::net::IpAddr]) -> View {
    let named = || places.iter().filter(|(_, network)| has_names(network));
    let link = |network: &Definition, text: &str| {
        let (target, alias) = text.split_once(':').unwrap_or((text, text));
        Link { network: network.id.clone(), alias: alias.into(), target: target.into() }
    };
    let internal = places.iter().all(|(_, network)| network.internal);
    View {
        networks: named().map(|(_, network)| network.id.clone()).collect(),
        links: named()
            .flat_map(|(endpoint, network)| {
                endpoint.options.links.iter().map(|text| link(network, text))
            })
            .collect(),
        forward: match servers {
            _ if internal => Forward::Never,
            [] => Forward::Host,
            servers => Forward::Servers(
                servers.iter().map(|server| SocketAddr::new(*server, DNS_PORT)).collect(),
            ),
        },
    }
}

/// The first list that says something.
fn first_of<T: Clone>(lists: [&[T]; 3]) -> Vec<T> {
    lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default().to_vec()
}

impl Inner {
    /// The resolver that a container asks for, behind it that of its networks by plugins, and then
    /// the manager's defaults.
    fn wanted_resolver(&self, options: &v1::ContainerOptions, told: &Dns) -> Result<Resolver> {
        let servers = options
            .dns
            .iter()
            .map(|text| address("DNS server", text))
            .collect::<Result<Vec<_>>>()?;
        // What a plugin calls a server and is none helps nobody.
        let theirs = told.nameservers.iter().filter_map(|text| text.parse().ok());
        let theirs: Vec<_> = theirs.collect();
        let settings = &self.settings;
        Ok(Resolver {
            servers: first_of([&servers, &theirs, &settings.dns]),
            search: first_of([&options.dns_search, &told.search, &settings.dns_search]),
            options: first_of([&options.dns_options, &told.options, &settings.dns_options]),
            ..Resolver::default()
        })
    }

    fn host_resolver(&self) -> Result<Resolver> {
        match std::fs::read_to_string(&self.settings.resolv_conf) {
            Ok(text) => Ok(Resolver::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Resolver::default()),
            Err(error) => Err(error)
                .with_context(|| format!("read {}", self.settings.resolv_conf.display()))
                .map_err(Into::into),
        }
    }

    /// How a container resolves names. The service answers it in every network but the default
    /// one, and there, too, where the host's own servers are at its loopback, which a container
    /// cannot reach, or where it must not ask anybody.
    fn asks(&self, places: &Places, wanted: &Resolver, host: &Resolver) -> Ask {
        let internal = places.iter().all(|(_, network)| network.internal);
        let alone = wanted.servers.is_empty() && files::reachable(host).is_empty();
        let named = places.iter().any(|(_, network)| has_names(network));
        match self.settings.names && (named || alone || internal) {
            true => Ask::Service(ADDRESS.into()),
            false => Ask::Directly,
        }
    }

    pub(crate) fn resolv_conf(&self, sandbox: &Sandbox, places: &Places) -> Result<String> {
        let told = self.dns_by_plugins(&sandbox.container, places)?;
        let wanted = self.wanted_resolver(&sandbox.options, &told)?;
        let mut host = self.host_resolver()?;
        let ask = self.asks(places, &wanted, &host);
        files::keep_reachable(&mut host);
        Ok(files::resolv_conf(&host, &wanted, ask))
    }

    /// That of a container without a network of ours; in the host's namespace the host's
    /// loopback is its own.
    pub(crate) fn plain_resolv_conf(
        &self,
        options: &v1::ContainerOptions,
        is_host: bool,
    ) -> Result<String> {
        let wanted = self.wanted_resolver(options, &Dns::default())?;
        let mut host = self.host_resolver()?;
        if !is_host {
            files::keep_reachable(&mut host);
        }
        Ok(files::resolv_conf(&host, &wanted, Ask::Directly))
    }

    /// Lets the name service know a container, and answer it.
    pub(crate) fn name(&self, container: &str, places: &Places) -> Result<()> {
        let sandbox = self.sandbox(container)?;
        let told = self.dns_by_plugins(container, places)?;
        let wanted = self.wanted_resolver(&sandbox.options, &told)?;
        let ask = self.asks(places, &wanted, &self.host_resolver()?);
        for (endpoint, network) in places.iter().filter(|(_, network)| has_names(network)) {
            self.names.network(&network.id, &network.name);
            self.names.insert(&network.id, member(&sandbox, endpoint))?;
        }
        let view = view(places, &wanted.servers);
        if self.names.view(container).is_some() {
            return self.names.set_view(container, view);
        }
        if ask == Ask::Directly {
            return Ok(());
        }
        let namespace = self
            .host
            .namespaces
            .open(container)?
            .with_context(|| format!("{container} has no network namespace"))?;
        self.names.serve(container, Sockets::open(namespace.as_fd())?, view)
    }

    /// A container has another name from now on. One that is in no network is none of ours.
    pub(crate) fn rename(&self, container: &str, name: &str) -> Result<()> {
        let renamed = self.records.rename(container, name)?;
        match renamed && !self.records.is_leaving(container)? {
            true => self.name(container, &self.places(container)?),
            false => Ok(()),
        }
    }

    /// The name service forgets a container's places.
    pub(crate) fn unname(&self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            self.names.remove(&endpoint.network, &endpoint.container);
        }
    }
}
