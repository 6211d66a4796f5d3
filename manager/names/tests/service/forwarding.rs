//! Whom else is asked.

use std::{
    net::Ipv4Addr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use hull_manager_names::Forward;

use crate::lab::{A, Manner, lab, question, receive_framed, resolver, send_framed};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 54);
const THREE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 55);

#[test]
fn what_no_network_knows_is_asked_of_the_hosts_resolvers() {
    lab(|lab| {
        resolver(ONE, Manner::Answers);
        lab.resolvers(&[ONE]);
        lab.member("web", &["web"], "10.1.0.2");
        let container = lab.container("client", Forward::Host);
        assert_eq!(container.ask("example.com", A).address(), ONE);
        assert_eq!(container.ask("example.com", A).bytes[1], 9, "the client's own id");
        assert_eq!(container.ask("web", A).address().octets(), [10, 1, 0, 2]);
        let mut stream = container.connect();
        for name in ["example.com", "web", "example.org"] {
            send_framed(&mut stream, &question(4, name, A)).unwrap();
            assert_eq!(receive_framed(&mut stream).unwrap().answers, 1, "{name}");
        }
    });
}

#[test]
fn a_long_answer_is_fetched_by_stream() {
    lab(|lab| {
        resolver(ONE, Manner::Answers);
        lab.resolvers(&[ONE]);
        let container = lab.container("client", Forward::Host);
        for name in ["big.example", "huge.example"] {
            let reply = container.ask(name, A);
            assert!(reply.truncated && reply.bytes.len() < 100, "{name}: {reply:?}");
            let mut stream = container.connect();
            send_framed(&mut stream, &question(4, name, A)).unwrap();
            assert_eq!(receive_framed(&mut stream).unwrap().address(), ONE, "{name}");
        }
    });
}

/// R19: CVE-2024-29018.
#[test]
fn internal_networks_ask_nobody() {
    lab(|lab| {
        let asked = resolver(ONE, Manner::Answers);
        lab.resolvers(&[ONE]);
        let container = lab.container("client", Forward::Never);
        for name in ["example.com", "aGVsbG8.tunnel.example", "1.0.0.10.in-addr.arpa"] {
            assert_eq!(container.ask(name, A).rcode, 3, "{name}");
        }
        let mut stream = container.connect();
        send_framed(&mut stream, &question(4, "example.com", A)).unwrap();
        assert_eq!(receive_framed(&mut stream).unwrap().rcode, 3);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        // The control: the same resolver is asked by others.
        let other = lab.container("other", Forward::Host);
        assert_eq!(other.ask("example.com", A).address(), ONE);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn the_next_resolver_is_asked_when_one_is_silent_refuses_or_is_not_there() {
    lab(|lab| {
        resolver(TWO, Manner::Refuses);
        resolver(THREE, Manner::Answers);
        // Nobody listens at ONE.
        lab.resolvers(&[ONE, TWO, THREE]);
        let container = lab.container("client", Forward::Host);
        assert_eq!(container.ask("example.com", A).address(), THREE);
    });
    std::thread::spawn(|| {
        lab(|lab| {
            let asked = resolver(ONE, Manner::Silent);
            resolver(TWO, Manner::Answers);
            lab.resolvers(&[ONE, TWO]);
            let container = lab.container("client", Forward::Host);
            let began = Instant::now();
            assert_eq!(container.ask("example.com", A).address(), TWO);
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            // It is not waited for again.
            for _ in 0..5 {
                assert_eq!(container.ask("example.com", A).address(), TWO);
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        });
    })
    .join()
    .unwrap();
}

#[test]
fn all_refusing_is_a_refusal_and_all_silent_a_failure() {
    lab(|lab| {
        resolver(ONE, Manner::Refuses);
        lab.resolvers(&[ONE]);
        let container = lab.container("client", Forward::Host);
        assert_eq!(container.ask("example.com", A).rcode, 2);
        resolver(TWO, Manner::Silent);
        let other = lab.container("other", Forward::Servers(vec![(TWO, 53).into()]));
        assert_eq!(other.ask("example.com", A).rcode, 2);
    });
}

#[test]
fn answers_to_other_questions_are_not_taken() {
    lab(|lab| {
        resolver(ONE, Manner::Lies);
        lab.resolvers(&[ONE]);
        let container = lab.container("client", Forward::Host);
        assert_eq!(container.ask("example.com", A).address(), ONE);
    });
}

#[test]
fn a_containers_own_servers_are_asked_instead_of_the_hosts() {
    lab(|lab| {
        let host = resolver(ONE, Manner::Answers);
        resolver(TWO, Manner::Answers);
        lab.resolvers(&[ONE]);
        let container = lab.container("client", Forward::Servers(vec![(TWO, 53).into()]));
        assert_eq!(container.ask("example.com", A).address(), TWO);
        assert_eq!(host.load(Ordering::SeqCst), 0);
    });
}
