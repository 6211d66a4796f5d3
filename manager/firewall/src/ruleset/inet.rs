//! The chains that see packets: what is routed, and where published ports lead.

use super::{PLAIN_IPV4, Situation, name};
use crate::nft::{
    Chain, Family, Hook,
    Load::{
        self, ConntrackState, ConntrackStatus, DestinationKind, DestinationPort, InputIndex,
        InputInterface, Ip4Destination, Ip4DestinationByte, Ip4Source, Ip4SourceByte,
        Ip6Destination, Ip6Source, IpVersion, NetworkProtocol, OutputInterface, TransportProtocol,
    },
    Rule, Verdict,
};

/// `NF_INET_…`, and the priorities that `nft` calls raw, dstnat, filter and srcnat.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// Bits of `NF_CT_STATE_BIT`, and of `enum ip_conntrack_status`.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const DST_NAT: u32 = 32;

/// `RTN_LOCAL`.
const LOCAL: [u8; 4] = 2u32.to_ne_bytes();

/// The first byte of 127.0.0.0/8, and ::1.
const LOOPBACK4: [u8; 1] = [127];
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// An interface's name as the kernel compares it.
const LOOPBACK_INTERFACE: [u8; 16] = *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

pub(super) fn chains(situation: Situation) -> Vec<Chain> {
    let base = |name, kind, number, priority, rules| {
        let hook = Some(Hook { kind, number, priority });
        Chain { name, hook, rules }
    };
    vec![
        base("prerouting", "filter", PREROUTING, RAW, arriving()),
        Chain { name: "arriving-others", hook: None, rules: arriving_others() },
        Chain { name: "to-loopback", hook: None, rules: to_loopback() },
        base("forward", "filter", FORWARD, FILTER, forward()),
        Chain { name: "ours", hook: None, rules: ours() },
        base("nat-prerouting", "nat", PREROUTING, DSTNAT, to_us(situation)),
        Chain { name: "internal-to-us", hook: None, rules: internal_to_us() },
        base("nat-output", "nat", OUTPUT, DSTNAT, from_the_host(situation)),
        Chain { name: "published", hook: None, rules: published() },
        base("nat-postrouting", "nat", POSTROUTING, SRCNAT, leaving(situation)),
    ]
}

fn v4(comment: &'static str) -> Rule {
    Rule::new(comment).is(NetworkProtocol, &[Family::IPV4])
}

fn v6(comment: &'static str) -> Rule {
    Rule::new(comment).is(NetworkProtocol, &[Family::IPV6])
}

/// What comes in and lies about where it is from, or goes where only loopback may. Each packet
/// that the host gets or forwards comes by here.
fn arriving() -> Vec<Rule> {
    vec![
        Rule::new("").differs(IpVersion, &PLAIN_IPV4).then(Verdict::Goto("arriving-others")),
        Rule::new("").is(Ip4DestinationByte, &LOOPBACK4).then(Verdict::Goto("to-loopback")),
        inside(),
        spoofed(Rule::new, Ip4Source, name::SUBNETS4),
    ]
}

fn arriving_others() -> Vec<Rule> {
    vec![
        v4("").is(Ip4DestinationByte, &LOOPBACK4).then(Verdict::Goto("to-loopback")),
        inside(),
        spoofed(v4, Ip4Source, name::SUBNETS4),
        spoofed(v6, Ip6Source, name::SUBNETS6),
    ]
}

/// The kernel refuses these itself, unless route_localnet is on.
fn to_loopback() -> Vec<Rule> {
    vec![
        spoofed(v4, Ip4Source, name::SUBNETS4),
        v4("containers do not reach the host's loopback")
            .within(&[InputInterface], name::BRIDGES)
            .drop(),
        v4("ports on loopback take loopback only")
            .differs(InputInterface, &LOOPBACK_INTERFACE)
            .within(&[Ip4Destination, TransportProtocol, DestinationPort], name::LOOPBACK_PORTS)
            .drop(),
    ]
}

fn inside() -> Rule {
    Rule::new("").within(&[InputIndex], name::INSIDE).then(Verdict::Accept)
}

fn spoofed(of: fn(&'static str) -> Rule, source: Load, subnets: &'static str) -> Rule {
    of("containers' addresses only come from their bridges")
        .within(&[source], subnets)
        .differs(InputInterface, &LOOPBACK_INTERFACE)
        .outside(&[InputInterface], name::BRIDGES)
        .drop()
}

/// What the host forwards is ours to judge when it touches a bridge of ours, and only then.
///
/// Of a connection each packet but the first ends here; those rules were for the first.
fn forward() -> Vec<Rule> {
    vec![
        Rule::new("").has(ConntrackState, ESTABLISHED | RELATED).then(Verdict::Accept),
        Rule::new("").within(&[InputInterface], name::BRIDGES).then(Verdict::Goto("ours")),
        Rule::new("").within(&[OutputInterface], name::BRIDGES).then(Verdict::Goto("ours")),
    ]
}

fn ours() -> Vec<Rule> {
    let both = [InputInterface, OutputInterface];
    let internal = "internal networks do not forward";
    vec![
        Rule::new("packets of no connection").has(ConntrackState, INVALID).drop(),
        Rule::new(internal)
            .within(&[InputInterface], name::INTERNAL)
            .outside(&both, name::PAIRS)
            .drop(),
        Rule::new(internal)
            .within(&[OutputInterface], name::INTERNAL)
            .outside(&both, name::PAIRS)
            .drop(),
        v4("nobody comes from loopback").is(Ip4SourceByte, &LOOPBACK4).drop(),
        v6("nobody comes from loopback").is(Ip6Source, &LOOPBACK6).drop(),
        Rule::new("published ports").has(ConntrackStatus, DST_NAT).then(Verdict::Accept),
        // Within a bridge, by way of the host: its containers' own decision, except where
        // they shall not reach each other.
        v4("links")
            .within(&both, name::PAIRS)
            .within(&[Ip4Source, Ip4Destination, TransportProtocol, DestinationPort], name::LINKS)
            .then(Verdict::Accept),
        Rule::new("containers that do not reach each other")
            .within(&[InputInterface], name::ISOLATED)
            .within(&both, name::PAIRS)
            .drop(),
        Rule::new("within a network").within(&both, name::PAIRS).then(Verdict::Accept),
        Rule::new("ports that are not published; other networks")
            .within(&[OutputInterface], name::BRIDGES)
            .drop(),
        Rule::new("outward").then(Verdict::Accept),
    ]
}

/// Only what is for an address of this host may be for a port of ours (CVE-2025-67499).
fn to_us(situation: Situation) -> Vec<Rule> {
    let mut rules = vec![
        v4("").is(Ip4DestinationByte, &LOOPBACK4).then(Verdict::Return),
        Rule::new("")
            .within(&[InputInterface], name::INTERNAL)
            .is(DestinationKind, &LOCAL)
            .then(Verdict::Goto("internal-to-us")),
    ];
    if !situation.loopback_translated {
        // What is translated within a bridge (br_netfilter) would have to go from one of its
        // isolated ports to another.
        rules.push(
            Rule::new("containers that do not reach each other: the proxy's")
                .within(&[InputInterface], name::ISOLATED)
                .then(Verdict::Return),
        );
    }
    rules.push(Rule::new("").is(DestinationKind, &LOCAL).then(Verdict::Goto("published")));
    rules
}

/// The host's own services are theirs to ask, but a proxy would carry them on.
fn internal_to_us() -> Vec<Rule> {
    let comment = "internal networks reach no published port";
    let port = [TransportProtocol, DestinationPort];
    let at4 = [Ip4Destination, TransportProtocol, DestinationPort];
    let at6 = [Ip6Destination, TransportProtocol, DestinationPort];
    vec![
        v4(comment).within(&at4, name::ADDRESS_PUBLISHED4).drop(),
        v4(comment).within(&port, name::PUBLISHED4).drop(),
        v6(comment).within(&at6, name::ADDRESS_PUBLISHED6).drop(),
        v6(comment).within(&port, name::PUBLISHED6).drop(),
    ]
}

/// The host's own connections. Its loopback has no way to a bridge, but by the proxy, or with
/// route_localnet, which IPv6 does not have.
fn from_the_host(situation: Situation) -> Vec<Rule> {
    let loopback = v4("loopback is the proxy's").is(Ip4DestinationByte, &LOOPBACK4);
    let mut rules = vec![];
    if !situation.loopback_translated {
        rules.push(loopback.then(Verdict::Return));
    }
    rules.push(v6("loopback is the proxy's").is(Ip6Destination, &LOOPBACK6).then(Verdict::Return));
    rules.push(Rule::new("").is(DestinationKind, &LOCAL).then(Verdict::Goto("published")));
    rules
}

fn published() -> Vec<Rule> {
    let port = [TransportProtocol, DestinationPort];
    let at4 = [Ip4Destination, TransportProtocol, DestinationPort];
    let at6 = [Ip6Destination, TransportProtocol, DestinationPort];
    vec![
        v4("").translate_v4(&at4, name::ADDRESS_PORTS4),
        v4("").translate_v4(&port, name::PORTS4),
        v6("").translate_v6(&at6, name::ADDRESS_PORTS6),
        v6("").translate_v6(&port, name::PORTS6),
    ]
}

fn leaving(situation: Situation) -> Vec<Rule> {
    let outward = |rule: Rule| rule.outside(&[OutputInterface], name::BRIDGES).masquerade();
    // Otherwise the answer would go straight to the client, who did not ask its sender. The
    // interface that it came by is not known here while a bridge calls us (br_netfilter).
    let between = "between containers, by a port of the host";
    let back = |rule: Rule| rule.within(&[OutputInterface], name::BRIDGES).masquerade();
    let mut rules = vec![
        back(v4(between).has(ConntrackStatus, DST_NAT).within(&[Ip4Source], name::SUBNETS4)),
        back(v6(between).has(ConntrackStatus, DST_NAT).within(&[Ip6Source], name::SUBNETS6)),
        outward(v4("outward").within(&[Ip4Source], name::MASQUERADED4)),
        outward(v6("outward").within(&[Ip6Source], name::MASQUERADED6)),
    ];
    if situation.loopback_translated {
        rules.push(
            v4("from loopback")
                .is(Ip4SourceByte, &LOOPBACK4)
                .within(&[OutputInterface], name::BRIDGES)
                .masquerade(),
        );
    }
    rules
}
