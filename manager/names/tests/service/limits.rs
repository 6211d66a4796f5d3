//! What one container can take from others: nothing (R14).

use std::{fs, net::Ipv4Addr, sync::atomic::Ordering, time::Duration};

use hull_manager_names::Forward;

use crate::lab::{
    A, Manner, eventually, lab, question, receive, receive_framed, resolver, send_framed,
};

const SLOW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

#[test]
fn a_container_that_waits_for_many_answers_is_refused_more_and_hinders_nobody() {
    lab(|lab| {
        let asked = resolver(SLOW, Manner::Silent);
        lab.resolvers(&[SLOW]);
        lab.member("web", &["web"], "10.1.0.2");
        let greedy = lab.container("greedy", Forward::Host);
        let socket = greedy.client();
        for id in 0..200 {
            socket.send(&question(id, "slow.example", A)).unwrap();
            // One after the other, so that no buffer overflows.
            if id % 20 == 19 {
                assert_eq!(lab_ask(&greedy), 0, "its own names are still answered");
            }
        }
        let refused = std::iter::from_fn(|| receive(&socket).ok()).take(72).count();
        assert_eq!(refused, 72, "of 200 questions 128 wait");
        assert_eq!(asked.load(Ordering::SeqCst), 128);
        let modest = lab.container("modest", Forward::Host);
        assert_eq!(lab_ask(&modest), 0);
        // Its end ends its questions: nothing is left open.
        lab.stop("greedy");
        eventually("sockets are closed", || open_sockets("udp") <= 2);
    });
}

fn lab_ask(container: &crate::lab::Container) -> u8 {
    container.ask("web", A).rcode
}

/// Sockets of the host's namespace.
fn open_sockets(kind: &str) -> usize {
    let table = fs::read_to_string(format!("/proc/thread-self/net/{kind}")).unwrap();
    table.lines().count() - 1
}

#[test]
fn connections_beyond_the_limit_wait_for_an_end() {
    lab(|lab| {
        lab.member("web", &["web"], "10.1.0.2");
        let container = lab.container("client", Forward::Never);
        let mut open: Vec<_> = (0..32).map(|_| container.connect()).collect();
        for stream in &mut open {
            send_framed(stream, &question(1, "web", A)).unwrap();
            receive_framed(stream).unwrap();
        }
        let mut waiting = container.connect();
        waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        send_framed(&mut waiting, &question(2, "web", A)).unwrap();
        assert!(receive_framed(&mut waiting).is_err(), "the 33rd is served at once");
        drop(open.pop());
        waiting.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(receive_framed(&mut waiting).unwrap().answers, 1);
        assert_eq!(container.ask("web", A).answers, 1, "datagrams are answered all the time");
    });
}

#[test]
fn what_is_too_long_or_no_question_ends_a_connection() {
    lab(|lab| {
        let container = lab.container("client", Forward::Never);
        for message in [vec![0; 5000], vec![0; 3]] {
            let mut stream = container.connect();
            send_framed(&mut stream, &message).unwrap();
            assert!(receive_framed(&mut stream).is_err());
        }
        let socket = container.client();
        let mut long = question(3, "web", A);
        long.resize(5000, 0);
        socket.send(&long).unwrap();
        assert_eq!(receive(&socket).unwrap().rcode, 1);
    });
}

#[test]
fn a_silent_connection_is_closed() {
    lab(|lab| {
        let container = lab.container("client", Forward::Never);
        let mut stream = container.connect();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut byte = [0];
        assert_eq!(std::io::Read::read(&mut stream, &mut byte).unwrap(), 0);
    });
}
