//! Containers of others whose networks `hull-cni` makes: Debian's podman with its CNI backend,
//! and containerd's `ctr run --cni`.
//!
//! The host is a network namespace of each test's own: plugins are executed where podman and ctr
//! are.

use std::path::Path;
use std::time::Duration;

use hull_integration::engine::{
    Containerd, Lab, Podman, SLEEPER, Side, Site, command, lab, program,
};
use hull_integration::{Output, tests, wait_until};
use serde_json::{Value, json};

tests![
    podman_connects_publishes_and_disconnects,
    podman_gives_the_addresses_that_were_asked_for,
    podman_moves_a_running_container,
    ctr_connects_and_disconnects,
];

const SOON: Duration = Duration::from_secs(20);

const SERVER: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

/// Where our plugin is.
fn plugins() -> String {
    let plugin = program("HULL_CNI", "hull-cni");
    let directory = Path::new(&plugin).parent().expect("it is in a directory");
    directory.to_str().expect("the path is text").to_owned()
}

/// A network on the bridge NAME0, with `number` in its subnets.
fn list(site: &Site, name: &str, number: u8) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": name,
        "plugins": [{
            "type": "hull-cni",
            "bridge": format!("{name}0"),
            "ipMasq": true,
            "dataDir": site.path("cni/data"),
            "runDir": site.path("cni/run"),
            "capabilities": { "portMappings": true, "ips": true, "mac": true },
            "ipam": { "type": "hull-cni", "ranges": [
                [{ "subnet": format!("10.50.{number}.0/24") }],
                [{ "subnet": format!("fd50:{number}::/64") }],
            ] },
        }],
    })
}

/// Nothing of a container is on the host any more.
#[track_caller]
fn assert_clean(lab: &Lab, site: &Site) {
    let ports = lab.ip(Side::Host, "-o link show type veth").ok();
    assert_eq!(ports.lines().len(), 1, "{}", ports.text());
    let rules = lab.command(Side::Host, &["nft", "list", "table", "inet", "hull-cni"]).run().ok();
    assert!(!rules.text().contains("8080"), "a published port is left");
    let namespaces = std::fs::read_dir(site.path("cni/run/netns")).expect("hull-cni made it");
    assert_eq!(namespaces.count(), 0);
}

/// podman on the host of a lab.
struct Host {
    podman: Podman,
    lab: Lab,
}

impl Host {
    fn start() -> Self {
        let backend =
            format!("[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{}\"]", plugins());
        let podman = Podman::with_configuration(&backend);
        for (name, number) in [("lan", 1), ("dmz", 2)] {
            let text = list(podman.site(), name, number).to_string();
            podman.site().write(&format!("networks/{name}.conflist"), &text);
        }
        Self { podman, lab: Lab::start() }
    }

    fn run(&self, args: &[&str]) -> Output {
        let words = [self.lab.words(Side::Host), self.podman.words(args)].concat();
        command(&words).cwd(self.podman.site().directory()).run()
    }

    fn detach(&self, name: &str, options: &[&str], script: &str) {
        let args = ["run", "--detach", "--name", name, "--hostname", name];
        self.run(&[&args, options, &["busybox", "sh", "-c", script]].concat()).ok();
    }

    fn address(&self, name: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        self.run(&["inspect", "--format", &format, name]).ok().text().to_owned()
    }
}

impl Drop for Host {
    /// podman removes what a failed test has left, but not on the host.
    fn drop(&mut self) {
        let words = self.podman.words(&["rm", "--all", "--force", "--time=0"]);
        let _ = command(&[self.lab.words(Side::Host), words].concat()).run();
    }
}

fn podman_connects_publishes_and_disconnects() {
    let host = Host::start();
    let networks = host.run(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok();
    assert!(networks.lines().contains(&"lan hull-cni"), "{}", networks.text());
    host.detach("one", &["--network", "lan", "-p", "8080:80"], SERVER);
    host.detach("two", &["--network", "lan"], SLEEPER);
    let one = host.address("one", "lan");
    wait_until("the server answers", SOON, || {
        host.lab.page(Side::Host, &one, 80).as_deref() == Some("one")
    });
    for (side, address) in [
        (Side::Host, "127.0.0.1"),
        (Side::Host, lab::HOST[0]),
        (Side::Neighbour, lab::HOST[0]),
        (Side::Neighbour, lab::HOST[1]),
    ] {
        let page = host.lab.page(side, address, 8080);
        assert_eq!(page.as_deref(), Some("one"), "{side:?} {address}");
    }
    for (name, address) in [("two", one.as_str()), ("one", lab::HOST[0]), ("two", lab::HOST[0])] {
        let port = if address == one { 80 } else { 8080 };
        let url = format!("http://{address}:{port}/");
        host.run(&["exec", name, "timeout", "5", "wget", "-qO-", &url]).ok().says("one");
    }
    let ping = |address| host.run(&["exec", "two", "ping", "-c", "1", "-W", "3", address]);
    ping(lab::NEIGHBOUR[0]).ok();
    // What is not published is not reached from outside.
    host.lab.ip(Side::Neighbour, &format!("route add 10.50.1.0/24 via {}", lab::HOST[0])).ok();
    assert_eq!(host.lab.page(Side::Neighbour, &one, 80), None);
    host.run(&["restart", "--time=0", "one"]).ok();
    wait_until("the server answers again", SOON, || {
        host.lab.page(Side::Neighbour, lab::HOST[0], 8080).as_deref() == Some("one")
    });
    host.run(&["rm", "--force", "--time=0", "one", "two"]).ok();
    assert_eq!(host.lab.page(Side::Neighbour, lab::HOST[0], 8080), None);
    assert_clean(&host.lab, host.podman.site());
}

fn podman_gives_the_addresses_that_were_asked_for() {
    let host = Host::start();
    let options = ["--network", "lan", "--ip", "10.50.1.77", "--mac-address", "02:11:22:33:44:55"];
    host.detach("one", &options, SLEEPER);
    assert_eq!(host.address("one", "lan"), "10.50.1.77");
    let link = host.run(&["exec", "one", "ip", "address", "show", "eth0"]).ok();
    for has in ["10.50.1.77/24", "02:11:22:33:44:55", "inet6 fd50:1::"] {
        assert!(link.text().contains(has), "{}", link.text());
    }
    host.run(&["run", "--rm", "--network", "lan", "--ip", "10.50.1.77", "busybox", "true"])
        .fails()
        .stderr_says("Address already in use");
    host.run(&["rm", "--force", "--time=0", "one"]).ok();
    host.run(&["run", "--rm", "--network", "lan", "--ip", "10.50.1.77", "busybox", "true"]).ok();
    assert_clean(&host.lab, host.podman.site());
}

fn podman_moves_a_running_container() {
    let host = Host::start();
    host.detach("one", &["--network", "lan"], SERVER);
    host.detach("two", &["--network", "dmz"], SLEEPER);
    let fetch = |network: &str| {
        let url = format!("http://{}/", host.address("one", network));
        host.run(&["exec", "two", "timeout", "5", "wget", "-qO-", &url])
    };
    assert_ne!(fetch("lan").code(), Some(0), "networks are apart");
    host.run(&["network", "connect", "dmz", "one"]).ok();
    wait_until("the server answers in its new network", SOON, || fetch("dmz").text() == "one");
    let interfaces = || host.run(&["exec", "one", "ls", "/sys/class/net"]).ok().text().to_owned();
    assert_eq!(interfaces(), "eth0\neth1\nlo");
    host.run(&["network", "disconnect", "dmz", "one"]).ok();
    assert_eq!(interfaces(), "eth0\nlo");
    host.run(&["rm", "--force", "--time=0", "one", "two"]).ok();
    assert_clean(&host.lab, host.podman.site());
}

fn ctr_connects_and_disconnects() {
    let containerd = Containerd::start();
    let lab = Lab::start();
    // ctr looks in these two places only.
    let configuration = containerd.site().make("etc-cni/net.d");
    let text = list(containerd.site(), "lan", 3).to_string();
    containerd.site().write("etc-cni/net.d/10-lan.conflist", &text);
    let run = |id: &str, script: &str| {
        let words = containerd.run_words(id, &["--rm", "--cni"], &["sh", "-c", script]);
        command(&[lab.words(Side::Host), words].concat())
            .prelude("mount -t tmpfs cni /opt && mkdir -p /opt/cni/bin")
            .prelude(format!("mount --bind {} /opt/cni/bin", plugins()))
            .prelude(format!("mount --bind {configuration} /etc/cni/net.d"))
    };
    let server = run("one", SERVER).start();
    wait_until("the server answers", SOON, || lab.page(Side::Host, "10.50.3.2", 80).is_some());
    let said = run("two", "ip address show eth0; ip route; wget -qO- http://10.50.3.2/").run().ok();
    for has in ["10.50.3.3/24", "inet6 fd50:3::3/64", "default via 10.50.3.1"] {
        assert!(said.text().contains(has), "{}", said.text());
    }
    containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", "one"]).ok();
    server.wait().exits(137);
    assert_clean(&lab, containerd.site());
}
