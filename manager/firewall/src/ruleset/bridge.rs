//! The chains that see frames: who may send what, and containers that do not reach each other.
//!
//! A port of a bridge is known by its interface's name: not each kernel can tell a rule the
//! bridge's (`CONFIG_NFT_BRIDGE_META`). What a guarded port may send is a list; everything else is
//! dropped: tagged frames, unknown protocols, IPv6 where there is none.

use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PLAIN_IPV4, Situation, name};
use crate::nft::{
    Chain, Hook,
    Load::{
        ArpHeader, ArpSenderIp, ArpSenderMac, DestinationPort, EtherSource, EtherSourceAndType,
        EtherType, FrameProtocol, IcmpType, InputIndex, InputInterface, Ip4Destination,
        Ip4Protocol, Ip4Source, Ip6Source, IpVersion, NeighbourTarget, OutputInterface, SourcePort,
        TransportProtocol,
    },
    Rule, Verdict,
};

/// `NF_BR_…`, and the priority that `nft` calls filter here.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const FILTER: i32 = -200;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// Ethernet, IPv4, and the lengths of their addresses (RFC 826): what makes the sender's
/// addresses stand where the rules look.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

const ICMP: [u8; 1] = [1];
const ICMP_REDIRECT: [u8; 1] = [5];

const ICMPV6: [u8; 1] = [58];
const MULTICAST_REPORT: [u8; 1] = [131];
const MULTICAST_DONE: [u8; 1] = [132];
const ROUTER_SOLICITATION: [u8; 1] = [133];
const ROUTER_ADVERTISEMENT: [u8; 1] = [134];
const NEIGHBOUR_SOLICITATION: [u8; 1] = [135];
const NEIGHBOUR_ADVERTISEMENT: [u8; 1] = [136];
const REDIRECT: [u8; 1] = [137];
const MULTICAST_REPORT_2: [u8; 1] = [143];

pub(super) fn chains(situation: Situation) -> Vec<Chain> {
    let base = |name, number, rules| {
        let hook = Some(Hook { kind: "filter", number, priority: FILTER });
        Chain { name, hook, rules }
    };
    let chain = |name, rules| Chain { name, hook: None, rules };
    let mut chains = vec![
        base("prerouting", PREROUTING, prerouting()),
        chain("prerouting-others", prerouting_others()),
        chain("guard", guard()),
        chain("guard-arp", guard_arp()),
        chain("guard-ip", guard_ip()),
        chain("guard-ip6", guard_ip6()),
        chain("guard-ip6-unspecified", guard_unspecified()),
    ];
    if situation.isolates {
        chains.push(base("forward", FORWARD, forward()));
        chains.push(chain("isolated", isolated()));
    }
    chains
}

fn goto(rule: Rule, chain: &'static str) -> Rule {
    rule.then(Verdict::Goto(chain))
}

fn accept() -> Rule {
    Rule::new("").then(Verdict::Accept)
}

/// First what the guards would let pass after several look-ups; they know more of ICMP. A frame of
/// another protocol may look like an IP packet here, but its ethertype is in no set.
fn prerouting() -> Vec<Rule> {
    vec![
        goto(Rule::new("").differs(IpVersion, &PLAIN_IPV4), "prerouting-others"),
        Rule::new("")
            .differs(Ip4Protocol, &ICMP)
            .within(&[InputIndex, EtherSourceAndType, Ip4Source], name::VOUCHED4)
            .then(Verdict::Accept),
        guarded(),
    ]
}

fn prerouting_others() -> Vec<Rule> {
    vec![
        Rule::new("")
            .differs(TransportProtocol, &ICMPV6)
            .within(&[InputIndex, EtherSourceAndType, Ip6Source], name::VOUCHED6)
            .then(Verdict::Accept),
        guarded(),
    ]
}

fn guarded() -> Rule {
    goto(Rule::new("").within(&[InputInterface], name::GUARDED), "guard")
}

fn guard() -> Vec<Rule> {
    let kind = |value: &[u8]| Rule::new("").is(EtherType, value);
    vec![
        Rule::new("another's hardware address")
            .outside(&[InputInterface, EtherSource], name::MACS)
            .drop(),
        goto(kind(&ETHERTYPE_IPV4), "guard-ip"),
        goto(kind(&ETHERTYPE_IPV6), "guard-ip6"),
        goto(kind(&ETHERTYPE_ARP), "guard-arp"),
        Rule::new("neither IP nor ARP").drop(),
    ]
}

fn guard_arp() -> Vec<Rule> {
    let arp = |comment| Rule::new(comment).is(FrameProtocol, &ETHERTYPE_ARP);
    vec![
        Rule::new("ARP of another form").differs(ArpHeader, &ARP_ETHERNET_IPV4).drop(),
        arp("another's hardware address in ARP")
            .outside(&[InputInterface, ArpSenderMac], name::MACS)
            .drop(),
        // Who asks whether an address is free says none (RFC 5227).
        arp("").is(ArpSenderIp, &[0; 4]).then(Verdict::Accept),
        arp("another's address in ARP")
            .outside(&[InputInterface, ArpSenderIp], name::ADDRESSES4)
            .drop(),
        accept(),
    ]
}

fn guard_ip() -> Vec<Rule> {
    let ip = |comment| Rule::new(comment).is(FrameProtocol, &ETHERTYPE_IPV4);
    vec![
        ip("another's address").outside(&[InputInterface, Ip4Source], name::ADDRESSES4).drop(),
        ip("redirects are routers'")
            .is(TransportProtocol, &ICMP)
            .is(IcmpType, &ICMP_REDIRECT)
            .drop(),
        accept(),
    ]
}

fn guard_ip6() -> Vec<Rule> {
    let ip6 = |comment| Rule::new(comment).is(FrameProtocol, &ETHERTYPE_IPV6);
    let message = |why, kind: &[u8]| ip6(why).is(TransportProtocol, &ICMPV6).is(IcmpType, kind);
    vec![
        goto(ip6("").is(Ip6Source, &[0; 16]), "guard-ip6-unspecified"),
        ip6("another's address").outside(&[InputInterface, Ip6Source], name::ADDRESSES6).drop(),
        message("advertisements are routers'", &ROUTER_ADVERTISEMENT).drop(),
        message("redirects are routers'", &REDIRECT).drop(),
        message("another's address in an advertisement", &NEIGHBOUR_ADVERTISEMENT)
            .outside(&[InputInterface, NeighbourTarget], name::ADDRESSES6)
            .drop(),
        accept(),
    ]
}

/// Before it has an address, a host asks whether it is free, who routes, and for its multicast
/// groups (RFC 4862, 5.4.2; RFC 3810, 5.2.13).
fn guard_unspecified() -> Vec<Rule> {
    let message = |kind: &[u8]| {
        Rule::new("")
            .is(FrameProtocol, &ETHERTYPE_IPV6)
            .is(TransportProtocol, &ICMPV6)
            .is(IcmpType, kind)
    };
    vec![
        message(&NEIGHBOUR_SOLICITATION)
            .within(&[InputInterface, NeighbourTarget], name::ADDRESSES6)
            .then(Verdict::Accept),
        message(&ROUTER_SOLICITATION).then(Verdict::Accept),
        message(&MULTICAST_REPORT).then(Verdict::Accept),
        message(&MULTICAST_DONE).then(Verdict::Accept),
        message(&MULTICAST_REPORT_2).then(Verdict::Accept),
        Rule::new("no source address").drop(),
    ]
}

fn forward() -> Vec<Rule> {
    let both = Rule::new("")
        .within(&[InputInterface], name::ISOLATED)
        .within(&[OutputInterface], name::ISOLATED);
    vec![goto(both, "isolated")]
}

/// There is no tracking of connections here, so both ways of a link are allowed by addresses.
fn isolated() -> Vec<Rule> {
    let ip = || Rule::new("links").is(FrameProtocol, &ETHERTYPE_IPV4);
    let there = [Ip4Source, Ip4Destination, TransportProtocol, DestinationPort];
    let back = [Ip4Destination, Ip4Source, TransportProtocol, SourcePort];
    vec![
        Rule::new("").is(EtherType, &ETHERTYPE_ARP).then(Verdict::Accept),
        ip().within(&there, name::LINKS).then(Verdict::Accept),
        ip().within(&back, name::LINKS).then(Verdict::Accept),
        Rule::new("containers that do not reach each other").drop(),
    ]
}
