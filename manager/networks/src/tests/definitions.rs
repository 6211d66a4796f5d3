//! Networks come, go, and are what was asked for.

use super::*;

#[test]
fn networks_are_made_found_and_removed_and_survive_the_manager() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let response = networks
            .0
            .create(&network("n1", |request| {
                request.labels.insert("a".into(), "b".into());
                request.options.insert("com.docker.network.driver.mtu".into(), "1400".into());
            }))
            .unwrap();
        let id = response.id;
        let made = networks.0.inspect("n1").unwrap();
        assert_eq!((made.id.as_str(), made.driver.as_str()), (id.as_str(), "bridge"));
        assert_eq!(made.ipam.as_ref().unwrap().pools[0].subnet, "172.18.0.0/16");
        assert_eq!(networks.0.host.socket.link(&made.interface).unwrap().unwrap().mtu, 1400);
        let error = networks.0.create(&network("n1", |_| {})).unwrap_err();
        assert_eq!(error.message(), "network with name n1 already exists");
        for name in ["bridge", "host", "none", "default"] {
            assert!(networks.0.create(&network(name, |_| {})).is_err(), "{name}");
        }

        // After the host has started again, nothing of the kernel's is left.
        networks.0.host.socket.remove_link(&made.interface).unwrap();
        let networks = lab.start(&[]);
        assert_eq!(networks.0.inspect(&id[..12]).unwrap(), made);
        assert!(lab.links().contains(&made.interface));

        let a = networks.0.attach(&container("aa", "n1", &[])).unwrap();
        assert_eq!(a.endpoints[0].dns_names, ["name-aa", "aa", "host-aa"]);
        let member = &networks.0.inspect("n1").unwrap().members[0];
        assert_eq!(
            (member.name.as_str(), member.ipv4_address.as_str()),
            ("name-aa", "172.18.0.2/16")
        );
        let remove = |name: &str| {
            networks.0.remove(&v1::RemoveNetworkRequest { network: name.into(), force: false })
        };
        let error = remove("n1").unwrap_err();
        assert!(error.message().contains("has active endpoints (name:\"name-aa\""), "{error}");
        assert_eq!(networks.0.prune(&Default::default()).unwrap().removed, [""; 0]);
        networks.0.detach("aa").unwrap();
        assert_eq!(networks.0.prune(&Default::default()).unwrap().removed, ["n1"]);
        assert!(!lab.links().contains(&made.interface));
        assert_eq!(remove("n1").unwrap_err().message(), "network n1 not found");
        assert!(remove("bridge").unwrap_err().message().contains("pre-defined"));
        let names: Vec<_> = networks
            .0
            .list(&Default::default())
            .unwrap()
            .networks
            .into_iter()
            .map(|network| format!("{} {}", network.name, network.driver))
            .collect();
        assert_eq!(names, ["bridge bridge", "host host", "none null"]);
    });
}

#[test]
fn a_removal_that_was_killed_is_finished() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        let before = lab.links();
        let known = networks.0.state().catalog.find("n1").unwrap();
        networks.0.state().catalog.set_aside(&known).unwrap();
        assert_eq!(lab.links(), before);
        let networks = lab.start(&[]);
        assert!(networks.0.inspect("n1").is_err());
        assert_eq!(lab.links().into_iter().collect::<Vec<_>>(), ["hull0"]);
        assert_eq!(networks.0.state().catalog.aside().unwrap().len(), 0);
    });
}

#[test]
fn the_default_network_is_what_the_settings_say() {
    on_a_host(|mut lab| {
        let networks = lab.start(&[]);
        let id = networks.0.inspect("bridge").unwrap().id;
        let default = lab.settings.default.as_mut().unwrap();
        default.bip = Some("10.5.0.9/24".parse().unwrap());
        default.fixed_cidr = Some("10.5.0.64/26".parse().unwrap());
        lab.settings.ipv6 = false;
        lab.settings.mtu = Some(1300);
        lab.settings.bind = Some("127.0.0.1".parse().unwrap());
        let networks = lab.start(&[]);
        let network = networks.0.inspect("bridge").unwrap();
        let pool = &network.ipam.as_ref().unwrap().pools[0];
        assert_eq!(
            (pool.subnet.as_str(), pool.ip_range.as_str(), pool.gateway.as_str(), network.ipv6),
            ("10.5.0.0/24", "10.5.0.64/26", "10.5.0.9", false)
        );
        assert_eq!(network.id, id);
        let option = |key: &str| network.options[&format!("com.docker.network.{key}")].as_str();
        assert_eq!(option("driver.mtu"), "1300");
        assert_eq!(option("bridge.host_binding_ipv4"), "127.0.0.1");
        assert_eq!(option("bridge.enable_icc"), "true");
        let link = networks.0.host.socket.link("hull0").unwrap().unwrap();
        assert_eq!(link.mtu, 1300);
        let addresses = networks.0.host.socket.addresses(link.index).unwrap();
        assert_eq!(addresses, ["10.5.0.9/24".parse().unwrap()]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.5.0.64");
        // While somebody is in it, it stays as it is.
        lab.settings.default.as_mut().unwrap().bip = None;
        assert_eq!(lab.start(&["aa"]).0.inspect("bridge").unwrap().ipam, network.ipam);
    });
}

#[test]
fn a_dropped_list_is_a_network_as_long_as_its_file_is_there() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let file = lab.settings.definitions.join("10-any.conflist");
        let list = r#"{"cniVersion":"1.0.0","name":"ptpnet","plugins":[{"type":"ptp"}]}"#;
        std::fs::write(&file, list).unwrap();
        let network = networks.0.inspect("ptpnet").unwrap();
        assert_eq!(
            (network.driver.as_str(), &network.plugins[..]),
            ("ptp", &["ptp".to_owned()][..])
        );
        assert_eq!(Path::new(&network.config_path), file);
        std::fs::remove_file(&file).unwrap();
        assert!(networks.0.inspect("ptpnet").is_err());
    });
}
