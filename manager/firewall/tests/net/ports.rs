//! Ports of the host: who has them, and the proxy behind them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use hull_manager_firewall::{
    Loopback, PortTaken, Ports, Protocol, Publish, Reservation, Settings, Wanted,
};

use crate::lab::{
    DEADLINE, Lab, Namespace, ONE,
    service::{self, answer},
};

fn wanted(protocol: Protocol, addresses: &[&str], host_ports: RangeInclusive<u16>) -> Wanted {
    Wanted {
        protocol,
        host_addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        host_ports,
        container_port: 80,
        publish: Publish::Nat,
    }
}

fn reserve(host: &Namespace, ports: &Ports, all: Vec<Wanted>) -> anyhow::Result<Reservation> {
    let ports = ports.clone();
    host.run(move || ports.reserve(&all))
}

fn numbers(reservation: &Reservation) -> Vec<u16> {
    let ports =
        reservation.ports(Some("172.30.0.2".parse().unwrap()), Some("fd30::2".parse().unwrap()));
    ports.iter().map(|port| port.host_port).collect()
}

#[test]
fn a_port_has_one_owner_until_it_is_given_back() {
    let host = Namespace::new();
    for loopback in [Loopback::Proxy, Loopback::Translate] {
        let ports = Ports::new(&Settings { loopback, ..Settings::default() });
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let all = &["0.0.0.0", "::"];
            let held = reserve(&host, &ports, vec![wanted(protocol, all, 8080..=8080)]).unwrap();
            for address in ["0.0.0.0", "192.0.2.1", "2001:db8::1"] {
                let again = vec![wanted(protocol, &[address], 8080..=8080)];
                let error = reserve(&host, &ports, again).err().unwrap();
                assert!(error.downcast_ref::<PortTaken>().unwrap().by_container);
                let at = std::net::SocketAddr::new(address.parse().unwrap(), 8080);
                let text = format!("Bind for {at} failed: port is already allocated");
                assert_eq!(error.to_string(), text);
            }
            drop(held);
            drop(reserve(&host, &ports, vec![wanted(protocol, all, 8080..=8080)]).unwrap());
        }
    }
}

#[test]
fn another_programs_port_is_refused_and_nothing_is_kept() {
    let host = Namespace::new();
    let ports = Ports::new(&Settings::default());
    let tcp = host.run(|| TcpListener::bind("127.0.0.1:8080")).unwrap();
    let udp = host.run(|| UdpSocket::bind("[::]:8081")).unwrap();
    for (protocol, address, port) in
        [(Protocol::Tcp, "0.0.0.0", 8080), (Protocol::Udp, "::1", 8081)]
    {
        let error = reserve(
            &host,
            &ports,
            vec![
                wanted(protocol, &["0.0.0.0"], 9000..=9000),
                wanted(protocol, &[address], port..=port),
            ],
        );
        let error = error.err().unwrap();
        let at = std::net::SocketAddr::new(address.parse().unwrap(), port);
        let expected = format!("failed to bind host port {at}/{protocol}: address already in use");
        assert_eq!(error.to_string(), expected);
        assert!(!error.downcast_ref::<PortTaken>().unwrap().by_container);
        // All or nothing: the first of the two is free.
        drop(reserve(&host, &ports, vec![wanted(protocol, &["0.0.0.0"], 9000..=9000)]).unwrap());
    }
    drop((tcp, udp));
    // Both ways: nobody takes what is ours.
    let _held = reserve(
        &host,
        &ports,
        vec![
            wanted(Protocol::Tcp, &["0.0.0.0"], 8080..=8080),
            wanted(Protocol::Udp, &["::"], 8081..=8081),
        ],
    );
    assert!(host.run(|| TcpListener::bind("0.0.0.0:8080")).is_err());
    assert!(host.run(|| UdpSocket::bind("[::]:8081")).is_err());
    let nowhere = vec![wanted(Protocol::Tcp, &["203.0.113.9"], 80..=80)];
    let error = format!("{:#}", reserve(&host, &ports, nowhere).err().unwrap());
    assert!(error.starts_with("bind 203.0.113.9:80/tcp: "), "{error}");
}

#[test]
fn a_port_is_free_while_past_connections_of_it_are_remembered() {
    let host = Namespace::new();
    for (loopback, port) in [(Loopback::Proxy, 8080), (Loopback::Translate, 8081)] {
        host.run(move || {
            let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Who closes first remembers (TIME_WAIT).
            drop(listener.accept().unwrap());
            (&client).read_exact(&mut [0; 1]).unwrap_err();
            drop(client);
        });
        let sockets = || host.command("ss -Htan state time-wait");
        let until = Instant::now() + DEADLINE;
        while !sockets().contains(&format!(":{port} ")) {
            assert!(Instant::now() < until, "{}", sockets());
            std::thread::yield_now();
        }
        let ports = Ports::new(&Settings { loopback, ..Settings::default() });
        let held =
            reserve(&host, &ports, vec![wanted(Protocol::Tcp, &["0.0.0.0"], port..=port)]).unwrap();
        assert!(sockets().contains(&format!(":{port} ")), "the control");
        assert!(host.run(move || TcpListener::bind(("0.0.0.0", port))).is_err());
        drop(held);
    }
}

#[test]
fn ranges_and_the_kernels_choice_give_different_ports_to_everybody() {
    let host = Namespace::new();
    host.sysctl("ipv4.ip_local_port_range", "40000 40999");
    let ports = Ports::new(&Settings::default());
    let mut held = Vec::new();
    for expected in [7000, 7001, 7002] {
        let next =
            reserve(&host, &ports, vec![wanted(Protocol::Tcp, &["0.0.0.0", "::"], 7000..=7002)]);
        held.push(next.unwrap());
        assert_eq!(numbers(held.last().unwrap()), [expected, expected]);
    }
    let full = reserve(&host, &ports, vec![wanted(Protocol::Tcp, &["0.0.0.0", "::"], 7000..=7002)]);
    assert!(full.err().unwrap().is::<PortTaken>());
    // Half of the range has its IPv6 twin taken by others.
    let _others: Vec<_> = (40000..40500)
        .map(|port| host.run(move || TcpListener::bind(("::1", port))).unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        for _ in 0..40 {
            let next =
                reserve(&host, &ports, vec![wanted(protocol, &["0.0.0.0", "::"], 0..=0)]).unwrap();
            let [v4, v6] = numbers(&next)[..] else { panic!("two addresses") };
            assert_eq!(v4, v6);
            assert!((40000..=40999).contains(&v4), "{v4}");
            assert!(seen.insert((protocol, v4)));
            held.push(next);
        }
    }
}

/// Reserves, serves, and gives what keeps it served.
fn serve(
    lab: &Lab,
    ports: &Ports,
    all: Vec<Wanted>,
    to: (Option<&str>, Option<&str>),
) -> Reservation {
    let reserved = reserve(&lab.host, ports, all).unwrap();
    let (v4, v6) = (to.0.map(|a| a.parse().unwrap()), to.1.map(|a| a.parse().unwrap()));
    let addresses = [v4.map(IpAddr::V4), v6.map(IpAddr::V6)].into_iter().flatten();
    let addresses: Vec<_> = addresses.collect();
    lab.host.run(move || {
        reserved.serve(&reserved.ports(v4, v6), &addresses).unwrap();
        reserved
    })
}

#[test]
fn the_proxy_carries_from_loopback_and_between_families() {
    let lab = Lab::new();
    let one = lab.container_namespace(ONE);
    service::tcp(one, "0.0.0.0:80", "one");
    service::udp(one, "0.0.0.0:80", "one");
    service::tcp(one, "[fd30::2]:80", "six");
    let ports = Ports::new(&Settings::default());
    let both = &["0.0.0.0", "::"];
    let all = vec![
        wanted(Protocol::Tcp, both, 8080..=8080),
        wanted(Protocol::Udp, both, 8080..=8080),
        wanted(Protocol::Tcp, &["127.0.0.1"], 9090..=9090),
    ];
    // No rule, as with iptables=false: everything is the proxy's.
    let held = serve(&lab, &ports, all, (Some("172.30.0.2"), None));
    for (from, protocol, at) in [
        (&lab.host, "tcp", "127.0.0.1:8080"),
        (&lab.host, "tcp", "[::1]:8080"),
        (&lab.host, "udp", "127.0.0.1:8080"),
        (&lab.host, "udp", "127.0.0.7:8080"),
        (&lab.host, "udp", "[::1]:8080"),
        (&lab.host, "tcp", "127.0.0.1:9090"),
        (&lab.neighbour, "tcp", "192.0.2.1:8080"),
        (&lab.neighbour, "udp", "192.0.2.1:8080"),
        (&lab.neighbour, "udp", "172.30.0.1:8080"),
        (&lab.neighbour, "tcp", "[2001:db8::1]:8080"),
    ] {
        assert_eq!(answer(from, protocol, at), "one 172.30.0.1", "{at}/{protocol}");
    }
    // The container gets an address of the other family: each goes its own way.
    let held = lab.host.run(move || {
        let v4 = "172.30.0.2".parse().unwrap();
        let v6 = "fd30::2".parse().unwrap();
        held.serve(&held.ports(Some(v4), Some(v6)), &[v4.into(), v6.into()]).unwrap();
        held
    });
    assert_eq!(answer(&lab.host, "tcp", "[::1]:8080"), "six fd30::1");
    assert_eq!(answer(&lab.host, "tcp", "127.0.0.1:8080"), "one 172.30.0.1");
    drop(held);
    let again =
        vec![wanted(Protocol::Tcp, both, 8080..=8080), wanted(Protocol::Udp, both, 8080..=8080)];
    drop(reserve(&lab.host, &ports, again).expect("all ports are free at once"));
}

#[test]
fn a_program_that_listens_on_ipv4_only_is_reached_by_ipv6_too() {
    let lab = Lab::new();
    let one = lab.container_namespace(ONE);
    service::tcp(one, "0.0.0.0:80", "one");
    service::udp(one, "0.0.0.0:80", "one");
    let ports = Ports::new(&Settings::default());
    let all = vec![
        wanted(Protocol::Tcp, &["::"], 8080..=8080),
        wanted(Protocol::Udp, &["::"], 8080..=8080),
        wanted(Protocol::Tcp, &["::1"], 8081..=8081),
    ];
    let held = serve(&lab, &ports, all, (Some("172.30.0.2"), Some("fd30::2")));
    let firewall = lab.firewall(Settings::default());
    let mut endpoint = lab.containers[ONE].endpoint.clone();
    endpoint.ports = held.ports(Some("172.30.0.2".parse().unwrap()), "fd30::2".parse().ok());
    firewall.replace(lab.rules()).unwrap();
    firewall.put_endpoint(endpoint.clone()).unwrap();
    for (from, protocol, at) in [
        (&lab.host, "tcp", "[::1]:8080"),
        (&lab.host, "udp", "[::1]:8080"),
        (&lab.host, "tcp", "[::1]:8081"),
        (&lab.host, "tcp", "[2001:db8::1]:8080"),
        (&lab.neighbour, "tcp", "[2001:db8::1]:8080"),
        (&lab.neighbour, "udp", "[2001:db8::1]:8080"),
    ] {
        assert_eq!(answer(from, protocol, at), "one 172.30.0.1", "{at}/{protocol}");
    }
    // The first datagram is answered, not only one that is sent again.
    let first = lab.neighbour.run(|| {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(b"?", "[2001:db8::1]:8080").unwrap();
        socket.recv(&mut [0; 64]).is_ok()
    });
    assert!(first);
    // Who listens on IPv6 is preferred there.
    service::tcp(one, "[fd30::2]:80", "six");
    assert_eq!(answer(&lab.neighbour, "tcp", "[2001:db8::1]:8080"), "six fd30::1");
    // A public address is the network's by somebody's wish, and the kernel's to translate.
    let leads = held.ports(None, "2001:db8:7::2".parse().ok());
    assert!(leads.iter().all(|port| port.publish == Publish::Nat), "{leads:?}");
    assert!(endpoint.ports.iter().all(|port| port.publish == Publish::Proxy), "{endpoint:?}");
}

#[test]
fn without_proxies_a_port_refuses_what_is_not_translated() {
    let lab = Lab::new();
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let ports = Ports::new(&Settings { loopback: Loopback::Translate, ..Settings::default() });
    let by_proxy =
        Wanted { publish: Publish::Proxy, ..wanted(Protocol::Tcp, &["0.0.0.0"], 9090..=9090) };
    let all = vec![wanted(Protocol::Tcp, &["0.0.0.0", "::"], 8080..=8080), by_proxy];
    let held = serve(&lab, &ports, all, (Some("172.30.0.2"), None));
    let leads = held.ports(Some("172.30.0.2".parse().unwrap()), None);
    let addresses: Vec<IpAddr> = leads.iter().map(|port| port.host_address).collect();
    assert_eq!(addresses.len(), 2, "IPv6 leads nowhere: {leads:?}");
    let refused = lab.host.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(answer(&lab.host, "tcp", "127.0.0.1:9090"), "one 172.30.0.1");
    let sctp = Wanted { publish: Publish::Proxy, ..wanted(Protocol::Sctp, &["0.0.0.0"], 1..=1) };
    assert!(reserve(&lab.host, &ports, vec![sctp]).is_err());
}

#[test]
fn a_port_of_sctp_is_refused_where_only_a_proxy_could_serve_it() {
    let lab = Lab::new();
    let proxied = Settings::default();
    let translated = Settings { loopback: Loopback::Translate, ..Settings::default() };
    let unfiltered = Settings { enabled: false, ..Settings::default() };
    for (settings, address, refused) in [
        (&proxied, "0.0.0.0", None),
        (&proxied, "127.0.0.1", Some("on 127.0.0.1")),
        (&proxied, "::1", Some("on ::1")),
        (&translated, "127.0.0.1", None),
        (&translated, "::1", Some("on ::1")),
        (&unfiltered, "0.0.0.0", Some("without rules")),
    ] {
        let ports = Ports::new(settings);
        let result = reserve(&lab.host, &ports, vec![wanted(Protocol::Sctp, &[address], 7..=7)]);
        let said = result.err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(said, None, "{address}"),
            Some(why) => assert!(said.is_some_and(|said| said.contains(why)), "{address}"),
        }
    }
}

#[test]
fn connections_that_are_only_held_do_not_keep_others_out() {
    use hull_runtime_sys::process;

    const RLIMIT_NOFILE: u32 = 7;
    let (_, hard) = process::limit(0, RLIMIT_NOFILE).unwrap();
    process::set_limit(0, RLIMIT_NOFILE, hard, hard).unwrap();
    let held = 1200;
    // Both ends of both connections are this process's.
    if hard < 6 * held {
        eprintln!("not run: there are only {hard} descriptors");
        return;
    }
    let lab = Lab::new();
    let server = lab.container_namespace(ONE).run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let ports = Ports::new(&Settings::default());
    let all = vec![wanted(Protocol::Tcp, &["0.0.0.0"], 8080..=8080)];
    let _served = serve(&lab, &ports, all, (Some("172.30.0.2"), None));
    let connect = || lab.host.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap();
    let pairs: Vec<_> = (0..held).map(|_| (connect(), server.accept().unwrap())).collect();
    let mut client = connect();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"?").unwrap();
    accepted.read_exact(&mut [0; 1]).unwrap();
    drop(pairs);
}

#[test]
fn each_way_of_a_proxied_connection_ends_by_itself() {
    let lab = Lab::new();
    let server = lab.container_namespace(ONE).run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let ports = Ports::new(&Settings::default());
    let all = vec![wanted(Protocol::Tcp, &["0.0.0.0"], 8080..=8080)];
    let held = serve(&lab, &ports, all, (Some("172.30.0.2"), None));
    let mut client = lab.host.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(DEADLINE)).unwrap();
    let question = vec![7; 1_000_000];
    let sent = question.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).unwrap();
    assert_eq!(got, question);
    let mut client = writer.join().unwrap();
    accepted.write_all(b"answered after the end").unwrap();
    drop(accepted);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answered after the end");
    // The end of a reservation ends its connections.
    let mut client = lab.host.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap();
    let (_kept, _) = server.accept().unwrap();
    drop(held);
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let start = Instant::now();
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(start.elapsed() < DEADLINE - Duration::from_secs(1));
}

#[test]
fn ends_of_a_proxied_connection_are_asked_whether_they_are_there() {
    let lab = Lab::new();
    let server = lab.container_namespace(ONE).run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let ports = Ports::new(&Settings::default());
    let all = vec![wanted(Protocol::Tcp, &["0.0.0.0"], 8080..=8080)];
    let _served = serve(&lab, &ports, all, (Some("172.30.0.2"), None));
    let mut client = lab.host.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    client.write_all(b"?").unwrap();
    accepted.read_exact(&mut [0; 1]).unwrap();
    let timers = |which: &str| {
        let sockets = lab.host.command(&format!("ss -Htno state established {which}"));
        (sockets.lines().count(), sockets.matches("timer:(keepalive,").count())
    };
    // The proxy's two; and the control, the client's own.
    for (which, expected) in
        [("sport = :8080", (1, 1)), ("dport = :80", (1, 1)), ("dport = :8080", (1, 0))]
    {
        let until = Instant::now() + DEADLINE;
        // While something is under way, that is what its timer is for.
        while timers(which) != expected {
            assert!(Instant::now() < until, "{which}: {:?}", timers(which));
            std::thread::yield_now();
        }
    }
}
