//! What containers are called, as they ask for it.

use std::fs;

use hull_manager_names::{Forward, Link, View};

use crate::lab::{A, AAAA, lab, question, receive_framed, run, send_framed};

#[test]
fn containers_find_each_other_as_busybox_and_the_c_library_ask() {
    lab(|lab| {
        lab.member("web", &["web", "www", "0123456789ab"], "10.1.0.2 fd00::2");
        let container = lab.container("client", Forward::Never);
        for name in ["web", "WWW", "0123456789ab", "web.net"] {
            let said = container.output("busybox", &["nslookup", name, "127.0.0.11"]);
            assert!(
                said.contains("Address: 10.1.0.2") && said.contains("Address: fd00::2"),
                "{said}"
            );
        }
        let said = container.output("busybox", &["nslookup", "10.1.0.2", "127.0.0.11"]);
        assert!(said.contains("name = web.net"), "{said}");
        let said = container.output("busybox", &["nslookup", "db", "127.0.0.11"]);
        assert!(said.contains("NXDOMAIN"), "{said}");

        let resolv_conf = lab.path("container");
        fs::write(&resolv_conf, "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
        let libc = |words: &str| {
            let mount = format!("mount --bind {} /etc/resolv.conf; {words}", resolv_conf.display());
            container.output("unshare", &["-m", "sh", "-c", &mount])
        };
        let said = libc("getent ahosts web");
        assert!(said.contains("10.1.0.2") && said.contains("fd00::2"), "{said}");
        assert!(libc("getent hosts fd00::2").contains("web.net"));
        assert!(!libc("getent ahosts db || echo none").contains("10."));
    });
}

#[test]
fn a_member_is_found_from_its_insertion_to_its_removal() {
    lab(|lab| {
        let container = lab.container("client", Forward::Never);
        for round in 0..20 {
            assert_eq!(container.ask("web", A).rcode, 3);
            lab.member("web", &["web"], &format!("10.1.0.{round}"));
            assert_eq!(container.ask("web", A).address().octets()[3], round);
            lab.names.remove("1", "web");
        }
    });
}

#[test]
fn a_container_sees_what_it_is_connected_to_while_it_runs() {
    lab(|lab| {
        lab.names.network("2", "back");
        lab.member("web", &["web"], "10.1.0.2");
        let container = lab.container("client", Forward::Never);
        let link = Link { network: "1".into(), alias: "shop".into(), target: "web".into() };
        for (networks, links, web, shop) in [
            (vec!["1"], vec![], 0, 3),
            (vec!["2"], vec![link.clone()], 3, 3),
            (vec!["1", "2"], vec![link], 0, 0),
            (vec![], vec![], 3, 3),
        ] {
            let networks = networks.into_iter().map(String::from).collect();
            let view = View { networks, links, forward: Forward::Never };
            lab.names.set_view("client", view.clone()).unwrap();
            let codes = (container.ask("web", A).rcode, container.ask("shop", A).rcode);
            assert_eq!(codes, (web, shop), "{view:?}");
        }
        assert!(lab.names.set_view("nobody", View::default()).is_err());
        assert!(lab.names.insert("3", hull_manager_names::Member::default()).is_err());
    });
}

#[test]
fn what_does_not_fit_a_datagram_comes_by_stream() {
    lab(|lab| {
        for host in 1..=250 {
            lab.member(&format!("m{host}"), &["many"], &format!("10.1.0.{host}"));
        }
        let container = lab.container("client", Forward::Never);
        let reply = container.ask("many", A);
        assert!(reply.truncated && reply.bytes.len() <= 512 && reply.answers > 20, "{reply:?}");
        let mut stream = container.connect();
        // Several questions in one stream, one behind the other.
        for id in 0..3 {
            send_framed(&mut stream, &question(id, "many", A)).unwrap();
        }
        for id in 0..3 {
            let reply = receive_framed(&mut stream).unwrap();
            assert_eq!((reply.answers, reply.truncated, reply.bytes[1]), (250, false, id));
        }
        send_framed(&mut stream, &question(9, "many", AAAA)).unwrap();
        assert_eq!(receive_framed(&mut stream).unwrap().answers, 0);
    });
}

#[test]
fn a_container_may_have_a_name_server_of_its_own_and_a_firewall() {
    lab(|lab| {
        lab.member("web", &["web"], "10.1.0.2");
        let container = lab.container("client", Forward::Never);
        container.inside(|| {
            let udp = std::net::UdpSocket::bind("0.0.0.0:53").unwrap();
            let tcp = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
            assert!(udp.local_addr().is_ok() && tcp.local_addr().is_ok());
            run(
                "nft",
                &["add table inet own; add chain inet own in { type filter hook input \
                priority 0; policy drop; }; add rule inet own in ct state invalid drop; \
                add rule inet own in ct state established accept; \
                add rule inet own in iif lo udp dport 53 accept; \
                add rule inet own in iif lo tcp dport 53 accept"],
            );
        });
        assert_eq!(container.ask("web", A).address().octets(), [10, 1, 0, 2]);
        let mut stream = container.connect();
        send_framed(&mut stream, &question(1, "web", A)).unwrap();
        assert_eq!(receive_framed(&mut stream).unwrap().answers, 1);
    });
}

#[test]
fn a_client_is_answered_from_where_it_asked() {
    lab(|lab| {
        lab.member("web", &["web"], "10.1.0.2");
        let container = lab.container("client", Forward::Never);
        // Not connected: the kernel lets every sender through.
        let socket = container.inside(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.send_to(&question(5, "web", A), "127.0.0.11:53").unwrap();
        let mut buffer = [0; 512];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.to_string(), "127.0.0.11:53");
        assert_eq!(buffer[1], 5);
    });
}
