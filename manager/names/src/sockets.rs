//! The sockets that a container asks: 127.0.0.11, port 53, in its own network namespace.

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

/// Open sockets of one container's namespace. They belong to it from birth, whoever uses them;
/// while they are open, the namespace exists.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens them in the namespace `netns`, from a thread that enters it and then ends (R19).
    /// The loopback interface must be up.
    ///
    /// # Errors
    /// If the namespace can't be entered, or the address is taken in it.
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

    /// Opens them in the namespace of the calling thread: for who is there already.
    ///
    /// # Errors
    /// If the address is taken in it.
    pub fn open_here() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let udp = UdpSocket::bind((ADDRESS, DNS_PORT))?;
            let tcp = TcpListener::bind((ADDRESS, DNS_PORT))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok(Self { udp, tcp })
        };
        open().map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => Error::conflict(format!("{ADDRESS}:{DNS_PORT} is in use")),
            _ => Error::internal(format!("{ADDRESS}:{DNS_PORT}")).because(error),
        })
    }
}
