//! Interfaces, addresses and routes of one network namespace, one function an operation.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd as _},
};

use hull_runtime_sys as sys;
use ipnet::IpNet;

use crate::{
    mac::Mac,
    netlink::{Body, CREATE, REPLACE, Socket, address_of, attributes, messages, text_of, u32_of},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const NLA_F_NESTED: u16 = 0x8000;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;

/// Leaves counters out of an answer, which are most of it.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

const NDA_LLADDR: u16 = 2;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

/// The size of ifinfomsg, ifaddrmsg and rtmsg, in bytes.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// What made it, as `ip -details link` says; empty: a driver of hardware.
    pub(crate) kind: String,
    /// What somebody has written on it.
    pub(crate) alias: String,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    /// The bridge that it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) counters: Counters,
}

/// What went through an interface, in its own view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) received_packets: u64,
    pub(crate) sent_packets: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_errors: u64,
    pub(crate) sent_errors: u64,
    pub(crate) received_dropped: u64,
    pub(crate) sent_dropped: u64,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// None: the default.
    pub(crate) to: Option<IpNet>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) interface: Option<u32>,
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn read_link(body: &[u8]) -> Option<Link> {
    let index = u32_of(body.get(4..8)?)?;
    let flags = u32_of(body.get(8..12)?)?;
    let mut link = Link {
        index,
        name: String::new(),
        up: flags & UP != 0,
        loopback: flags & LOOPBACK != 0,
        kind: String::new(),
        alias: String::new(),
        mtu: 0,
        mac: None,
        master: None,
        counters: Counters::default(),
    };
    for (kind, value) in attributes(body.get(IFINFO..)?) {
        match kind {
            IFLA_IFNAME => link.name = text_of(value),
            IFLA_MTU => link.mtu = u32_of(value)?,
            IFLA_ADDRESS => link.mac = value.first_chunk().copied().map(Mac),
            IFLA_MASTER => link.master = u32_of(value),
            IFLA_IFALIAS => link.alias = text_of(value),
            IFLA_LINKINFO => {
                let mut info = attributes(value);
                let kind = info.find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| text_of(value)).unwrap_or_default();
            }
            IFLA_STATS64 => link.counters = read_counters(value),
            _ => {}
        }
    }
    Some(link)
}

/// rtnl_link_stats64.
fn read_counters(value: &[u8]) -> Counters {
    let at = |n: usize| {
        let bytes = value.get(n * 8..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    Counters {
        received_packets: at(0),
        sent_packets: at(1),
        received_bytes: at(2),
        sent_bytes: at(3),
        received_errors: at(4),
        sent_errors: at(5),
        received_dropped: at(6),
        sent_dropped: at(7),
    }
}

/// What a notification may tell of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is no more.
    Gone(String),
    /// It was set down, or left its bridge.
    Idle(String),
    /// This address was taken from one.
    Address(IpAddr),
}

/// What notifications tell.
pub(crate) fn changes(datagram: &[u8]) -> Vec<Change> {
    messages(datagram).filter_map(|(kind, body)| change(kind, body)).collect()
}

fn change(kind: u16, body: &[u8]) -> Option<Change> {
    let name = || Some(read_link(body)?.name);
    let word = |at: usize| u32_of(body.get(at..)?);
    match (kind, *body.first()?) {
        (RTM_DELLINK, 0) => name().map(Change::Gone),
        (RTM_DELLINK, AF_BRIDGE) => name().map(Change::Idle),
        // Of one that is new, all flags have changed.
        (RTM_NEWLINK, 0) => {
            let (flags, changed) = (word(8)?, word(12)?);
            let was_set_down = changed != u32::MAX && changed & UP != 0 && flags & UP == 0;
            if was_set_down { name().map(Change::Idle) } else { None }
        }
        (RTM_DELADDR, _) => {
            let mut all = attributes(body.get(IFADDR..)?);
            // Of IPv6 there is only the second.
            let local = all.clone().find(|(kind, _)| *kind == IFA_LOCAL);
            let (_, value) = local.or_else(|| all.find(|(kind, _)| *kind == IFA_ADDRESS))?;
            address_of(value).map(Change::Address)
        }
        _ => None,
    }
}

fn missing<T>(result: sys::Result<T>) -> sys::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.errno(), libc::ENODEV | libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is to be made of a pair of veths' far end.
pub(crate) struct Peer<'a, F> {
    pub(crate) namespace: F,
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// What is said of a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// It reaches the bridge itself, and no other isolated port.
    pub(crate) isolated: bool,
    /// It is sent back what came from it and is for it.
    pub(crate) hairpin: bool,
    /// The one hardware address there. None: the bridge learns from each frame.
    pub(crate) only: Option<Mac>,
}

/// The interface on another one that a macvlan or ipvlan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slave {
    /// With the mode's number.
    Macvlan(u32),
    /// With the mode's number.
    Ipvlan(u16),
}

/// An interface that macvlans and ipvlans can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// A VLAN of another interface, by that one's index.
    Vlan { on: u32, id: u16 },
    /// It drops all.
    Dummy,
    /// It drops all that no traffic control has led to it.
    Ifb,
}

impl Socket {
    /// One by its name, without counters.
    pub(crate) fn link(&self, name: &str) -> sys::Result<Option<Link>> {
        let body = Body::link(0, 0, 0)
            .with_text(IFLA_IFNAME, name)
            .with_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let answers = missing(self.get(RTM_GETLINK, &body)).map_err(|e| e.on(name.to_owned()))?;
        Ok(answers.and_then(|answers| read_link(answers.first()?)))
    }

    /// All, with counters if asked.
    pub(crate) fn links(&self, counters: bool) -> sys::Result<Vec<Link>> {
        let mask = if counters { 0 } else { RTEXT_FILTER_SKIP_STATS };
        let body = Body::link(0, 0, 0).with_u32(IFLA_EXT_MASK, mask);
        Ok(self.dump(RTM_GETLINK, &body)?.iter().filter_map(|body| read_link(body)).collect())
    }

    /// The addresses of an interface.
    pub(crate) fn addresses(&self, index: u32) -> sys::Result<Vec<IpNet>> {
        let answers = self.dump(RTM_GETADDR, &Body::address(0, 0, 0))?;
        let read = |body: &Vec<u8>| {
            (u32_of(body.get(4..8)?)? == index).then_some(())?;
            let found = |wanted| {
                attributes(body.get(IFADDR..)?)
                    .find(|(kind, _)| *kind == wanted)
                    .and_then(|(_, value)| address_of(value))
            };
            IpNet::new(found(IFA_LOCAL).or_else(|| found(IFA_ADDRESS))?, *body.get(1)?).ok()
        };
        Ok(answers.iter().filter_map(read).collect())
    }

    /// The unicast routes of all tables but the local one.
    pub(crate) fn routes(&self) -> sys::Result<Vec<Route>> {
        let answers = self.dump(RTM_GETROUTE, &Body::route(0, 0, 0))?;
        let read = |body: &Vec<u8>| {
            let (family, prefix) = (*body.first()?, *body.get(1)?);
            let (table, kind) = (*body.get(4)?, *body.get(7)?);
            let mut route = Route { to: None, gateway: None, interface: None };
            let mut number = u32::from(table);
            for (kind, value) in attributes(body.get(RTMSG..)?) {
                match kind {
                    RTA_DST => route.to = IpNet::new(address_of(value)?, prefix).ok(),
                    RTA_GATEWAY => route.gateway = address_of(value),
                    RTA_OIF => route.interface = u32_of(value),
                    RTA_TABLE => number = u32_of(value)?,
                    _ => {}
                }
            }
            let known = matches!(family, AF_INET | AF_INET6) && kind == libc::RTN_UNICAST;
            (known && number != u32::from(libc::RT_TABLE_LOCAL)).then_some(route)
        };
        Ok(answers.iter().filter_map(read).collect())
    }

    /// A bridge that does not take its address and MTU from its ports.
    pub(crate) fn add_bridge(&self, name: &str, mac: Mac, mtu: u32) -> sys::Result<()> {
        let info = Body::nested().with(IFLA_INFO_KIND, b"bridge");
        let body = Body::link(0, 0, 0)
            .with_text(IFLA_IFNAME, name)
            .with(IFLA_ADDRESS, &mac.0)
            .with_u32(IFLA_MTU, mtu)
            .with_nested(IFLA_LINKINFO, info);
        self.change(RTM_NEWLINK, CREATE, &body).map_err(|e| e.on(name.to_owned()))
    }

    /// An interface that others can be on.
    pub(crate) fn add_base(&self, name: &str, base: Base) -> sys::Result<()> {
        let kind = match base {
            Base::Vlan { .. } => &b"vlan"[..],
            Base::Dummy => b"dummy",
            Base::Ifb => b"ifb",
        };
        let mut info = Body::nested().with(IFLA_INFO_KIND, kind);
        let mut body = Body::link(0, 0, 0).with_text(IFLA_IFNAME, name);
        if let Base::Vlan { on, id } = base {
            let data = Body::nested().with(IFLA_VLAN_ID, &id.to_ne_bytes());
            info = info.with_nested(IFLA_INFO_DATA, data);
            body = body.with_u32(IFLA_LINK, on);
        }
        let body = body.with_nested(IFLA_LINKINFO, info);
        self.change(RTM_NEWLINK, CREATE, &body).map_err(|e| e.on(name.to_owned()))
    }

    /// A pair whose far end is in another namespace from its birth.
    pub(crate) fn add_veth<F: AsFd>(
        &self,
        name: &str,
        bridge: u32,
        mtu: u32,
        peer: &Peer<'_, F>,
    ) -> sys::Result<()> {
        let far = Body::link(0, 0, 0)
            .with_text(IFLA_IFNAME, peer.name)
            .with(IFLA_ADDRESS, &peer.mac.0)
            .with_u32(IFLA_MTU, mtu)
            .with(IFLA_NET_NS_FD, &peer.namespace.as_fd().as_raw_fd().to_ne_bytes());
        let data = Body::nested().with_nested(VETH_INFO_PEER, far);
        let info = Body::nested().with(IFLA_INFO_KIND, b"veth").with_nested(IFLA_INFO_DATA, data);
        let body = Body::link(0, 0, 0)
            .with_text(IFLA_IFNAME, name)
            .with_u32(IFLA_MTU, mtu)
            .with_u32(IFLA_MASTER, bridge)
            .with_nested(IFLA_LINKINFO, info);
        self.change(RTM_NEWLINK, CREATE, &body).map_err(|e| e.on(name.to_owned()))
    }

    /// An interface on another one, in another namespace from its birth.
    pub(crate) fn add_slave<F: AsFd>(
        &self,
        parent: u32,
        slave: Slave,
        mtu: u32,
        peer: &Peer<'_, F>,
    ) -> sys::Result<()> {
        let (kind, data) = match slave {
            Slave::Macvlan(mode) => {
                (&b"macvlan"[..], Body::nested().with_u32(IFLA_MACVLAN_MODE, mode))
            }
            Slave::Ipvlan(mode) => {
                (&b"ipvlan"[..], Body::nested().with(IFLA_IPVLAN_MODE, &mode.to_ne_bytes()))
            }
        };
        let info = Body::nested().with(IFLA_INFO_KIND, kind).with_nested(IFLA_INFO_DATA, data);
        let mut body = Body::link(0, 0, 0)
            .with_text(IFLA_IFNAME, peer.name)
            .with_u32(IFLA_MTU, mtu)
            .with_u32(IFLA_LINK, parent)
            .with(IFLA_NET_NS_FD, &peer.namespace.as_fd().as_raw_fd().to_ne_bytes())
            .with_nested(IFLA_LINKINFO, info);
        // An ipvlan has its parent's.
        if matches!(slave, Slave::Macvlan(_)) {
            body = body.with(IFLA_ADDRESS, &peer.mac.0);
        }
        self.change(RTM_NEWLINK, CREATE, &body).map_err(|e| e.on(peer.name.to_owned()))
    }

    /// Whether there was one of this name.
    pub(crate) fn remove_link(&self, name: &str) -> sys::Result<bool> {
        let body = Body::link(0, 0, 0).with_text(IFLA_IFNAME, name);
        let removed = missing(self.change(RTM_DELLINK, 0, &body));
        Ok(removed.map_err(|e| e.on(name.to_owned()))?.is_some())
    }

    pub(crate) fn set_up(&self, index: u32) -> sys::Result<()> {
        self.change(RTM_SETLINK, 0, &Body::link(index, UP, UP))
    }

    /// One that is down gets another name.
    pub(crate) fn rename(&self, index: u32, name: &str) -> sys::Result<()> {
        self.change(RTM_SETLINK, 0, &Body::link(index, 0, 0).with_text(IFLA_IFNAME, name))
    }

    /// Writes something on an interface, up to 255 bytes.
    pub(crate) fn set_alias(&self, index: u32, alias: &str) -> sys::Result<()> {
        let body = Body::link(index, 0, 0).with(IFLA_IFALIAS, alias.as_bytes());
        self.change(RTM_SETLINK, 0, &body)
    }

    pub(crate) fn set_mac(&self, index: u32, mac: Mac) -> sys::Result<()> {
        self.change(RTM_SETLINK, 0, &Body::link(index, 0, 0).with(IFLA_ADDRESS, &mac.0))
    }

    pub(crate) fn set_master(&self, index: u32, bridge: u32) -> sys::Result<()> {
        self.change(RTM_SETLINK, 0, &Body::link(index, 0, 0).with_u32(IFLA_MASTER, bridge))
    }

    /// Sets up a port of a bridge.
    pub(crate) fn set_port(&self, index: u32, port: Port) -> sys::Result<()> {
        // The kernel wants the flag that says "nested" here.
        let settings = Body::nested()
            .with_u8(IFLA_BRPORT_MODE, port.hairpin.into())
            .with_u8(IFLA_BRPORT_LEARNING, port.only.is_none().into())
            .with_u8(IFLA_BRPORT_ISOLATED, port.isolated.into());
        let body = Body::of_family(AF_BRIDGE, index, 0, 0)
            .with_nested(IFLA_PROTINFO | NLA_F_NESTED, settings);
        self.change(RTM_SETLINK, 0, &body)?;
        match port.only {
            Some(mac) => {
                let body = Body::switched(index).with(NDA_LLADDR, &mac.0);
                self.change(RTM_NEWNEIGH, REPLACE, &body)
            }
            None => Ok(()),
        }
    }

    /// An address that is usable at once: nobody else has it, so nobody is asked.
    pub(crate) fn add_address(&self, index: u32, address: IpNet) -> sys::Result<()> {
        let ip = address.addr();
        let mut body = Body::address(family(ip), address.prefix_len(), index)
            .with_address(IFA_LOCAL, ip)
            .with_address(IFA_ADDRESS, ip);
        if let IpNet::V4(net) = address
            && net.prefix_len() < 31
        {
            body = body.with_address(IFA_BROADCAST, net.broadcast().into());
        }
        if ip.is_ipv6() {
            body = body.with_u32(IFA_FLAGS, IFA_F_NODAD);
        }
        self.change(RTM_NEWADDR, REPLACE, &body).map_err(|e| e.on(address.to_string()))
    }

    /// The default route by a gateway, in place of another one.
    pub(crate) fn set_default_route(&self, index: u32, gateway: IpAddr) -> sys::Result<()> {
        let body = Body::route(family(gateway), 0, 0)
            .with_address(RTA_GATEWAY, gateway)
            .with_u32(RTA_OIF, index);
        self.change(RTM_NEWROUTE, REPLACE, &body)
            .map_err(|e| e.on(format!("default route by {gateway}")))
    }

    /// The default route of a family by an interface without a gateway.
    pub(crate) fn set_default_device(&self, index: u32, ipv6: bool) -> sys::Result<()> {
        let family = if ipv6 { AF_INET6 } else { AF_INET };
        let body = Body::route(family, 0, libc::RT_SCOPE_LINK).with_u32(RTA_OIF, index);
        self.change(RTM_NEWROUTE, REPLACE, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message;

    #[test]
    fn only_what_takes_something_away_is_a_change() {
        let link = |family, flags, changed| {
            Body::of_family(family, 7, flags, changed).with_text(IFLA_IFNAME, "b0")
        };
        let gone = Some(Change::Gone("b0".into()));
        let idle = Some(Change::Idle("b0".into()));
        let all = u32::MAX;
        for (kind, body, expected) in [
            (RTM_DELLINK, link(0, 0, all), gone),
            (RTM_DELLINK, link(AF_BRIDGE, UP, 0), idle.clone()),
            (RTM_NEWLINK, link(0, 0, UP), idle.clone()),
            (RTM_NEWLINK, link(0, 0x40, UP | 0x40), idle),
            (RTM_NEWLINK, link(0, 0, all), None),
            (RTM_NEWLINK, link(0, UP, UP), None),
            (RTM_NEWLINK, link(0, 0, 0), None),
            (RTM_NEWLINK, link(AF_BRIDGE, 0, UP), None),
            (RTM_NEWADDR, Body::address(AF_INET, 24, 7), None),
        ] {
            let datagram = message(kind, &body);
            assert_eq!(changes(&datagram).pop(), expected, "{kind} {body:?}");
        }
        for address in ["10.0.0.1", "fd00::1"] {
            let address: IpAddr = address.parse().unwrap();
            let mut body = Body::address(family(address), 24, 7).with_address(IFA_ADDRESS, address);
            if address.is_ipv4() {
                body = body.with_address(IFA_LOCAL, address);
            }
            let datagram = message(RTM_DELADDR, &body);
            assert_eq!(changes(&datagram), [Change::Address(address)]);
        }
        assert_eq!(changes(&[1, 2, 3]), []);
    }
}
