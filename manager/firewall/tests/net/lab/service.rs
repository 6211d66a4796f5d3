//! Servers and clients in namespaces. Servers answer with their name and who asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{DEADLINE, Namespace};

/// How long a refusal by silence is waited for.
const SILENCE: Duration = Duration::from_millis(400);

/// Answers every connection with `NAME ADDRESS` until the process ends.
pub(crate) fn tcp(namespace: &Namespace, at: &str, name: &'static str) {
    let at: SocketAddr = at.parse().expect("an address");
    let listener = namespace.run(move || TcpListener::bind(at)).expect("a port");
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let Ok(peer) = client.peer_addr() else { continue };
            _ = client.write_all(format!("{name} {}", peer.ip()).as_bytes());
        }
    });
}

/// The same with datagrams.
pub(crate) fn udp(namespace: &Namespace, at: &str, name: &'static str) {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = namespace.run(move || UdpSocket::bind(at)).expect("a port");
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// What a server said; none if it was not reached. One that should be there is given longer.
fn ask_tcp(namespace: &Namespace, at: &str, patience: Duration) -> Option<String> {
    let at: SocketAddr = at.parse().expect("an address");
    namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&at, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

fn ask_udp(namespace: &Namespace, at: &str, patience: Duration) -> Option<String> {
    let at: SocketAddr = at.parse().expect("an address");
    let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    namespace.run(move || {
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(at).ok()?;
        let until = Instant::now() + patience;
        while Instant::now() < until {
            socket.send(b"?").ok()?;
            socket.set_read_timeout(Some(SILENCE)).ok()?;
            let mut buffer = [0; 64];
            if let Ok(count) = socket.recv(&mut buffer) {
                return Some(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
        }
        None
    })
}

/// Asks until somebody answers.
pub(crate) fn answer(namespace: &Namespace, protocol: &str, at: &str) -> String {
    let ask = if protocol == "udp" { ask_udp } else { ask_tcp };
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(answer) = ask(namespace, at, Duration::from_secs(3)) {
            return answer;
        }
    }
    panic!("nobody answers at {at}/{protocol}");
}

/// Whether nobody answers.
pub(crate) fn is_silent(namespace: &Namespace, protocol: &str, at: &str) -> bool {
    let ask = if protocol == "udp" { ask_udp } else { ask_tcp };
    ask(namespace, at, SILENCE).is_none()
}
