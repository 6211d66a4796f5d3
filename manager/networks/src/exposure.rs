//! The packet filter and the host's ports: what of the rows they are to say.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hull_manager_core::{Error, Result};
use hull_manager_firewall as firewall;
use hull_specs_api::v1;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use crate::{
    Inner, audit,
    definition::{Definition, Driver},
    plan, ports,
    records::{Endpoint, Sandbox},
    sandbox, sysctl,
};

type Places = [(Endpoint, Arc<Definition>)];

/// A network's part of the rules; none: it has no bridge.
pub(crate) fn network_rule(network: &Definition) -> Option<firewall::Network> {
    let Driver::Bridge(bridge) = &network.driver else { return None };
    let subnet = |net: &IpNet| firewall::Subnet::new(net.addr(), net.prefix_len()).ok();
    Some(firewall::Network {
        bridge: bridge.interface.clone(),
        index: index(&bridge.interface),
        subnets: network.pools.iter().filter_map(|pool| subnet(&pool.subnet)).collect(),
        masquerade: bridge.masquerade && !network.internal,
        internal: network.internal,
        inter_container: bridge.icc,
    })
}

/// An interface's number; 0 where it is not there.
fn index(interface: &str) -> u32 {
    if_nametoindex(interface).unwrap_or(0)
}

/// The place that a container's ports lead to: that by which it reaches the world, or its first
/// one on a bridge that is not internal; without such a one, the first whose plugins do it.
fn publisher(places: &Places) -> Option<&(Endpoint, Arc<Definition>)> {
    let borrowed = sandbox::borrow(places);
    let out = plan::way_out(&borrowed, true).or_else(|| plan::way_out(&borrowed, false));
    let out = out.map(|((endpoint, _), _)| endpoint.id.as_str());
    let open = || {
        places
            .iter()
            .filter(|(_, network)| matches!(network.driver, Driver::Bridge(_)) && !network.internal)
    };
    open()
        .find(|(endpoint, _)| Some(endpoint.id.as_str()) == out)
        .or_else(|| open().next())
        .or_else(|| places.iter().find(|(_, network)| network.maps_ports()))
}

/// Whether a text of `--link` means this container: its name, its id, or the id's beginning.
fn means(text: &str, sandbox: &Sandbox) -> bool {
    let target = text.split_once(':').map_or(text, |(target, _)| target);
    let target = target.strip_prefix('/').unwrap_or(target);
    !target.is_empty()
        && (target == sandbox.name || target.len() >= 4 && sandbox.container.starts_with(target))
}

fn leading(reservation: &firewall::Reservation, endpoint: &Endpoint) -> Vec<firewall::Port> {
    let ipv4 = endpoint.ipv4.and_then(|net| match net {
        IpNet::V4(net) => Some(net.addr()),
        IpNet::V6(_) => None,
    });
    let ipv6 = endpoint.ipv6.and_then(|net| match net {
        IpNet::V6(net) => Some(net.addr()),
        IpNet::V4(_) => None,
    });
    reservation.ports(ipv4, ipv6)
}

/// Refuses ports where it is for plugins to lead them, and none does.
fn refuse_lost_ports(options: &v1::ContainerOptions, places: &Places) -> Result<()> {
    let by_plugins =
        |(_, network): &&(Endpoint, Arc<Definition>)| matches!(network.driver, Driver::Plugins(_));
    match places.iter().find(by_plugins) {
        Some((_, network)) if !options.publish.is_empty() => Err(Error::invalid(format!(
            "network {} has no plugin that publishes ports (none has the capability portMappings)",
            network.name
        ))),
        _ => Ok(()),
    }
}

impl Inner {
    /// Takes the host's ports that a container wants, unless it has them.
    pub(crate) fn take_ports(
        &self,
        container: &str,
        options: &v1::ContainerOptions,
        places: &Places,
    ) -> Result<()> {
        let Some((_, network)) = publisher(places) else {
            return refuse_lost_ports(options, places);
        };
        if self.reservations().contains_key(container) {
            return Ok(());
        }
        let bind = match &network.driver {
            Driver::Bridge(bridge) => bridge.bind,
            _ => None,
        };
        let wanted = ports::wanted(options, bind.or(self.settings.bind))?;
        if !wanted.is_empty() {
            let reservation = self.ports.reserve(&wanted).map_err(port_error)?;
            self.reservations().insert(container.into(), reservation);
        }
        Ok(())
    }

    /// The ports that plugins are to lead to a container.
    pub(crate) fn mapped(&self, container: &str, places: &Places) -> Vec<v1::PublishedPort> {
        let by_plugins = publisher(places).is_some_and(|(_, network)| network.maps_ports());
        match self.reservations().get(container) {
            // The container's address is not known yet, and not needed.
            Some(reservation) if by_plugins => reservation
                .ports(Some(Ipv4Addr::UNSPECIFIED), Some(Ipv6Addr::UNSPECIFIED))
                .iter()
                .map(ports::message)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Takes the ports again of a container that outlived the manager. Where somebody else has
    /// one meanwhile, the rules lead to the container all the same, but no proxy does.
    fn take_ports_again(&self, container: &str) -> Result<()> {
        if self.reservations().contains_key(container) {
            return Ok(());
        }
        let published = self.records.ports(container)?;
        if published.is_empty() {
            return Ok(());
        }
        match self.ports.reserve(&ports::again(&published)?) {
            Ok(reservation) => {
                self.reservations().insert(container.into(), reservation);
                Ok(())
            }
            Err(error) => Err(port_error(error)),
        }
    }

    /// What the filter is to say of one endpoint; none: it is on no bridge.
    fn endpoint_rule(
        &self,
        endpoint: &Endpoint,
        network: &Definition,
        sandbox: &Sandbox,
        ports: Vec<firewall::Port>,
    ) -> Result<Option<firewall::Endpoint>> {
        let Driver::Bridge(bridge) = &network.driver else { return Ok(None) };
        let links = if bridge.icc { Vec::new() } else { self.links_to(endpoint, sandbox)? };
        Ok(Some(firewall::Endpoint {
            index: index(&endpoint.host_interface()),
            interface: endpoint.host_interface(),
            bridge: bridge.interface.clone(),
            mac: firewall::Mac(endpoint.mac.0),
            addresses: endpoint
                .addresses()
                .chain(endpoint.link_locals())
                .map(|net| net.addr())
                .collect(),
            may_spoof: false,
            links,
            ports,
        }))
    }

    /// Who may reach an endpoint by a link although its network's containers reach no other.
    fn links_to(&self, target: &Endpoint, sandbox: &Sandbox) -> Result<Vec<firewall::Link>> {
        let exposed = ports::all_exposed(&sandbox.options)?;
        let mut links = Vec::new();
        for other in self.records.members(&target.network)? {
            let Some(IpAddr::V4(from)) = other.ipv4.map(|net| net.addr()) else { continue };
            if other.options.links.iter().any(|link| means(link, sandbox)) {
                let link = |(port, protocol)| firewall::Link { from, protocol, port };
                links.extend(exposed.iter().copied().map(link));
            }
        }
        Ok(links)
    }

    /// A container's ports as they lead now, and the endpoint that they lead to.
    fn leading(&self, container: &str, places: &Places) -> (Option<String>, Vec<firewall::Port>) {
        match (publisher(places), self.reservations().get(container)) {
            (Some((endpoint, network)), Some(reservation)) if !network.maps_ports() => {
                (Some(endpoint.id.clone()), leading(reservation, endpoint))
            }
            _ => (None, Vec::new()),
        }
    }

    /// The rules of a container's endpoints, by their interface.
    fn container_rules(&self, container: &str, places: &Places) -> Result<Vec<firewall::Endpoint>> {
        let sandbox = self.sandbox(container)?;
        let (publisher, ports) = self.leading(container, places);
        let mut rules = Vec::new();
        for (endpoint, network) in places {
            let own = match publisher.as_ref() == Some(&endpoint.id) {
                true => ports.clone(),
                false => Vec::new(),
            };
            rules.extend(self.endpoint_rule(endpoint, network, &sandbox, own)?);
        }
        Ok(rules)
    }

    /// Lets the filter know a container, and starts its proxies.
    pub(crate) fn expose(&self, container: &str, places: &Places) -> Result<()> {
        let (_, ports) = self.leading(container, places);
        // Written down first: after a crash they are known to be this container's.
        let mut published: Vec<_> = ports.iter().map(ports::message).collect();
        published.extend(self.mapped(container, places));
        if self.records.ports(container)? != published {
            self.records.set_ports(container, &published)?;
        }
        let mut rules = self.container_rules(container, places)?;
        // A port that moves must leave its old endpoint first.
        rules.sort_by_key(|rule| rule.ports.len());
        for rule in rules {
            self.firewall.put_endpoint(rule)?;
        }
        self.serve(container, places, &ports)?;
        let endpoints: Vec<_> = places.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        self.refresh(&self.linked(&endpoints)?)
    }

    /// Starts the proxies of a container's ports, unless plugins do it all.
    fn serve(&self, container: &str, places: &Places, ports: &[firewall::Port]) -> Result<()> {
        let mut reservations = self.reservations();
        let Some((endpoint, network)) = publisher(places) else {
            // It has left its last network that publishes: the ports are anybody's.
            reservations.remove(container);
            return Ok(());
        };
        match reservations.get(container) {
            Some(reservation) if network.maps_ports() => Ok(reservation.serve(&[], &[])?),
            Some(reservation) => {
                let addresses: Vec<_> = endpoint.addresses().map(|net| net.addr()).collect();
                Ok(reservation.serve(ports, &addresses)?)
            }
            None => Ok(()),
        }
    }

    /// The containers that endpoints link to, where only who links reaches them.
    pub(crate) fn linked(&self, endpoints: &[Endpoint]) -> Result<Vec<String>> {
        let mut linked = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| !endpoint.options.links.is_empty()) {
            let closed = self.state().catalog.by_id(&endpoint.network).is_some_and(
                |known| matches!(&known.definition.driver, Driver::Bridge(bridge) if !bridge.icc),
            );
            if !closed {
                continue;
            }
            for other in self.records.members(&endpoint.network)? {
                let Some(sandbox) = self.records.sandbox(&other.container)? else { continue };
                let is_meant = endpoint.options.links.iter().any(|link| means(link, &sandbox));
                if other.container != endpoint.container && is_meant {
                    linked.push(other.container);
                }
            }
        }
        Ok(linked)
    }

    /// Whom others link to learns who they are now.
    pub(crate) fn refresh(&self, containers: &[String]) -> Result<()> {
        for container in containers {
            let places = self.places(container)?;
            for rule in self.container_rules(container, &places)? {
                self.firewall.put_endpoint(rule)?;
            }
        }
        Ok(())
    }

    /// The filter forgets endpoints.
    pub(crate) fn conceal(&self, endpoints: &[Endpoint]) -> Result<()> {
        for endpoint in endpoints {
            self.firewall.remove_endpoint(&endpoint.host_interface())?;
        }
        Ok(())
    }

    /// All rules, as the rows and definitions have them, in force at once.
    pub(crate) fn replace_rules(&self) -> Result<()> {
        let mut rules = firewall::Rules::default();
        let networks: Vec<_> =
            self.state().catalog.all().map(|known| Arc::clone(&known.definition)).collect();
        for rule in networks.iter().filter_map(|network| network_rule(network)) {
            rules.networks.insert(rule.bridge.clone(), rule);
        }
        for sandbox in self.records.sandboxes()? {
            let container = &sandbox.container;
            let one = || {
                if let Err(error) = self.take_ports_again(container) {
                    tracing::warn!(%container, %error, "a published port is another's");
                }
                let places = self.places(container)?;
                let rules = self.container_rules(container, &places)?;
                let (_, ports) = self.leading(container, &places);
                self.serve(container, &places, &ports)?;
                Ok::<_, Error>(rules)
            };
            match one() {
                Ok(more) => {
                    rules
                        .endpoints
                        .extend(more.into_iter().map(|rule| (rule.interface.clone(), rule)));
                }
                Err(error) => tracing::warn!(%container, %error, "not in the packet filter"),
            }
        }
        Ok(self.firewall.replace(rules)?)
    }

    /// Whether a published port of a container's leads to this endpoint.
    pub(crate) fn publishes(&self, endpoint: &Endpoint) -> Result<bool> {
        let places = self.places(&endpoint.container)?;
        Ok(publisher(&places).is_some_and(|(publisher, _)| publisher.id == endpoint.id))
    }

    /// What of the host decides who reaches what.
    pub(crate) fn situation(&self) -> audit::Situation {
        let on = |key: &str| sysctl::get(key).as_deref() == Some("1");
        // A kernel without nftables has no such chains.
        let closed = |at| self.firewall.closed_by_host(at).unwrap_or_default();
        audit::Situation {
            filtered: self.settings.iptables,
            arriving: closed(firewall::HostHook::Arriving),
            input: closed(firewall::HostHook::Input),
            forward: closed(firewall::HostHook::Forward),
            forwards: [on("ipv4/ip_forward"), on("ipv6/conf/all/forwarding")],
            ipv6: sysctl::get("ipv6/conf/all/disable_ipv6").as_deref() == Some("0"),
        }
    }

    pub(crate) fn reservations(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, firewall::Reservation>> {
        self.reservations.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A port that somebody has is the user's to solve.
fn port_error(error: anyhow::Error) -> Error {
    let taken = error.chain().any(|cause| cause.is::<firewall::PortTaken>());
    match taken {
        true => Error::conflict("failed to set up container networking").because(error),
        false => error.into(),
    }
}
