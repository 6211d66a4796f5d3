//! Networks: who reaches whom, and by which name.

use std::time::Duration;

use hull_integration::engine::{Engine, Lab, SLEEPER, Side, lab, reference};
use hull_integration::{Output, require, tests, wait_until};

tests![
    a_container_is_in_the_default_network,
    the_other_models_have_no_network_of_their_own,
    containers_of_a_network_find_each_other_by_name,
    containers_of_two_networks_do_not_reach_each_other,
    a_running_container_is_connected_and_disconnected,
    addresses_and_names_are_given_as_asked_for,
    an_address_is_given_once,
    a_container_joins_the_network_of_another,
    the_world_is_reached_by_the_hosts_address,
    an_internal_network_leads_nowhere,
    a_macvlan_is_at_the_neighbours,
    an_ipvlan_is_at_the_neighbours,
    an_ipvlan_of_layer_3_is_behind_the_host,
    a_link_is_a_name_and_variables,
    a_link_follows_a_restart,
    files_say_what_was_asked_for,
    networks_are_listed_inspected_and_removed,
    a_network_in_use_is_not_removed,
    a_configuration_is_copied,
    link_local_addresses_are_given_besides,
    prune_removes_networks_that_nobody_is_in,
    events_tell_of_networks,
    counters_count_what_went_through,
    a_network_has_both_families,
    containers_keep_their_networks_across_the_manager,
];

const SOON: Duration = Duration::from_secs(20);

/// A page for whoever asks, with the name of the container.
const SERVER: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -vv -p 80 -h /www";

pub(crate) fn start(engine: &Engine, name: &str, options: &[&str], script: &str) {
    let mut args = vec!["run", "--detach", "--name", name, "--hostname", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    engine.run(&args).ok();
}

pub(crate) fn serve(engine: &Engine, name: &str, options: &[&str]) {
    start(engine, name, options, SERVER);
    wait_until("the server listens", SOON, || {
        engine.run(&["exec", name, "wget", "-qO-", "http://127.0.0.1/"]).text() == name
    });
}

/// What a container gets from an address.
pub(crate) fn fetch(engine: &Engine, name: &str, address: &str) -> Output {
    let url = format!("http://{address}/");
    // Its own time limit (-T) makes Debian's static busybox crash.
    engine.run(&["exec", name, "timeout", "5", "wget", "-qO-", &url])
}

/// An address or a name that a container has no answer from.
#[track_caller]
pub(crate) fn reaches_not(engine: &Engine, name: &str, address: &str) {
    let answer = fetch(engine, name, address);
    assert_ne!(answer.code(), Some(0), "{}", answer.summary());
}

pub(crate) fn address(engine: &Engine, name: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    engine.inspect(name, &format)
}

fn interfaces(engine: &Engine, name: &str) -> String {
    engine.run(&["exec", name, "ls", "/sys/class/net"]).ok().text().to_owned()
}

fn a_container_is_in_the_default_network() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &[]);
    start(&engine, "two", &[], SLEEPER);
    let one = address(&engine, "one", "bridge");
    assert_eq!(engine.inspect("one", "{{.NetworkSettings.IPAddress}}"), one);
    assert_eq!(interfaces(&engine, "one"), "eth0\nlo");
    fetch(&engine, "two", &one).ok().says("one");
    assert_eq!(lab.page(Side::Host, &one, 80).as_deref(), Some("one"));
    // Names are answered in networks of the user's only.
    reaches_not(&engine, "two", "one");
    engine.run(&["stop", "-t", "0", "one"]).ok();
    assert_eq!(address(&engine, "one", "bridge"), "");
}

fn the_other_models_have_no_network_of_their_own() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    start(&engine, "none", &["--network", "none"], SLEEPER);
    assert_eq!(interfaces(&engine, "none"), "lo");
    engine
        .run(&[
            "run",
            "--detach",
            "--name",
            "host",
            "--network",
            "host",
            "busybox",
            "sh",
            "-c",
            SERVER,
        ])
        .ok();
    let there = interfaces(&engine, "host");
    assert!(there.lines().any(|name| name == "eth0"), "{there}");
    wait_until("it answers for the host", SOON, || {
        lab.page(Side::Neighbour, lab::HOST[0], 80).is_some()
    });
    assert_eq!(engine.inspect("host", "{{.NetworkSettings.IPAddress}}"), "");
}

fn containers_of_a_network_find_each_other_by_name() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["--network", "web", "--network-alias", "other"]);
    start(&engine, "two", &["--network", "web", "--link", "one:linked"], SLEEPER);
    let id = engine.inspect("one", "{{.Id}}");
    for name in ["one", "other", "linked", &id[..12]] {
        fetch(&engine, "two", name).ok().says("one");
    }
    reaches_not(&engine, "two", "nosuch");
    // A name goes with its container.
    engine.run(&["rm", "-f", "one"]).ok();
    reaches_not(&engine, "two", "one");
    serve(&engine, "one", &["--network", "web"]);
    fetch(&engine, "two", "one").ok().says("one");
}

fn containers_of_two_networks_do_not_reach_each_other() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    for name in ["web", "db"] {
        engine.run(&["network", "create", name]).ok();
    }
    serve(&engine, "one", &["--network", "web"]);
    start(&engine, "two", &["--network", "db"], SLEEPER);
    let one = address(&engine, "one", "web");
    reaches_not(&engine, "two", &one);
    reaches_not(&engine, "two", "one");
    assert_eq!(lab.page(Side::Host, &one, 80).as_deref(), Some("one"));
}

fn a_running_container_is_connected_and_disconnected() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["--network", "web"]);
    start(&engine, "two", &[], SLEEPER);
    engine.run(&["network", "connect", "--alias", "second", "web", "two"]).ok().says("");
    assert_eq!(interfaces(&engine, "two"), "eth0\neth1\nlo");
    fetch(&engine, "two", "one").ok().says("one");
    engine.run(&["exec", "one", "ping", "-c", "1", "-W", "3", "second"]).ok();
    let two = address(&engine, "two", "web");
    let hosts = engine.run(&["exec", "two", "cat", "/etc/hosts"]).ok();
    assert!(hosts.text().contains(&two), "{}", hosts.text());
    engine
        .run(&["network", "connect", "web", "two"])
        .fails()
        .stderr_says("endpoint with name two already exists in network web");
    engine.run(&["network", "disconnect", "web", "two"]).ok().says("");
    assert_eq!(interfaces(&engine, "two"), "eth0\nlo");
    reaches_not(&engine, "two", "one");
    engine.run(&["network", "disconnect", "web", "two"]).fails().stderr_says("is not connected to");
    // One that does not run is connected at its start.
    engine.run(&["stop", "-t", "0", "two"]).ok();
    engine.run(&["network", "connect", "web", "two"]).ok();
    engine.run(&["start", "two"]).ok();
    fetch(&engine, "two", "one").ok().says("one");
    engine
        .run(&["network", "connect", "nosuch", "two"])
        .fails()
        .stderr_says("network nosuch not found");
}

fn addresses_and_names_are_given_as_asked_for() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let create = [
        "network",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--ip-range",
        "10.77.0.128/25",
        "--gateway",
        "10.77.0.254",
        "--aux-address",
        "router=10.77.0.129",
        "--label",
        "a=b",
        "web",
    ];
    engine.run(&create).ok();
    start(
        &engine,
        "one",
        &["--network", "web", "--ip", "10.77.0.9", "--mac-address", "02:42:00:00:00:09"],
        SLEEPER,
    );
    start(&engine, "two", &["--network", "web"], SLEEPER);
    assert_eq!(address(&engine, "one", "web"), "10.77.0.9");
    let two: std::net::Ipv4Addr = address(&engine, "two", "web").parse().expect("it has one");
    assert!(two.octets()[3] >= 128 && two.octets()[3] != 129, "{two}");
    let link = engine.run(&["exec", "one", "ip", "link", "show", "eth0"]).ok();
    assert!(link.text().contains("02:42:00:00:00:09"), "{}", link.text());
    let route = engine.run(&["exec", "one", "ip", "route"]).ok();
    assert!(route.text().contains("default via 10.77.0.254"), "{}", route.text());
    engine.run(&["exec", "two", "ping", "-c", "1", "-W", "3", "10.77.0.9"]).ok();
    let run = |ip: &str, network: &str| {
        engine.run(&["run", "--rm", "--network", network, "--ip", ip, "busybox", "true"])
    };
    run("10.77.0.9", "web").fails().stderr_says("Address already in use");
    run("10.78.0.1", "web").fails().stderr_says("10.78.0.1");
    run("172.17.0.9", "bridge")
        .fails()
        .stderr_says("user specified IP address is supported on user defined networks only");
}

fn an_address_is_given_once() {
    let lab = Lab::start();
    let mut engine = Engine::start_in(&lab);
    // Four hosts: the gateway, and two for containers.
    engine.run(&["network", "create", "--subnet", "10.77.0.0/30", "small"]).ok();
    let try_one =
        |engine: &Engine| engine.run(&["run", "--rm", "--network", "small", "busybox", "true"]);
    start(&engine, "one", &["--network", "small"], SLEEPER);
    try_one(&engine)
        .fails()
        .stderr_says("no available IPv4 addresses on this network's address pools");
    engine.crash_and_restart();
    try_one(&engine).fails();
    engine.run(&["rm", "-f", "one"]).ok();
    try_one(&engine).ok();
}

fn a_container_joins_the_network_of_another() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &[]);
    engine
        .run(&[
            "run",
            "--detach",
            "--name",
            "two",
            "--network",
            "container:one",
            "busybox",
            "sh",
            "-c",
            SLEEPER,
        ])
        .ok();
    let listening = engine.run(&["exec", "two", "netstat", "-tln"]).ok();
    assert!(listening.text().contains(":80 "), "{}", listening.text());
    fetch(&engine, "two", "127.0.0.1").ok().says("one");
    engine.run(&["exec", "two", "hostname"]).ok().says("one");
    engine
        .run(&["run", "--rm", "--network", "container:one", "-p", "80:80", "busybox", "true"])
        .fails()
        .stderr_says("conflicting options: port publishing and the container type network mode");
    engine
        .run(&["run", "--rm", "--network", "container:nosuch", "busybox", "true"])
        .fails()
        .stderr_says("No such container: nosuch");
}

fn the_world_is_reached_by_the_hosts_address() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    start(&engine, "one", &[], SLEEPER);
    let seen = lab.inside(Side::Neighbour, || {
        let listener = std::net::TcpListener::bind("192.0.2.2:7000").expect("it is ours");
        engine.run(&["exec", "-d", "one", "nc", "-w", "5", "192.0.2.2", "7000"]).ok();
        listener.set_nonblocking(true).expect("it can");
        hull_integration::wait_for("the container connects", SOON, || {
            listener.accept().ok().map(|(_, peer)| peer.ip().to_string())
        })
    });
    assert_eq!(seen, lab::HOST[0]);
}

fn an_internal_network_leads_nowhere() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "--internal", "inside"]).ok();
    serve(&engine, "one", &["--network", "inside"]);
    start(&engine, "two", &["--network", "inside"], SLEEPER);
    fetch(&engine, "two", "one").ok().says("one");
    engine.run(&["exec", "two", "ping", "-c", "1", "-W", "1", lab::NEIGHBOUR[0]]).fails();
    let routes = engine.run(&["exec", "two", "ip", "route"]).ok();
    assert!(!routes.text().contains("default"), "{}", routes.text());
}

fn a_macvlan_is_at_the_neighbours() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet",
        "192.0.2.0/24",
        "--ip-range",
        "192.0.2.128/25",
        "--gateway",
        "192.0.2.2",
        "-o",
        "parent=eth0",
        "street",
    ];
    engine.run(&create).ok();
    serve(&engine, "one", &["--network", "street"]);
    let one = address(&engine, "one", "street");
    assert_eq!(lab.page(Side::Neighbour, &one, 80).as_deref(), Some("one"));
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["network", "rm", "street"]).ok().says("street");
}

/// An interface that shares its parent's hardware address.
fn street(engine: &Engine, options: &[&str]) {
    let create = ["network", "create", "-d", "ipvlan", "-o", "parent=eth0"];
    engine.run(&[&create[..], options, &["street"]].concat()).ok();
    serve(engine, "one", &["--network", "street"]);
    start(engine, "two", &["--network", "street"], SLEEPER);
    let one = address(engine, "one", "street");
    fetch(engine, "two", &one).ok().says("one");
    let mac = |words: &[&str]| engine.run(&[&["exec"], words].concat()).ok().text().to_owned();
    let own = ["cat", "/sys/class/net/eth0/address"];
    assert_eq!(mac(&[&["one"], &own[..]].concat()), mac(&[&["two"], &own[..]].concat()));
}

fn has_ipvlan(lab: &Lab) {
    let made = lab.ip(Side::Host, "link add probe link eth0 type ipvlan").code() == Some(0);
    require!(made, "this kernel has no ipvlan");
    lab.ip(Side::Host, "link delete probe").ok();
}

#[track_caller]
fn leave(engine: &Engine) {
    engine.run(&["rm", "-f", "one", "two"]).ok();
    engine.run(&["network", "rm", "street"]).ok().says("street");
}

fn an_ipvlan_is_at_the_neighbours() {
    let lab = Lab::start();
    has_ipvlan(&lab);
    let engine = Engine::start_in(&lab);
    let pool = ["--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.128/25"];
    street(&engine, &[&pool[..], &["--gateway", "192.0.2.2"]].concat());
    let one = address(&engine, "one", "street");
    assert_eq!(lab.page(Side::Neighbour, &one, 80).as_deref(), Some("one"));
    let route = engine.run(&["exec", "one", "ip", "route"]).ok();
    assert!(route.text().contains("default via 192.0.2.2"), "{}", route.text());
    leave(&engine);
}

fn an_ipvlan_of_layer_3_is_behind_the_host() {
    let lab = Lab::start();
    has_ipvlan(&lab);
    let engine = Engine::start_in(&lab);
    street(&engine, &["--subnet", "10.88.0.0/24", "-o", "ipvlan_mode=l3"]);
    let one = address(&engine, "one", "street");
    assert_eq!(lab.page(Side::Neighbour, &one, 80), None, "nobody asks for its address there");
    lab.ip(Side::Neighbour, &format!("route add 10.88.0.0/24 via {}", lab::HOST[0])).ok();
    assert_eq!(lab.page(Side::Neighbour, &one, 80).as_deref(), Some("one"));
    let route = engine.run(&["exec", "one", "ip", "route"]).ok();
    assert!(route.text().contains("default dev eth0"), "{}", route.text());
    leave(&engine);
}

fn a_link_is_a_name_and_variables() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    start(&engine, "db", &["--expose", "5432", "-e", "SECRET=x"], SLEEPER);
    let one = address(&engine, "db", "bridge");
    let script = "env | grep ^MY_DB | sort; cat /etc/hosts";
    let said = engine
        .run(&["run", "--rm", "--name", "app", "--link", "db:my-db", "busybox", "sh", "-c", script])
        .ok();
    let hosts = said.text().lines().find(|line| line.starts_with(&one)).unwrap_or_default();
    assert!(hosts.contains("my-db") && hosts.contains("db"), "{}", said.text());
    for line in [
        format!("MY_DB_PORT=tcp://{one}:5432"),
        format!("MY_DB_PORT_5432_TCP_ADDR={one}"),
        "MY_DB_PORT_5432_TCP_PORT=5432".to_owned(),
        "MY_DB_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "MY_DB_NAME=/app/my-db".to_owned(),
        "MY_DB_ENV_SECRET=x".to_owned(),
    ] {
        assert!(said.text().lines().any(|said| said == line), "{line}: {}", said.text());
    }
    engine.run(&["stop", "-t", "0", "db"]).ok();
    engine
        .run(&["run", "--rm", "--name", "app", "--link", "db", "busybox", "true"])
        .fails()
        .stderr_says("Cannot link to a non running container: /db AS /app/db");
}

fn a_link_follows_a_restart() {
    let lab = Lab::start();
    let mut engine = Engine::start_in(&lab);
    start(&engine, "db", &[], SLEEPER);
    start(&engine, "app", &["--link", "db:store"], SLEEPER);
    engine.run(&["exec", "app", "sh", "-c", "echo 192.0.2.9 mine >> /etc/hosts"]).ok();
    let moves = |engine: &Engine, other: &str| {
        let before = address(engine, "db", "bridge");
        engine.run(&["stop", "-t", "0", "db"]).ok();
        // Somebody else gets the address meanwhile.
        start(engine, other, &["--network", "bridge"], SLEEPER);
        engine.run(&["start", "db"]).ok();
        let after = address(engine, "db", "bridge");
        assert_ne!(before, after);
        wait_until("the link leads to the new address", SOON, || {
            let hosts = engine.run(&["exec", "app", "cat", "/etc/hosts"]).ok();
            let has = |line: &str| hosts.text().contains(line);
            has(&format!("{after}\tstore "))
                && !has(&format!("{before}\t"))
                && has("192.0.2.9 mine")
        });
        engine.run(&["exec", "app", "ping", "-c", "1", "-W", "3", "store"]).ok();
    };
    moves(&engine, "one");
    engine.run(&["network", "create", "web"]).ok();
    engine.run(&["network", "connect", "web", "app"]).ok();
    moves(&engine, "two");
    engine.crash_and_restart();
    moves(&engine, "three");
}

fn link_local_addresses_are_given_besides() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    start(&engine, "one", &["--network", "web", "--link-local-ip", "169.254.7.7"], SLEEPER);
    start(&engine, "two", &[], SLEEPER);
    let connect = ["network", "connect", "--link-local-ip", "169.254.7.8", "web", "two"];
    engine.run(&connect).ok();
    let says = |name: &str, interface: &str| {
        let args = ["exec", name, "ip", "-4", "address", "show", interface];
        engine.run(&args).ok().text().to_owned()
    };
    assert!(says("one", "eth0").contains("inet 169.254.7.7/16 "), "{}", says("one", "eth0"));
    assert!(says("two", "eth1").contains("inet 169.254.7.8/16 "), "{}", says("two", "eth1"));
    engine.run(&["exec", "two", "ping", "-c", "1", "-W", "3", "169.254.7.7"]).ok();
    let format = "{{json .NetworkSettings.Networks.web.IPAMConfig.LinkLocalIPs}}";
    assert_eq!(engine.inspect("one", format), r#"["169.254.7.7"]"#);
    engine
        .run(&["run", "--rm", "--network", "web", "--link-local-ip", "10.1.1.1", "busybox", "true"])
        .exits(125)
        .stderr_says("invalid link local IP address: 10.1.1.1");
}

fn a_configuration_is_copied() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let create = |args: &[&str]| engine.run(&[&["network", "create"], args].concat());
    create(&["--config-only", "--subnet", "10.77.0.0/24", "--label", "a=b", "plan"]).ok();
    let inspect = |name: &str| {
        let format = "{{.Driver}} {{.ConfigOnly}} {{.ConfigFrom.Network}} {{.Labels.a}} {{(index .IPAM.Config 0).Subnet}}";
        engine.run(&["network", "inspect", "--format", format, name]).ok().text().to_owned()
    };
    assert_eq!(inspect("plan"), "null true  b 10.77.0.0/24");
    create(&["--config-from", "plan", "web"]).ok();
    assert_eq!(inspect("web"), "bridge false plan b 10.77.0.0/24");
    start(&engine, "one", &["--network", "web"], SLEEPER);
    assert!(address(&engine, "one", "web").starts_with("10.77.0."));
    engine
        .run(&["network", "rm", "plan"])
        .fails()
        .stderr_says("configuration network \"plan\" is in use");
    for (args, says) in [
        (
            &["--config-from", "nosuch", "new"][..],
            "configuration network \"nosuch\" does not exist",
        ),
        (&["--config-from", "web", "new"], "configuration network \"web\" does not exist"),
        (
            &["--config-from", "plan", "--label", "c=d", "new"],
            "user specified configurations are not supported",
        ),
        (&["--config-only", "--internal", "new"], "can only contain network specific fields"),
        (&["--config-only", "--config-from", "plan", "new"], "cannot depend on another"),
        (&["--ingress", "new"], "ngress"),
    ] {
        create(args).fails().stderr_says(says);
    }
    engine
        .run(&["run", "--rm", "--network", "plan", "busybox", "true"])
        .exits(125)
        .stderr_says("cannot create endpoint on configuration-only network");
    engine
        .run(&["network", "connect", "plan", "one"])
        .fails()
        .stderr_says("cannot create endpoint on configuration-only network");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["network", "prune", "--force"]).ok().says("Deleted Networks:\nweb");
    engine.run(&["network", "rm", "plan"]).ok().says("plan");
}

fn files_say_what_was_asked_for() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let options = [
        "run",
        "--rm",
        "--hostname",
        "web",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "a.example",
        "--dns-option",
        "ndots:3",
        "--add-host",
        "other:192.0.2.9",
        "--add-host",
        "me:host-gateway",
        "busybox",
        "sh",
        "-c",
        "cat /etc/resolv.conf /etc/hosts /etc/hostname; ip route",
    ];
    let said = engine.run(&options).ok();
    let text = said.text();
    let has = |line: &str| text.lines().any(|said| said.trim() == line);
    assert!(
        has("nameserver 192.0.2.53") && has("search a.example") && has("options ndots:3"),
        "{text}"
    );
    assert!(has("192.0.2.9\tother") && has("web"), "{text}");
    let gateway =
        text.lines().find_map(|line| line.strip_prefix("default via ")?.split(' ').next());
    assert!(has(&format!("{}\tme", gateway.expect("there is a route"))), "{text}");
    // Without a network the same is said.
    let none =
        [&["run", "--rm", "--network", "none"], &options[2..15], &["cat", "/etc/hosts"]].concat();
    let none: Vec<_> = none.into_iter().filter(|word| *word != "me:host-gateway").collect();
    let at = none.iter().rposition(|word| *word == "--add-host").expect("it is there");
    let none = [&none[..at], &none[at + 1..]].concat();
    assert!(engine.run(&none).ok().text().contains("192.0.2.9\tother"));
}

fn networks_are_listed_inspected_and_removed() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let id = engine
        .run(&["network", "create", "--subnet", "10.77.0.0/24", "--label", "a=b", "web"])
        .ok();
    let id = id.text().to_owned();
    assert_eq!(id.len(), 64);
    let list = |filter: &str| {
        let args =
            ["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}", "--filter", filter];
        let mut lines: Vec<_> =
            engine.run(&args).ok().lines().into_iter().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        list("scope=local"),
        ["bridge bridge local", "host host local", "none null local", "web bridge local"]
    );
    assert_eq!(list("label=a"), ["web bridge local"]);
    assert_eq!(list("type=custom"), ["web bridge local"]);
    assert_eq!(list("driver=null"), ["none null local"]);
    assert_eq!(list("name=we"), ["web bridge local"]);
    start(&engine, "one", &["--network", "web"], SLEEPER);
    let inspect = |format: &str| {
        engine.run(&["network", "inspect", "--format", format, &id[..10]]).ok().text().to_owned()
    };
    assert_eq!(
        inspect("{{.Name}} {{.Id}} {{.Driver}} {{.Internal}}"),
        format!("web {id} bridge false")
    );
    assert_eq!(inspect("{{(index .IPAM.Config 0).Subnet}} {{.Labels.a}}"), "10.77.0.0/24 b");
    assert_eq!(
        inspect("{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}"),
        format!("one {}/24", address(&engine, "one", "web"))
    );
    engine
        .run(&["network", "create", "web"])
        .fails()
        .stderr_says("network with name web already exists");
    engine
        .run(&["network", "create", "--subnet", "10.77.0.0/25", "other"])
        .fails()
        .stderr_says("Pool overlaps with other one on this address space");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["network", "rm", "web"]).ok().says("web");
    engine.run(&["network", "inspect", "web"]).fails();
    engine.run(&["network", "rm", "web"]).fails().stderr_says("web");
    engine
        .run(&["network", "rm", "bridge"])
        .fails()
        .stderr_says("bridge is a pre-defined network and cannot be removed");
    wait_until("no interface is left", SOON, || {
        lab.ip(Side::Host, "-o link show type veth").ok().lines().len() == 1
    });
}

fn a_network_in_use_is_not_removed() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    start(&engine, "one", &["--network", "web"], SLEEPER);
    let id = engine.run(&["network", "inspect", "--format", "{{.Id}}", "web"]).ok();
    let says = format!("network web id {} has active endpoints", id.text());
    engine.run(&["network", "rm", "web"]).fails().stderr_says(&says);
    engine.run(&["stop", "-t", "0", "one"]).ok();
    engine.run(&["network", "rm", "web"]).ok();
    engine.run(&["start", "one"]).exits(1).stderr_says("not found");
}

fn prune_removes_networks_that_nobody_is_in() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    for name in ["used", "unused"] {
        engine.run(&["network", "create", name]).ok();
    }
    start(&engine, "one", &["--network", "used"], SLEEPER);
    engine.run(&["network", "prune", "--force"]).ok().says("Deleted Networks:\nunused");
    let names = engine.run(&["network", "ls", "--quiet", "--filter", "type=custom"]).ok();
    assert_eq!(names.lines().len(), 1);
    engine.run(&["rm", "-f", "one"]).ok();
    let said = engine.run(&["system", "prune", "--force"]).ok();
    assert!(said.text().contains("Deleted Networks:\nused"), "{}", said.text());
}

fn events_tell_of_networks() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    start(&engine, "one", &["--network", "web"], SLEEPER);
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["network", "rm", "web"]).ok();
    let args = [
        "events",
        "--since",
        "0",
        "--until",
        "0s",
        "--filter",
        "type=network",
        "--filter",
        "network=web",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ];
    wait_until("all is told", SOON, || {
        engine.run(&args).ok().lines()
            == ["create web", "connect web", "disconnect web", "destroy web"]
    });
}

fn counters_count_what_went_through() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    start(&engine, "one", &[], SLEEPER);
    let one = address(&engine, "one", "bridge");
    lab.command(Side::Host, &["/usr/bin/busybox", "ping", "-c", "3", "-s", "1000", &one])
        .run()
        .ok();
    let said = engine.run(&["stats", "--no-stream", "--format", "{{.NetIO}}", "one"]).ok();
    let (received, sent) = said.text().split_once(" / ").expect("two numbers");
    assert!(received.ends_with("kB") && sent.ends_with("kB"), "{}", said.text());
}

/// What follows is ours alone.
pub(crate) fn hull_only() {
    if reference() {
        hull_integration::not_run(hull_integration::NotRun::PeerLacks(
            "docker has it otherwise".to_owned(),
        ));
    }
}

fn a_network_has_both_families() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["--network", "web"]);
    start(&engine, "two", &["--network", "web"], SLEEPER);
    let format = "{{.NetworkSettings.Networks.web.GlobalIPv6Address}}";
    let one = engine.inspect("one", format);
    assert!(one.starts_with("fd"), "{one}");
    fetch(&engine, "two", &format!("[{one}]")).ok().says("one");
    assert_eq!(lab.page(Side::Host, &one, 80).as_deref(), Some("one"));
    engine.run(&["exec", "two", "ping6", "-c", "1", "-W", "3", lab::NEIGHBOUR[1]]).ok();
    engine.run(&["network", "create", "--ipv6=false", "four"]).ok();
    start(&engine, "three", &["--network", "four"], SLEEPER);
    let addresses = engine.run(&["exec", "three", "ip", "-6", "address", "show", "eth0"]).ok();
    assert_eq!(addresses.text(), "");
}

fn containers_keep_their_networks_across_the_manager() {
    let lab = Lab::start();
    let mut engine = Engine::start_in(&lab);
    engine.run(&["network", "create", "web"]).ok();
    serve(&engine, "one", &["--network", "web", "-p", "8080:80"]);
    start(&engine, "two", &["--network", "web"], SLEEPER);
    let before = engine.inspect("one", "{{json .NetworkSettings.Networks}}");
    engine.crash_and_restart();
    assert_eq!(engine.inspect("one", "{{json .NetworkSettings.Networks}}"), before);
    fetch(&engine, "two", "one").ok().says("one");
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080).as_deref(), Some("one"));
    engine.run(&["rm", "-f", "one"]).ok();
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 8080), None);
}
