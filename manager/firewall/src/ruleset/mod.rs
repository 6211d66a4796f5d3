//! From [`Rules`](crate::Rules) to nftables. Pure.
//!
//! The chains are always these; a network, an endpoint or a port is elements of sets only. Which
//! rule enforces what:
//!
//! What each packet comes by looks at little, and in the order of what that costs: a function of
//! the kernel that loads one field takes as long as ten comparisons in the IP header, and a look-up
//! as long as thirty.
//!
//! | threat | where |
//! | --- | --- |
//! | a container's address used from outside | inet `prerouting` |
//! | ports on loopback reached from outside (`route_localnet`) | inet `prerouting` |
//! | ports that are not published, other bridges | inet `forward`, chain `ours` |
//! | internal networks that forward | the same |
//! | internal networks that reach a published port's proxy | inet `nat-prerouting`, which sees each connection's first packet only |
//! | other hosts' traffic caught by a port | inet `nat-prerouting`: the destination is local |
//! | another's MAC, IP, ARP or router advertisements | bridge `prerouting`, chains `guard…` |
//! | containers that shall not reach each other | bridge `forward`, and inet `ours` for what is routed |

mod bridge;
mod elements;
mod inet;

pub(crate) use elements::{Elements, of_endpoint, of_network};

use crate::nft::{Family, Field, Set, Table};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// The first byte of a packet of IPv4 whose header has no options, as nearly all.
const PLAIN_IPV4: [u8; 1] = [0x45];

/// What the plan depends on beside the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Situation {
    /// Whether the host's loopback reaches ports by translation rather than by the proxy.
    pub(crate) loopback_translated: bool,
    /// Whether the host's input policy is to drop: then ports are the proxy's, so that the host's
    /// input rules decide.
    pub(crate) input_closed: bool,
    /// Whether there are containers that shall not reach each other. Without them nobody asks at
    /// each frame.
    pub(crate) isolates: bool,
}

/// Both tables, without elements.
pub(crate) fn tables(situation: Situation) -> [Table; 2] {
    [
        Table { family: Family::Inet, sets: INET_SETS, chains: inet::chains(situation) },
        Table { family: Family::Bridge, sets: BRIDGE_SETS, chains: bridge::chains(situation) },
    ]
}

/// The sets' names.
pub(crate) mod name {
    pub(crate) const BRIDGES: &str = "bridges";
    pub(crate) const INSIDE: &str = "inside";
    pub(crate) const PAIRS: &str = "pairs";
    pub(crate) const INTERNAL: &str = "internal";
    pub(crate) const ISOLATED: &str = "isolated";
    pub(crate) const SUBNETS4: &str = "subnets4";
    pub(crate) const SUBNETS6: &str = "subnets6";
    pub(crate) const MASQUERADED4: &str = "masqueraded4";
    pub(crate) const MASQUERADED6: &str = "masqueraded6";
    pub(crate) const PORTS4: &str = "ports4";
    pub(crate) const PORTS6: &str = "ports6";
    pub(crate) const ADDRESS_PORTS4: &str = "address-ports4";
    pub(crate) const ADDRESS_PORTS6: &str = "address-ports6";
    pub(crate) const PUBLISHED4: &str = "published4";
    pub(crate) const PUBLISHED6: &str = "published6";
    pub(crate) const ADDRESS_PUBLISHED4: &str = "address-published4";
    pub(crate) const ADDRESS_PUBLISHED6: &str = "address-published6";
    pub(crate) const LOOPBACK_PORTS: &str = "loopback-ports";
    pub(crate) const LINKS: &str = "links";
    pub(crate) const GUARDED: &str = "guarded";
    pub(crate) const VOUCHED4: &str = "vouched4";
    pub(crate) const VOUCHED6: &str = "vouched6";
    pub(crate) const MACS: &str = "macs";
    pub(crate) const ADDRESSES4: &str = "addresses4";
    pub(crate) const ADDRESSES6: &str = "addresses6";
}

const fn set(name: &'static str, key: &'static [Field]) -> Set {
    Set { name, key, data: &[], interval: false }
}

const fn ranges(name: &'static str, key: &'static [Field]) -> Set {
    Set { name, key, data: &[], interval: true }
}

const fn map(name: &'static str, key: &'static [Field], data: &'static [Field]) -> Set {
    Set { name, key, data, interval: false }
}

const INET_SETS: &[Set] = {
    use Field::{Index, Interface, Ipv4, Ipv6, Port, Protocol};
    &[
        set(name::BRIDGES, &[Interface]),
        // The same by their numbers, of which each packet is asked.
        set(name::INSIDE, &[Index]),
        // Each bridge with itself: rules cannot compare two interfaces with each other.
        set(name::PAIRS, &[Interface, Interface]),
        set(name::INTERNAL, &[Interface]),
        set(name::ISOLATED, &[Interface]),
        ranges(name::SUBNETS4, &[Ipv4]),
        ranges(name::SUBNETS6, &[Ipv6]),
        ranges(name::MASQUERADED4, &[Ipv4]),
        ranges(name::MASQUERADED6, &[Ipv6]),
        map(name::PORTS4, &[Protocol, Port], &[Ipv4, Port]),
        map(name::PORTS6, &[Protocol, Port], &[Ipv6, Port]),
        map(name::ADDRESS_PORTS4, &[Ipv4, Protocol, Port], &[Ipv4, Port]),
        map(name::ADDRESS_PORTS6, &[Ipv6, Protocol, Port], &[Ipv6, Port]),
        // All ports of containers' on the host, whichever way they lead.
        set(name::PUBLISHED4, &[Protocol, Port]),
        set(name::PUBLISHED6, &[Protocol, Port]),
        set(name::ADDRESS_PUBLISHED4, &[Ipv4, Protocol, Port]),
        set(name::ADDRESS_PUBLISHED6, &[Ipv6, Protocol, Port]),
        set(name::LOOPBACK_PORTS, &[Ipv4, Protocol, Port]),
        // Who may come, where to, at what.
        set(name::LINKS, &[Ipv4, Ipv4, Protocol, Port]),
    ]
};

const BRIDGE_SETS: &[Set] = {
    use Field::{Index, Interface, Ipv4, Ipv6, Mac, Port, Protocol};
    &[
        // Who sends what is the port's own in every way: one look-up for nearly all frames. Behind
        // the hardware address stands the ethertype.
        set(name::VOUCHED4, &[Index, Mac, Ipv4]),
        set(name::VOUCHED6, &[Index, Mac, Ipv6]),
        set(name::GUARDED, &[Interface]),
        set(name::MACS, &[Interface, Mac]),
        set(name::ADDRESSES4, &[Interface, Ipv4]),
        set(name::ADDRESSES6, &[Interface, Ipv6]),
        set(name::ISOLATED, &[Interface]),
        set(name::LINKS, &[Ipv4, Ipv4, Protocol, Port]),
    ]
};
