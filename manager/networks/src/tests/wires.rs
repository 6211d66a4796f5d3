//! Interfaces on others.

use super::*;

#[test]
fn a_macvlan_reaches_who_is_on_the_wire() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let host = &networks.0.host;
        // A neighbour at the other end of a cable, whose near end is called as the container's.
        let neighbour = host.namespaces.make("neighbour").unwrap();
        host.socket.add_bridge("unused", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let bridge = host.socket.link("unused").unwrap().unwrap().index;
        let peer = link::Peer {
            namespace: neighbour.as_fd(),
            name: "eth9",
            mac: mac::Mac([2, 0, 0, 0, 0, 9]),
        };
        host.socket.add_veth("eth0", bridge, 1500, &peer).unwrap();
        let up = host.socket.link("eth0").unwrap().unwrap().index;
        host.socket.set_master(up, 0).unwrap();
        host.socket.set_up(up).unwrap();
        namespace::inside(neighbour.as_fd(), |socket| {
            let link = socket.link("eth9")?.unwrap();
            socket.add_address(link.index, "10.7.0.1/24".parse().unwrap())?;
            Ok(socket.set_up(link.index)?)
        })
        .unwrap();
        networks
            .0
            .create(&network("lan", |request| {
                request.driver = "macvlan".into();
                request.options.insert("parent".into(), "eth0".into());
                request.ipam = Some(v1::Ipam {
                    pools: vec![v1::IpamPool {
                        subnet: "10.7.0.0/24".into(),
                        gateway: "10.7.0.1".into(),
                        ..Default::default()
                    }],
                    ..Default::default()
                });
            }))
            .unwrap();
        let a = networks.0.attach(&container("aa", "lan", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.7.0.2");
        assert!(reaches(&networks, "aa", "neighbour", "10.7.0.1"));
        assert!(reaches(&networks, "neighbour", "aa", "10.7.0.2"));
        networks.0.detach("aa").unwrap();
        networks.0.host.namespaces.remove("neighbour").unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

fn street(name: &str, driver: &str, parent: &str) -> v1::CreateNetworkRequest {
    network(name, |request| {
        request.driver = driver.into();
        if !parent.is_empty() {
            request.options.insert("parent".into(), parent.into());
        }
    })
}

fn remove(networks: &Networks, name: &str) {
    networks.0.remove(&v1::RemoveNetworkRequest { network: name.into(), force: false }).unwrap();
}

#[test]
fn who_names_no_parent_is_on_a_wire_that_leads_nowhere() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let before = lab.links();
        networks.0.create(&street("n1", "macvlan", "")).unwrap();
        let made = networks.0.inspect("n1").unwrap();
        assert_eq!(made.interface, format!("dm-{}", &made.id[..12]));
        assert_eq!(made.ipam.unwrap().pools[0].gateway, "", "nobody is there");
        let a = networks.0.attach(&container("aa", "n1", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "n1", &[])).unwrap();
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        assert_eq!(a.endpoints[0].ipv4_gateway, "");
        for id in ["aa", "bb"] {
            networks.0.detach(id).unwrap();
        }

        // After the host has started again, and where a manager was killed while it made it.
        let socket = &networks.0.host.socket;
        socket.remove_link(&made.interface).unwrap();
        let index = bridge_of_nobody(&format!("hp-{}", &made.id[..12]));
        let networks = lab.start(&[]);
        assert!(lab.links().contains(&made.interface));
        assert!(socket.links(false).unwrap().iter().all(|link| link.index != index));
        // One that somebody removes is there for the next container.
        socket.remove_link(&made.interface).unwrap();
        networks.0.attach(&container("aa", "n1", &[])).unwrap();
        networks.0.detach("aa").unwrap();
        remove(&networks, "n1");
        assert_eq!(lab.links(), before);
    });
}

fn bridge_of_nobody(name: &str) -> u32 {
    let socket = netlink::Socket::open().unwrap();
    socket.add_bridge(name, mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
    socket.link(name).unwrap().unwrap().index
}

#[test]
fn a_parent_goes_with_its_last_network_and_only_if_it_is_ours() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        bridge_of_nobody("up0");
        networks.0.create(&street("theirs", "macvlan", "up0")).unwrap();
        remove(&networks, "theirs");
        assert!(lab.links().contains("up0"));

        networks.0.create(&street("n1", "macvlan", "")).unwrap();
        let own = networks.0.inspect("n1").unwrap().interface;
        networks.0.create(&street("n2", "macvlan", &own)).unwrap();
        let error = networks.0.create(&street("n3", "ipvlan", &own)).unwrap_err();
        assert!(error.message().contains("is already using parent interface"), "{error}");
        remove(&networks, "n1");
        assert!(lab.links().contains(&own), "the other network is on it");
        remove(&networks, "n2");
        assert!(!lab.links().contains(&own));

        // Somebody has made one of this name while the host was off: it is his now.
        networks.0.create(&street("n1", "macvlan", "")).unwrap();
        let own = networks.0.inspect("n1").unwrap().interface;
        networks.0.host.socket.remove_link(&own).unwrap();
        bridge_of_nobody(&own);
        let networks = lab.start(&[]);
        remove(&networks, "n1");
        assert!(lab.links().contains(&own));
        // Of our own bridge, too, nothing goes with who is on it.
        networks.0.create(&street("n4", "macvlan", "hull0")).unwrap();
        remove(&networks, "n4");
        assert!(lab.links().contains("hull0"));
    });
}

#[test]
fn a_vlan_is_made_for_its_network_or_the_kernels_lack_is_named() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let before = lab.links();
        for (parent, says) in [
            ("nosuch.5", "the interface nosuch is not there"),
            ("hull0.4095", "is not the name of a VLAN"),
            ("lo.5", "loopback interface is not a valid macvlan parent link"),
        ] {
            let error = networks.0.create(&street("n1", "macvlan", parent)).unwrap_err();
            assert!(error.to_string().contains(says), "{parent}: {error}");
        }
        match networks.0.create(&street("n1", "macvlan", "hull0.50")) {
            Ok(_) => {
                let kind = || networks.0.host.socket.link("hull0.50").unwrap().map(|l| l.kind);
                assert_eq!(kind().as_deref(), Some("vlan"));
                networks.0.host.socket.remove_link("hull0.50").unwrap();
                let networks = lab.start(&[]);
                assert_eq!(kind().as_deref(), Some("vlan"), "after the host has started again");
                remove(&networks, "n1");
            }
            Err(error) => {
                let says = "this kernel has no VLANs (8021q)";
                assert!(error.to_string().contains(says), "{error}");
                assert!(networks.0.inspect("n1").is_err());
            }
        }
        assert_eq!(lab.links(), before);
    });
}
