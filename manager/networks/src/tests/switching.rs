//! What bridges know of who is where.

use super::*;

/// What `bridge` says of a port: its settings, and the addresses that do not age.
fn port(name: &str) -> (String, String) {
    let bridge = |args: &[&str]| {
        let output = std::process::Command::new("bridge").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    (bridge(&["-d", "link", "show", "dev", name]), bridge(&["fdb", "show", "brport", name]))
}

#[test]
fn a_bridge_is_told_whose_address_is_at_a_port_and_learns_none_there() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.attach(&container("aa", "", &[])).unwrap();
        let one = networks.0.attach(&container("bb", "", &[])).unwrap();
        let endpoint = networks.0.records.of_container("aa").unwrap().remove(0);
        let name = endpoint.host_interface();
        let (settings, addresses) = port(&name);
        assert!(settings.contains("learning off"), "{settings}");
        let known = |addresses: &str| {
            addresses.lines().any(|line| {
                line.contains(&endpoint.mac.to_string()) && line.trim_end().ends_with("static")
            })
        };
        assert!(known(&addresses), "{addresses}");
        assert!(reaches(&networks, "aa", "bb", &one.endpoints[0].ipv4_address));

        // Put on its bridge again, it is told again.
        let socket = netlink::Socket::open().unwrap();
        let link = socket.link(&name).unwrap().unwrap();
        socket.set_master(link.index, 0).unwrap();
        networks.0.check("aa").unwrap();
        let (settings, addresses) = port(&name);
        assert!(settings.contains("learning off") && known(&addresses), "{settings}{addresses}");
    });
}

#[test]
fn a_bridge_learns_without_the_packet_filter_and_of_chosen_addresses() {
    on_a_host(|mut lab| {
        let mut learns = |iptables, mac: &str| {
            lab.settings.iptables = iptables;
            let networks = lab.start(&[]);
            let mut asked = container("aa", "bridge", &["bridge"]);
            asked.options.networks[0].mac_address = mac.into();
            networks.0.attach(&asked).unwrap();
            let endpoint = networks.0.records.of_container("aa").unwrap().remove(0);
            let (settings, _) = port(&endpoint.host_interface());
            networks.0.detach("aa").unwrap();
            assert!(settings.contains("learning o"), "{settings}");
            settings.contains("learning on")
        };
        assert!(!learns(true, ""));
        assert!(learns(false, ""));
        assert!(learns(true, "02:00:00:00:00:99"));
    });
}
