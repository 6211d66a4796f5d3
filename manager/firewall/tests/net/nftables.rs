//! What the kernel has after our transactions, as `nft` reads it back.

use std::collections::BTreeMap;

use crate::lab::{Namespace, port};
use hull_manager_firewall::{
    Endpoint, Firewall, HostHook, Link, Loopback, Network, Port, Protocol, Publish, Rules, Settings,
};
use serde_json::Value;

/// `nft`'s own words for what we send, which it compiles itself.
const EXPECTED: &str = include_str!("expected.nft");

fn rules() -> Rules {
    let network = |bridge: &str, subnets: &[&str], internal, inter_container| Network {
        bridge: bridge.into(),
        // No interface here has such a number: it stays one in listings.
        index: if internal { 0 } else { 1001 },
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        masquerade: true,
        internal,
        inter_container,
    };
    let endpoint = |interface: &str, bridge: &str, mac: &str, addresses: &[&str]| Endpoint {
        interface: interface.into(),
        index: 2000 + u32::from(mac.as_bytes()[16]),
        bridge: bridge.into(),
        mac: mac.parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        may_spoof: false,
        links: vec![],
        ports: vec![],
    };
    let mut web = endpoint("veth1", "hull0", "02:42:ac:11:00:02", &["172.17.0.2", "fd00::2"]);
    web.links =
        vec![Link { from: "172.17.0.3".parse().unwrap(), protocol: Protocol::Tcp, port: 80 }];
    web.ports = vec![
        port(Protocol::Tcp, "0.0.0.0", 8080, "172.17.0.2", 80),
        port(Protocol::Tcp, "::", 8080, "fd00::2", 80),
        port(Protocol::Udp, "192.0.2.1", 53, "172.17.0.2", 53),
        port(Protocol::Sctp, "2001:db8::1", 132, "fd00::2", 132),
        port(Protocol::Tcp, "127.0.0.1", 9090, "172.17.0.2", 90),
        Port { publish: Publish::Proxy, ..port(Protocol::Tcp, "0.0.0.0", 7070, "172.17.0.2", 70) },
        port(Protocol::Tcp, "::", 6060, "172.17.0.2", 60),
    ];
    let mut hidden = endpoint("veth3", "br-internal", "02:42:ac:12:00:02", &["172.18.0.2"]);
    hidden.ports = vec![port(Protocol::Tcp, "0.0.0.0", 1234, "172.18.0.2", 80)];
    let mut router = endpoint("veth4", "br-internal", "02:42:ac:12:00:03", &["172.18.0.3"]);
    router.may_spoof = true;
    let networks = [
        network("hull0", &["172.17.0.0/16", "fd00::/64"], false, false),
        network("br-internal", &["172.18.0.0/16"], true, true),
    ];
    let peer = endpoint("veth2", "hull0", "02:42:ac:11:00:03", &["172.17.0.3"]);
    Rules {
        networks: networks.into_iter().map(|n| (n.bridge.clone(), n)).collect(),
        endpoints: [web, peer, hidden, router]
            .into_iter()
            .map(|e| (e.interface.clone(), e))
            .collect(),
    }
}

/// All that a listing has but handles and counters, sets' elements in one order.
pub(crate) fn listing(namespace: &Namespace) -> BTreeMap<String, Value> {
    let text = namespace.command("nft -s -j list ruleset");
    // What changes while it is read is not shown at all, or up to there.
    let Ok(mut document) = serde_json::from_str::<Value>(&text) else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for item in document["nftables"].as_array_mut().unwrap() {
        let (kind, value) = item.as_object_mut().unwrap().iter_mut().next().unwrap();
        let kind = kind.clone();
        let Some(value) = value.as_object_mut().filter(|_| kind != "metainfo") else { continue };
        value.remove("handle");
        // `nft` before 1.0.8 has no name for the target of neighbour discovery, and none has one
        // for an address with the type behind it, or for a header's field where it is not said
        // which header that is: no way to say these of our sets.
        let steps = value.get("expr").map(ToString::to_string).unwrap_or_default();
        let has =
            |base: &str, bits: u32| steps.contains(&format!(r#""base":"{base}","len":{bits},"#));
        if steps.contains('@') && (has("th", 128) || has("ll", 64) || has("nh", 32)) {
            continue;
        }
        if let Some(elements) = value.get_mut("elem").and_then(Value::as_array_mut) {
            elements.sort_by_key(ToString::to_string);
        }
        let text = |key: &str| value.get(key).map(ToString::to_string).unwrap_or_default();
        let name = format!("{} {kind} {}{}", text("family"), text("chain"), text("name"));
        let place = (0..).find(|n| !all.contains_key(&format!("{name} {n:03}"))).unwrap();
        all.insert(format!("{name} {place:03}"), Value::Object(value.clone()));
    }
    all
}

fn compare(ours: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    for (name, value) in expected {
        assert_eq!(ours.get(name), Some(value), "{name}");
    }
    let extra: Vec<_> = ours.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert!(extra.is_empty(), "{extra:?}");
    assert!(ours.len() > 50, "the listing has everything");
}

fn open(namespace: &Namespace, settings: Settings) -> Firewall {
    namespace.run(move || Firewall::open(settings)).unwrap()
}

#[test]
fn the_kernel_has_what_nft_would_have_made_of_the_same_text() {
    let (ours, reference) = (Namespace::new(), Namespace::new());
    let firewall = open(&ours, Settings::default());
    firewall.replace(rules()).unwrap();
    reference.nft(EXPECTED);
    compare(&listing(&ours), &listing(&reference));
    let text = ours.command("nft list ruleset");
    for rule in [
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @addresses6",
        "icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @addresses6 accept",
        "iif . @ll,48,64 . @nh,96,32 @vouched4 accept",
        "iif . @ll,48,64 . @nh,64,128 @vouched6 accept",
        "@nh,96,32 @subnets4 iifname != \"lo\" iifname != @bridges counter",
    ] {
        assert!(text.contains(rule), "{rule}: {text}");
    }
}

#[test]
fn changes_one_by_one_end_where_a_replacement_ends() {
    let (whole, stepwise) = (Namespace::new(), Namespace::new());
    open(&whole, Settings::default()).replace(rules()).unwrap();
    let firewall = open(&stepwise, Settings::default());
    let wanted = rules();
    for network in wanted.networks.values() {
        firewall
            .put_network(Network { inter_container: true, internal: false, ..network.clone() })
            .unwrap();
    }
    for endpoint in wanted.endpoints.values() {
        firewall.put_endpoint(Endpoint { ports: vec![], ..endpoint.clone() }).unwrap();
        firewall
            .put_endpoint(Endpoint { may_spoof: !endpoint.may_spoof, ..endpoint.clone() })
            .unwrap();
    }
    for network in wanted.networks.values() {
        firewall.put_network(network.clone()).unwrap();
    }
    for endpoint in wanted.endpoints.values() {
        firewall.put_endpoint(endpoint.clone()).unwrap();
    }
    assert_eq!(firewall.rules(), wanted);
    compare(&listing(&stepwise), &listing(&whole));
    for bridge in wanted.networks.keys() {
        firewall.remove_network(bridge).unwrap();
    }
    let left = listing(&stepwise);
    assert!(left.values().all(|item| item.get("elem").is_none()), "{left:?}");
    firewall.remove().unwrap();
    assert!(listing(&stepwise).is_empty());
}

#[test]
fn without_the_packet_filter_no_rule_is_made() {
    let namespace = Namespace::new();
    let firewall = open(&namespace, Settings { enabled: false, ..Settings::default() });
    firewall.replace(rules()).unwrap();
    firewall.remove_endpoint("veth1").unwrap();
    let watch = firewall.watch().unwrap();
    assert_eq!(firewall.rules().endpoints.len(), 3);
    assert!(listing(&namespace).is_empty());
    drop(watch);
    firewall.remove().unwrap();
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let namespace = Namespace::new();
    let firewall = open(&namespace, Settings::default());
    firewall.replace(rules()).unwrap();
    let before = listing(&namespace);
    // Two networks with one range of addresses.
    let mut twin = rules().networks["hull0"].clone();
    twin.bridge = "twin".into();
    twin.subnets.truncate(1);
    let error = firewall.put_network(twin.clone()).unwrap_err();
    assert!(format!("{error:#}").contains("overlaps"), "{error:#}");
    let mut all = rules();
    all.networks.insert("twin".into(), twin);
    firewall.replace(all).unwrap_err();
    // We refuse a port that another has, and an endpoint on a bridge that is not ours.
    let mut thief = rules().endpoints["veth2"].clone();
    thief.ports = vec![port(Protocol::Tcp, "0.0.0.0", 8080, "172.17.0.3", 80)];
    let error = firewall.put_endpoint(thief).unwrap_err().to_string();
    assert_eq!(error, "port 0.0.0.0:8080/tcp leads to veth1 already");
    let stray = Endpoint { bridge: "br9".into(), ..rules().endpoints["veth2"].clone() };
    let error = firewall.put_endpoint(stray).unwrap_err().to_string();
    assert_eq!(error, "the bridge br9 is not of a network of ours");
    assert_eq!(firewall.rules(), rules());
    compare(&listing(&namespace), &before);
}

#[test]
fn several_managers_live_side_by_side() {
    let namespace = Namespace::new();
    let first = open(&namespace, Settings::default());
    let second = open(&namespace, Settings { table: "other".into(), ..Settings::default() });
    first.replace(rules()).unwrap();
    let before = listing(&namespace);
    second.replace(rules()).unwrap();
    second.remove().unwrap();
    compare(&listing(&namespace), &before);
    let strange = Settings { table: "a b".into(), ..Settings::default() };
    assert!(Firewall::open(strange).is_err());
}

#[test]
fn loopback_and_the_hosts_policy_decide_what_is_translated() {
    let namespace = Namespace::new();
    let translated = |settings: Settings| {
        let firewall = open(&namespace, settings);
        firewall.replace(rules()).unwrap();
        let listing = listing(&namespace).into_iter();
        let maps = listing.filter(|(name, _)| name.contains(" map ") && name.contains("ports"));
        maps.map(|(_, map)| map["elem"].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    let respect = Settings::default();
    let by_kernel = Settings { loopback: Loopback::Translate, ..Settings::default() };
    assert_eq!(translated(respect.clone()), 4);
    assert_eq!(translated(by_kernel), 5, "127.0.0.1 too");
    // As ufw has it, and as firewalld has it.
    for host in [
        "table ip filter { chain INPUT { type filter hook input priority 0; policy drop; }; }",
        "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; \
         ct state established accept; log prefix \"x\" reject with icmpx admin-prohibited; }; }",
    ] {
        namespace.nft(host);
        assert_eq!(translated(respect.clone()), 0, "{host}");
        namespace.nft("flush ruleset");
    }
    // By the older iptables, which tells nobody: it is looked at again.
    let firewall = open(&namespace, respect.clone());
    let is_closed = |command: &str| {
        namespace.command(command);
        let firewall = firewall.clone();
        namespace.run(move || {
            firewall.follow_the_host().unwrap();
            firewall.is_input_closed()
        })
    };
    for family in ["iptables-legacy", "ip6tables-legacy"] {
        let says = |rest: &str| is_closed(&format!("{family} {rest}"));
        assert!(says("-P INPUT DROP"), "{family}");
        assert!(!says("-P INPUT ACCEPT"), "{family}");
        assert!(!says("-A INPUT -p tcp --dport 22 -j DROP"), "{family}");
        assert!(says("-A INPUT -j REJECT"), "{family}");
        assert!(!says("-A INPUT -j ACCEPT"), "{family}");
        assert!(says("-A INPUT -j DROP"), "{family}");
        assert!(!says("-F INPUT"), "{family}");
    }
    let firewall = open(&namespace, Settings { enabled: false, ..Settings::default() });
    let closed = |at| {
        let firewall = firewall.clone();
        let chains = namespace.run(move || firewall.closed_by_host(at).unwrap());
        chains.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for family in ["iptables-legacy", "ip6tables-legacy"] {
        namespace.command(&format!("{family} -P FORWARD DROP"));
        assert_eq!(closed(HostHook::Forward), ["inet iptables-legacy FORWARD"], "{family}");
        assert_eq!(closed(HostHook::Input), [""; 0], "{family}");
        namespace.command(&format!("{family} -P FORWARD ACCEPT"));
        assert_eq!(closed(HostHook::Forward), [""; 0], "{family}");
    }
    namespace.nft(
        "table inet early { chain everything { type filter hook prerouting priority -300; policy drop; }; \
         chain something { type filter hook prerouting priority 0; tcp dport 1 drop; }; }; \
         table netdev card { chain arriving { type filter hook ingress device lo priority 0; drop; }; }",
    );
    assert_eq!(closed(HostHook::Arriving), ["inet early everything", "netdev card arriving"]);
    assert_eq!(closed(HostHook::Input), [""; 0]);
    namespace.nft("flush ruleset");
    namespace.nft(
        "table ip filter { chain incoming { type filter hook input priority 0; policy drop; }; }; \
         table inet x { chain through { type filter hook forward priority 5; counter drop; }; \
         chain incoming { type filter hook input priority 0; tcp dport 1 drop; }; }",
    );
    assert_eq!(closed(HostHook::Input), ["ip filter incoming"]);
    assert_eq!(closed(HostHook::Forward), ["inet x through"]);
    namespace.nft("flush ruleset");
    // None of these drops everything.
    namespace.nft(
        "table inet a { chain INPUT { type filter hook input priority 0; tcp dport 22 drop; }; \
         chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
    );
    assert_eq!(translated(respect), 4);
}

#[test]
fn frames_are_asked_whether_they_may_pass_only_while_containers_are_kept_apart() {
    let namespace = Namespace::new();
    let firewall = open(&namespace, Settings::default());
    let mut network = rules().networks.remove("hull0").unwrap();
    for apart in [false, true, false] {
        network.inter_container = !apart;
        firewall.put_network(network.clone()).unwrap();
        let table = namespace.command("nft list table bridge hull");
        assert_eq!(table.contains("chain forward {"), apart, "{table}");
    }
}
