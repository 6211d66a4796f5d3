//! What a network and an endpoint add to the sets.

use std::{collections::BTreeSet, net::IpAddr};

use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Situation, name};
use crate::{
    nft::{Element, Family},
    rules::{Endpoint, Network, Port, Protocol, Subnet},
};

/// Elements in the order in which they are sent: by family and set.
pub(crate) type Elements = BTreeSet<Element>;

pub(crate) fn of_network(network: &Network) -> Elements {
    let mut elements = Elements::new();
    let bridge = interface(&network.bridge);
    let mut inet = |set, key| elements.insert(plain(Family::Inet, set, key));
    inet(name::BRIDGES, bridge.clone());
    if network.index != 0 {
        inet(name::INSIDE, network.index.to_ne_bytes().to_vec());
    }
    inet(name::PAIRS, [bridge.clone(), bridge.clone()].concat());
    if network.internal {
        inet(name::INTERNAL, bridge.clone());
    }
    if !network.inter_container {
        inet(name::ISOLATED, bridge);
    }
    for subnet in &network.subnets {
        let v4 = subnet.address().is_ipv4();
        elements.insert(range(if v4 { name::SUBNETS4 } else { name::SUBNETS6 }, *subnet));
        if network.masquerade && !network.internal {
            let set = if v4 { name::MASQUERADED4 } else { name::MASQUERADED6 };
            elements.insert(range(set, *subnet));
        }
    }
    elements
}

/// What an endpoint adds, given its network.
pub(crate) fn of_endpoint(endpoint: &Endpoint, network: &Network, now: Situation) -> Elements {
    let mut elements = Elements::new();
    let port = interface(&endpoint.interface);
    if !endpoint.may_spoof {
        guard(endpoint, &port, &mut elements);
    }
    if !network.inter_container {
        elements.insert(plain(Family::Bridge, name::ISOLATED, port));
        for link in &endpoint.links {
            for to in endpoint.addresses.iter().filter(|address| address.is_ipv4()) {
                let key =
                    [link.from.octets().to_vec(), bytes(*to), service(link.protocol, link.port)];
                for family in [Family::Inet, Family::Bridge] {
                    elements.insert(plain(family, name::LINKS, key.concat()));
                }
            }
        }
    }
    if !network.internal {
        elements.extend(endpoint.ports.iter().flat_map(|port| published(port, now)));
    }
    elements
}

fn guard(endpoint: &Endpoint, port: &[u8], elements: &mut Elements) {
    let mut mac = endpoint.mac.0.to_vec();
    mac.resize(8, 0);
    let mut bridge = |set, key| elements.insert(plain(Family::Bridge, set, key));
    bridge(name::GUARDED, port.to_vec());
    bridge(name::MACS, [port, &mac].concat());
    let mut has_ipv6 = false;
    for address in &endpoint.addresses {
        let (set, vouched, ether_type) = match address.is_ipv4() {
            true => (name::ADDRESSES4, name::VOUCHED4, ETHERTYPE_IPV4),
            false => (name::ADDRESSES6, name::VOUCHED6, ETHERTYPE_IPV6),
        };
        bridge(set, [port, &bytes(*address)].concat());
        if endpoint.index != 0 {
            let index = endpoint.index.to_ne_bytes();
            let key = [&index[..], &endpoint.mac.0, &ether_type, &bytes(*address)];
            bridge(vouched, key.concat());
        }
        has_ipv6 |= address.is_ipv6();
    }
    if has_ipv6 {
        let link_local = endpoint.mac.link_local().octets();
        bridge(name::ADDRESSES6, [port, &link_local].concat());
    }
}

/// Whether the kernel translates a port of a network that is not internal.
fn translates(port: &Port, now: Situation) -> bool {
    let is_loopback = port.host_address.is_loopback();
    // On loopback, the host itself is the only client: its rules have nothing to say.
    let by_host_rules = now.input_closed && !is_loopback;
    let by_proxy = is_loopback && !(now.loopback_translated && port.host_address.is_ipv4());
    port.is_translated() && !by_proxy && !by_host_rules
}

fn published(port: &Port, now: Situation) -> Vec<Element> {
    let mut elements = Vec::new();
    let at = service(port.protocol, port.host_port);
    let address = bytes(port.host_address);
    if port.host_address.is_loopback() && port.host_address.is_ipv4() {
        let key = [&address[..], &at].concat();
        elements.push(plain(Family::Inet, name::LOOPBACK_PORTS, key));
    }
    if !port.host_address.is_loopback() {
        let (set, key) = match (port.host_address, port.host_address.is_unspecified()) {
            (IpAddr::V4(_), true) => (name::PUBLISHED4, at.clone()),
            (IpAddr::V6(_), true) => (name::PUBLISHED6, at.clone()),
            (IpAddr::V4(_), false) => (name::ADDRESS_PUBLISHED4, [&address[..], &at].concat()),
            (IpAddr::V6(_), false) => (name::ADDRESS_PUBLISHED6, [&address[..], &at].concat()),
        };
        elements.push(plain(Family::Inet, set, key));
    }
    if !translates(port, now) {
        return elements;
    }
    let (set, key) = match (port.host_address, port.host_address.is_unspecified()) {
        (IpAddr::V4(_), true) => (name::PORTS4, at),
        (IpAddr::V6(_), true) => (name::PORTS6, at),
        (IpAddr::V4(_), false) => (name::ADDRESS_PORTS4, [address, at].concat()),
        (IpAddr::V6(_), false) => (name::ADDRESS_PORTS6, [address, at].concat()),
    };
    let data = [bytes(port.container_address), padded_port(port.container_port)].concat();
    elements.push(Element { data: Some(data), ..plain(Family::Inet, set, key) });
    elements
}

fn plain(family: Family, set: &'static str, key: Vec<u8>) -> Element {
    Element { family, set, key, end: None, data: None }
}

fn range(set: &'static str, subnet: Subnet) -> Element {
    let end = match subnet.last() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| next.to_be_bytes().to_vec()),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| next.to_be_bytes().to_vec()),
    };
    Element { end, ..plain(Family::Inet, set, bytes(subnet.address())) }
}

/// An interface's name as the kernel compares it: 16 bytes with zeroes at the end.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Protocol and port as fields of a key, each a register.
fn service(protocol: Protocol, port: u16) -> Vec<u8> {
    [vec![protocol.number(), 0, 0, 0], padded_port(port)].concat()
}

fn padded_port(port: u16) -> Vec<u8> {
    let mut bytes = port.to_be_bytes().to_vec();
    bytes.resize(4, 0);
    bytes
}
