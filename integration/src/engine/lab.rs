//! A host and its neighbour, as network namespaces of the test's own: what an engine does to
//! links, routes and filters is done to nobody else's.
//!
//! ```text
//!  host (192.0.2.1, 2001:db8::1) eth0 ──── eth0 (192.0.2.2, 2001:db8::2) neighbour
//! ```

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};

use super::{Site, command, stock};
use crate::{Invocation, Output};

/// The host's addresses on the link to its neighbour.
pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The neighbour's.
pub const NEIGHBOUR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// How long an answer may take before there is none: longer than the first step of TCP's
/// retransmission, so that one lost packet is not yet a refusal.
const ANSWER: Duration = Duration::from_secs(3);

/// Whose namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that the engine runs in.
    Host,
    /// The machine beside it.
    Neighbour,
}

/// Both namespaces; they end with the value.
#[derive(Debug)]
pub struct Lab {
    site: Option<Site>,
}

impl Lab {
    /// Makes them.
    pub fn start() -> Self {
        let lab = Self { site: Some(Site::new()) };
        for side in [Side::Host, Side::Neighbour] {
            let file = lab.file(side);
            File::create(&file).expect("the site is writable");
            let pin = format!("--net={file}");
            command(&["unshare", &pin, &stock("ip"), "link", "set", "lo", "up"]).run().ok();
        }
        let neighbour = lab.file(Side::Neighbour);
        let ip = |side, line: &str| {
            let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
            lab.command(side, &words).run().ok();
        };
        // Its other end is made where it belongs: nothing has to find it by a number.
        let file = File::open(&neighbour).expect("it is pinned");
        let own =
            format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
        ip(Side::Host, &format!("link add eth0 type veth peer name eth0 netns {own}"));
        drop(file);
        for (side, addresses) in [(Side::Host, HOST), (Side::Neighbour, NEIGHBOUR)] {
            ip(side, &format!("address add {}/24 dev eth0", addresses[0]));
            ip(side, &format!("address add {}/64 dev eth0 nodad", addresses[1]));
            ip(side, "link set eth0 up");
        }
        // What leaves the host for anywhere else is the neighbour's to see.
        ip(Side::Host, &format!("route add default via {}", NEIGHBOUR[0]));
        ip(Side::Host, &format!("-6 route add default via {}", NEIGHBOUR[1]));
        lab
    }

    fn site(&self) -> &Site {
        self.site.as_ref().expect("it is there until the end")
    }

    /// The file that a namespace is pinned to.
    pub fn file(&self, side: Side) -> String {
        self.site().path(match side {
            Side::Host => "host",
            Side::Neighbour => "neighbour",
        })
    }

    /// Words before a command that put it on a side.
    pub fn words(&self, side: Side) -> Vec<String> {
        vec![stock("nsenter"), format!("--net={}", self.file(side)), "--".to_owned()]
    }

    /// A command on a side.
    pub fn command(&self, side: Side, words: &[&str]) -> Invocation {
        let mut all = self.words(side);
        let (program, args) = words.split_first().expect("a command has a program");
        all.push(if program.contains('/') { (*program).to_owned() } else { stock(program) });
        all.extend(args.iter().map(|&word| word.to_owned()));
        command(&all)
    }

    /// `ip` on a side.
    #[track_caller]
    pub fn ip(&self, side: Side, line: &str) -> Output {
        let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
        self.command(side, &words).run()
    }

    /// Runs on a thread of its own that is in the namespace.
    pub fn inside<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.file(side)).expect("it is pinned");
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("the suite is root");
                work()
            });
            thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// What a TCP server says after `question`; none if nobody answers.
    pub fn ask(&self, side: Side, address: &str, port: u16, question: &str) -> Option<String> {
        let address = SocketAddr::new(address.parse().expect("it is an address"), port);
        self.inside(side, || {
            let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
            stream.set_read_timeout(Some(ANSWER)).expect("the time is not 0");
            stream.write_all(question.as_bytes()).ok()?;
            let mut answer = Vec::new();
            // An end by reset counts as an answer if there was one.
            let _ = stream.read_to_end(&mut answer);
            (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
        })
    }

    /// The body of a page.
    pub fn page(&self, side: Side, address: &str, port: u16) -> Option<String> {
        let answer = self.ask(side, address, port, "GET / HTTP/1.0\r\n\r\n")?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.trim().to_owned())
    }

    /// What a UDP server answers.
    pub fn datagram(&self, side: Side, address: &str, port: u16, question: &str) -> Option<String> {
        let address: IpAddr = address.parse().expect("it is an address");
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        self.inside(side, || {
            let socket = UdpSocket::bind(any).expect("a port is free");
            socket.set_read_timeout(Some(ANSWER)).expect("the time is not 0");
            socket.connect((address, port)).ok()?;
            socket.send(question.as_bytes()).ok()?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for side in [Side::Host, Side::Neighbour] {
            // Not there if the beginning failed.
            let _ = umount2(self.file(side).as_str(), MntFlags::MNT_DETACH);
        }
        if let Some(site) = self.site.take() {
            super::site::report("the lab", &site.clear(&[], |_| false));
        }
    }
}
