//! Containers that do not reach each other.

use super::*;

#[test]
fn ports_of_a_network_without_communication_reach_the_bridge_only() {
    for iptables in [true, false] {
        on_a_host(move |mut lab| {
            lab.settings.iptables = iptables;
            ports_reach_the_bridge_only(&lab);
        });
    }
}

fn create_apart(networks: &Networks) {
    networks
        .0
        .create(&network("n1", |request| {
            let key = "com.docker.network.bridge.enable_icc";
            request.options.insert(key.into(), "false".into());
        }))
        .unwrap();
}

fn ports_reach_the_bridge_only(lab: &Lab) {
    let networks = lab.start(&[]);
    create_apart(&networks);
    networks.0.attach(&container("aa", "n1", &[])).unwrap();
    let b = networks.0.attach(&container("bb", "n1", &[])).unwrap();
    assert!(!reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
    let gateway: IpAddr = b.endpoints[0].ipv4_gateway.parse().unwrap();
    let host = TcpListener::bind((gateway, 0)).unwrap();
    let address = host.local_addr().unwrap();
    inside(&networks, "aa", move || TcpStream::connect(address).unwrap());
}

#[test]
fn a_link_leads_to_the_exposed_port_of_a_network_without_communication() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        create_apart(&networks);
        let mut target = container("bb", "n1", &[]);
        target.options.expose = vec!["8080/tcp".into()];
        let b = networks.0.attach(&target).unwrap();
        let mut linked = container("aa", "n1", &["n1"]);
        linked.options.networks[0].links = vec!["name-bb:web".into()];
        let a = networks.0.attach(&linked).unwrap();
        let connects = |from: &str, to: &str, at: &v1::Endpoint, port: u16| {
            let address = (at.ipv4_address.parse::<IpAddr>().unwrap(), port).into();
            let _listener = inside(&networks, to, || TcpListener::bind(address).unwrap());
            inside(&networks, from, || {
                TcpStream::connect_timeout(&address, Duration::from_millis(2500)).is_ok()
            })
        };
        assert!(connects("aa", "bb", &b.endpoints[0], 8080));
        assert!(!connects("aa", "bb", &b.endpoints[0], 8081));
        assert!(!connects("bb", "aa", &a.endpoints[0], 8080));
    });
}
