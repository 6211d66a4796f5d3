//! Doing what plans say, by netlink: on the host, and in a container's namespace.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use hull_manager_core::Error;
use ipnet::IpNet;

use crate::{
    definition::{Bridge, Definition, Driver},
    healing::{self, Loss},
    link::{Link, Peer, Port},
    mac::Mac,
    namespace::{self, Namespaces},
    netlink::Socket,
    plan::{Interface, On, Routes, Step},
    settings::Settings,
    sysctl::{self, Writer},
};

/// What an interface carries that has no other limit.
const ETHERNET_MTU: u32 = 1500;

/// The namespace that the manager runs in, and those of containers.
pub(crate) struct Host {
    pub(crate) socket: Socket,
    pub(crate) namespaces: Namespaces,
    /// Packets to the host's loopback may be led to containers.
    loopback_routed: bool,
    /// The packet filter keeps containers apart. It lets links through; a bridge cannot.
    filtered: bool,
    /// What is written on interfaces that we make, for other managers on the host.
    mark: String,
}

/// A route with fewer bits is no subnet's.
const MIN_SUBNET_PREFIX: u8 = 8;

/// What all managers' marks begin with.
const MARK: &str = "hull manager ";

impl Host {
    pub(crate) fn new(namespaces: Namespaces, settings: &Settings) -> Result<Self> {
        let socket = Socket::open().context("open rtnetlink")?;
        Ok(Self {
            socket,
            namespaces,
            loopback_routed: !settings.userland_proxy,
            filtered: settings.iptables,
            // No other manager on the host has a table of this name.
            mark: format!("{MARK}{}", settings.table),
        })
    }

    /// Whether we have made an interface.
    pub(crate) fn is_marked(&self, link: &Link) -> bool {
        link.alias == self.mark
    }

    /// Writes on an interface that we have made it.
    pub(crate) fn mark(&self, link: &Link) -> Result<()> {
        if !self.is_marked(link) {
            self.socket.set_alias(link.index, &self.mark)?;
        }
        Ok(())
    }

    /// The manager that has made an interface, if that is another one.
    fn other_manager<'a>(&self, link: &'a Link) -> Option<&'a str> {
        link.alias.strip_prefix(MARK).filter(|_| !self.is_marked(link))
    }

    /// A bridge by its name.
    ///
    /// # Errors
    /// If the interface of this name is none, or another manager's.
    pub(crate) fn bridge(&self, name: &str) -> Result<Option<Link>, Error> {
        let Some(link) = self.socket.link(name).map_err(anyhow::Error::new)? else {
            return Ok(None);
        };
        if link.kind != "bridge" {
            return Err(Error::conflict(format!("existing interface {name} is not a bridge")));
        }
        match self.other_manager(&link) {
            None => Ok(Some(link)),
            Some(other) => Err(Error::conflict(format!(
                "the bridge {name} is that of another manager, {other}: choose another one (hulld --bridge NAME), or delete it if that manager is gone"
            ))),
        }
    }

    /// Whether the kernel has IPv6.
    pub(crate) fn has_ipv6() -> bool {
        sysctl::get("ipv6/conf/all/disable_ipv6").is_some()
    }

    /// Does one step for a container.
    pub(crate) fn apply(&self, container: &str, step: &Step) -> Result<()> {
        match step {
            Step::Namespace => self.namespaces.make(container).map(drop),
            Step::Adopt(path) => self.namespaces.adopt(container, path),
            Step::Link(interface) => self
                .add_link(&self.entry(container)?, interface)
                .with_context(|| format!("make interface {}", interface.name)),
            Step::Inside(interfaces, routes) => {
                let sysctls = self.namespaces.sysctls.writer()?;
                namespace::inside(self.entry(container)?, |socket| {
                    for interface in interfaces {
                        configure(socket, &sysctls, interface)
                            .with_context(|| format!("configure interface {}", interface.name))?;
                    }
                    set_routes(socket, routes)
                })
            }
            Step::Port(interface) => self.raise_port(interface),
        }
    }

    fn entry(&self, container: &str) -> Result<OwnedFd> {
        self.namespaces.open(container)?.with_context(|| {
            format!("{} is no network namespace", self.namespaces.path(container).display())
        })
    }

    fn add_link(&self, namespace: &OwnedFd, interface: &Interface) -> Result<()> {
        let peer = |name| Peer { namespace: namespace.as_fd(), name, mac: interface.mac };
        match &interface.on {
            On::Bridge { bridge, .. } => {
                let link = self
                    .socket
                    .link(bridge)?
                    .with_context(|| format!("the bridge {bridge} is not there"))?;
                let mtu = interface.mtu.unwrap_or(link.mtu);
                let peer = peer(&interface.name);
                self.socket.add_veth(&interface.host_name, link.index, mtu, &peer)?;
            }
            On::Parent { parent, slave } => {
                let link = self
                    .socket
                    .link(parent)?
                    .with_context(|| format!("the interface {parent} is not there"))?;
                let mtu = interface.mtu.unwrap_or(link.mtu);
                // Until Linux 6.15, its name must be nobody's on the host, either.
                self.socket.add_slave(link.index, *slave, mtu, &peer(&interface.host_name))?;
            }
        }
        Ok(())
    }

    fn raise_port(&self, interface: &Interface) -> Result<()> {
        let name = &interface.host_name;
        let link = self.socket.link(name)?.with_context(|| format!("{name} is not there"))?;
        // It only passes on what the bridge is given; an address would be one more way in.
        self.namespaces.sysctls.writer()?.set(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        let port = Port {
            isolated: matches!(interface.on, On::Bridge { isolated: true, .. }) && !self.filtered,
            hairpin: bridges_translate(),
            // From others the packet filter takes nothing. To learn this with each frame costs
            // nearly 1 % of the way of a small one. An address that somebody chose may be the
            // bridge's own, or another container's, too.
            only: (self.filtered && interface.derived).then_some(interface.mac),
        };
        self.socket.set_port(link.index, port).context("set up a port of the bridge")?;
        Ok(self.socket.set_up(link.index)?)
    }

    /// Makes what a network needs on the host, or puts it right. Idempotent.
    pub(crate) fn ensure(&self, network: &Definition) -> Result<()> {
        match &network.driver {
            Driver::Bridge(bridge) => self
                .ensure_bridge(network, bridge)
                .with_context(|| format!("network {}: bridge {}", network.name, bridge.interface)),
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => self
                .ensure_parent(network, parent)
                .with_context(|| format!("network {}: {}", network.name, parent.interface)),
            Driver::Configuration(_) | Driver::Plugins(_) => Ok(()),
        }
    }

    /// What a network's interface has lost of what it should have.
    pub(crate) fn loss(&self, network: &Definition) -> Result<Option<Loss>> {
        let wanted = match &network.driver {
            Driver::Bridge(bridge) if bridge.owned => gateways(network),
            Driver::Configuration(_) | Driver::Plugins(_) => return Ok(None),
            _ => Vec::new(),
        };
        let link = self.socket.link(network.interface())?;
        let present = match &link {
            Some(link) if !wanted.is_empty() => self.socket.addresses(link.index)?,
            _ => Vec::new(),
        };
        Ok(healing::loss(link.as_ref(), &present, &wanted))
    }

    fn ensure_bridge(&self, network: &Definition, bridge: &Bridge) -> Result<()> {
        let name = &bridge.interface;
        let gateways = gateways(network);
        let link = match self.bridge(name)? {
            Some(link) => link,
            None if !bridge.owned => bail!("it is not there, and it is not hull's to make"),
            None => {
                let mtu = bridge.mtu.map_or_else(|| self.uplink_mtu(), Ok)?;
                self.socket.add_bridge(name, bridge_mac(network)?, mtu)?;
                self.socket.link(name)?.context("it has gone again")?
            }
        };
        if self.loopback_routed {
            sysctl::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        }
        if !bridge.owned {
            return self.lend_gateways(network, &link, &gateways);
        }
        self.mark(&link)?;
        let mac = bridge_mac(network)?;
        if link.mac != Some(mac) {
            self.readdress(&link, mac)?;
        }
        let ipv6 = gateways.iter().any(|gateway| gateway.addr().is_ipv6());
        // Who has lost its address has lost the link-local one, too, without which it asks for no
        // neighbour. That comes with IPv6.
        if let Some(Loss::Addresses(lost)) = self.loss(network)?
            && lost.iter().any(|net| net.addr().is_ipv6())
        {
            sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        }
        let key = |key: &str| format!("ipv6/conf/{name}/{key}");
        if ipv6 {
            // No router of a container's is the host's.
            sysctl::prefer(&key("accept_ra"), "0")?;
            sysctl::set(&key("disable_ipv6"), "0")?;
        } else {
            sysctl::prefer(&key("disable_ipv6"), "1")?;
        }
        for gateway in gateways {
            self.socket.add_address(link.index, gateway)?;
        }
        Ok(self.socket.set_up(link.index)?)
    }

    /// Gives a bridge another hardware address, and tells its neighbours, who know the old one.
    fn readdress(&self, link: &Link, mac: Mac) -> Result<()> {
        // Otherwise the kernel says nothing of such a change.
        let keys = [("ipv4", "arp_notify"), ("ipv6", "ndisc_notify")]
            .map(|(family, key)| format!("{family}/conf/{}/{key}", link.name));
        let before = keys.each_ref().map(|key| sysctl::get(key));
        for key in &keys {
            sysctl::prefer(key, "1")?;
        }
        self.socket.set_mac(link.index, mac).context("change its hardware address")?;
        for (key, value) in keys.iter().zip(before) {
            sysctl::prefer(key, value.as_deref().unwrap_or("0"))?;
        }
        Ok(())
    }

    /// Puts gateways that were asked for on a bridge of somebody else, as docker does; what it has
    /// stays. A list that somebody has written says that the gateway is another one.
    fn lend_gateways(&self, network: &Definition, link: &Link, gateways: &[IpNet]) -> Result<()> {
        if !network.options.contains_key("com.docker.network.bridge.name") {
            return Ok(());
        }
        let present = self.socket.addresses(link.index)?;
        let missing = |wanted: &&IpNet| !present.iter().any(|net| net.addr() == wanted.addr());
        for gateway in gateways.iter().filter(missing) {
            let key = format!("ipv6/conf/{}/disable_ipv6", link.name);
            if gateway.addr().is_ipv6() && sysctl::get(&key).as_deref() == Some("1") {
                sysctl::set(&key, "0")?;
            }
            self.socket.add_address(link.index, *gateway)?;
        }
        Ok(self.socket.set_up(link.index)?)
    }

    /// Takes away what a network had on the host. Idempotent.
    pub(crate) fn remove(&self, network: &Definition) -> Result<()> {
        match &network.driver {
            Driver::Bridge(bridge) if bridge.owned => {
                let link = self.socket.link(&bridge.interface)?;
                if link.is_some_and(|link| self.other_manager(&link).is_none()) {
                    self.socket.remove_link(&bridge.interface)?;
                }
            }
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => self.remove_parent(parent)?,
            _ => {}
        }
        Ok(())
    }

    /// The MTU of the way to the world.
    pub(crate) fn uplink_mtu(&self) -> Result<u32> {
        let routes = self.socket.routes()?;
        let uplink = routes.iter().find(|route| route.to.is_none()).and_then(|r| r.interface);
        let links = self.socket.links(false)?;
        let link = links.iter().find(|link| Some(link.index) == uplink);
        Ok(link.map_or(ETHERNET_MTU, |link| link.mtu))
    }

    /// The subnets that the host has routes to, but by the interface `except`. A route to a large
    /// part of all addresses is a way out and not a subnet: VPNs have two halves of everything.
    pub(crate) fn routed(&self, except: Option<u32>) -> Result<Vec<IpNet>> {
        let routes = self.socket.routes()?.into_iter();
        let others = routes.filter(|route| except.is_none() || route.interface != except);
        let subnets = others.filter_map(|route| route.to);
        Ok(subnets.filter(|to| to.prefix_len() >= MIN_SUBNET_PREFIX).collect())
    }

    /// Turns forwarding on.
    pub(crate) fn forward(&self, ipv6: bool) -> Result<()> {
        if sysctl::get("ipv4/ip_forward").as_deref() != Some("1") {
            sysctl::set("ipv4/ip_forward", "1").context("turn on forwarding of IPv4")?;
        }
        if !ipv6 || sysctl::get("ipv6/conf/all/forwarding").as_deref() != Some("0") {
            return Ok(());
        }
        // A router ignores the advertisements of others (RFC 4861, 6.2.7) unless told not to: a
        // host that has its own addresses and routes from them must keep these.
        for link in self.socket.links(false)? {
            let key = format!("ipv6/conf/{}/accept_ra", link.name);
            if sysctl::get(&key).as_deref() == Some("1") {
                sysctl::set(&key, "2")?;
            }
        }
        sysctl::set("ipv6/conf/all/forwarding", "1").context("turn on forwarding of IPv6")?;
        Ok(())
    }
}

/// Whether bridges hand what they forward to the filters of IP (br_netfilter). Then a container
/// that asks for a port of the host's that is its own has its packet's address translated while
/// it is in the bridge, which must send it back to where it came from. Otherwise a bridge does not:
/// a bridge within a container would learn its own addresses at the wrong port.
pub(crate) fn bridges_translate() -> bool {
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"]
        .iter()
        .any(|key| sysctl::get(key).is_some_and(|value| value != "0"))
}

/// What the bridge of a network has.
fn gateways(network: &Definition) -> Vec<IpNet> {
    network.pools.iter().filter_map(|pool| Some(pool.with_prefix(pool.gateway?))).collect()
}

/// The hardware address of a network's bridge. Containers have those of their addresses, and none
/// has the gateway's, or the subnet's own where there is no gateway.
fn bridge_mac(network: &Definition) -> Result<Mac> {
    let pool = network.pools.first().context("it has no subnet")?;
    Ok(Mac::of(pool.gateway.unwrap_or_else(|| pool.subnet.network())))
}

/// Sets up an interface in its namespace.
fn configure(socket: &Socket, sysctls: &Writer, interface: &Interface) -> Result<()> {
    let name = &interface.name;
    if matches!(interface.on, On::Parent { .. }) {
        let made = &interface.host_name;
        let link = socket.link(made)?.with_context(|| format!("{made} is not there"))?;
        socket.rename(link.index, name)?;
    }
    let link = socket.link(name)?.with_context(|| format!("{name} is not there"))?;
    let ipv6 = interface.addresses.iter().any(|address| address.addr().is_ipv6());
    // No address but those that were given: none of a neighbour's making. The link-local one is
    // made of the hardware address, which is the one that the packet filter lets pass.
    let settings: &[_] = match ipv6 {
        true => &[
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("addr_gen_mode", "0"),
            ("accept_dad", "0"),
        ],
        false => &[("disable_ipv6", "1")],
    };
    for (key, value) in settings {
        sysctls.set(&format!("ipv6/conf/{name}/{key}"), value)?;
    }
    if interface.announced {
        sysctls.set(&format!("ipv4/conf/{name}/arp_notify"), "1")?;
    }
    for address in &interface.addresses {
        socket.add_address(link.index, *address)?;
    }
    for (key, value) in &interface.sysctls {
        if !sysctls.set(key, value)? {
            bail!("the kernel has no sysctl net/{key}");
        }
    }
    Ok(socket.set_up(link.index)?)
}

fn set_routes(socket: &Socket, routes: &Routes) -> Result<()> {
    for (route, ipv6) in [(&routes.ipv4, false), (&routes.ipv6, true)] {
        let Some(route) = route else { continue };
        let link = socket
            .link(&route.interface)?
            .with_context(|| format!("{} is not there", route.interface))?;
        match route.gateway {
            Some(gateway) => socket.set_default_route(link.index, gateway)?,
            None => socket.set_default_device(link.index, ipv6)?,
        }
    }
    Ok(())
}
