//! The classes of attack on the packet filter, each with its control: the same attack succeeds
//! where our rules are not.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

use hull_manager_firewall::{Endpoint, Link, Port, Ports, Protocol, Publish, Settings, Wanted};

use crate::lab::{
    DEADLINE, HOST, HOST6, Lab, NEIGHBOUR, NEIGHBOUR6, Namespace, ONE, OTHER, TWO, frame, port,
    raw::Wire,
    service::{self, answer, is_silent},
};

const ONE4: &str = "172.30.0.2";
const TWO4: &str = "172.30.0.3";
const OTHER4: &str = "172.31.0.2";
const ONE6: &str = "fd30::2";
const TWO6: &str = "fd30::3";
const GATEWAY4: &str = "172.30.0.1";

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// The address of an interface, as `ip` has it: `/sys` shows the namespace of who mounted it.
fn link_address(namespace: &Namespace, interface: &str) -> [u8; 6] {
    let text = namespace.command(&format!("ip -o link show {interface}"));
    let after = text.split("link/ether ").nth(1).expect("an ethernet address");
    let word = after.split_whitespace().next().expect("an address");
    let bytes = word.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex"));
    bytes.collect::<Vec<_>>().try_into().expect("six bytes")
}

#[test]
fn ports_that_are_not_published_are_out_of_reach_from_off_the_bridge() {
    Lab::both().for_each(|lab| unpublished_ports_are_closed(&lab));
}

fn unpublished_ports_are_closed(lab: &Lab) {
    let one = lab.container_namespace(ONE);
    service::tcp(one, "0.0.0.0:80", "one");
    service::tcp(one, &format!("[{ONE6}]:80"), "one");
    service::udp(one, "0.0.0.0:80", "one");
    let outside = [&lab.neighbour, lab.container_namespace(OTHER)];
    let targets = [
        ("tcp", format!("{ONE4}:80")),
        ("udp", format!("{ONE4}:80")),
        ("tcp", format!("[{ONE6}]:80")),
    ];
    // The control: whoever has a route gets in.
    for (protocol, at) in &targets {
        assert!(answer(&lab.neighbour, protocol, at).starts_with("one"));
    }
    assert!(answer(outside[1], "tcp", &targets[0].1).starts_with("one"));
    let firewall = lab.firewall(Settings::default());
    firewall.replace(lab.rules()).unwrap();
    for from in outside {
        for (protocol, at) in &targets {
            assert!(is_silent(from, protocol, at), "{at}/{protocol}");
        }
    }
    // The same network and the host go on.
    for from in [lab.container_namespace(TWO), &lab.host] {
        for (protocol, at) in &targets {
            assert!(answer(from, protocol, at).starts_with("one"));
        }
    }
    // Publishing does not open the container's own address.
    let mut endpoint = lab.containers[ONE].endpoint.clone();
    endpoint.ports = vec![port(Protocol::Tcp, "0.0.0.0", 80, ONE4, 80)];
    firewall.put_endpoint(endpoint).unwrap();
    assert!(is_silent(&lab.neighbour, "tcp", &targets[0].1));
    assert_eq!(answer(&lab.neighbour, "tcp", &format!("{HOST}:80")), format!("one {NEIGHBOUR}"));
}

#[test]
fn a_published_port_is_reached_by_all_and_sees_who_they_are() {
    Lab::both().for_each(|lab| published_ports_are_open(&lab));
}

fn published_ports_are_open(lab: &Lab) {
    let one = lab.container_namespace(ONE);
    service::tcp(one, "0.0.0.0:80", "one");
    service::udp(one, "0.0.0.0:53", "one");
    service::tcp(one, &format!("[{ONE6}]:80"), "one");
    let firewall = lab.firewall(Settings::default());
    firewall.replace(lab.rules()).unwrap();
    let mut endpoint = lab.containers[ONE].endpoint.clone();
    endpoint.ports = vec![
        port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80),
        port(Protocol::Tcp, "::", 8080, ONE6, 80),
        port(Protocol::Udp, HOST, 5300, ONE4, 53),
    ];
    firewall.put_endpoint(endpoint).unwrap();
    let (tcp, tcp6, udp) =
        (format!("{HOST}:8080"), format!("[{HOST6}]:8080"), format!("{HOST}:5300"));
    let other = lab.container_namespace(OTHER);
    let two = lab.container_namespace(TWO);
    for (from, protocol, at, expected) in [
        (&lab.neighbour, "tcp", &tcp, format!("one {NEIGHBOUR}")),
        (&lab.neighbour, "tcp", &tcp6, format!("one {NEIGHBOUR6}")),
        (&lab.neighbour, "udp", &udp, format!("one {NEIGHBOUR}")),
        (&lab.host, "tcp", &tcp, format!("one {HOST}")),
        // Containers come by the gateway's address: on one bridge, answers would not find back.
        (other, "tcp", &tcp, format!("one {GATEWAY4}")),
        (two, "tcp", &tcp, format!("one {GATEWAY4}")),
        (one, "tcp", &tcp, format!("one {GATEWAY4}")),
        (two, "udp", &udp, format!("one {GATEWAY4}")),
    ] {
        assert_eq!(answer(from, protocol, at), expected, "{at}/{protocol}");
    }
    firewall.remove_endpoint("v-one").unwrap();
    for (protocol, at) in [("tcp", &tcp), ("tcp", &tcp6), ("udp", &udp)] {
        assert!(is_silent(&lab.neighbour, protocol, at));
    }
}

#[test]
fn containers_reach_out_by_the_hosts_address() {
    let lab = Lab::new();
    service::tcp(&lab.neighbour, "0.0.0.0:7", "out");
    service::udp(&lab.neighbour, "[::]:7", "out");
    let one = lab.container_namespace(ONE);
    let firewall = lab.firewall(Settings::default());
    firewall.replace(lab.rules()).unwrap();
    assert_eq!(answer(one, "tcp", &format!("{NEIGHBOUR}:7")), format!("out {HOST}"));
    assert_eq!(answer(one, "udp", &format!("[{NEIGHBOUR6}]:7")), format!("out {HOST6}"));
    let network = lab.networks[0].clone();
    let plain = hull_manager_firewall::Network { masquerade: false, ..network };
    firewall.put_network(plain).unwrap();
    assert_eq!(answer(one, "tcp", &format!("{NEIGHBOUR}:7")), format!("out {ONE4}"));
}

#[test]
fn traffic_that_the_host_only_routes_is_not_caught_by_a_port() {
    let lab = Lab::new();
    let far = Namespace::new();
    lab.host.link("far", &far, "eth0");
    lab.host.ip("addr add 198.51.100.1/24 dev far");
    far.ip("addr add 198.51.100.2/24 dev eth0");
    far.ip("route add default via 198.51.100.1");
    lab.neighbour.ip(&format!("route add 198.51.100.0/24 via {HOST}"));
    service::tcp(&far, "0.0.0.0:8080", "far");
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let at = "198.51.100.2:8080";
    // The control: a rule that looks at the port alone.
    lab.host.nft(&format!(
        "table ip naive {{ chain c {{ type nat hook prerouting priority -100; \
         tcp dport 8080 dnat to {ONE4}:80; }}; }}"
    ));
    assert!(answer(&lab.neighbour, "tcp", at).starts_with("one"));
    lab.host.nft("delete table ip naive");
    let firewall = lab.firewall(Settings::default());
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80)];
    firewall.replace(rules).unwrap();
    assert_eq!(answer(&lab.neighbour, "tcp", at), format!("far {NEIGHBOUR}"));
    assert_eq!(answer(&lab.neighbour, "tcp", &format!("{HOST}:8080")), format!("one {NEIGHBOUR}"));
}

type Form = fn(&[u8]) -> Vec<u8>;

/// A header without options, and one with them.
const FORMS: [Form; 2] = [<[u8]>::to_vec, frame::with_options];

/// A socket on loopback. A child that another test starts has a copy of its predecessor until it
/// becomes another program.
fn bind_when_free(port: u16) -> UdpSocket {
    let until = Instant::now() + DEADLINE;
    loop {
        match UdpSocket::bind(("127.0.0.1", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.expect("a socket"),
        }
    }
}

/// Sends frames of the neighbour's to a UDP socket on the host's loopback, then something
/// from the host itself; says whether one of the first arrived.
fn reaches_loopback(lab: &Lab, to_port: u16) -> bool {
    let socket = lab.host.run(move || bind_when_free(to_port));
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let wire = Wire::open(&lab.neighbour, "eth0");
    let packet = frame::udp(v4(NEIGHBOUR).into(), v4("127.0.0.1").into(), to_port, b"from outside");
    let host = link_address(&lab.host, "uplink");
    let own = link_address(&lab.neighbour, "eth0");
    for form in FORMS {
        wire.send(&frame::ethernet(host, own, 0x0800, &form(&packet)));
    }
    lab.host.run(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"from inside", ("127.0.0.1", to_port)).unwrap();
    });
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer).unwrap();
    &buffer[..count] == b"from outside"
}

#[test]
fn a_port_on_loopback_takes_loopback_only() {
    let lab = Lab::new();
    // What other software sets on hosts, and what makes this class possible.
    lab.host.sysctl("ipv4.conf.uplink.route_localnet", "1");
    assert!(reaches_loopback(&lab, 5353), "the control");
    let firewall = lab.firewall(Settings::default());
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Udp, "127.0.0.1", 5353, ONE4, 53)];
    firewall.replace(rules).unwrap();
    assert!(!reaches_loopback(&lab, 5353));
    // What is not ours is not ours to drop.
    assert!(reaches_loopback(&lab, 5354));
}

#[test]
fn containers_do_not_reach_the_hosts_loopback() {
    let lab = Lab::new();
    lab.host.sysctl("ipv4.conf.br0.route_localnet", "1");
    let one = lab.container_namespace(ONE);
    let reaches = || {
        let socket = lab.host.run(|| bind_when_free(5355));
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let packet = frame::udp(v4(ONE4).into(), v4("127.0.0.1").into(), 5355, b"from inside");
        let bridge = link_address(&lab.host, "br0");
        let own = lab.containers[ONE].endpoint.mac.0;
        let wire = Wire::open(one, "eth0");
        for form in FORMS {
            wire.send(&frame::ethernet(bridge, own, 0x0800, &form(&packet)));
        }
        lab.host.run(|| {
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", "127.0.0.1:5355").unwrap();
        });
        let mut buffer = [0; 64];
        let count = socket.recv(&mut buffer).unwrap();
        &buffer[..count] == b"from inside"
    };
    assert!(reaches(), "the control");
    lab.firewall(Settings::default()).replace(lab.rules()).unwrap();
    assert!(!reaches());
}

#[test]
fn a_host_that_drops_what_comes_in_decides_over_published_ports_too() {
    let lab = Lab::new();
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let settings = Settings::default();
    let ports = Ports::new(&settings);
    let wanted = Wanted {
        protocol: Protocol::Tcp,
        host_addresses: vec![v4("0.0.0.0").into()],
        host_ports: 8080..=8080,
        container_port: 80,
        publish: Publish::Nat,
    };
    let reserved = lab.host.run(move || ports.reserve(&[wanted])).unwrap();
    let leads = reserved.ports(Some(v4(ONE4)), None);
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports = leads.clone();
    let firewall = lab.firewall(settings);
    firewall.replace(rules).unwrap();
    lab.host.nft(
        "table inet host { chain input { type filter hook input priority 0; policy drop; \
         iifname lo accept; ct state established,related accept; }; }",
    );
    let at = format!("{HOST}:8080");
    // The control, while nobody has told: translation goes past the input rules.
    assert_eq!(answer(&lab.neighbour, "tcp", &at), format!("one {NEIGHBOUR}"));
    let told = firewall.clone();
    lab.host.run(move || told.follow_the_host()).unwrap();
    // The proxy's connections to containers are made in the host's namespace.
    let reserved = lab.host.run(move || {
        reserved.serve(&leads, &[]).unwrap();
        reserved
    });
    assert!(firewall.is_input_closed());
    assert!(is_silent(&lab.neighbour, "tcp", &at));
    // The operator lets it in, as any service.
    lab.host.nft("add rule inet host input tcp dport 8080 accept");
    assert_eq!(answer(&lab.neighbour, "tcp", &at), format!("one {GATEWAY4}"));
    lab.host.nft("flush chain inet host input");
    assert!(is_silent(&lab.neighbour, "tcp", &at));
    drop(reserved);
}

#[test]
fn a_host_that_drops_what_it_forwards_is_not_overridden() {
    let lab = Lab::new();
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let firewall = lab.firewall(Settings::default());
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80)];
    firewall.replace(rules).unwrap();
    let at = format!("{HOST}:8080");
    assert_eq!(answer(&lab.neighbour, "tcp", &at), format!("one {NEIGHBOUR}"), "the control");
    for priority in ["-10", "0", "10"] {
        lab.host.nft(&format!(
            "table inet host {{ chain forward {{ type filter hook forward priority {priority}; \
             policy drop; }}; }}"
        ));
        assert!(is_silent(&lab.neighbour, "tcp", &at), "priority {priority}");
        lab.host.nft("delete table inet host");
    }
}

/// A frame of an attack, and what its text is in a capture.
type Attack = (&'static str, Vec<u8>);

/// What container one sends to container two while it pretends.
fn attacks(lab: &Lab) -> Vec<Attack> {
    let own = lab.containers[ONE].endpoint.mac.0;
    let two = lab.containers[TWO].endpoint.mac.0;
    let foreign = [2, 0, 0, 0, 0, 99];
    let all_nodes = ([0x33, 0x33, 0, 0, 0, 1], v6("ff02::1"));
    let local = lab.containers[ONE].endpoint.mac.link_local();
    let udp4 = |from: &str, mark: &[u8]| frame::udp(v4(from).into(), v4(TWO4).into(), 9, mark);
    let udp6 = |from: &str, mark: &[u8]| frame::udp(v6(from).into(), v6(TWO6).into(), 9, mark);
    let arp = |mac, ip: &str, mark: &[u8]| frame::arp(mac, v4(ip), v4(TWO4), mark);
    let advertisement = |from: Ipv6Addr, kind, target: &str, mark: &[u8]| {
        let body = [&[0xa0, 0, 0, 0][..], &v6(target).octets(), &[2, 1], &own, mark].concat();
        frame::icmp6(from, all_nodes.1, kind, &body)
    };
    let router = |from: Ipv6Addr, mark: &[u8]| {
        let body = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], mark].concat();
        frame::icmp6(from, all_nodes.1, 134, &body)
    };
    let ether = |kind, payload: Vec<u8>| frame::ethernet(two, own, kind, &payload);
    let multicast = |payload: Vec<u8>| frame::ethernet(all_nodes.0, own, 0x86dd, &payload);
    vec![
        ("foreign-mac", frame::ethernet(two, foreign, 0x0800, &udp4(ONE4, b"foreign-mac"))),
        (
            "neighbour-whole",
            frame::ethernet(frame::BROADCAST, two, 0x0800, &udp4(TWO4, b"neighbour-whole")),
        ),
        ("foreign-ip4", ether(0x0800, udp4("172.30.0.77", b"foreign-ip4"))),
        ("options-ip4", ether(0x0800, frame::with_options(&udp4("172.30.0.77", b"options-ip4")))),
        ("gateways-ip4", ether(0x0800, udp4(GATEWAY4, b"gateways-ip4"))),
        ("neighbours-ip4", ether(0x0800, udp4(TWO4, b"neighbours-ip4"))),
        ("loopback-ip4", ether(0x0800, udp4("127.0.0.1", b"loopback-ip4"))),
        ("foreign-ip6", ether(0x86dd, udp6("fd30::77", b"foreign-ip6"))),
        ("foreign-local6", ether(0x86dd, udp6("fe80::77", b"foreign-local6"))),
        ("arp-gateway", ether(0x0806, arp(own, GATEWAY4, b"arp-gateway"))),
        ("arp-foreign-mac", ether(0x0806, arp(foreign, ONE4, b"arp-foreign-mac"))),
        (
            "arp-of-tokens",
            ether(0x0806, [&[0, 6][..], &arp(own, ONE4, b"arp-of-tokens")[2..]].concat()),
        ),
        ("router-advert", multicast(router(local, b"router-advert"))),
        ("router-advert-global", multicast(router(v6(ONE6), b"router-advert-global"))),
        ("neighbour-advert", multicast(advertisement(local, 136, "fd30::1", b"neighbour-advert"))),
        ("redirect6", multicast(advertisement(local, 137, "fd30::77", b"redirect6"))),
        (
            "unspecified6",
            multicast(frame::udp(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                all_nodes.1.into(),
                9,
                b"unspecified6",
            )),
        ),
        (
            "probe-of-another",
            multicast(frame::icmp6(
                Ipv6Addr::UNSPECIFIED,
                all_nodes.1,
                135,
                &[&[0; 4][..], &v6(TWO6).octets(), b"probe-of-another"].concat(),
            )),
        ),
        ("redirect4", ether(0x0800, frame::icmp_redirect(v4(ONE4), v4(TWO4), b"redirect4"))),
        ("vlan-tag", frame::tagged(two, own, 5, 0x0800, &udp4(ONE4, b"vlan-tag"))),
        (
            "vlan-tag-spoofed",
            frame::tagged(two, own, 5, 0x0800, &udp4(GATEWAY4, b"vlan-tag-spoofed")),
        ),
        ("other-protocol", ether(0x88cc, b"other-protocol........................".to_vec())),
    ]
}

#[test]
fn a_container_sends_only_as_itself() {
    Lab::both().for_each(|lab| spoofing_is_dropped(&lab));
}

fn spoofing_is_dropped(lab: &Lab) {
    let sender = Wire::open(lab.container_namespace(ONE), "eth0");
    let own = lab.containers[ONE].endpoint.mac.0;
    let two = lab.containers[TWO].endpoint.mac.0;
    let honest = [
        (
            "end-4",
            frame::ethernet(
                two,
                own,
                0x0800,
                &frame::udp(v4(ONE4).into(), v4(TWO4).into(), 9, b"end-4"),
            ),
        ),
        (
            "end-6",
            frame::ethernet(
                two,
                own,
                0x86dd,
                &frame::udp(v6(ONE6).into(), v6(TWO6).into(), 9, b"end-6"),
            ),
        ),
        (
            "end-arp",
            frame::ethernet(two, own, 0x0806, &frame::arp(own, v4(ONE4), v4(TWO4), b"end-arp")),
        ),
    ];
    let own_arp = frame::arp(two, v4(TWO4), v4(ONE4), b"here");
    let arrives = |(name, bytes): &Attack| {
        let capture = Wire::open(lab.container_namespace(TWO), "eth0");
        sender.send(bytes);
        // Where the bridge has learnt that two is here, it learns better.
        capture.send(&frame::ethernet(frame::BROADCAST, two, 0x0806, &own_arp));
        sender.send(&honest[0].1);
        capture.sees(name.as_bytes(), b"end-4")
    };
    for attack in attacks(lab) {
        assert!(arrives(&attack), "the control: {}", attack.0);
    }
    let firewall = lab.firewall(Settings::default());
    // Whose port it is, is known by its number; else by its name.
    let mut by_name = lab.rules();
    by_name.endpoints.values_mut().for_each(|endpoint| endpoint.index = 0);
    for rules in [by_name, lab.rules()] {
        firewall.replace(rules).unwrap();
        for attack in attacks(lab) {
            assert!(!arrives(&attack), "{}", attack.0);
        }
        for (name, bytes) in &honest {
            let capture = Wire::open(lab.container_namespace(TWO), "eth0");
            sender.send(bytes);
            assert!(capture.sees_within(name.as_bytes(), DEADLINE), "{name}");
        }
    }
    // A router of containers may.
    let endpoint = Endpoint { may_spoof: true, ..lab.containers[ONE].endpoint.clone() };
    firewall.put_endpoint(endpoint).unwrap();
    for attack in attacks(lab) {
        // Where bridged frames are packets to the host, it drops what belongs to no connection.
        let arrived = lab.is_bridge_filtered || arrives(&attack);
        assert!(arrived, "a router: {}", attack.0);
    }
}

#[test]
fn without_an_ipv6_address_nothing_of_ipv6_leaves_a_container() {
    let lab = Lab::new();
    let other = &lab.containers[OTHER];
    let (own, local) = (other.endpoint.mac.0, other.endpoint.mac.link_local());
    let sender = Wire::open(&other.namespace, "eth0");
    let arrives = || {
        let capture = Wire::open(&lab.host, "br1");
        let hello = frame::udp(local.into(), v6("ff02::1").into(), 9, b"link-local");
        sender.send(&frame::ethernet([0x33, 0x33, 0, 0, 0, 1], own, 0x86dd, &hello));
        let end = frame::udp(v4(OTHER4).into(), v4("172.31.0.1").into(), 9, b"the-end");
        sender.send(&frame::ethernet(link_address(&lab.host, "br1"), own, 0x0800, &end));
        capture.sees(b"link-local", b"the-end")
    };
    assert!(arrives(), "the control");
    lab.firewall(Settings::default()).replace(lab.rules()).unwrap();
    assert!(!arrives());
}

#[test]
fn nobody_outside_sends_with_a_containers_address() {
    let lab = Lab::new();
    let one = lab.container_namespace(ONE);
    let host = link_address(&lab.host, "uplink");
    let own = link_address(&lab.neighbour, "eth0");
    let wire = Wire::open(&lab.neighbour, "eth0");
    let arrives = |from: &str| {
        let capture = Wire::open(one, "eth0");
        let packet = |from: &str, mark| frame::udp(v4(from).into(), v4(HOST).into(), 5300, mark);
        for form in FORMS {
            wire.send(&frame::ethernet(host, own, 0x0800, &form(&packet(from, b"attack"))));
        }
        wire.send(&frame::ethernet(host, own, 0x0800, &packet(NEIGHBOUR, b"honest")));
        capture.sees(b"attack", b"honest")
    };
    let socket = lab.host.run(|| UdpSocket::bind("[::]:5301")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let arrives6 = |from: &str| {
        let end = format!("end of {from}");
        let send = |from: &str, mark: &str| {
            let packet = frame::udp(v6(from).into(), v6(HOST6).into(), 5301, mark.as_bytes());
            wire.send(&frame::ethernet(host, own, 0x86dd, &packet));
        };
        send(from, from);
        send(NEIGHBOUR6, &end);
        let (until, mut arrived, mut buffer) = (Instant::now() + DEADLINE, false, [0; 64]);
        while Instant::now() < until {
            match socket.recv(&mut buffer).map(|count| &buffer[..count]) {
                Ok(mark) if mark == end.as_bytes() => return arrived,
                Ok(mark) => arrived |= mark == from.as_bytes(),
                Err(_) => send(NEIGHBOUR6, &end),
            }
        }
        panic!("nothing arrives");
    };
    // The host's end takes some time to be there.
    arrives6(NEIGHBOUR6);
    lab.host.nft(&format!(
        "table ip naive {{ chain c {{ type nat hook prerouting priority -100; \
         udp dport 5300 dnat to {ONE4}:53; }}; }}"
    ));
    // Flows are tracked, so that each attack needs an address that was not used before.
    assert!(arrives("172.30.0.77"), "the control");
    assert!(arrives6("fd30::77"), "the control");
    lab.host.nft("delete table ip naive");
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Udp, "0.0.0.0", 5300, ONE4, 53)];
    let firewall = lab.firewall(Settings::default());
    firewall.replace(rules).unwrap();
    for from in ["172.30.0.78", "172.31.0.2", "172.30.0.1"] {
        assert!(!arrives(from), "{from}");
    }
    assert!(!arrives6("fd30::78"));
    // From a container of another network neither: its own port refuses already.
}

#[test]
fn an_internal_network_does_not_forward() {
    let mut lab = Lab::new();
    service::udp(&lab.neighbour, "0.0.0.0:7", "out");
    service::tcp(lab.container_namespace(OTHER), "0.0.0.0:80", "other");
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let other = &lab.containers[OTHER];
    let own = other.endpoint.mac.0;
    let sender = Wire::open(&other.namespace, "eth0");
    let bridge = link_address(&lab.host, "br1");
    let leaks = || {
        let capture = Wire::open(&lab.neighbour, "eth0");
        let packet = frame::udp(v4(OTHER4).into(), v4(NEIGHBOUR).into(), 9, b"leaked");
        sender.send(&frame::ethernet(bridge, own, 0x0800, &packet));
        lab.host.run(|| {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"the-end", (NEIGHBOUR, 9)).unwrap();
        });
        capture.sees(b"leaked", b"the-end")
    };
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80)];
    rules.endpoints.get_mut("v-other").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8081, OTHER4, 80)];
    let firewall = lab.firewall(Settings::default());
    firewall.replace(rules.clone()).unwrap();
    let (published, own_port) = (format!("{HOST}:8080"), format!("{HOST}:8081"));
    assert!(leaks(), "the control");
    assert!(answer(&other.namespace, "tcp", &published).starts_with("one"), "the control");
    assert!(answer(&lab.neighbour, "tcp", &own_port).starts_with("other"), "the control");
    firewall.replace(lab.rules()).unwrap();
    rules.networks.get_mut("br1").unwrap().internal = true;
    firewall.replace(rules).unwrap();
    assert!(!leaks());
    assert!(is_silent(&other.namespace, "tcp", &published), "another network, by its port");
    assert!(is_silent(&lab.neighbour, "tcp", &own_port), "its own published port");
    assert!(is_silent(&other.namespace, "udp", &format!("{NEIGHBOUR}:7")));
    assert!(answer(&lab.host, "tcp", &format!("{OTHER4}:80")).starts_with("other"), "the host");
    lab.networks[1].internal = true;
}

#[test]
fn an_internal_network_reaches_the_host_but_no_port_that_it_publishes() {
    Lab::both().for_each(|lab| internal_stays_out_of_proxies(&lab));
}

fn internal_stays_out_of_proxies(lab: &Lab) {
    lab.host.ip("addr add fd31::1/64 dev br1 nodad");
    lab.containers[OTHER].namespace.ip("addr add fd31::2/64 dev eth0 nodad");
    // They stand for proxies: what the kernel does not translate is for a socket of the host's.
    service::tcp(&lab.host, "[::]:8080", "proxy");
    service::udp(&lab.host, "[::]:5300", "proxy");
    service::tcp(&lab.host, "[::]:8082", "proxy");
    service::tcp(&lab.host, "[::]:22", "host");
    let mut rules = lab.rules();
    let by_proxy = |protocol, address: &str, number| Port {
        publish: Publish::Proxy,
        ..port(protocol, address, number, ONE4, 80)
    };
    rules.endpoints.get_mut("v-one").unwrap().ports = vec![
        by_proxy(Protocol::Tcp, "0.0.0.0", 8080),
        by_proxy(Protocol::Tcp, "::", 8080),
        by_proxy(Protocol::Udp, "::", 5300),
        by_proxy(Protocol::Tcp, "172.31.0.1", 8082),
    ];
    rules.endpoints.get_mut("v-other").unwrap().may_spoof = true;
    let firewall = lab.firewall(Settings::default());
    firewall.replace(rules.clone()).unwrap();
    let other = lab.container_namespace(OTHER);
    let targets = [
        ("tcp", "172.31.0.1:8080"),
        ("tcp", "[fd31::1]:8080"),
        ("udp", "[fd31::1]:5300"),
        ("tcp", "172.31.0.1:8082"),
    ];
    for (protocol, at) in targets {
        assert!(answer(other, protocol, at).starts_with("proxy"), "the control: {at}");
    }
    for inter_container in [true, false] {
        let network = rules.networks.get_mut("br1").unwrap();
        (network.internal, network.inter_container) = (true, inter_container);
        firewall.replace(rules.clone()).unwrap();
        for (protocol, at) in targets {
            assert!(is_silent(other, protocol, at), "{at}/{protocol}");
        }
        assert!(answer(other, "tcp", "[fd31::1]:22").starts_with("host"), "the host's own");
        assert!(answer(&lab.neighbour, "tcp", &format!("{HOST}:8080")).starts_with("proxy"));
    }
    firewall.remove_endpoint("v-one").unwrap();
    assert!(answer(other, "tcp", "172.31.0.1:8080").starts_with("proxy"), "published no more");
}

#[test]
fn containers_that_shall_not_reach_each_other_do_not_whichever_way_they_send() {
    Lab::both().for_each(|lab| isolation_holds(&lab));
}

fn isolation_holds(lab: &Lab) {
    service::tcp(lab.container_namespace(TWO), "0.0.0.0:80", "two");
    service::tcp(lab.container_namespace(TWO), "0.0.0.0:81", "two");
    let one = lab.container_namespace(ONE);
    let own = lab.containers[ONE].endpoint.mac.0;
    let sender = Wire::open(one, "eth0");
    // By the gateway: the frame is for the host, the packet for container two.
    let by_gateway = |port: u16| {
        let capture = Wire::open(lab.container_namespace(TWO), "eth0");
        let packet = frame::udp(v4(ONE4).into(), v4(TWO4).into(), port, b"by-gateway");
        sender.send(&frame::ethernet(link_address(&lab.host, "br0"), own, 0x0800, &packet));
        lab.host.run(|| {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"the-end", (TWO4, 9)).unwrap();
        });
        capture.sees(b"by-gateway", b"the-end")
    };
    let mut rules = lab.rules();
    let firewall = lab.firewall(Settings::default());
    firewall.replace(rules.clone()).unwrap();
    let (linked, closed) = (format!("{TWO4}:80"), format!("{TWO4}:81"));
    assert!(answer(one, "tcp", &linked).starts_with("two"), "the control");
    assert!(by_gateway(1000), "the control");
    rules.networks.get_mut("br0").unwrap().inter_container = false;
    firewall.replace(rules.clone()).unwrap();
    assert!(is_silent(one, "tcp", &linked));
    assert!(!by_gateway(1001));
    assert!(answer(&lab.host, "tcp", &linked).starts_with("two"), "the host");
    rules.endpoints.get_mut("v-two").unwrap().links =
        vec![Link { from: v4(ONE4), protocol: Protocol::Tcp, port: 80 }];
    firewall.replace(rules).unwrap();
    assert!(answer(one, "tcp", &linked).starts_with("two"), "a link");
    assert!(is_silent(one, "tcp", &closed), "a link is of one port");
    assert!(!by_gateway(1002));
}
