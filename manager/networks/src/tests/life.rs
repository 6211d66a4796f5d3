//! Containers come, go, and outlive the manager.

use super::*;

#[test]
fn containers_of_a_network_reach_each_other_and_the_gateway_by_both_families() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "bridge", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "172.17.0.2");
        assert_eq!(b.endpoints[0].ipv4_address, "172.17.0.3");
        assert_eq!(a.endpoints[0].ipv4_gateway, "172.17.0.1");
        assert_eq!(a.endpoints[0].mac_address, "02:42:ac:11:00:02");
        assert!(a.hosts.contains(&"172.17.0.2\thost-aa".to_owned()), "{:?}", a.hosts);
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        assert!(reaches(&networks, "bb", "aa", &a.endpoints[0].ipv6_address));
        // The host, at the gateway's addresses, which is the way out.
        for gateway in [&a.endpoints[0].ipv4_gateway, &a.endpoints[0].ipv6_gateway] {
            let host = TcpListener::bind((gateway.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let address = host.local_addr().unwrap();
            inside(&networks, "aa", move || TcpStream::connect(address).unwrap());
        }
        let default =
            inside(&networks, "aa", || netlink::Socket::open().unwrap().routes().unwrap());
        let gateways: Vec<_> = default
            .into_iter()
            .filter(|route| route.to.is_none())
            .filter_map(|route| route.gateway.map(|gateway| gateway.to_string()))
            .collect();
        assert!(gateways.contains(&"172.17.0.1".to_owned()) && gateways.len() == 2, "{gateways:?}");
        assert_eq!(sysctl::get("ipv4/ip_forward").as_deref(), Some("1"));

        networks.0.detach("aa").unwrap();
        networks.0.detach("aa").unwrap();
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
        // An address that was given back rests.
        let c = networks.0.attach(&container("cc", "", &[])).unwrap();
        assert_eq!(c.endpoints[0].ipv4_address, "172.17.0.4");
    });
}

#[test]
fn a_manager_killed_after_any_step_of_attach_leaves_nothing_for_long() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        let before = lab.links();
        let asked = container("aa", "bridge", &["n1"]);
        let wanted = sandbox::wanted(&asked.options, true);
        let mut killed_after = 0;
        loop {
            let networks = lab.start(&[]);
            let places = networks.0.reserve(&asked, &wanted, None).unwrap();
            let steps = plan::attach(&sandbox::borrow(&places), None);
            for step in &steps[..killed_after] {
                networks.0.host.apply("aa", step).unwrap();
            }
            drop(networks);
            let after = lab.start(&[]);
            lab.assert_clean(&after, &format!("killed after {:?}", steps[..killed_after].last()));
            assert_eq!(lab.links(), before, "killed after {killed_after}");
            if killed_after == steps.len() {
                break;
            }
            // Or it is started again: an attach replaces what is there.
            let places = after.0.reserve(&asked, &wanted, None).unwrap();
            for step in &plan::attach(&sandbox::borrow(&places), None)[..killed_after] {
                after.0.host.apply("aa", step).unwrap();
            }
            after.0.attach(&asked).unwrap();
            assert_eq!(after.0.records.all().unwrap().len(), 2);
            after.0.detach("aa").unwrap();
            lab.assert_clean(&after, "after detach");
            killed_after += 1;
        }
        assert_eq!(killed_after, 6);
    });
}

#[test]
fn a_manager_killed_within_detach_finishes_it_later() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let before = lab.links();
        for killed_after in 0..3 {
            let attached = networks.0.attach(&container("aa", "", &[])).unwrap();
            let endpoint = &networks.0.records.all().unwrap()[0];
            if killed_after > 0 {
                networks.0.host.socket.remove_link(&endpoint.host_interface()).unwrap();
            }
            if killed_after > 1 {
                networks.0.host.namespaces.remove("aa").unwrap();
            }
            let after = lab.start(&[]);
            lab.assert_clean(&after, &format!("killed after {killed_after}"));
            assert_eq!(lab.links(), before);
            assert!(!attached.namespace.exists());
        }
    });
}

#[test]
fn a_container_that_outlives_the_manager_keeps_its_place_and_gets_back_what_is_missing() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "", &[])).unwrap();
        drop(networks);
        let networks = lab.start(&["aa", "bb"]);
        assert_eq!(networks.0.check("aa").unwrap(), a);
        let address = &b.endpoints[0].ipv4_address;
        assert!(reaches(&networks, "aa", "bb", address));
        // Nobody else gets one of their addresses.
        let c = networks.0.attach(&container("cc", "", &[])).unwrap();
        assert_eq!(c.endpoints[0].ipv4_address, "172.17.0.4");

        // Somebody deletes the bridge, and then an interface.
        networks.0.host.socket.remove_link("hull0").unwrap();
        assert!(!reaches(&networks, "aa", "bb", address));
        for id in ["aa", "bb", "cc"] {
            networks.0.check(id).unwrap();
        }
        assert!(reaches(&networks, "aa", "bb", address), "the bridge is healed");
        let port = networks.0.records.of_container("bb").unwrap()[0].host_interface();
        networks.0.host.socket.remove_link(&port).unwrap();
        assert_eq!(networks.0.check("bb").unwrap(), b);
        assert!(reaches(&networks, "aa", "bb", address), "the interface is healed");

        let networks = lab.start(&["aa"]);
        assert_eq!(lab.namespaces(), ["aa"]);
        assert_eq!(networks.0.records.all().unwrap().len(), 1);
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let macvlan = network("gone", |request| {
            request.driver = "macvlan".into();
            request.options.insert("parent".into(), "up0".into());
        });
        let error = networks.0.create(&macvlan).unwrap_err();
        assert_eq!(error.message(), "the interface up0 is not there");
        networks.0.host.socket.add_bridge("up0", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        networks.0.create(&macvlan).unwrap();
        networks.0.host.socket.remove_link("up0").unwrap();
        let error = networks.0.attach(&container("aa", "bridge", &["gone"])).unwrap_err();
        assert!(error.to_string().contains("the interface up0 is not there"), "{error}");
        lab.assert_clean(&networks, "after a failure");
        let error = networks.0.attach(&container("aa", "nope", &[])).unwrap_err();
        assert_eq!(error.message(), "network nope not found");
        lab.assert_clean(&networks, "after a failure");
    });
}

#[test]
fn what_is_being_taken_away_is_in_nobodys_way() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let runtime = networks.0.runtime.clone();
        let attach = |container: &Container| {
            runtime.block_on(networks.attach(container.clone())).unwrap();
        };
        let detach = |id: &str| runtime.block_on(networks.detach(id)).unwrap();
        let subnet = |r: &mut v1::CreateNetworkRequest| {
            let pool = v1::IpamPool { subnet: "10.9.0.0/30".into(), ..Default::default() };
            r.ipam = Some(v1::Ipam { pools: vec![pool], ..Default::default() });
        };
        networks.0.create(&network("n1", subnet)).unwrap();
        let mut a = container("aa", "n1", &["n1"]);
        a.options.networks[0].ipv4_address = "10.9.0.2".into();
        for _ in 0..3 {
            // The same container, another with its address, and one with the last address.
            attach(&a);
            detach("aa");
            let mut b = a.clone();
            b.id = "bb".into();
            attach(&b);
            detach("bb");
            attach(&container("cc", "n1", &[]));
            detach("cc");
            assert!(networks.0.inspect("n1").unwrap().members.is_empty());
        }
        let name = || v1::RemoveNetworkRequest { network: "n1".into(), force: false };
        networks.0.remove(&name()).unwrap();
        lab.assert_clean(&networks, "after detach");

        // Killed in between: gone all the same, even if somebody took it for alive.
        networks.0.create(&network("n1", subnet)).unwrap();
        networks.0.attach(&a).unwrap();
        networks.0.release("aa").unwrap();
        kill(networks);
        let networks = lab.start(&["aa"]);
        lab.assert_clean(&networks, "after a kill");
    });
}

#[test]
fn interfaces_go_with_their_namespaces_and_without_them_where_somebody_holds_these() {
    on_a_host(|lab| {
        let networks = lab.open();
        let runtime = networks.0.runtime.clone();
        runtime.block_on(networks.recover(&[])).unwrap();
        let ids = ["aa", "bb", "cc"];
        for id in ids {
            runtime.block_on(networks.attach(container(id, "", &[]))).unwrap();
        }
        let held = networks.0.host.namespaces.open("bb").unwrap();
        for id in ids {
            runtime.block_on(networks.detach(id)).unwrap();
        }
        // It starts again while its interface is on its way.
        runtime.block_on(networks.attach(container("cc", "", &[]))).unwrap();
        runtime.block_on(networks.settle()).unwrap();
        let left: Vec<_> =
            networks.0.records.all().unwrap().into_iter().map(|e| e.container).collect();
        assert_eq!(left, ["cc"]);
        let ports: Vec<_> = lab.links().into_iter().filter(|n| n.starts_with("hv")).collect();
        assert_eq!(ports, [networks.0.records.of_container("cc").unwrap()[0].host_interface()]);
        assert!(networks.0.check("cc").is_ok());
        drop(held);
        runtime.block_on(networks.detach("cc")).unwrap();
        runtime.block_on(networks.settle()).unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

#[test]
fn a_container_that_has_left_its_last_network_leaves_nothing() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.attach(&container("aa", "", &[])).unwrap();
        let left = networks.0.disconnect("aa", "bridge").unwrap();
        assert_eq!(left.endpoints, []);
        networks.0.runtime.block_on(async {
            networks.detach("aa").await.unwrap();
            networks.settle().await.unwrap();
        });
        lab.assert_clean(&networks, "after detach");
    });
}
