//! The sockets that a container asks: 127.0.0.11, port 53, in its own network namespace.
//!
//! They are bound to a port that nobody asks for by name, and the packet filter of the namespace
//! leads port 53 there: a container may have a name server of its own, on port 53 of all
//! addresses. Where the kernel has no nftables they are bound to port 53 itself.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::BorrowedFd,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::namespace;

use crate::DNS_PORT;

/// The address of the name service in every container, docker's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The packet filter's table in containers' namespaces.
const TABLE: &str = "hull-names";

/// A port that is free for TCP may be taken for UDP; then another is tried.
const ATTEMPTS: usize = 16;

/// Open sockets of one container's namespace. They belong to it from birth, whoever uses them;
/// while they are open, the namespace exists.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens them in the namespace `netns`, from a thread that enters it and then ends (R19).
    /// The loopback interface must be up when they are asked, not yet now.
    ///
    /// # Errors
    /// If the namespace can't be entered, or no port is free in it.
    pub fn open(netns: BorrowedFd<'_>) -> Result<Self> {
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                    namespace::setns(netns, libc::CLONE_NEWNET).map_err(anyhow::Error::from)?;
                    Self::open_here()
                });
            match thread.about("start a thread")?.join() {
                Ok(sockets) => sockets,
                Err(_) => Err(Error::internal("opening the name service's sockets panicked")),
            }
        })
    }

    /// Opens them in the namespace of the calling thread: for who is there already. What an
    /// earlier manager has set up there is replaced.
    ///
    /// # Errors
    /// If no port is free in it.
    pub fn open_here() -> Result<Self> {
        let redirected = Self::at_some_port().and_then(|(sockets, port)| {
            hull_manager_firewall::redirect(TABLE, ADDRESS, DNS_PORT, port)?;
            Ok(sockets)
        });
        redirected.or_else(|error| {
            tracing::debug!("name service without a packet filter: {error:#}");
            let sockets = Self::at(DNS_PORT);
            sockets.about(format!("name service: {error:#}; {ADDRESS}:{DNS_PORT}"))
        })
    }

    fn at_some_port() -> anyhow::Result<(Self, u16)> {
        for _ in 0..ATTEMPTS {
            let tcp = TcpListener::bind((ADDRESS, 0))?;
            let port = tcp.local_addr()?.port();
            match UdpSocket::bind((ADDRESS, port)) {
                Ok(udp) => return Ok((Self::nonblocking(udp, tcp)?, port)),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("no port is free for both UDP and TCP")
    }

    fn at(port: u16) -> io::Result<Self> {
        Self::nonblocking(UdpSocket::bind((ADDRESS, port))?, TcpListener::bind((ADDRESS, port))?)
    }

    fn nonblocking(udp: UdpSocket, tcp: TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }
}
