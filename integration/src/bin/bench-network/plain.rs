//! What the engines are measured against: namespaces, a bridge, pairs of veths, nothing else.

use std::fs::{self, File};
use std::time::Duration;

use hull_integration::engine::{Lab, Side, lab};
use hull_integration::{Running, wait_until};

/// Longer than any benchmark.
const LONG: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(20);

/// The addresses of its two ends.
pub(crate) const ENDS: [&str; 2] = ["10.99.0.2", "10.99.0.3"];

/// The least that publishes a port: its host remembers connections, and has one rule for those
/// from outside and one for its own.
pub(crate) fn publish(lab: &Lab, port: u16, to: u16) {
    let [_, end] = ENDS;
    let host = lab::HOST[0];
    let rule = format!("ip daddr {host} tcp dport {port} dnat to {end}:{to}");
    let chain = |hook| format!("chain {hook} {{ type nat hook {hook} priority -100; {rule}; }};");
    let table = format!("table ip plain {{ {} {} }}", chain("prerouting"), chain("output"));
    lab.command(Side::Host, &["nft", &table]).run().ok();
}

/// A bridge made by hand on a host of its own, that routes between its neighbour and two ends.
pub(crate) struct Plain {
    // What lives in them, so that they end with it.
    _processes: Vec<Running>,
    pub(crate) ends: Vec<File>,
    pub(crate) lab: Lab,
}

impl Plain {
    pub(crate) fn start() -> Self {
        let lab = Lab::start();
        let ip = |side, line: &str| drop(lab.ip(side, line).ok());
        ip(Side::Host, "link add plain type bridge");
        ip(Side::Host, "address add 10.99.0.1/24 dev plain");
        ip(Side::Host, "link set plain up");
        ip(Side::Neighbour, "route add 10.99.0.0/24 via 192.0.2.1");
        lab.inside(Side::Host, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("the suite is root");
        let (mut processes, mut ends) = (Vec::new(), Vec::new());
        for (number, address) in ENDS.into_iter().enumerate() {
            let words = ["unshare", "--net", "sleep", "1000000"];
            let process = lab.command(Side::Host, &words).limit(LONG).start();
            let pid = process.pid();
            // First it is in ours, then in the host's, and last in its own.
            let running = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            wait_until("a namespace is there", SOON, || running().trim() == "sleep");
            let end = format!("end{number}");
            ip(Side::Host, &format!("link add {end} type veth peer name eth0 netns {pid}"));
            ip(Side::Host, &format!("link set {end} master plain up"));
            let namespace = format!("--net=/proc/{pid}/ns/net");
            for line in [
                "link set lo up".to_owned(),
                format!("address add {address}/24 dev eth0"),
                "link set eth0 up".to_owned(),
                "route add default via 10.99.0.1".to_owned(),
            ] {
                let words: Vec<&str> =
                    ["nsenter", &namespace, "ip"].into_iter().chain(line.split(' ')).collect();
                hull_integration::engine::command(&words).run().ok();
            }
            ends.push(File::open(format!("/proc/{pid}/ns/net")).expect("it runs"));
            processes.push(process);
        }
        Self { _processes: processes, ends, lab }
    }
}
