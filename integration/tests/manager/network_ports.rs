//! Published ports: from where they answer, and from where not.

use std::time::Duration;

use hull_integration::engine::{Engine, Hull, Lab, SLEEPER, Side, debian_archive, lab};
use hull_integration::{tests, wait_until};

use crate::network::{hull_only, serve, start};

tests![
    a_port_answers_from_the_host_and_the_neighbour,
    a_port_of_the_loopback_answers_there_only,
    a_port_of_an_address_answers_there_only,
    ports_are_chosen_where_none_is_named,
    ranges_are_published_port_by_port,
    datagrams_are_published,
    the_clients_address_is_seen,
    a_container_reaches_published_ports_of_the_host,
    a_container_reaches_its_own_published_port,
    every_container_reaches_published_ports_by_every_way,
    a_port_is_taken_once,
    a_port_is_free_again_after_its_container,
    what_is_not_published_is_not_reached_from_outside,
    ports_answer_for_both_families,
    a_proxy_publishes_where_the_host_must_not_forward,
    rules_come_back_after_a_flush,
    without_iptables_there_is_no_rule,
    an_audit_tells_who_reaches_what,
];

const SOON: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1";

fn a_port_answers_from_the_host_and_the_neighbour() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80"]);
    for (side, address) in
        [(Side::Host, LOOPBACK), (Side::Host, lab::HOST[0]), (Side::Neighbour, lab::HOST[0])]
    {
        assert_eq!(lab.page(side, address, 8080).as_deref(), Some("one"), "{side:?} {address}");
    }
    let ports = engine.run(&["port", "one", "80/tcp"]).ok();
    assert!(ports.lines().contains(&"0.0.0.0:8080"), "{}", ports.text());
    let column = engine.run(&["ps", "--format", "{{.Ports}}"]).ok();
    assert!(column.text().starts_with("0.0.0.0:8080->80/tcp"), "{}", column.text());
    assert_eq!(
        engine.inspect("one", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"),
        "8080"
    );
    engine
        .run(&["port", "one", "81"])
        .fails()
        .stderr_says("o public port '81/tcp' published for one");
    engine.run(&["stop", "-t", "0", "one"]).ok();
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080), None);
    assert_eq!(lab.page(Side::Host, LOOPBACK, 8080), None);
}

fn a_port_of_the_loopback_answers_there_only() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "127.0.0.1:8080:80"]);
    assert_eq!(lab.page(Side::Host, LOOPBACK, 8080).as_deref(), Some("one"));
    assert_eq!(lab.page(Side::Host, lab::HOST[0], 8080), None);
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080), None);
}

fn a_port_of_an_address_answers_there_only() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "192.0.2.1:8080:80"]);
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080).as_deref(), Some("one"));
    assert_eq!(lab.page(Side::Host, LOOPBACK, 8080), None);
}

fn ports_are_chosen_where_none_is_named() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "80", "-p", "127.0.0.1::81", "--expose", "82", "-P"]);
    let host_port = |port: &str| {
        let said = engine.run(&["port", "one", port]).ok();
        let first = said.lines()[0].to_owned();
        first.rsplit(':').next().expect("it has a port").parse::<u16>().expect("it is a number")
    };
    let ports = [host_port("80"), host_port("81"), host_port("82")];
    assert!(ports.iter().all(|port| *port >= 32768), "{ports:?}");
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], ports[0]).as_deref(), Some("one"));
}

fn ranges_are_published_port_by_port() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080-8082:80-82"]);
    start(&engine, "two", &["-p", "8082-8083:80"], SLEEPER);
    let ports = engine.run(&["port", "one"]).ok();
    for line in ["80/tcp -> 0.0.0.0:8080", "81/tcp -> 0.0.0.0:8081", "82/tcp -> 0.0.0.0:8082"] {
        assert!(ports.lines().contains(&line), "{}", ports.text());
    }
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080).as_deref(), Some("one"));
    // The first free one of the range.
    assert_eq!(engine.run(&["port", "two", "80"]).ok().lines()[0], "0.0.0.0:8083");
}

const ECHO: &str = "$socket = IO::Socket::INET->new(LocalPort => 53, Proto => 'udp') or die; \
    while ($peer = $socket->recv($text, 999)) { $socket->send($socket->peerhost . ' ' . $text) }";

fn datagrams_are_published() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["import", debian_archive(), "debian"]).ok();
    let run = || {
        let args = [
            "run",
            "--detach",
            "--name",
            "one",
            "-p",
            "5353:53/udp",
            "debian",
            "perl",
            "-MIO::Socket::INET",
            "-e",
            ECHO,
        ];
        engine.run(&args).ok();
    };
    run();
    let ask = |side, address| lab.datagram(side, address, 5353, "hello");
    let expected = format!("{} hello", lab::NEIGHBOUR[0]);
    wait_until("it answers", SOON, || {
        ask(Side::Neighbour, lab::HOST[0]).as_deref() == Some(&*expected)
    });
    for address in [LOOPBACK, lab::HOST[0]] {
        let answer = ask(Side::Host, address);
        assert!(answer.is_some_and(|answer| answer.ends_with(" hello")), "{address}");
    }
    // A flow of a client that keeps its port is the new container's at once.
    let port = 40_000;
    let flow = || {
        lab.inside(Side::Neighbour, || {
            let socket = std::net::UdpSocket::bind((lab::NEIGHBOUR[0], port)).expect("it is free");
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is not 0");
            socket.send_to(b"again", (lab::HOST[0], 5353)).expect("it is sent");
            socket.recv(&mut [0; 100]).is_ok()
        })
    };
    wait_until("the flow is there", SOON, flow);
    engine.run(&["rm", "-f", "one"]).ok();
    run();
    wait_until("the flow is the new one's", SOON, flow);
}

fn the_clients_address_is_seen() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80"]);
    assert!(lab.page(Side::Neighbour, lab::HOST[0], 8080).is_some());
    wait_until("the server logs its client", SOON, || {
        let logs = engine.run(&["logs", "one"]);
        logs.complaints().iter().any(|line| line.contains(lab::NEIGHBOUR[0]))
    });
}

fn a_container_reaches_published_ports_of_the_host() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["-p", "8080:80"]);
    start(&engine, "two", &["--network", "web"], SLEEPER);
    start(&engine, "three", &[], SLEEPER);
    let url = format!("http://{}:8080/", lab::HOST[0]);
    // Of another network, and of the same.
    for name in ["two", "three"] {
        engine.run(&["exec", name, "timeout", "5", "wget", "-qO-", &url]).ok().says("one");
    }
}

fn a_container_reaches_its_own_published_port() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["-p", "8080:80"]);
    serve(&engine, "two", &["--network", "web", "-p", "8081:80"]);
    for (name, port) in [("one", 8080), ("two", 8081)] {
        let url = format!("http://{}:{port}/", lab::HOST[0]);
        engine.run(&["exec", name, "timeout", "5", "wget", "-qO-", &url]).ok().says(name);
    }
}

/// From itself, its network and others; by both families; by translation in the host and within
/// the bridge, and by the proxy.
fn every_container_reaches_published_ports_by_every_way() {
    hull_only();
    for (flags, within_bridges) in [
        (&[][..], "1"),
        (&[], "0"),
        (&["--userland-proxy=false"], "1"),
        (&["--userland-proxy=false"], "0"),
    ] {
        let lab = Lab::start();
        for family in ["iptables", "ip6tables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
            let script = format!("[ ! -e {path} ] || echo {within_bridges} > {path}");
            lab.command(Side::Host, &["/bin/sh", "-c", &script]).run().ok();
        }
        let engine = Engine::Hull(Hull::start_in(&lab, flags));
        engine.run(&["network", "create", "web"]).ok();
        let apart = "com.docker.network.bridge.enable_icc=false";
        engine.run(&["network", "create", "-o", apart, "apart"]).ok();
        let places = [("one", "bridge", 8080), ("two", "web", 8081), ("three", "apart", 8082)];
        for (name, network, port) in places {
            serve(&engine, name, &["--network", network, "-p", &format!("{port}:80")]);
        }
        start(&engine, "other", &["--network", "web"], SLEEPER);
        for client in ["one", "two", "three", "other"] {
            let mut script = String::from("fetch() { timeout 5 wget -qO- $1 || echo nothing; }");
            let mut expected = Vec::new();
            for (server, network, port) in places {
                let closed = network == "apart" && client == server;
                if closed && !flags.is_empty() && within_bridges == "1" {
                    // Nobody carries it: neither the bridge, whose ports are isolated, nor a proxy.
                    continue;
                }
                for host in [lab::HOST[0].to_owned(), format!("[{}]", lab::HOST[1])] {
                    script.push_str(&format!("; fetch http://{host}:{port}/"));
                    expected.push(server);
                }
            }
            let said = engine.run(&["exec", client, "sh", "-c", &script]).ok();
            assert_eq!(said.lines(), expected, "{flags:?} {within_bridges} {client}: {script}");
        }
    }
}

fn a_port_is_taken_once() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    start(&engine, "one", &["-p", "8080:80"], SLEEPER);
    let again = |port: &str| engine.run(&["run", "--rm", "-p", port, "busybox", "true"]);
    again("8080:80")
        .exits(125)
        .stderr_says("Bind for 0.0.0.0:8080 failed: port is already allocated");
    again("8080:80/udp").ok();
    // Another program's.
    lab.inside(Side::Host, || {
        let _holder = std::net::TcpListener::bind("0.0.0.0:9090").expect("it is free");
        again("9090:80").exits(125).stderr_says("address already in use");
    });
    again("9090:80").ok();
}

fn a_port_is_free_again_after_its_container() {
    let lab = Lab::start();
    let mut engine = Engine::start_in(&lab);
    for _ in 0..3 {
        engine.run(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).ok();
    }
    start(&engine, "one", &["-p", "8080:80"], SLEEPER);
    engine.crash_and_restart();
    engine
        .run(&["run", "--rm", "-p", "8080:80", "busybox", "true"])
        .exits(125)
        .stderr_says("port is already allocated");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).ok();
}

fn what_is_not_published_is_not_reached_from_outside() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "--subnet", "10.77.0.0/24", "web"]).ok();
    serve(
        &engine,
        "one",
        &["--network", "web", "--ip", "10.77.0.2", "-p", "127.0.0.1:8080:80", "-p", "9999:99"],
    );
    // A neighbour who knows the way.
    lab.ip(Side::Neighbour, &format!("route add 10.77.0.0/24 via {}", lab::HOST[0])).ok();
    lab.ip(Side::Neighbour, &format!("route add 127.0.0.0/8 via {} table 9", lab::HOST[0])).ok();
    assert_eq!(lab.page(Side::Neighbour, "10.77.0.2", 80), None);
    assert_eq!(lab.page(Side::Host, "10.77.0.2", 80).as_deref(), Some("one"));
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 80), None);
}

fn ports_answer_for_both_families() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80"]);
    for (side, address) in
        [(Side::Host, "::1"), (Side::Host, lab::HOST[1]), (Side::Neighbour, lab::HOST[1])]
    {
        assert_eq!(lab.page(side, address, 8080).as_deref(), Some("one"), "{side:?} {address}");
    }
    serve(&engine, "two", &["-p", "[::1]:8081:80"]);
    assert_eq!(lab.page(Side::Host, "::1", 8081).as_deref(), Some("two"));
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[1], 8081), None);
    engine.run(&["port", "two"]).ok().says("80/tcp -> [::1]:8081");
}

fn a_proxy_publishes_where_the_host_must_not_forward() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "target=80,published=8080,publish=proxy"]);
    lab.command(Side::Host, &["/bin/sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
        .run()
        .ok();
    for (side, address) in [(Side::Host, LOOPBACK), (Side::Neighbour, lab::HOST[0])] {
        assert_eq!(lab.page(side, address, 8080).as_deref(), Some("one"), "{side:?} {address}");
    }
}

fn rules_come_back_after_a_flush() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80"]);
    assert!(lab.page(Side::Neighbour, lab::HOST[0], 8080).is_some());
    lab.command(Side::Host, &["nft", "flush", "ruleset"]).run().ok();
    wait_until("the port answers again", SOON, || {
        lab.page(Side::Neighbour, lab::HOST[0], 8080).is_some()
    });
}

fn without_iptables_there_is_no_rule() {
    hull_only();
    let lab = Lab::start();
    let hull = Engine::Hull(Hull::start_in(&lab, &["--iptables=false"]));
    serve(&hull, "one", &["-p", "8080:80"]);
    let rules = lab.command(Side::Host, &["nft", "list", "ruleset"]).run().ok();
    assert_eq!(rules.text(), "");
    assert_eq!(lab.page(Side::Host, LOOPBACK, 8080).as_deref(), Some("one"));
}

fn an_audit_tells_who_reaches_what() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "127.0.0.1:8080:80", "--expose", "443"]);
    let said = engine.run(&["network", "audit", "--format", "json"]).ok();
    let rows: Vec<serde_json::Value> =
        said.lines().iter().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let published = rows.iter().find(|row| row["Port"] == "8080/tcp->80").expect("it is told");
    assert_eq!((&published["Verdict"], &published["Container"]), (&"yes".into(), &"one".into()));
    assert!(rows.iter().any(|row| row["Verdict"] == "no"), "{}", said.text());
    assert!(rows.iter().all(|row| row["Why"].as_str().is_some_and(|why| !why.is_empty())));
}
