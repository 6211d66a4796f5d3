//! Sysctls of the host and of containers.

use super::*;

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
fn a_manager_starts_where_nothing_of_the_kernels_can_be_set() {
    on_a_host(|lab| {
        drop(lab.start(&[]));
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _entered = runtime.enter();
                // This thread's alone, as what it does.
                sys::namespace::unshare(libc::CLONE_NEWNS).unwrap();
                for arguments in [
                    "--make-rprivate /",
                    "--bind /proc/sys /proc/sys",
                    "-o remount,ro,bind /proc/sys",
                ] {
                    let mut mount = std::process::Command::new("mount");
                    assert!(mount.args(arguments.split(' ')).status().unwrap().success());
                }
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap_err();
                let networks = lab.start(&[]);
                // What is better otherwise, and can do without.
                networks.0.create(&network("n1", |request| request.ipv6 = Some(false))).unwrap();
                let interface = networks.0.inspect("n1").unwrap().interface;
                assert!(networks.0.host.socket.link(&interface).unwrap().unwrap().up);
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}
