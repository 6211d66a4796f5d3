//! Hardware addresses: each has one owner.

use super::*;

fn bridge(networks: &Networks, name: &str) -> (String, link::Link) {
    let interface = networks.0.inspect(name).unwrap().interface;
    let link = networks.0.host.socket.link(&interface).unwrap().unwrap();
    (interface, link)
}

fn in_subnet(subnet: &str) -> v1::CreateNetworkRequest {
    network("n1", |request| {
        request.ipv6 = Some(false);
        let pool = v1::IpamPool { subnet: subnet.into(), ..Default::default() };
        request.ipam = Some(v1::Ipam { pools: vec![pool], ..Default::default() });
    })
}

fn reaches_the_host(networks: &Networks, id: &str, gateway: &str) -> bool {
    let host = TcpListener::bind((gateway.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let address = host.local_addr().unwrap();
    inside(networks, id, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(2500)).is_ok()
    })
}

#[test]
fn no_container_has_the_hardware_address_of_its_bridge() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&in_subnet("10.78.0.0/29")).unwrap();
        // All that there are, the last one included.
        for id in ["c2", "c3", "c4", "c5", "c6"] {
            networks.0.attach(&container(id, "n1", &[])).unwrap();
            assert!(reaches_the_host(&networks, id, "10.78.0.1"), "{id}");
        }
        let (_, link) = bridge(&networks, "n1");
        networks.0.detach("c6").unwrap();
        let mut same = container("c7", "n1", &["n1"]);
        same.options.networks[0].mac_address = link.mac.unwrap().to_string();
        let error = networks.0.attach(&same).unwrap_err();
        let expected =
            format!("MAC address {} is that of the bridge of network n1", link.mac.unwrap());
        assert_eq!(error.message(), expected);
    });
}

#[test]
fn a_bridge_with_an_address_that_a_container_may_have_gets_another_one() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&in_subnet("10.78.0.0/29")).unwrap();
        networks.0.attach(&container("c2", "n1", &[])).unwrap();
        let (_, link) = bridge(&networks, "n1");
        // As earlier versions had it; its neighbour knows it so.
        let old = mac::Mac::of("10.78.0.7".parse().unwrap());
        networks.0.host.socket.set_mac(link.index, old).unwrap();
        inside(&networks, "c2", || {
            std::process::Command::new("ip").args(["neigh", "flush", "all"]).status().unwrap()
        });
        assert!(reaches_the_host(&networks, "c2", "10.78.0.1"));
        drop(networks);
        let networks = lab.start(&["c2"]);
        assert_ne!(bridge(&networks, "n1").1.mac, Some(old));
        let known = || {
            let list = || std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
            inside(&networks, "c2", list)
        };
        let new = link.mac.unwrap().to_string();
        eventually("its neighbour knows", Duration::from_secs(20), || known().contains(&new));
        assert!(reaches_the_host(&networks, "c2", "10.78.0.1"));
    });
}
