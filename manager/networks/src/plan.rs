//! What is to be made for a container: typed steps, in order. Pure.
//!
//! Killed between any two steps, the rows are there that name what was made, and `detach` takes
//! it away.

use std::{
    cmp::Reverse,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use crate::{
    definition::{Definition, Driver},
    endpoint,
    link::Slave,
    mac::Mac,
    options,
    records::Endpoint,
};

/// One step of connecting a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new namespace for the container.
    Namespace,
    /// The namespace that the container has already becomes ours, too.
    Adopt(PathBuf),
    /// An interface, in the container's namespace from its birth, that nobody has set up.
    Link(Interface),
    /// Everything inside: addresses, up, routes.
    Inside(Vec<Interface>, Routes),
    /// The host's end of a pair of veths: a port of the bridge that is up.
    Port(Interface),
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// The name of the other end. One without another end has it until it is inside.
    pub(crate) host_name: String,
    pub(crate) on: On,
    pub(crate) mac: Mac,
    pub(crate) mtu: Option<u32>,
    pub(crate) addresses: Vec<IpNet>,
    /// Below `net`, with their values.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Whether its neighbours are told at once where its address is now.
    pub(crate) announced: bool,
    /// Whether its hardware address is made of its address, so that nobody else has it there.
    pub(crate) derived: bool,
}

/// What an interface is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A port of a bridge; an isolated one shall reach no other isolated one, but by a link.
    Bridge { bridge: String, isolated: bool },
    /// On an interface of the host's.
    Parent { parent: String, slave: Slave },
}

/// A default route: the interface, and the gateway unless the neighbour is everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Default {
    pub(crate) interface: String,
    pub(crate) gateway: Option<IpAddr>,
}

/// The default routes.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) ipv4: Option<Default>,
    pub(crate) ipv6: Option<Default>,
}

/// An endpoint with its network.
pub(crate) type Place<'a> = (&'a Endpoint, &'a Definition);

impl Interface {
    /// Of an endpoint in a network that is built in; none: its plugins make it.
    pub(crate) fn of((endpoint, network): Place<'_>) -> Option<Self> {
        let on = match &network.driver {
            Driver::Bridge(bridge) => {
                On::Bridge { bridge: bridge.interface.clone(), isolated: !bridge.icc }
            }
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => On::Parent {
                parent: parent.interface.clone(),
                slave: options::slave(network.driver.name(), &parent.mode).ok()?,
            },
            Driver::Configuration(_) | Driver::Plugins(_) => return None,
        };
        let mtu = match &network.driver {
            Driver::Bridge(bridge) => bridge.mtu,
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => parent.mtu,
            Driver::Configuration(_) | Driver::Plugins(_) => None,
        };
        // On a bridge of ours an address was another container's long ago, and then by the same
        // hardware address, which is made of it: nobody knows anything else. And what is
        // announced goes to all ports.
        let chosen = !endpoint.options.ipv4_address.is_empty();
        let derived = endpoint.ipv4.is_none_or(|net| Mac::of(net.addr()) == endpoint.mac);
        let announced = !matches!(on, On::Bridge { .. }) || chosen || !derived;
        Some(Self {
            announced,
            derived: endpoint.ipv4.is_some() && derived,
            name: endpoint.interface.clone(),
            host_name: endpoint.host_interface(),
            on,
            mac: endpoint.mac,
            mtu,
            addresses: endpoint.addresses().chain(endpoint.link_locals()).collect(),
            // They were looked at when it was written down.
            sysctls: endpoint::Options::of(&endpoint.options)
                .map(|options| options.sysctls_of(&endpoint.interface))
                .unwrap_or_default(),
        })
    }
}

/// The one of a container's places that leads out in a family, with its default route: of those
/// that can, the one with the highest priority, and of equals, as docker, the first by the
/// network's name.
pub(crate) fn way_out<'a>(places: &[Place<'a>], ipv4: bool) -> Option<(Place<'a>, Default)> {
    let route = |place: &Place<'a>| {
        let (endpoint, network) = place;
        let address = if ipv4 { endpoint.ipv4? } else { endpoint.ipv6? };
        let l3 = matches!(&network.driver, Driver::Ipvlan(parent) if parent.mode != "l2");
        let gateway = network.route(address.addr());
        let leads_out = !network.internal && (l3 || gateway.is_some());
        let gateway = if l3 { None } else { gateway };
        leads_out.then(|| (*place, Default { interface: endpoint.interface.clone(), gateway }))
    };
    let rank = |((endpoint, network), _): &(Place<'a>, Default)| {
        (Reverse(endpoint.options.gateway_priority), &network.name)
    };
    places.iter().filter_map(route).min_by(|a, b| rank(a).cmp(&rank(b)))
}

/// The default routes of a container.
pub(crate) fn routes(places: &[Place<'_>]) -> Routes {
    Routes {
        ipv4: way_out(places, true).map(|(_, route)| route),
        ipv6: way_out(places, false).map(|(_, route)| route),
    }
}

/// The steps that set up ports of bridges, and all before them. In between the packet filter has
/// to know the ports: from the moment on that one is up, neighbours reach it.
pub(crate) fn ports_apart(steps: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
    steps.into_iter().partition(|step| matches!(step, Step::Port(_)))
}

/// The steps to connect a container to all its networks.
pub(crate) fn attach(places: &[Place<'_>], given: Option<&Path>) -> Vec<Step> {
    let mut steps = vec![given.map_or(Step::Namespace, |path| Step::Adopt(path.to_owned()))];
    steps.extend(connect(places, places));
    steps
}

/// The steps to connect a container that has a namespace to more networks; `all` is where it is
/// then.
pub(crate) fn connect(more: &[Place<'_>], all: &[Place<'_>]) -> Vec<Step> {
    let interfaces: Vec<_> = more.iter().filter_map(|place| Interface::of(*place)).collect();
    let links = interfaces.iter().cloned().map(Step::Link);
    let ports = interfaces
        .iter()
        .filter(|interface| matches!(interface.on, On::Bridge { .. }))
        .cloned()
        .map(Step::Port);
    let mut steps: Vec<_> = links.collect();
    if !interfaces.is_empty() {
        steps.push(Step::Inside(interfaces.clone(), routes(all)));
    }
    steps.extend(ports);
    steps
}
