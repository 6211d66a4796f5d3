//! A container's places in networks: its interfaces, its way out, what it counts.

use hull_integration::engine::{Engine, Lab, SLEEPER};
use hull_integration::tests;

use crate::network::{address, fetch, hull_only, serve, start};

tests![
    networks_are_listed_as_people_count,
    of_equal_networks_the_first_by_its_name_leads_out,
    interfaces_are_called_as_their_network_says,
    interfaces_have_names_and_sysctls_of_their_own,
    what_no_start_could_do_is_refused_when_it_is_asked_for,
    packets_and_drops_are_counted,
];

fn create(engine: &Engine, name: &str, options: &[&str]) {
    engine.run(&[&["network", "create"], options, &[name]].concat()).ok();
}

fn routes(engine: &Engine, name: &str) -> String {
    engine.run(&["exec", name, "ip", "route"]).ok().text().to_owned()
}

fn networks_are_listed_as_people_count() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    for name in ["net10", "net2", "ab"] {
        create(&engine, name, &[]);
    }
    let listed = engine.run(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(listed.lines(), ["ab", "bridge", "host", "net2", "net10", "none"]);
}

fn of_equal_networks_the_first_by_its_name_leads_out() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    for (name, subnet) in [("middle", "10.77.1.0/24"), ("first", "10.77.2.0/24")] {
        create(&engine, name, &["--subnet", subnet]);
    }
    start(&engine, "one", &["--network", "middle"], SLEEPER);
    assert!(routes(&engine, "one").contains("default via 10.77.1.1"));
    engine.run(&["network", "connect", "first", "one"]).ok();
    assert!(routes(&engine, "one").contains("default via 10.77.2.1"), "{}", routes(&engine, "one"));
    engine.run(&["network", "disconnect", "first", "one"]).ok();
    assert!(routes(&engine, "one").contains("default via 10.77.1.1"), "{}", routes(&engine, "one"));
    engine.run(&["network", "connect", "first", "one"]).ok();
    engine.run(&["restart", "-t", "0", "one"]).ok();
    assert!(routes(&engine, "one").contains("default via 10.77.2.1"), "{}", routes(&engine, "one"));
}

fn interfaces_are_called_as_their_network_says() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let prefix = ["-o", "com.docker.network.container_iface_prefix=foo", "--subnet"];
    create(&engine, "web", &[&prefix[..], &["10.77.1.0/24"]].concat());
    create(&engine, "plain", &["--subnet", "10.77.2.0/24"]);
    serve(&engine, "server", &["--network", "web"]);
    start(&engine, "one", &["--network", "plain"], SLEEPER);
    engine.run(&["network", "connect", "web", "one"]).ok();
    engine.run(&["network", "connect", "bridge", "one"]).ok();
    let interfaces = engine.run(&["exec", "one", "ls", "/sys/class/net"]).ok();
    assert_eq!(interfaces.lines(), ["eth0", "eth1", "foo0", "lo"]);
    fetch(&engine, "one", "server").ok().says("server");
    assert!(routes(&engine, "server").contains("default via 10.77.1.1 dev foo0"));
    let option = "{{index .Options \"com.docker.network.container_iface_prefix\"}}";
    engine.run(&["network", "inspect", "--format", option, "web"]).ok().says("foo");
}

fn interfaces_have_names_and_sysctls_of_their_own() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    create(&engine, "web", &[]);
    let endpoint = "com.docker.network.endpoint";
    let network = format!(
        "name=web,driver-opt={endpoint}.ifname=web7,\"driver-opt={endpoint}.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0\""
    );
    start(&engine, "one", &["--network", &network], SLEEPER);
    let file = |name: &str| format!("/proc/sys/net/ipv4/conf/web7/{name}");
    let args = ["exec", "one", "cat", &file("log_martians"), &file("forwarding")];
    assert_eq!(engine.run(&args).ok().lines(), ["1", "0"]);
    engine.run(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(engine.run(&args).ok().lines(), ["1", "0"]);
    let sysctls = format!("{endpoint}.sysctls=net.ipv4.conf.IFNAME.log_martians=1");
    engine.run(&["network", "connect", "--driver-opt", &sysctls, "bridge", "one"]).ok();
    let args = ["exec", "one", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians"];
    engine.run(&args).ok().says("1");
    let run = |option: &str| {
        let network = format!("name=web,driver-opt={option}");
        engine.run(&["run", "--rm", "--network", &network, "busybox", "true"])
    };
    run(&format!("{endpoint}.sysctls=net.ipv4.conf.eth0.log_martians=1"))
        .exits(125)
        .stderr_says("unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'");
    run("foo=bar").exits(125).stderr_says("an endpoint has no driver option foo");
}

/// Debian's docker takes all of these, and the container does not start any more.
fn what_no_start_could_do_is_refused_when_it_is_asked_for() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    create(&engine, "web", &["--subnet", "10.77.1.0/24"]);
    engine.run(&["create", "--name", "one", "busybox", "true"]).ok();
    for (args, says) in [
        (&["--ip", "10.78.0.9", "web"][..], "no configured subnet or ip-range contain"),
        (&["--ip", "10.77.1.255", "web"], "not an address for a host"),
        (&["--ip", "10.77.1.1", "web"], "Address already in use"),
        (&["nosuch"], "network nosuch not found"),
    ] {
        let args = [&["network", "connect"], args, &["one"]].concat();
        engine.run(&args).fails().stderr_says(says);
    }
    engine.run(&["network", "connect", "--ip", "10.77.1.9", "web", "one"]).ok();
    engine.run(&["start", "--attach", "one"]).ok();
}

fn packets_and_drops_are_counted() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    create(&engine, "web", &[]);
    start(&engine, "one", &["--network", "web"], SLEEPER);
    start(&engine, "two", &["--network", "web"], SLEEPER);
    let two = address(&engine, "two", "web");
    engine.run(&["exec", "one", "ping", "-c", "3", &two]).ok();
    let format = "{{.NetPackets}} | {{.NetErrors}} | {{.NetDrops}}";
    let said = engine.run(&["stats", "--no-stream", "--format", format, "one"]).ok();
    let pairs: Vec<Vec<u64>> = said
        .text()
        .split(" | ")
        .map(|pair| pair.split(" / ").map(|n| n.parse().expect("it is a number")).collect())
        .collect();
    assert!(pairs[0][0] >= 3 && pairs[0][1] >= 3, "{}", said.text());
    assert_eq!((&pairs[1][..], pairs[2].len()), (&[0, 0][..], 2), "{}", said.text());
    let json = engine.run(&["stats", "--no-stream", "--format", "{{json .}}", "one"]).ok();
    assert!(json.text().contains("\"NetDrops\":\"") && json.text().contains("\"NetIO\":\""));
    // The same by network, for each of its containers.
    let plain = engine.run(&["network", "inspect", "web"]).ok();
    assert!(!plain.text().contains("rx_packets"), "{}", plain.text());
    let verbose = engine.run(&["network", "inspect", "-v", "web"]).ok();
    assert_eq!(verbose.text().matches("rx_packets").count(), 2, "{}", verbose.text());
}
