//! Published ports.

use super::*;

/// What the filter is told of a container's ports.
fn ports_of(networks: &Networks) -> Vec<String> {
    let rules = networks.0.firewall.rules();
    let mut ports: Vec<_> = rules
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.ports)
        .map(|port| format!("{port} {}:{}", port.container_address, port.container_port))
        .collect();
    ports.sort();
    ports
}

#[test]
fn published_ports_lead_to_the_container_and_nobody_else_gets_them() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let with_port = |id: &str, host_ip: &str, host_port: u32| {
            let mut container = container(id, "", &[]);
            container.options.publish = vec![v1::PublishOptions {
                host_ip: host_ip.into(),
                host_port,
                container_port: 80,
                protocol: "tcp".into(),
                ..Default::default()
            }];
            container
        };
        let a = networks.0.attach(&with_port("aa", "", 8080)).unwrap();
        let ipv6 = &a.endpoints[0].ipv6_address;
        assert_eq!(
            ports_of(&networks),
            ["0.0.0.0:8080/tcp 172.17.0.2:80".to_owned(), format!("[::]:8080/tcp {ipv6}:80")]
        );
        assert_eq!(a.published.len(), 2);
        let error = networks.0.attach(&with_port("bb", "", 8080)).unwrap_err();
        let words = "Bind for 0.0.0.0:8080 failed: port is already allocated";
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(networks.0.records.all().unwrap().len(), 1);
        let b = networks.0.attach(&with_port("bb", "127.0.0.1", 0)).unwrap();
        let chosen = b.published[0].host_port;
        assert!(chosen > 0);

        // From the host's loopback, by the container's own address, and after the manager.
        let listener = inside(&networks, "bb", || TcpListener::bind("0.0.0.0:80").unwrap());
        let answers = |port: u32| {
            let address = format!("127.0.0.1:{port}").parse().unwrap();
            listener.set_nonblocking(true).unwrap();
            while listener.accept().is_ok() {}
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
                && std::iter::repeat_with(|| {
                    std::thread::sleep(Duration::from_millis(5));
                    listener.accept().is_ok()
                })
                .take(200)
                .any(|accepted| accepted)
        };
        assert!(answers(chosen));
        let before = ports_of(&networks);
        kill(networks);
        let networks = lab.start(&["aa", "bb"]);
        assert_eq!(ports_of(&networks), before);
        assert_eq!(networks.0.check("bb").unwrap().published, b.published);
        assert!(answers(chosen));
        let said = networks.0.audit(&Default::default()).unwrap();
        let open: Vec<_> = said.reaches.iter().filter(|r| r.port == 8080).collect();
        assert_eq!((open.len(), open[0].container.as_str()), (2, "name-aa"));
        networks.0.detach("aa").unwrap();
        networks.0.detach("bb").unwrap();
        assert_eq!(ports_of(&networks), [""; 0]);
        networks.0.attach(&with_port("cc", "", 8080)).unwrap();
        networks.0.detach("cc").unwrap();
    });
}

#[test]
fn ports_follow_the_way_out_when_networks_come_and_go() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |r| r.ipv6 = Some(false))).unwrap();
        networks.0.create(&network("n2", |r| r.ipv6 = Some(false))).unwrap();
        let mut asked = container("aa", "n1", &[]);
        asked.options.expose = vec!["80/tcp".into()];
        asked.options.publish_all = true;
        lab_publishes(&networks, &asked);
    });
}

fn lab_publishes(networks: &Networks, asked: &Container) {
    let a = networks.0.attach(asked).unwrap();
    let port = a.published[0].host_port;
    let leads_to = |address: &str| vec![format!("0.0.0.0:{port}/tcp {address}:80")];
    let ipv4 = || -> Vec<_> {
        ports_of(networks).into_iter().filter(|port| port.starts_with("0.0.0.0")).collect()
    };
    assert_eq!(ipv4(), leads_to("172.18.0.2"));
    let options =
        v1::EndpointOptions { network: "n2".into(), gateway_priority: 1, ..Default::default() };
    let both = networks.0.connect("aa", &options).unwrap();
    assert_eq!(ipv4(), leads_to("172.19.0.2"));
    assert_eq!(both.published, a.published);
    networks.0.disconnect("aa", "n2").unwrap();
    assert_eq!(ipv4(), leads_to("172.18.0.2"));
}

#[test]
fn a_container_reaches_its_own_port_also_when_bridges_begin_to_ask_the_filters_of_ip() {
    on_a_host(|lab| {
        let switch = "bridge/bridge-nf-call-iptables";
        if sysctl::get(switch).is_none() {
            eprintln!("not run: this kernel has no br_netfilter");
            return;
        }
        let turn = |value: &str| {
            for family in ["iptables", "ip6tables"] {
                sysctl::set(&format!("bridge/bridge-nf-call-{family}"), value).unwrap();
            }
        };
        turn("0");
        let networks = lab.open();
        networks.0.runtime.block_on(networks.recover(&[])).unwrap();
        let mut asked = container("aa", "", &[]);
        asked.options.publish =
            vec![v1::PublishOptions { host_port: 8080, container_port: 80, ..Default::default() }];
        let a = networks.0.attach(&asked).unwrap();
        networks.0.attach(&container("bb", "", &[])).unwrap();
        let _listener = inside(&networks, "aa", || TcpListener::bind("0.0.0.0:80").unwrap());
        let at = format!("{}:8080", a.endpoints[0].ipv4_gateway).parse().unwrap();
        let reaches = |from: &str| {
            let limit = Duration::from_millis(1500);
            inside(&networks, from, || TcpStream::connect_timeout(&at, limit).is_ok())
        };
        assert!(reaches("aa") && reaches("bb"), "the control");
        let port = networks.0.records.of_container("aa").unwrap()[0].host_interface();
        let sends_back = || {
            let mut ip = std::process::Command::new("ip");
            let shown = ip.args(["-d", "link", "show", &port]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("hairpin on")
        };
        assert!(!sends_back(), "the control");
        turn("1");
        networks.0.attach(&container("cc", "", &[])).unwrap();
        eventually("ports are set up for it", Duration::from_secs(60), sends_back);
        assert!(reaches("aa") && reaches("bb"));
    });
}
