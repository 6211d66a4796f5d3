//! The whole, in a network namespace of each test's own that stands for the host's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use hull_runtime_sys as sys;

use super::*;
use crate::{plan, sysctl};

mod interfaces;
mod switching;

/// A data root, an exec root that is a mount of its own, and the networks in them.
struct Lab {
    directory: tempfile::TempDir,
    settings: Settings,
}

/// Does something in a new network namespace, on a thread that ends with it. Threads that it
/// starts are in it, too.
fn on_a_host<T: Send>(work: impl FnOnce(Lab) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            sys::netlink::raise_loopback().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let _entered = runtime.enter();
            let directory = tempfile::tempdir().unwrap();
            let settings =
                Settings::new(directory.path().join("data"), directory.path().join("netns"));
            work(Lab { directory, settings })
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.settings.namespaces).into_iter().flatten().flatten() {
            drop(sys::mount::unmount(entry.path(), true));
        }
    }
}

impl Lab {
    /// As a manager that starts. Its predecessor may have been killed.
    fn open(&self) -> Networks {
        let store = Store::open(&self.directory.path().join("meta.db")).unwrap();
        let journal = Journal::open(&store).unwrap();
        Networks::open(self.settings.clone(), &store, &journal).unwrap()
    }

    fn start(&self, live: &[&str]) -> Networks {
        let networks = self.open();
        networks.0.recover(&live.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()).unwrap();
        networks
    }

    /// The interfaces of the host, without its loopback.
    fn links(&self) -> BTreeSet<String> {
        let socket = netlink::Socket::open().unwrap();
        let links = socket.links(false).unwrap().into_iter().map(|link| link.name);
        links.filter(|name| name != "lo").collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.settings.namespaces).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Nothing of any container is there: no interface, no namespace, no row.
    fn assert_clean(&self, networks: &Networks, when: &str) {
        let ports: Vec<_> =
            self.links().into_iter().filter(|name| name.starts_with("hv")).collect();
        assert_eq!(ports, [""; 0], "interfaces {when}");
        assert_eq!(self.namespaces(), [""; 0], "namespaces {when}");
        assert_eq!(networks.0.records.all().unwrap(), [], "rows {when}");
        assert_eq!(networks.0.records.sandboxes().unwrap(), [], "rows {when}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.settings.namespaces.display().to_string();
        assert!(!mounts.contains(&root), "mounts {when}");
    }
}

fn container(id: &str, mode: &str, networks: &[&str]) -> Container {
    let endpoint =
        |name: &&str| v1::EndpointOptions { network: (*name).into(), ..Default::default() };
    Container {
        id: id.into(),
        name: format!("name-{id}"),
        hostname: format!("host-{id}"),
        options: v1::ContainerOptions {
            network_mode: mode.into(),
            networks: networks.iter().map(endpoint).collect(),
            ..Default::default()
        },
    }
}

fn network(
    name: &str,
    change: impl FnOnce(&mut v1::CreateNetworkRequest),
) -> v1::CreateNetworkRequest {
    let mut request = v1::CreateNetworkRequest { name: name.into(), ..Default::default() };
    change(&mut request);
    request
}

/// Does something in a container.
fn inside<T: Send>(networks: &Networks, id: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = networks.0.host.namespaces.open(id).unwrap().unwrap();
    namespace::inside(namespace.as_fd(), |_| Ok(work())).unwrap()
}

/// Whether a connection from within `from` reaches a listener within `to` at its address.
fn reaches(networks: &Networks, from: &str, to: &str, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let listener = inside(networks, to, || TcpListener::bind((address, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    inside(networks, from, || {
        TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(2500)).is_ok()
    })
}

#[test]
fn containers_of_a_network_reach_each_other_and_the_gateway_by_both_families() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "bridge", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "172.17.0.2");
        assert_eq!(b.endpoints[0].ipv4_address, "172.17.0.3");
        assert_eq!(a.endpoints[0].ipv4_gateway, "172.17.0.1");
        assert_eq!(a.endpoints[0].mac_address, "02:42:ac:11:00:02");
        assert!(a.hosts.contains(&"172.17.0.2\thost-aa".to_owned()), "{:?}", a.hosts);
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        assert!(reaches(&networks, "bb", "aa", &a.endpoints[0].ipv6_address));
        // The host, at the gateway's addresses, which is the way out.
        for gateway in [&a.endpoints[0].ipv4_gateway, &a.endpoints[0].ipv6_gateway] {
            let host = TcpListener::bind((gateway.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let address = host.local_addr().unwrap();
            inside(&networks, "aa", move || TcpStream::connect(address).unwrap());
        }
        let default =
            inside(&networks, "aa", || netlink::Socket::open().unwrap().routes().unwrap());
        let gateways: Vec<_> = default
            .into_iter()
            .filter(|route| route.to.is_none())
            .filter_map(|route| route.gateway.map(|gateway| gateway.to_string()))
            .collect();
        assert!(gateways.contains(&"172.17.0.1".to_owned()) && gateways.len() == 2, "{gateways:?}");
        assert_eq!(sysctl::get("ipv4/ip_forward").as_deref(), Some("1"));

        networks.0.detach("aa").unwrap();
        networks.0.detach("aa").unwrap();
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
        // An address that was given back rests.
        let c = networks.0.attach(&container("cc", "", &[])).unwrap();
        assert_eq!(c.endpoints[0].ipv4_address, "172.17.0.4");
    });
}

#[test]
fn a_manager_killed_after_any_step_of_attach_leaves_nothing_for_long() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        let before = lab.links();
        let asked = container("aa", "bridge", &["n1"]);
        let wanted = sandbox::wanted(&asked.options, true);
        let mut killed_after = 0;
        loop {
            let networks = lab.start(&[]);
            let places = networks.0.reserve(&asked, &wanted, "eth0").unwrap();
            let steps = plan::attach(&sandbox::borrow(&places), None);
            for step in &steps[..killed_after] {
                networks.0.host.apply("aa", step).unwrap();
            }
            drop(networks);
            let after = lab.start(&[]);
            lab.assert_clean(&after, &format!("killed after {:?}", steps[..killed_after].last()));
            assert_eq!(lab.links(), before, "killed after {killed_after}");
            if killed_after == steps.len() {
                break;
            }
            // Or it is started again: an attach replaces what is there.
            let places = after.0.reserve(&asked, &wanted, "eth0").unwrap();
            for step in &plan::attach(&sandbox::borrow(&places), None)[..killed_after] {
                after.0.host.apply("aa", step).unwrap();
            }
            after.0.attach(&asked).unwrap();
            assert_eq!(after.0.records.all().unwrap().len(), 2);
            after.0.detach("aa").unwrap();
            lab.assert_clean(&after, "after detach");
            killed_after += 1;
        }
        assert_eq!(killed_after, 6);
    });
}

#[test]
fn a_manager_killed_within_detach_finishes_it_later() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let before = lab.links();
        for killed_after in 0..3 {
            let attached = networks.0.attach(&container("aa", "", &[])).unwrap();
            let endpoint = &networks.0.records.all().unwrap()[0];
            if killed_after > 0 {
                networks.0.host.socket.remove_link(&endpoint.host_interface()).unwrap();
            }
            if killed_after > 1 {
                networks.0.host.namespaces.remove("aa").unwrap();
            }
            let after = lab.start(&[]);
            lab.assert_clean(&after, &format!("killed after {killed_after}"));
            assert_eq!(lab.links(), before);
            assert!(!attached.namespace.exists());
        }
    });
}

#[test]
fn a_container_that_outlives_the_manager_keeps_its_place_and_gets_back_what_is_missing() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "", &[])).unwrap();
        drop(networks);
        let networks = lab.start(&["aa", "bb"]);
        assert_eq!(networks.0.check("aa").unwrap(), a);
        let address = &b.endpoints[0].ipv4_address;
        assert!(reaches(&networks, "aa", "bb", address));
        // Nobody else gets one of their addresses.
        let c = networks.0.attach(&container("cc", "", &[])).unwrap();
        assert_eq!(c.endpoints[0].ipv4_address, "172.17.0.4");

        // Somebody deletes the bridge, and then an interface.
        networks.0.host.socket.remove_link("hull0").unwrap();
        assert!(!reaches(&networks, "aa", "bb", address));
        for id in ["aa", "bb", "cc"] {
            networks.0.check(id).unwrap();
        }
        assert!(reaches(&networks, "aa", "bb", address), "the bridge is healed");
        let port = networks.0.records.of_container("bb").unwrap()[0].host_interface();
        networks.0.host.socket.remove_link(&port).unwrap();
        assert_eq!(networks.0.check("bb").unwrap(), b);
        assert!(reaches(&networks, "aa", "bb", address), "the interface is healed");

        let networks = lab.start(&["aa"]);
        assert_eq!(lab.namespaces(), ["aa"]);
        assert_eq!(networks.0.records.all().unwrap().len(), 1);
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let macvlan = network("gone", |request| {
            request.driver = "macvlan".into();
            request.options.insert("parent".into(), "up0".into());
        });
        let error = networks.0.create(&macvlan).unwrap_err();
        assert_eq!(error.message(), "the interface up0 is not there");
        networks.0.host.socket.add_bridge("up0", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        networks.0.create(&macvlan).unwrap();
        networks.0.host.socket.remove_link("up0").unwrap();
        let error = networks.0.attach(&container("aa", "bridge", &["gone"])).unwrap_err();
        assert!(error.to_string().contains("the interface up0 is not there"), "{error}");
        lab.assert_clean(&networks, "after a failure");
        let error = networks.0.attach(&container("aa", "nope", &[])).unwrap_err();
        assert_eq!(error.message(), "network nope not found");
        lab.assert_clean(&networks, "after a failure");
    });
}

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
fn fixed_addresses_are_theirs_and_nobody_elses() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks
            .0
            .create(&network("n1", |request| {
                request.ipam = Some(v1::Ipam {
                    pools: vec![v1::IpamPool {
                        subnet: "10.9.0.0/29".into(),
                        ..Default::default()
                    }],
                    ..Default::default()
                });
            }))
            .unwrap();
        let fixed = |id: &str, address: &str| {
            let mut container = container(id, "n1", &["n1"]);
            container.options.networks[0].ipv4_address = address.into();
            container.options.networks[0].mac_address = "02:11:22:33:44:55".into();
            container
        };
        let a = networks.0.attach(&fixed("aa", "10.9.0.3")).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.9.0.3");
        assert_eq!(a.endpoints[0].mac_address, "02:11:22:33:44:55");
        let error = networks.0.attach(&fixed("bb", "10.9.0.3")).unwrap_err();
        assert!(error.message().starts_with("Address already in use"), "{error}");
        let error = networks.0.attach(&fixed("bb", "10.8.0.3")).unwrap_err();
        assert!(error.message().contains("no configured subnet"), "{error}");
        // Of six addresses one is the gateway's and one is taken.
        for (id, last) in [("b1", 4), ("b2", 5), ("b3", 6), ("b4", 2)] {
            let b = networks.0.attach(&container(id, "n1", &[])).unwrap();
            assert_eq!(b.endpoints[0].ipv4_address, format!("10.9.0.{last}"));
        }
        let error = networks.0.attach(&container("b5", "n1", &[])).unwrap_err();
        assert!(error.message().starts_with("no available IPv4 addresses"), "{error}");
        assert_eq!(networks.0.records.all().unwrap().len(), 5);
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        for name in ["n1", "n2"] {
            networks.0.create(&network(name, |_| {})).unwrap();
        }
        networks.0.attach(&container("aa", "n1", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "n2", &[])).unwrap();
        let address = &b.endpoints[0].ipv4_address;
        let options = v1::EndpointOptions {
            network: "n2".into(),
            aliases: vec!["al".into()],
            gateway_priority: 5,
            ..Default::default()
        };
        networks.0.connect("aa", &options).unwrap();
        let error = networks.0.connect("aa", &options).unwrap_err();
        assert!(error.message().contains("already exists in network n2"), "{error}");
        let places = networks.0.check("aa").unwrap().endpoints;
        assert_eq!(places[1].dns_names, ["name-aa", "al", "aa", "host-aa"]);
        assert_eq!(places[1].interface, "eth1");
        assert!(reaches(&networks, "aa", "bb", address));
        let gateway = || {
            inside(&networks, "aa", || netlink::Socket::open().unwrap().routes().unwrap())
                .into_iter()
                .find(|route| route.to.is_none() && route.gateway.is_some_and(|g| g.is_ipv4()))
                .and_then(|route| route.gateway)
                .unwrap()
                .to_string()
        };
        assert_eq!(gateway(), places[1].ipv4_gateway, "the higher priority");
        let left = networks.0.disconnect("aa", "n2").unwrap();
        assert_eq!(left.endpoints.len(), 1);
        assert_eq!(gateway(), places[0].ipv4_gateway);
        let error = networks.0.disconnect("aa", "n2").unwrap_err();
        assert_eq!(error.message(), "container name-aa is not connected to network n2");
        networks.0.disconnect("aa", "n1").unwrap();
        assert_eq!(networks.0.connect("aa", &options).unwrap().endpoints[0].interface, "eth0");
        networks.0.detach("aa").unwrap();
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_one_without_ipv6_has_none() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks
            .0
            .create(&network("n1", |request| {
                request.internal = true;
                request.ipv6 = Some(false);
            }))
            .unwrap();
        let a = networks.0.attach(&container("aa", "n1", &[])).unwrap();
        assert_eq!(
            (a.endpoints[0].ipv4_gateway.as_str(), a.endpoints[0].ipv6_address.as_str()),
            ("", "")
        );
        let (routes, ipv6) = inside(&networks, "aa", || {
            let routes = netlink::Socket::open().unwrap().routes().unwrap();
            (routes, sysctl::get("ipv6/conf/eth0/disable_ipv6"))
        });
        assert!(routes.iter().all(|route| route.to.is_some()), "{routes:?}");
        assert_eq!(ipv6.as_deref(), Some("1"));
        let bridge = networks.0.inspect("n1").unwrap().interface;
        assert_eq!(sysctl::get(&format!("ipv6/conf/{bridge}/disable_ipv6")).as_deref(), Some("1"));
    });
}

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

#[test]
fn a_bridge_of_somebody_else_is_used_and_left_alone() {
    on_a_host(|mut lab| {
        let socket = netlink::Socket::open().unwrap();
        socket.add_bridge("br9", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let index = socket.link("br9").unwrap().unwrap().index;
        socket.add_address(index, "10.6.0.5/24".parse().unwrap()).unwrap();
        socket.set_up(index).unwrap();
        lab.settings.default.as_mut().unwrap().bridge = "br9".into();
        let networks = lab.start(&[]);
        let a = networks.0.attach(&container("aa", "", &[])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_gateway, "10.6.0.5");
        assert_eq!(a.endpoints[0].ipv4_address, "10.6.0.1");
        networks.0.detach("aa").unwrap();
        lab.settings.default = None;
        let networks = lab.start(&[]);
        assert_eq!(lab.links().into_iter().collect::<Vec<_>>(), ["br9"]);
        assert!(networks.wanted(&v1::ContainerOptions::default()).is_empty());
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
        let networks = lab.start(&[]);
        let network = networks.0.inspect("bridge").unwrap();
        let pool = &network.ipam.as_ref().unwrap().pools[0];
        assert_eq!(
            (pool.subnet.as_str(), pool.ip_range.as_str(), pool.gateway.as_str(), network.ipv6),
            ("10.5.0.0/24", "10.5.0.64/26", "10.5.0.9", false)
        );
        assert_eq!(network.id, id);
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
fn counters_are_the_containers_own_view() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.attach(&container("aa", "", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "", &[])).unwrap();
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        let counters = networks.0.counters("aa").unwrap();
        assert_eq!(counters.len(), 1);
        assert_eq!(counters[0].name, "eth0");
        assert!(counters[0].sent_packets >= 3 && counters[0].received_packets >= 2, "{counters:?}");
        assert!(networks.0.counters("cc").is_err());
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

/// Waits until something holds.
fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what} not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A question of a resolver's to 127.0.0.11 within a container: the IPv4 address, if any.
fn resolve(networks: &Networks, id: &str, name: &str) -> Option<String> {
    inside(networks, id, || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        socket.send_to(&question, "127.0.0.11:53").unwrap();
        let mut answer = [0; 512];
        let n = socket.recv(&mut answer).unwrap();
        // One answer; its data are the last four bytes, or the next record's follow.
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        let at = question.len() + 12;
        (answers > 0 && n >= at + 4)
            .then(|| IpAddr::from(<[u8; 4]>::try_from(&answer[at..at + 4]).unwrap()).to_string())
    })
}

#[test]
fn containers_find_each_other_by_name_on_their_networks_also_after_the_manager() {
    on_a_host(|mut lab| {
        // No resolver of the test's machine is asked.
        lab.settings.resolv_conf = lab.directory.path().join("resolv.conf");
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        networks.0.create(&network("n2", |request| request.internal = true)).unwrap();
        let mut a = container("aa", "n1", &["n1"]);
        a.options.networks[0].aliases = vec!["db".into()];
        a.options.networks[0].links = vec!["name-bb:web".into()];
        let a = networks.0.attach(&a).unwrap();
        assert!(a.resolv_conf.contains("nameserver 127.0.0.11\n"), "{}", a.resolv_conf);
        let b = networks.0.attach(&container("bb", "n1", &["n2"])).unwrap();
        let (a, b) = (&a.endpoints[0].ipv4_address, &b.endpoints[0].ipv4_address);
        assert_eq!(resolve(&networks, "bb", "db").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "name-aa").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "name-aa.n1").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "aa", "web").as_ref(), Some(b));
        networks.0.attach(&container("cc", "n2", &[])).unwrap();
        assert_eq!(resolve(&networks, "cc", "db"), None);
        kill(networks);

        let networks = lab.start(&["aa", "bb"]);
        for id in ["aa", "bb"] {
            networks.0.check(id).unwrap();
        }
        assert_eq!(resolve(&networks, "bb", "db").as_ref(), Some(a));
        networks.0.detach("aa").unwrap();
        assert_eq!(resolve(&networks, "bb", "db"), None);
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

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

#[test]
fn what_is_being_taken_away_is_in_nobodys_way() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let runtime = networks.0.runtime.clone();
        let attach = |container: &Container| {
            runtime.block_on(networks.attach(container.clone())).unwrap();
        };
        let detach = |id: &str| runtime.block_on(networks.detach(id)).unwrap();
        let subnet = |r: &mut v1::CreateNetworkRequest| {
            let pool = v1::IpamPool { subnet: "10.9.0.0/30".into(), ..Default::default() };
            r.ipam = Some(v1::Ipam { pools: vec![pool], ..Default::default() });
        };
        networks.0.create(&network("n1", subnet)).unwrap();
        let mut a = container("aa", "n1", &["n1"]);
        a.options.networks[0].ipv4_address = "10.9.0.2".into();
        for _ in 0..3 {
            // The same container, another with its address, and one with the last address.
            attach(&a);
            detach("aa");
            let mut b = a.clone();
            b.id = "bb".into();
            attach(&b);
            detach("bb");
            attach(&container("cc", "n1", &[]));
            detach("cc");
            assert!(networks.0.inspect("n1").unwrap().members.is_empty());
        }
        let name = || v1::RemoveNetworkRequest { network: "n1".into(), force: false };
        networks.0.remove(&name()).unwrap();
        lab.assert_clean(&networks, "after detach");

        // Killed in between: gone all the same, even if somebody took it for alive.
        networks.0.create(&network("n1", subnet)).unwrap();
        networks.0.attach(&a).unwrap();
        networks.0.release("aa").unwrap();
        kill(networks);
        let networks = lab.start(&["aa"]);
        lab.assert_clean(&networks, "after a kill");
    });
}

/// Ends a manager as if it were killed: what is its process's own is gone, and nothing else.
fn kill(networks: Networks) {
    for sandbox in networks.0.records.sandboxes().unwrap() {
        networks.0.runtime.block_on(networks.0.names.stop(&sandbox.container));
    }
    let ports: Vec<_> = networks.0.firewall.rules().endpoints.into_values().collect();
    drop(networks);
    // Proxies close their sockets in their own time.
    for port in ports.iter().flat_map(|endpoint| &endpoint.ports) {
        let address = (port.host_address, port.host_port);
        eventually("a proxy ends", Duration::from_secs(3), || TcpListener::bind(address).is_ok());
    }
}

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
fn plugins_of_a_users_list_connect_and_disconnect() {
    if !Path::new("/usr/lib/cni/bridge").exists() {
        eprintln!("not run: no reference plugins in /usr/lib/cni");
        return;
    }
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let data = lab.directory.path().join("host-local");
        let list = serde_json::json!({
            "cniVersion": "1.0.0", "name": "ref", "plugins": [{
                "type": "bridge", "bridge": "cni7", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": data,
                    "ranges": [[{"subnet": "10.77.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}]
                }
            }]
        });
        let file = lab.settings.definitions.join("ref.conflist");
        std::fs::write(&file, list.to_string()).unwrap();
        let a = networks.0.attach(&container("aa", "ref", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "ref", &["bridge"])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.77.0.2");
        assert_eq!(a.endpoints[0].ipv4_gateway, "10.77.0.1");
        assert_eq!(b.endpoints[1].network, "bridge");
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        assert_eq!(resolve(&networks, "bb", "name-aa").as_deref(), Some("10.77.0.2"));
        // Also when the list has gone, and after the manager.
        std::fs::remove_file(&file).unwrap();
        kill(networks);
        let networks = lab.start(&["bb"]);
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
        let left: Vec<_> = std::fs::read_dir(data.join("ref"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("10."))
            .collect();
        assert_eq!(left, [""; 0]);
        networks.0.host.socket.remove_link("cni7").unwrap();
    });
}

#[test]
fn a_users_plugin_is_asked_everything_that_the_specification_has() {
    on_a_host(|mut lab| {
        let directory = lab.directory.path().join("plugins");
        std::fs::create_dir(&directory).unwrap();
        let log = lab.directory.path().join("log");
        let script = format!(
            r#"#!/bin/sh
            echo "$CNI_COMMAND $CNI_CONTAINERID" >> {log}
            case $CNI_COMMAND in
            VERSION) echo '{{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}}' ;;
            ADD) echo '{{"cniVersion":"1.1.0","interfaces":[],"ips":[]}}' ;;
            STATUS) if [ -e {log}.busy ]; then
                echo '{{"cniVersion":"1.1.0","code":50,"msg":"come back later"}}'; exit 1
            fi ;;
            esac"#,
            log = log.display()
        );
        let plugin = directory.join("noop");
        std::fs::write(&plugin, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&plugin, mode).unwrap();
        lab.settings.cni.path = vec![directory];
        let networks = lab.start(&[]);
        let list = r#"{"cniVersion":"1.1.0","name":"own","plugins":[{"type":"noop"}]}"#;
        std::fs::write(lab.settings.definitions.join("own.conflist"), list).unwrap();
        let asked = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            drop(std::fs::remove_file(&log));
            let asked = text.lines().map(|line| line.trim().to_owned());
            asked.filter(|line| !line.starts_with("VERSION")).collect::<Vec<_>>()
        };
        networks.0.attach(&container("aa", "own", &[])).unwrap();
        assert_eq!(asked(), ["STATUS", "ADD aa"]);
        kill(networks);
        let networks = lab.start(&["aa"]);
        assert_eq!(asked(), ["GC"]);
        networks.0.check("aa").unwrap();
        let mut checked = Vec::new();
        eventually("the plugin is asked", Duration::from_secs(20), || {
            checked.extend(asked());
            !checked.is_empty()
        });
        assert_eq!(checked, ["CHECK aa"]);
        networks.0.detach("aa").unwrap();
        assert_eq!(asked(), ["DEL aa"]);
        std::fs::write(format!("{}.busy", log.display()), "").unwrap();
        let error = networks.0.attach(&container("aa", "own", &[])).unwrap_err().to_string();
        assert!(error.contains("network own") && error.contains("come back later"), "{error}");
        assert_eq!(asked(), ["STATUS"]);
        lab.assert_clean(&networks, "after a refusal");
    });
}

#[test]
fn a_host_that_begins_to_forward_keeps_its_own_routers() {
    on_a_host(|mut lab| {
        let socket = netlink::Socket::open().unwrap();
        socket.add_bridge("up0", mac::Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        sysctl::set("ipv6/conf/up0/accept_ra", "1").unwrap();
        sysctl::set("ipv4/ip_forward", "0").unwrap();
        sysctl::set("ipv6/conf/all/forwarding", "0").unwrap();
        lab.settings.ip_forward = false;
        lab.start(&[]);
        assert_eq!(sysctl::get("ipv4/ip_forward").as_deref(), Some("0"));
        lab.settings.ip_forward = true;
        lab.start(&[]);
        let now = |key: &str| sysctl::get(key).unwrap();
        assert_eq!(now("ipv4/ip_forward"), "1");
        assert_eq!(now("ipv6/conf/all/forwarding"), "1");
        assert_eq!(now("ipv6/conf/up0/accept_ra"), "2");
        assert_eq!(now("ipv6/conf/hull0/accept_ra"), "0");
    });
}

#[test]
fn any_user_of_a_container_may_ping_and_listen_on_low_ports() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        networks.0.attach(&container("aa", "bridge", &[])).unwrap();
        let keys = ["ipv4/ping_group_range", "ipv4/ip_unprivileged_port_start"];
        let host = keys.map(sysctl::get);
        let own = inside(&networks, "aa", || keys.map(sysctl::get));
        assert_eq!(own, ["0\t2147483647", "0"].map(|value| Some(value.to_owned())));
        assert_ne!(host, own);
    });
}

#[test]
fn sysctls_are_of_the_namespace_that_they_are_written_in_also_among_many() {
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let ids: Vec<_> = (0..20).map(|number| format!("a{number}")).collect();
        for id in &ids {
            networks.0.attach(&container(id, "bridge", &[])).unwrap();
        }
        for id in &ids {
            let accept = inside(&networks, id, || sysctl::get("ipv6/conf/eth0/accept_dad"));
            let port = networks.0.records.of_container(id).unwrap()[0].host_interface();
            let disabled = sysctl::get(&format!("ipv6/conf/{port}/disable_ipv6"));
            assert_eq!((accept.as_deref(), disabled.as_deref()), (Some("0"), Some("1")), "{id}");
        }
    });
}

#[test]
fn interfaces_go_with_their_namespaces_and_without_them_where_somebody_holds_these() {
    on_a_host(|lab| {
        let networks = lab.open();
        let runtime = networks.0.runtime.clone();
        runtime.block_on(networks.recover(&[])).unwrap();
        let ids = ["aa", "bb", "cc"];
        for id in ids {
            runtime.block_on(networks.attach(container(id, "", &[]))).unwrap();
        }
        let held = networks.0.host.namespaces.open("bb").unwrap();
        for id in ids {
            runtime.block_on(networks.detach(id)).unwrap();
        }
        // It starts again while its interface is on its way.
        runtime.block_on(networks.attach(container("cc", "", &[]))).unwrap();
        runtime.block_on(networks.settle()).unwrap();
        let left: Vec<_> =
            networks.0.records.all().unwrap().into_iter().map(|e| e.container).collect();
        assert_eq!(left, ["cc"]);
        let ports: Vec<_> = lab.links().into_iter().filter(|n| n.starts_with("hv")).collect();
        assert_eq!(ports, [networks.0.records.of_container("cc").unwrap()[0].host_interface()]);
        assert!(networks.0.check("cc").is_ok());
        drop(held);
        runtime.block_on(networks.detach("cc")).unwrap();
        runtime.block_on(networks.settle()).unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}
