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
