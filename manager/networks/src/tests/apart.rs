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

/// What `ip monitor` tells of interfaces while something is done.
fn told(work: impl FnOnce()) -> Vec<String> {
    use std::io::BufRead as _;
    let mut monitor = std::process::Command::new("ip")
        .args(["-o", "monitor", "link"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(monitor.stdout.take().unwrap());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let lines = Arc::clone(&lines);
        move || output.lines().for_each(|line| lines.lock().unwrap().push(line.unwrap()))
    });
    let is_told = |name: &str| {
        let socket = netlink::Socket::open().unwrap();
        socket.remove_link(name).unwrap();
        socket.add_bridge(name, mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        lines.lock().unwrap().iter().any(|line: &String| line.contains(name))
    };
    eventually("it listens", Duration::from_secs(20), || is_told("begin"));
    work();
    eventually("it has told all", Duration::from_secs(20), || is_told("end"));
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    reader.join().unwrap();
    Arc::into_inner(lines).unwrap().into_inner().unwrap()
}

#[test]
fn no_port_is_up_before_the_packet_filter_knows_it() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let mut asked = container("aa", "", &[]);
        asked.options.publish =
            vec![v1::PublishOptions { host_port: 8080, container_port: 80, ..Default::default() }];
        let went_up = |told: &[String]| {
            let is_up = |line: &String| {
                let flags = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                line.contains(" hv") && flags.is_some_and(|(f, _)| f.split(',').any(|f| f == "UP"))
            };
            told.iter().any(is_up)
        };
        let told_of_one = told(|| drop(networks.0.attach(&asked).unwrap()));
        assert!(went_up(&told_of_one), "the control: {told_of_one:?}");
        let rule = networks.0.firewall.rules().endpoints.into_values().next().unwrap();
        networks.0.detach("aa").unwrap();

        // The filter refuses the container, whose port is another's for it.
        let interface = "hvother".to_owned();
        networks.0.firewall.put_endpoint(firewall::Endpoint { interface, ..rule }).unwrap();
        let told = told(|| {
            let error = networks.0.attach(&asked).unwrap_err().to_string();
            assert!(error.contains("leads to hvother already"), "{error}");
        });
        assert!(told.iter().any(|line| line.contains(" hv")), "its port was made: {told:?}");
        assert!(!went_up(&told), "{told:?}");
        lab.assert_clean(&networks, "after a failure");
    });
}
