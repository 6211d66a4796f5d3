//! A network of namespaces: a host with bridges, containers on them, a neighbour beside it.
//!
//! Each namespace is a thread that has unshared it, so that nothing is left when the process
//! ends, however it ends. Sockets made on the thread stay in its namespace wherever they go.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod frame;
pub(crate) mod raw;
pub(crate) mod service;

use std::{
    fs, io,
    net::IpAddr,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hull_manager_firewall::{Endpoint, Firewall, Mac, Network, Port, Protocol, Publish, Settings};
use hull_runtime_sys::namespace;

/// How long something that must happen may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: String,
}

impl Namespace {
    /// A new one, with its loopback up.
    pub(crate) fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (sender, path) = mpsc::channel();
        let thread = thread::spawn(move || {
            namespace::unshare(nix::libc::CLONE_NEWNET).expect("a namespace");
            let me = fs::read_link("/proc/thread-self").expect("our thread");
            sender.send(format!("/proc/{}/ns/net", me.display())).expect("a listener");
            todo.into_iter().for_each(|job| job());
        });
        let path = path.recv().expect("a thread with a namespace of its own");
        let made = Self { jobs: Some(jobs), thread: Some(thread), path };
        made.ip("link set lo up");
        made
    }

    /// Runs something in it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job = Box::new(move || _ = sender.send(job()));
        self.jobs.as_ref().expect("a thread").send(job).expect("a living thread");
        result.recv().expect("the job did not panic")
    }

    /// Runs a program in it, and gives its output.
    pub(crate) fn command(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().expect("a program"));
            let output = command.args(words).output().expect("a program that starts");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    pub(crate) fn ip(&self, line: &str) {
        self.command(&format!("ip {line}"));
    }

    /// Feeds `nft`.
    pub(crate) fn nft(&self, script: &str) {
        let script = script.to_owned();
        self.run(move || {
            use io::Write;
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("nft");
            child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("a reader");
            assert!(child.wait().expect("nft").success(), "nft refused {script}");
        });
    }

    /// The number of an interface.
    pub(crate) fn index(&self, interface: &str) -> u32 {
        let line = self.command(&format!("ip -o link show {interface}"));
        line.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
        let value = value.to_owned();
        self.run(move || fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// A pair of interfaces, one here and one in the other namespace.
    pub(crate) fn link(&self, here: &str, other: &Self, there: &str) {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.path));
        self.ip(&format!("link set {here} up"));
        other.ip(&format!("link set {there} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// One container of the lab.
pub(crate) struct Container {
    pub(crate) namespace: Namespace,
    pub(crate) endpoint: Endpoint,
}

/// The host, its networks `br0` (172.30.0.0/24, fd30::/64) and `br1` (172.31.0.0/24), and a
/// neighbour on the host's `uplink`.
pub(crate) struct Lab {
    pub(crate) host: Namespace,
    pub(crate) neighbour: Namespace,
    pub(crate) containers: Vec<Container>,
    pub(crate) networks: Vec<Network>,
    /// Whether bridged frames pass the packet filter as packets too (br_netfilter).
    pub(crate) is_bridge_filtered: bool,
}

/// The host's and the neighbour's addresses on the link between them.
pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const NEIGHBOUR: &str = "192.0.2.2";
pub(crate) const HOST6: &str = "2001:db8::1";
pub(crate) const NEIGHBOUR6: &str = "2001:db8::2";

/// Containers: two on `br0`, one on `br1`.
pub(crate) const ONE: usize = 0;
pub(crate) const TWO: usize = 1;
pub(crate) const OTHER: usize = 2;

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// One without and one with br_netfilter, which is in some kernels, and which other software
    /// loads.
    pub(crate) fn both() -> impl Iterator<Item = Self> {
        [false, true].into_iter().map(Self::with)
    }

    fn with(is_bridge_filtered: bool) -> Self {
        let host = Namespace::new();
        for protocol in ["ip", "ip6", "arp"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{protocol}tables");
            let value = if is_bridge_filtered { "1" } else { "0" };
            // A kernel without it has no such file.
            host.run(move || _ = fs::write(path, value));
        }
        let neighbour = Namespace::new();
        host.sysctl("ipv4.ip_forward", "1");
        host.sysctl("ipv6.conf.all.forwarding", "1");
        host.sysctl("ipv4.conf.all.rp_filter", "0");
        host.sysctl("ipv4.conf.default.rp_filter", "0");
        host.link("uplink", &neighbour, "eth0");
        host.ip(&format!("addr add {HOST}/24 dev uplink"));
        host.ip(&format!("addr add {HOST6}/64 dev uplink nodad"));
        neighbour.ip(&format!("addr add {NEIGHBOUR}/24 dev eth0"));
        neighbour.ip(&format!("addr add {NEIGHBOUR6}/64 dev eth0 nodad"));
        neighbour.ip(&format!("route add 172.16.0.0/12 via {HOST}"));
        neighbour.ip(&format!("-6 route add fd30::/64 via {HOST6}"));
        let mut lab =
            Self { host, neighbour, containers: vec![], networks: vec![], is_bridge_filtered };
        lab.network("br0", "172.30.0", Some("fd30::"));
        lab.network("br1", "172.31.0", None);
        lab.container("one", "br0", "172.30.0", 2, Some("fd30::"));
        lab.container("two", "br0", "172.30.0", 3, Some("fd30::"));
        lab.container("other", "br1", "172.31.0", 2, None);
        lab
    }

    fn network(&mut self, bridge: &str, net: &str, net6: Option<&str>) {
        let host = &self.host;
        host.ip(&format!("link add {bridge} type bridge"));
        host.ip(&format!("link set {bridge} up"));
        host.ip(&format!("addr add {net}.1/24 dev {bridge}"));
        let mut subnets = vec![format!("{net}.0/24").parse().expect("a subnet")];
        if let Some(net6) = net6 {
            host.ip(&format!("addr add {net6}1/64 dev {bridge} nodad"));
            subnets.push(format!("{net6}/64").parse().expect("a subnet"));
        }
        self.networks.push(Network {
            bridge: bridge.into(),
            index: self.host.index(bridge),
            subnets,
            masquerade: true,
            internal: false,
            inter_container: true,
        });
    }

    fn container(&mut self, name: &str, bridge: &str, net: &str, host: u8, net6: Option<&str>) {
        let namespace = Namespace::new();
        let number = u8::try_from(self.containers.len()).expect("few containers");
        let mac = Mac([2, 0x42, 0xac, 30, number, host]);
        let interface = format!("v-{name}");
        self.host.link(&interface, &namespace, "eth0");
        self.host.ip(&format!("link set {interface} master {bridge}"));
        if self.is_bridge_filtered {
            // The bridge itself translates then, and sends back to where it came from.
            self.host.ip(&format!("link set {interface} type bridge_slave hairpin on"));
        }
        namespace.sysctl("ipv6.conf.eth0.accept_dad", "0");
        namespace.ip("link set eth0 down");
        namespace.ip(&format!("link set eth0 address {mac} up"));
        namespace.ip(&format!("addr add {net}.{host}/24 dev eth0"));
        namespace.ip(&format!("route add default via {net}.1"));
        let mut addresses: Vec<IpAddr> = vec![format!("{net}.{host}").parse().expect("an address")];
        if let Some(net6) = net6 {
            namespace.ip(&format!("addr add {net6}{host}/64 dev eth0 nodad"));
            namespace.ip(&format!("-6 route add default via {net6}1"));
            addresses.push(format!("{net6}{host}").parse().expect("an address"));
        }
        let endpoint = Endpoint {
            index: self.host.index(&interface),
            interface,
            bridge: bridge.into(),
            mac,
            addresses,
            may_spoof: false,
            links: vec![],
            ports: vec![],
        };
        self.containers.push(Container { namespace, endpoint });
    }

    /// The firewall of the host, not yet with rules.
    pub(crate) fn firewall(&self, settings: Settings) -> Firewall {
        self.host.run(move || Firewall::open(settings)).expect("a firewall")
    }

    /// Networks and endpoints as they are.
    pub(crate) fn rules(&self) -> hull_manager_firewall::Rules {
        let networks = self.networks.iter().map(|n| (n.bridge.clone(), n.clone()));
        let endpoints = self.containers.iter().map(|c| &c.endpoint);
        hull_manager_firewall::Rules {
            networks: networks.collect(),
            endpoints: endpoints.map(|e| (e.interface.clone(), e.clone())).collect(),
        }
    }

    pub(crate) fn container_namespace(&self, index: usize) -> &Namespace {
        &self.containers[index].namespace
    }
}

/// A published port of a container of the lab.
pub(crate) fn port(
    protocol: Protocol,
    at: &str,
    host_port: u16,
    to: &str,
    container_port: u16,
) -> Port {
    Port {
        protocol,
        host_address: at.parse().expect("an address"),
        host_port,
        container_address: to.parse().expect("an address"),
        container_port,
        publish: Publish::Nat,
    }
}
