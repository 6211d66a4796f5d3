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
        let inspect = |traffic| {
            let request = v1::InspectNetworkRequest { network: "bridge".into(), traffic };
            let network = networks.0.runtime.block_on(networks.inspect(request)).unwrap();
            network.members.into_iter().find(|member| member.name == "name-aa").unwrap().traffic
        };
        assert_eq!(inspect(false), None);
        assert!(inspect(true).unwrap().sent_packets >= counters[0].sent_packets);
    });
}

/// The gateway of IPv4 that a container's packets leave by.
fn way_out(networks: &Networks, id: &str) -> Option<String> {
    let routes = inside(networks, id, || netlink::Socket::open().unwrap().routes().unwrap());
    let mut gateways = routes.into_iter().filter(|route| route.to.is_none());
    gateways.find_map(|route| route.gateway.filter(IpAddr::is_ipv4)).map(|ip| ip.to_string())
}

#[test]
fn of_equal_networks_the_first_by_its_name_leads_out() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        for name in ["nb", "na", "nc"] {
            networks.0.create(&network(name, |_| {})).unwrap();
        }
        let a = networks.0.attach(&container("aa", "nb", &["nc"])).unwrap();
        let nb = a.endpoints[0].ipv4_gateway.as_str();
        assert_eq!(way_out(&networks, "aa").as_deref(), Some(nb));
        let options = v1::EndpointOptions { network: "na".into(), ..Default::default() };
        let a = networks.0.connect("aa", &options).unwrap();
        assert_eq!(way_out(&networks, "aa").as_deref(), Some(&*a.endpoints[2].ipv4_gateway));
        networks.0.disconnect("aa", "na").unwrap();
        assert_eq!(way_out(&networks, "aa").as_deref(), Some(nb));
    });
}

#[test]
fn interfaces_are_called_and_set_up_as_asked_for() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        for (name, prefix) in [("n1", "foo"), ("n2", "")] {
            networks
                .0
                .create(&network(name, |request| {
                    let key = "com.docker.network.container_iface_prefix";
                    request.options.insert(key.into(), prefix.into());
                }))
                .unwrap();
        }
        let with = |key: &str, value: &str| {
            let mut asked = container("aa", "n1", &["n1"]);
            let key = format!("com.docker.network.endpoint.{key}");
            asked.options.networks[0].driver_options.insert(key, value.into());
            asked
        };
        let sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=9";
        let a = networks.0.attach(&with("sysctls", sysctls)).unwrap();
        assert_eq!(a.endpoints[0].interface, "foo0");
        let values = inside(&networks, "aa", || {
            ["ipv4/conf/foo0/log_martians", "ipv6/conf/foo0/hop_limit"].map(sysctl::get)
        });
        assert_eq!(values, ["1", "9"].map(|value| Some(value.to_owned())));
        let connect = |network: &str, name: &str| {
            let driver_options =
                [("com.docker.network.endpoint.ifname".to_owned(), name.to_owned())].into();
            let network = network.into();
            networks.0.connect(
                "aa",
                &v1::EndpointOptions { network, driver_options, ..Default::default() },
            )
        };
        let error = connect("n2", "foo0").unwrap_err();
        assert!(error.message().contains("foo0 is of another network"), "{error}");
        assert_eq!(connect("n2", "web7").unwrap().endpoints[1].interface, "web7");
        let options = v1::EndpointOptions { network: "bridge".into(), ..Default::default() };
        assert_eq!(networks.0.connect("aa", &options).unwrap().endpoints.len(), 3);
        let names = inside(&networks, "aa", || {
            let links = netlink::Socket::open().unwrap().links(false).unwrap().into_iter();
            links.map(|link| link.name).collect::<BTreeSet<_>>()
        });
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["eth0", "foo0", "lo", "web7"]);
        networks.0.detach("aa").unwrap();

        let error = networks.0.attach(&with("sysctls", "net.ipv4.conf.IFNAME.nosuch=1"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the kernel has no sysctl net/ipv4/conf/foo0/nosuch"), "{error}");
        lab.assert_clean(&networks, "after a failure");
    });
}
