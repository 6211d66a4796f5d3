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
