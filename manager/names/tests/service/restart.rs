//! The end of the service, and its return.

use std::{
    net::UdpSocket,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use hull_manager_names::{Forward, Sockets};

use crate::lab::{A, lab, question, receive};

/// Asks every 20 ms until it is answered.
fn until_answered(socket: &UdpSocket, began: Instant) -> Duration {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        drop(socket.send(&question(1, "web", A)));
        if receive(socket).is_ok_and(|reply| reply.answers == 1) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "no answer after ten seconds");
    }
}

#[test]
fn a_restarted_manager_answers_within_a_second() {
    lab(|lab| {
        lab.member("web", &["web"], "10.1.0.2");
        let containers: Vec<_> =
            (0..20).map(|n| lab.container(&format!("c{n}"), Forward::Never)).collect();
        let socket = containers[19].client();
        until_answered(&socket, Instant::now());
        // As if killed: the old one does not clean up what it has made in namespaces.
        let began = Instant::now();
        lab.restart();
        lab.member("web", &["web"], "10.1.0.2");
        for (n, container) in containers.iter().enumerate() {
            lab.serve(container, &format!("c{n}"), Forward::Never);
        }
        let gap = until_answered(&socket, began);
        assert!(gap < Duration::from_secs(1), "{gap:?}");
    });
}

#[test]
fn a_stopped_container_is_not_served_and_its_namespace_is_free() {
    lab(|lab| {
        let container = lab.container("client", Forward::Never);
        assert_eq!(container.ask("x", A).rcode, 3);
        lab.stop("client");
        let sockets = |container: &crate::lab::Container| {
            let listed = container.output("ss", &["-Hlnut"]);
            listed.lines().count()
        };
        assert_eq!(sockets(&container), 0);
        lab.stop("client");
        // And again, on the same address.
        drop(Sockets::open(container.namespace.as_fd()).unwrap());
        lab.serve(&container, "client", Forward::Never);
        assert_eq!(container.ask("x", A).rcode, 3);
    });
}
