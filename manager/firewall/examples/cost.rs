//! What a change costs beside 0 and 5,000 published ports that are there already, in a network
//! namespace of its own. Needs root.
#![forbid(unsafe_code)]

use std::{error::Error, time::Instant};

use hull_manager_firewall::{
    Endpoint, Firewall, Mac, Network, Port, Protocol, Publish, Rules, Settings,
};
use hull_runtime_sys::namespace;

const ROUNDS: u16 = 200;

fn endpoint(number: u16, ports: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    let address = [172, 17, high, low].into();
    let port = |at: u16| Port {
        protocol: Protocol::Tcp,
        host_address: [0, 0, 0, 0].into(),
        host_port: 1024 + number * 10 + at,
        container_address: address,
        container_port: 80 + at,
        publish: Publish::Nat,
    };
    Endpoint {
        interface: format!("veth{number}"),
        index: 1000 + u32::from(number),
        bridge: "hull0".into(),
        mac: Mac([2, 0x42, 172, 17, high, low]),
        addresses: vec![address],
        may_spoof: false,
        links: vec![],
        ports: (0..ports).map(port).collect(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    namespace::unshare(nix::libc::CLONE_NEWNET)?;
    let firewall = Firewall::open(Settings::default())?;
    let network = Network {
        bridge: "hull0".into(),
        index: 1,
        subnets: vec!["172.17.0.0/16".parse()?],
        masquerade: true,
        internal: false,
        inter_container: true,
    };
    for there in [0, 500] {
        let endpoints = (0..there).map(|number| endpoint(number, 10));
        let rules = Rules {
            networks: [(network.bridge.clone(), network.clone())].into(),
            endpoints: endpoints.map(|e| (e.interface.clone(), e)).collect(),
        };
        let start = Instant::now();
        firewall.replace(rules)?;
        let whole = start.elapsed();
        println!("{} endpoints, {} ports: the whole in {whole:?}", there, there * 10);
        for ports in [1, 10] {
            let mut add = Vec::new();
            let mut remove = Vec::new();
            for _ in 0..ROUNDS {
                let start = Instant::now();
                firewall.put_endpoint(endpoint(600, ports))?;
                add.push(start.elapsed());
                let start = Instant::now();
                firewall.remove_endpoint("veth600")?;
                remove.push(start.elapsed());
            }
            add.sort();
            remove.sort();
            let middle = usize::from(ROUNDS / 2);
            println!(
                "  one endpoint with {ports} ports: median {:?} to add, {:?} to remove",
                add[middle], remove[middle]
            );
        }
    }
    Ok(())
}
