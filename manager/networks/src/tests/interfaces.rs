//! Interfaces of the host that are not ours, or another manager's.

use super::*;

/// Sets up a bridge of somebody's; its number.
fn bridge(name: &str, address: &str) -> u32 {
    let socket = netlink::Socket::open().unwrap();
    socket.add_bridge(name, mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
    let index = socket.link(name).unwrap().unwrap().index;
    socket.add_address(index, address.parse().unwrap()).unwrap();
    socket.set_up(index).unwrap();
    index
}

/// An interface that is no bridge.
fn pair(name: &str) {
    let socket = netlink::Socket::open().unwrap();
    let index = bridge("unused", "192.0.2.1/32");
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let peer =
        link::Peer { namespace: namespace.as_fd(), name: "far", mac: mac::Mac([2, 0, 0, 0, 0, 9]) };
    socket.add_veth(name, index, 1500, &peer).unwrap();
    let link = socket.link(name).unwrap().unwrap();
    assert_eq!((link.kind.as_str(), link.loopback), ("veth", false));
    socket.set_master(link.index, 0).unwrap();
    socket.set_up(link.index).unwrap();
    socket.remove_link("unused").unwrap();
}

fn on_bridge(name: &str, bridge: &str) -> v1::CreateNetworkRequest {
    network(name, |request| {
        let key = "com.docker.network.bridge.name";
        request.options.insert(key.into(), bridge.into());
    })
}

/// A manager that could not start.
fn refusal(lab: &Lab) -> String {
    lab.open().0.recover(&[]).unwrap_err().to_string()
}

fn ipam(subnet: &str, gateway: &str) -> Option<v1::Ipam> {
    let pool =
        v1::IpamPool { subnet: subnet.into(), gateway: gateway.into(), ..Default::default() };
    Some(v1::Ipam { pools: vec![pool], ..Default::default() })
}

#[test]
fn what_is_no_bridge_is_never_one() {
    on_a_host(|mut lab| {
        pair("eth0");
        let networks = lab.start(&[]);
        for name in ["eth0", "lo"] {
            let error = networks.0.create(&on_bridge("n1", name)).unwrap_err();
            assert_eq!(error.message(), format!("existing interface {name} is not a bridge"));
        }
        assert!(networks.0.inspect("n1").is_err());
        drop(networks);
        lab.settings.default.as_mut().unwrap().bridge = "eth0".into();
        assert!(refusal(&lab).contains("existing interface eth0 is not a bridge"));
    });
}

#[test]
fn the_subnet_of_somebody_elses_bridge_stays_with_it() {
    on_a_host(|mut lab| {
        bridge("br9", "10.6.0.5/24");
        lab.settings.default.as_mut().unwrap().bridge = "br9".into();
        drop(lab.start(&[]));
        lab.settings.default.as_mut().unwrap().bridge = "hull0".into();
        let network = lab.start(&[]).0.inspect("bridge").unwrap();
        assert_eq!(network.ipam.unwrap().pools[0].subnet, "172.17.0.0/16");
    });
}

#[test]
fn a_bridge_of_another_manager_is_refused_and_left_alone() {
    on_a_host(|mut lab| {
        let networks = lab.start(&[]);
        let socket = netlink::Socket::open().unwrap();
        let ours = socket.link("hull0").unwrap().unwrap();
        assert_eq!(ours.alias, "hull manager hull");

        // A second one, with all of its own but the bridge's name.
        let first = lab.settings.clone();
        let store = lab.directory.path().join("second");
        std::fs::create_dir(&store).unwrap();
        lab.settings.definitions = store.join("data");
        lab.settings.table = "hull-2".into();
        let error = refusal(&lab);
        assert!(error.contains("another manager, hull: choose another one"), "{error}");
        lab.settings.default.as_mut().unwrap().bridge = "hull1".into();
        let second = lab.start(&[]);
        let subnet = second.0.inspect("bridge").unwrap().ipam.unwrap().pools[0].subnet.clone();
        assert_eq!(subnet, "172.18.0.0/16");
        let error = second.0.create(&on_bridge("n1", "hull0")).unwrap_err();
        assert!(error.message().contains("another manager, hull"), "{error}");

        // Whoever finds another's bridge by his network's name does not delete it.
        let known = second.0.state().catalog.by_name("bridge").unwrap().definition.clone();
        networks.0.host.remove(&known).unwrap();
        assert!(lab.links().contains("hull1"));
        drop((networks, second));
        lab.settings = first;
        lab.start(&[]);
        assert_eq!(socket.link("hull0").unwrap().unwrap().index, ours.index);
    });
}

#[test]
fn a_gateway_that_somebody_elses_bridge_lacks_is_put_there() {
    on_a_host(|lab| {
        let index = bridge("br9", "10.1.1.5/24");
        let networks = lab.start(&[]);
        let mut request = on_bridge("n1", "br9");
        request.ipam = ipam("10.1.1.0/24", "");
        request.ipv6 = Some(false);
        networks.0.create(&request).unwrap();
        let socket = netlink::Socket::open().unwrap();
        let addresses = || {
            let all = socket.addresses(index).unwrap();
            all.into_iter().filter(|net| net.addr().is_ipv4()).collect::<Vec<_>>()
        };
        let wanted = ["10.1.1.5/24", "10.1.1.1/24"].map(|text| text.parse().unwrap());
        assert_eq!(addresses(), wanted);
        networks.0.attach(&container("aa", "n1", &[])).unwrap();
        let mut taken = container("bb", "n1", &["n1"]);
        taken.options.networks[0].ipv4_address = "10.1.1.5".into();
        let error = networks.0.attach(&taken).unwrap_err();
        assert_eq!(error.message(), "Address already in use: 10.1.1.5");
        let listener = TcpListener::bind("10.1.1.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        inside(&networks, "aa", move || TcpStream::connect(host).unwrap());
        drop(networks);
        lab.start(&["aa"]);
        assert_eq!(addresses(), wanted);
    });
}

#[test]
fn the_default_gateway_is_the_containers_and_not_the_bridges() {
    on_a_host(|mut lab| {
        let default = lab.settings.default.as_mut().unwrap();
        default.bip = Some("10.5.0.1/24".parse().unwrap());
        default.gateway = Some("10.5.0.254".parse().unwrap());
        let networks = lab.start(&[]);
        let link = networks.0.host.socket.link("hull0").unwrap().unwrap();
        let addresses = networks.0.host.socket.addresses(link.index).unwrap();
        assert!(addresses.contains(&"10.5.0.1/24".parse().unwrap()), "{addresses:?}");
        assert!(!addresses.iter().any(|net| net.to_string() == "10.5.0.254/24"), "{addresses:?}");
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_gateway, "10.5.0.254");
        let routes = inside(&networks, "aa", || netlink::Socket::open().unwrap().routes().unwrap());
        let gateway = "10.5.0.254".parse().ok();
        assert!(routes.iter().any(|route| route.to.is_none() && route.gateway == gateway));
        networks.0.detach("aa").unwrap();

        // Also with a subnet that nobody named; outside of it it is none.
        drop(networks);
        lab.settings.default.as_mut().unwrap().bip = None;
        assert_eq!(
            lab.start(&[]).0.inspect("bridge").unwrap().ipam.unwrap().pools[0].gateway,
            "10.5.0.1"
        );
        lab.settings.default.as_mut().unwrap().gateway = Some("1.2.3.4".parse().unwrap());
        let error = refusal(&lab);
        assert!(error.contains("1.2.3.4 is not an address for a host in 10.5.0.0/24"), "{error}");
    });
}

#[test]
fn a_route_to_half_of_all_addresses_takes_no_subnet() {
    on_a_host(|lab| {
        let socket = netlink::Socket::open().unwrap();
        let index = bridge("tun0", "10.8.0.2/24");
        for to in ["0.0.0.0", "128.0.0.0"] {
            add_route(index, to, 1);
        }
        assert_eq!(
            socket
                .routes()
                .unwrap()
                .iter()
                .filter(|r| r.to.is_some_and(|to| to.prefix_len() == 1))
                .count(),
            2
        );
        let network = lab.start(&[]).0.inspect("bridge").unwrap();
        assert_eq!(network.ipam.unwrap().pools[0].subnet, "172.17.0.0/16");
    });
}

fn add_route(index: u32, to: &str, prefix: u8) {
    let body = netlink::Body::route(2, prefix, 0)
        .with_address(1, to.parse().unwrap())
        .with_u32(4, index)
        .with_address(5, "10.8.0.1".parse().unwrap());
    netlink::Socket::open().unwrap().change(24, netlink::CREATE, &body).unwrap();
}

#[test]
fn nobody_is_on_the_wire_of_a_loopback() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        for driver in ["macvlan", "ipvlan"] {
            let request = network("n1", |request| {
                request.driver = driver.into();
                request.options.insert("parent".into(), "lo".into());
            });
            let error = networks.0.create(&request).unwrap_err();
            let says = format!("loopback interface is not a valid {driver} parent link");
            assert_eq!(error.message(), says);
        }
    });
}

#[test]
fn an_address_that_a_network_can_never_give_is_refused_before_the_start() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks
            .0
            .create(&network("n1", |request| request.ipam = ipam("10.9.0.0/24", "")))
            .unwrap();
        let options = |address: &str| {
            let mut options = container("aa", "n1", &["n1"]).options;
            options.networks[0].ipv4_address = address.into();
            options
        };
        networks.accept(&options("10.9.0.7")).unwrap();
        for (address, says) in [
            ("10.8.0.7", "no configured subnet"),
            ("10.9.0.255", "not an address for a host"),
            ("10.9.0.1", "Address already in use"),
        ] {
            let error = networks.accept(&options(address)).unwrap_err();
            assert!(error.message().contains(says), "{address}: {error}");
        }
        let filters = vec![v1::Filter { key: "type".into(), values: vec!["foo".into()] }];
        let error = networks.0.list(&v1::ListNetworksRequest { filters }).unwrap_err();
        assert_eq!(error.message(), "invalid filter 'type=foo'");
    });
}

#[test]
fn a_bridge_of_somebody_else_is_used_and_left_alone() {
    on_a_host(|mut lab| {
        let socket = netlink::Socket::open().unwrap();
        socket.add_bridge("br9", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let index = socket.link("br9").unwrap().unwrap().index;
        socket.add_address(index, "10.6.0.5/24".parse().unwrap()).unwrap();
        socket.set_up(index).unwrap();
        lab.settings.default.as_mut().unwrap().bridge = "br9".into();
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_gateway, "10.6.0.5");
        assert_eq!(a.endpoints[0].ipv4_address, "10.6.0.1");
        networks.0.detach("aa").unwrap();
        lab.settings.default = None;
        let networks = lab.start(&[]);
        assert_eq!(lab.links().into_iter().collect::<Vec<_>>(), ["br9"]);
        assert!(networks.wanted(&v1::ContainerOptions::default()).is_empty());
    });
}
