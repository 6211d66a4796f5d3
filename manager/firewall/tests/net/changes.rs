//! What others do to our tables, and flows that were there before a change.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    time::{Duration, Instant},
};

use hull_manager_firewall::{Protocol, Settings};

use crate::{
    lab::{
        DEADLINE, HOST, Lab, NEIGHBOUR, ONE, TWO, port,
        service::{self, answer, is_silent},
    },
    nftables::listing,
};

/// The time that a foreign flush may last (R18).
const RESTORED: Duration = Duration::from_secs(1);

type Listing = BTreeMap<String, serde_json::Value>;

const ONE4: &str = "172.30.0.2";
const TWO4: &str = "172.30.0.3";

/// How long it takes until the listing is what it was; none if it does not come back.
fn healed(lab: &Lab, before: &Listing, harm: &str, patience: Duration) -> Option<Duration> {
    lab.host.nft(harm);
    let start = Instant::now();
    while start.elapsed() < patience {
        if listing(&lab.host) == *before {
            return Some(start.elapsed());
        }
    }
    None
}

#[test]
fn rules_that_somebody_removes_are_back_within_a_second() {
    let lab = Lab::new();
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let firewall = lab.firewall(Settings::default());
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80)];
    firewall.replace(rules).unwrap();
    let before = listing(&lab.host);
    // The control: nobody watches.
    assert_eq!(healed(&lab, &before, "flush ruleset", RESTORED), None);
    let handle = firewall.clone();
    let watch = lab.host.run(move || handle.watch()).unwrap();
    firewall.replace(firewall.rules()).unwrap();
    assert_eq!(listing(&lab.host), before);
    for harm in [
        "flush ruleset",
        "delete table inet hull",
        "delete table bridge hull",
        "flush chain inet hull ours",
        "flush set bridge hull guarded",
        "delete element inet hull ports4 { tcp . 8080 }",
        "add table inet hull { flags dormant; }",
        "flush ruleset; flush ruleset; flush ruleset",
    ] {
        let time = healed(&lab, &before, harm, DEADLINE).expect(harm);
        assert!(time < RESTORED, "{harm}: {time:?}");
        assert_eq!(
            answer(&lab.neighbour, "tcp", &format!("{HOST}:8080")),
            format!("one {NEIGHBOUR}")
        );
    }
    // A change that finds nothing there makes everything.
    drop(watch);
    lab.host.nft("flush ruleset");
    firewall.put_network(lab.networks[1].clone()).unwrap();
    firewall.remove_endpoint("v-other").unwrap();
    firewall.put_endpoint(lab.containers[2].endpoint.clone()).unwrap();
    assert_eq!(listing(&lab.host), before);
}

#[test]
fn published_ports_follow_the_hosts_policy_while_it_changes() {
    let lab = Lab::new();
    service::tcp(lab.container_namespace(ONE), "0.0.0.0:80", "one");
    let firewall = lab.firewall(Settings::default());
    let mut rules = lab.rules();
    rules.endpoints.get_mut("v-one").unwrap().ports =
        vec![port(Protocol::Tcp, "0.0.0.0", 8080, ONE4, 80)];
    firewall.replace(rules).unwrap();
    let handle = firewall.clone();
    let _watch = lab.host.run(move || handle.watch()).unwrap();
    let becomes = |closed: bool| {
        let until = Instant::now() + DEADLINE;
        while firewall.is_input_closed() != closed {
            assert!(Instant::now() < until, "the policy is not followed");
            std::thread::yield_now();
        }
    };
    let at = format!("{HOST}:8080");
    answer(&lab.neighbour, "tcp", &at);
    lab.host.nft(
        "table inet host { chain input { type filter hook input priority 0; policy drop; }; }",
    );
    becomes(true);
    assert!(is_silent(&lab.neighbour, "tcp", &at));
    lab.host.nft("delete table inet host");
    becomes(false);
    answer(&lab.neighbour, "tcp", &at);
}

#[test]
fn a_client_of_udp_that_goes_on_sending_gets_to_the_new_container() {
    let lab = Lab::new();
    service::udp(lab.container_namespace(ONE), "0.0.0.0:53", "one");
    service::udp(lab.container_namespace(TWO), "0.0.0.0:53", "two");
    let firewall = lab.firewall(Settings::default());
    let mut first = lab.containers[ONE].endpoint.clone();
    first.ports = vec![port(Protocol::Udp, "0.0.0.0", 5300, ONE4, 53)];
    let mut second = lab.containers[TWO].endpoint.clone();
    second.ports = vec![port(Protocol::Udp, "0.0.0.0", 5300, TWO4, 53)];
    firewall.replace(lab.rules()).unwrap();
    let socket = lab.neighbour.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((HOST, 5300)).unwrap();
        socket
    });
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let ask = || {
        let until = Instant::now() + DEADLINE;
        let mut buffer = [0; 64];
        loop {
            assert!(Instant::now() < until, "nobody answers");
            // What the host refused before is told here.
            if socket.send(b"?").is_err() {
                continue;
            }
            if let Ok(count) = socket.recv(&mut buffer) {
                return String::from_utf8_lossy(&buffer[..3]).into_owned()[..count.min(3)]
                    .to_owned();
            }
        }
    };
    // It sends before anybody is there, and so its flow leads to the host.
    socket.send(b"?").unwrap();
    firewall.put_endpoint(first.clone()).unwrap();
    assert_eq!(ask(), "one");
    // The control: rules alone do not move a flow.
    lab.host.nft(&format!(
        "delete element inet hull ports4 {{ udp . 5300 }}; \
         add element inet hull ports4 {{ udp . 5300 : {TWO4} . 53 }}"
    ));
    assert_eq!(ask(), "one");
    firewall.replace(firewall.rules()).unwrap();
    firewall.remove_endpoint("v-one").unwrap();
    firewall.put_endpoint(second).unwrap();
    assert_eq!(ask(), "two");
}
