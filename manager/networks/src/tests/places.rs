//! Where a container is: its addresses, its networks, what it counts.

use super::*;

#[test]
fn fixed_addresses_are_theirs_and_nobody_elses() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks
            .0
            .create(&network("n1", |request| {
                request.ipam = Some(v1::Ipam {
                    pools: vec![v1::IpamPool {
                        subnet: "10.9.0.0/29".into(),
                        ..Default::default()
                    }],
                    ..Default::default()
                });
            }))
            .unwrap();
        let fixed = |id: &str, address: &str| {
            let mut container = container(id, "n1", &["n1"]);
            container.options.networks[0].ipv4_address = address.into();
            container.options.networks[0].mac_address = "02:11:22:33:44:55".into();
            container
        };
        let a = networks.0.attach(&fixed("aa", "10.9.0.3")).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.9.0.3");
        assert_eq!(a.endpoints[0].mac_address, "02:11:22:33:44:55");
        let error = networks.0.attach(&fixed("bb", "10.9.0.3")).unwrap_err();
        assert!(error.message().starts_with("Address already in use"), "{error}");
        let error = networks.0.attach(&fixed("bb", "10.8.0.3")).unwrap_err();
        assert!(error.message().contains("no configured subnet"), "{error}");
        // Of six addresses one is the gateway's and one is taken.
        for (id, last) in [("b1", 4), ("b2", 5), ("b3", 6), ("b4", 2)] {
            let b = networks.0.attach(&container(id, "n1", &[])).unwrap();
            assert_eq!(b.endpoints[0].ipv4_address, format!("10.9.0.{last}"));
        }
        let error = networks.0.attach(&container("b5", "n1", &[])).unwrap_err();
        assert!(error.message().starts_with("no available IPv4 addresses"), "{error}");
        assert_eq!(networks.0.records.all().unwrap().len(), 5);
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        for name in ["n1", "n2"] {
            networks.0.create(&network(name, |_| {})).unwrap();
        }
        networks.0.attach(&container("aa", "n1", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "n2", &[])).unwrap();
        let address = &b.endpoints[0].ipv4_address;
        let options = v1::EndpointOptions {
            network: "n2".into(),
            aliases: vec!["al".into()],
            gateway_priority: 5,
            ..Default::default()
        };
        networks.0.connect("aa", &options).unwrap();
        let error = networks.0.connect("aa", &options).unwrap_err();
        assert!(error.message().contains("already exists in network n2"), "{error}");
        let places = networks.0.check("aa").unwrap().endpoints;
        assert_eq!(places[1].dns_names, ["name-aa", "al", "aa", "host-aa"]);
        assert_eq!(places[1].interface, "eth1");
        assert!(reaches(&networks, "aa", "bb", address));
        let gateway = || {
            inside(&networks, "aa", || netlink::Socket::open().unwrap().routes().unwrap())
                .into_iter()
                .find(|route| route.to.is_none() && route.gateway.is_some_and(|g| g.is_ipv4()))
                .and_then(|route| route.gateway)
                .unwrap()
                .to_string()
        };
        assert_eq!(gateway(), places[1].ipv4_gateway, "the higher priority");
        let left = networks.0.disconnect("aa", "n2").unwrap();
        assert_eq!(left.endpoints.len(), 1);
        assert_eq!(gateway(), places[0].ipv4_gateway);
        let error = networks.0.disconnect("aa", "n2").unwrap_err();
        assert_eq!(error.message(), "container name-aa is not connected to network n2");
        networks.0.disconnect("aa", "n1").unwrap();
        assert_eq!(networks.0.connect("aa", &options).unwrap().endpoints[0].interface, "eth0");
        networks.0.detach("aa").unwrap();
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_one_without_ipv6_has_none() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks
            .0
            .create(&network("n1", |request| {
                request.internal = true;
                request.ipv6 = Some(false);
            }))
            .unwrap();
        let a = networks.0.attach(&container("aa", "n1", &[])).unwrap();
        assert_eq!(
            (a.endpoints[0].ipv4_gateway.as_str(), a.endpoints[0].ipv6_address.as_str()),
            ("", "")
        );
        let (routes, ipv6) = inside(&networks, "aa", || {
            let routes = netlink::Socket::open().unwrap().routes().unwrap();
            (routes, sysctl::get("ipv6/conf/eth0/disable_ipv6"))
        });
        assert!(routes.iter().all(|route| route.to.is_some()), "{routes:?}");
        assert_eq!(ipv6.as_deref(), Some("1"));
        let bridge = networks.0.inspect("n1").unwrap().interface;
        assert_eq!(sysctl::get(&format!("ipv6/conf/{bridge}/disable_ipv6")).as_deref(), Some("1"));
    });
}

#[test]
fn counters_are_the_containers_own_view() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "", &[])).unwrap();
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        let counters = networks.0.counters("aa").unwrap();
        assert_eq!(counters.len(), 1);
        assert_eq!(counters[0].name, "eth0");
        assert!(counters[0].sent_packets >= 3 && counters[0].received_packets >= 2, "{counters:?}");
        assert!(networks.0.counters("cc").is_err());
    });
}
