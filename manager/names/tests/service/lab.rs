//! A host with resolvers, and containers.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hull_manager_names::{ADDRESS, Forward, Member, Names, Settings, Sockets, View};
use hull_runtime_sys::namespace;
use tempfile::TempDir;

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;

/// The host of a test: the thread's own network namespace, with a `resolv.conf`.
pub(crate) struct Lab {
    directory: TempDir,
    pub(crate) names: Names,
}

/// Runs a test on a host of its own.
pub(crate) fn lab(test: impl FnOnce(&mut Lab)) {
    if hull_runtime_sys::process::effective_uid() != 0 {
        let required = std::env::var("HULL_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "root is required");
        eprintln!("skipped: needs root");
        return;
    }
    namespace::unshare(libc::CLONE_NEWNET).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("resolv.conf"), "").unwrap();
    let names = start(directory.path().join("resolv.conf"));
    names.network("1", "net");
    test(&mut Lab { directory, names });
}

fn start(resolv_conf: PathBuf) -> Names {
    Names::start(Settings { resolv_conf }).unwrap()
}

impl Lab {
    /// The service of another manager, after this one's end.
    pub(crate) fn restart(&mut self) {
        self.names = start(self.directory.path().join("resolv.conf"));
        self.names.network("1", "net");
    }

    /// The host's resolvers from now on; before anybody has asked.
    pub(crate) fn resolvers(&self, addresses: &[Ipv4Addr]) {
        let text: String = addresses.iter().map(|a| format!("nameserver {a}\n")).collect();
        fs::write(self.directory.path().join("resolv.conf"), text).unwrap();
    }

    pub(crate) fn member(&self, id: &str, names: &[&str], address: &str) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let addresses = address.split(' ').map(|text| text.parse().unwrap()).collect();
        self.names.insert("1", Member { id: id.into(), names, addresses }).unwrap();
    }

    pub(crate) fn serve(&self, container: &Container, id: &str, forward: Forward) {
        let view = View { networks: vec!["1".into()], links: Vec::new(), forward };
        let sockets = Sockets::open(container.namespace.as_fd()).unwrap();
        self.names.serve(id, sockets, view).unwrap();
    }

    /// A container that is served.
    pub(crate) fn container(&self, id: &str, forward: Forward) -> Container {
        let container = Container::new();
        self.serve(&container, id, forward);
        container
    }

    pub(crate) fn stop(&self, id: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.names.stop(id));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A container's network namespace.
pub(crate) struct Container {
    pub(crate) namespace: File,
}

impl Container {
    pub(crate) fn new() -> Self {
        let namespace = thread::spawn(|| {
            namespace::unshare(libc::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self { namespace: namespace.join().unwrap() }
    }

    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace::setns(&self.namespace, libc::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// A socket from inside, connected to the service.
    pub(crate) fn client(&self) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        socket.connect((ADDRESS, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        socket
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = self.inside(|| TcpStream::connect((ADDRESS, 53)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        stream
    }

    /// Asks by datagram.
    pub(crate) fn ask(&self, name: &str, kind: u16) -> Reply {
        let socket = self.client();
        socket.send(&question(9, name, kind)).unwrap();
        receive(&socket).unwrap()
    }

    /// The output of a program inside, successful or not.
    pub(crate) fn output(&self, program: &str, words: &[&str]) -> String {
        self.inside(|| {
            let output = Command::new(program).args(words).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) rcode: u8,
    pub(crate) truncated: bool,
    pub(crate) answers: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn parse(bytes: Vec<u8>) -> Self {
        Self {
            rcode: bytes[3] & 15,
            truncated: bytes[2] & 2 != 0,
            answers: usize::from(u16::from_be_bytes([bytes[6], bytes[7]])),
            bytes,
        }
    }

    /// The last four bytes, which are the address of the only or last answer.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let last: [u8; 4] = self.bytes[self.bytes.len() - 4..].try_into().unwrap();
        last.into()
    }
}

pub(crate) fn receive(socket: &UdpSocket) -> io::Result<Reply> {
    let mut buffer = [0; 65535];
    let length = socket.recv(&mut buffer)?;
    Ok(Reply::parse(buffer[..length].to_vec()))
}

pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
    bytes
}

pub(crate) fn send_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(&(message.len() as u16).to_be_bytes())?;
    stream.write_all(message)
}

pub(crate) fn receive_framed(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(Reply::parse(message))
}

/// What a resolver of the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers every question with its own address; `big…` by datagram with "truncated".
    Answers,
    /// Says nothing.
    Silent,
    /// Knows nothing.
    Refuses,
    /// First sends answers that are not to the question.
    Lies,
}

/// A resolver on the host; counts what it was asked.
pub(crate) fn resolver(address: Ipv4Addr, manner: Manner) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let udp = UdpSocket::bind((address, 53)).unwrap();
    let tcp = TcpListener::bind((address, 53)).unwrap();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            datagram(&udp, client, &buffer[..length], address, manner);
        }
    });
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            let Ok(query) = receive_framed(&mut stream) else { continue };
            if manner != Manner::Silent {
                drop(send_framed(&mut stream, &answer(&query.bytes, address)));
            }
        }
    });
    asked
}

fn datagram(udp: &UdpSocket, to: SocketAddr, query: &[u8], address: Ipv4Addr, manner: Manner) {
    let mut reply = answer(query, address);
    match manner {
        Manner::Silent => return,
        Manner::Refuses => reply = [&query[..2], &[0x81, 0x82], &query[4..]].concat(),
        Manner::Lies => {
            let lie = answer(query, Ipv4Addr::new(6, 6, 6, 6));
            let mut wrong_id = lie.clone();
            wrong_id[0] ^= 1;
            let mut wrong_name = lie;
            wrong_name[13] ^= 1;
            for lie in [wrong_id, wrong_name, b"short".to_vec()] {
                udp.send_to(&lie, to).unwrap();
            }
        }
        Manner::Answers if query[13..].starts_with(b"big") => {
            reply = [&query[..2], &[0x83, 0x80], &query[4..]].concat();
        }
        Manner::Answers if query[13..].starts_with(b"huge") => reply.resize(5000, 0),
        Manner::Answers => {}
    }
    drop(udp.send_to(&reply, to));
}

fn answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
    bytes.extend(address.octets());
    bytes
}

pub(crate) fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        thread::sleep(Duration::from_millis(10));
    }
}
