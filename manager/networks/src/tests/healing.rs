//! What somebody takes away comes back.

use super::*;

#[test]
fn somebody_who_removes_a_bridge_or_an_interface_finds_it_again() {
    on_a_host(|lab| {
        let networks = lab.open();
        networks.0.runtime.block_on(networks.recover(&[])).unwrap();
        networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "", &[])).unwrap();
        let address = &b.endpoints[0].ipv4_address;
        networks.0.host.socket.remove_link("hull0").unwrap();
        let second = Duration::from_secs(1);
        let port = networks.0.records.of_container("bb").unwrap()[0].host_interface();
        let is_port = || {
            let link = |name: &str| networks.0.host.socket.link(name).unwrap();
            match (link(&port), link("hull0")) {
                (Some(port), Some(bridge)) => port.master == Some(bridge.index) && port.up,
                _ => false,
            }
        };
        eventually("the bridge is back", second, is_port);
        eventually("containers reach each other", second, || {
            reaches(&networks, "aa", "bb", address)
        });
        networks.0.host.socket.remove_link(&port).unwrap();
        eventually("the interface is back", second, is_port);
        eventually("containers reach each other", second, || {
            reaches(&networks, "aa", "bb", address)
        });
        networks.0.runtime.block_on(networks.detach("aa")).unwrap();
        networks.0.runtime.block_on(networks.detach("bb")).unwrap();
        networks.0.finishing.wait();
        lab.assert_clean(&networks, "after detach");
    });
}

/// A manager that watches, with two containers on its default network.
fn watched(lab: &Lab) -> (Networks, v1::Endpoint) {
    let networks = lab.open();
    networks.0.runtime.block_on(networks.recover(&[])).unwrap();
    networks.0.attach(&container("aa", "", &[])).unwrap();
    let b = networks.0.attach(&container("bb", "", &[])).unwrap();
    (networks, b.endpoints[0].clone())
}

fn ip(line: &str) {
    let output = std::process::Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Far longer than a repair takes, for a machine that has much to do.
const SOON: Duration = Duration::from_secs(20);

/// Whether a bridge is up with its gateways and a link-local address, which routers need.
fn is_whole(networks: &Networks, name: &str, gateways: &[&str]) -> bool {
    let socket = &networks.0.host.socket;
    let Some(link) = socket.link(name).unwrap() else { return false };
    let present: Vec<_> =
        socket.addresses(link.index).unwrap().iter().map(|net| net.addr().to_string()).collect();
    link.up
        && gateways.iter().all(|gateway| present.iter().any(|address| address == gateway))
        && present.iter().any(|address| address.starts_with("fe80:"))
}

#[test]
fn a_bridge_that_is_set_down_or_loses_its_addresses_gets_them_back() {
    on_a_host(|lab| {
        let (networks, b) = watched(&lab);
        let gateways = [b.ipv4_gateway.as_str(), b.ipv6_gateway.as_str()];
        eventually("the bridge is whole", SOON, || is_whole(&networks, "hull0", &gateways));
        for change in [
            "link set hull0 down",
            "address flush dev hull0",
            "-4 address flush dev hull0",
            "-6 address flush dev hull0",
        ] {
            ip(change);
            eventually(change, SOON, || is_whole(&networks, "hull0", &gateways));
            for address in [&b.ipv4_address, &b.ipv6_address] {
                assert!(reaches(&networks, "aa", "bb", address), "{change}");
                // The host has a way to its containers again.
                let address: IpAddr = address.parse().unwrap();
                let listener = inside(&networks, "bb", || TcpListener::bind((address, 0)).unwrap());
                let port = listener.local_addr().unwrap().port();
                let limit = Duration::from_secs(3);
                TcpStream::connect_timeout(&(address, port).into(), limit).expect(change);
            }
        }
    });
}

#[test]
fn a_port_that_is_set_down_or_taken_out_of_its_bridge_is_put_back() {
    on_a_host(|lab| {
        let (networks, b) = watched(&lab);
        let port = networks.0.records.of_container("bb").unwrap()[0].host_interface();
        for change in [format!("link set {port} down"), format!("link set {port} nomaster")] {
            ip(&change);
            eventually(&change, SOON, || reaches(&networks, "aa", "bb", &b.ipv4_address));
        }
    });
}

#[test]
fn who_was_on_a_wire_that_somebody_removed_is_on_it_again() {
    on_a_host(|lab| {
        let (networks, _) = watched(&lab);
        networks.0.create(&network("n1", |request| request.driver = "macvlan".into())).unwrap();
        let wire = networks.0.inspect("n1").unwrap().interface;
        networks.0.attach(&container("cc", "n1", &[])).unwrap();
        let d = networks.0.attach(&container("dd", "n1", &[])).unwrap();
        let address = &d.endpoints[0].ipv4_address;
        assert!(reaches(&networks, "cc", "dd", address));
        ip(&format!("link delete {wire}"));
        let has = |id: &str| {
            inside(&networks, id, || {
                let link = netlink::Socket::open().unwrap().link("eth0").unwrap();
                link.is_some_and(|link| link.up)
            })
        };
        eventually("both are on it", SOON, || has("cc") && has("dd"));
        assert!(reaches(&networks, "cc", "dd", address));
    });
}

#[test]
fn a_bridge_of_somebody_else_is_not_put_right() {
    on_a_host(|lab| {
        let (networks, _) = watched(&lab);
        ip("link add br9 type bridge");
        ip("address add 10.6.0.1/24 dev br9");
        ip("link set br9 up");
        let request = network("n1", |request| {
            let key = "com.docker.network.bridge.name";
            request.options.insert(key.into(), "br9".into());
            let pool = v1::IpamPool { subnet: "10.6.0.0/24".into(), ..Default::default() };
            request.ipam = Some(v1::Ipam { pools: vec![pool], ..Default::default() });
        });
        networks.0.create(&request).unwrap();
        ip("link set br9 down");
        // What comes later is put right: so the earlier was looked at.
        ip("link set hull0 down");
        let is_up = |name: &str| networks.0.host.socket.link(name).unwrap().unwrap().up;
        eventually("ours is up", SOON, || is_up("hull0"));
        assert!(!is_up("br9"));
    });
}

#[test]
fn a_network_that_is_removed_while_it_is_put_right_is_gone() {
    on_a_host(|lab| {
        let (networks, _) = watched(&lab);
        let before = lab.links();
        for _ in 0..20 {
            networks.0.create(&network("n1", |_| {})).unwrap();
            let bridge = networks.0.inspect("n1").unwrap().interface;
            let index = networks.0.host.socket.link(&bridge).unwrap().unwrap().index;
            // IFLA: set down, without a program in between.
            let down = netlink::Body::link(index, 0, 1);
            networks.0.host.socket.change(19, 0, &down).unwrap();
            let request = v1::RemoveNetworkRequest { network: "n1".into(), force: false };
            networks.0.remove(&request).unwrap();
        }
        // What is noticed later is put right: so all that was before was looked at.
        ip("link set hull0 down");
        let is_up = || networks.0.host.socket.link("hull0").unwrap().unwrap().up;
        eventually("the default network is up", SOON, is_up);
        assert_eq!(lab.links(), before);
    });
}
