//! Unix sockets, and descriptors sent over them; connections over TCP that nobody waits for.

use std::{
    io::{IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::sys::socket::{
    self as nix_socket, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag,
    SockType, SockaddrStorage, UnixAddr,
};

use crate::{Error, Result};

/// The most descriptors that one message may carry: the kernel's own limit (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

fn error(call: &'static str) -> impl Fn(nix::Error) -> Error {
    move |errno| Error::new(call, errno as i32)
}

/// Reads an option whose form is the caller's to know; `value` is also what is asked for. Gives
/// how many bytes there are.
pub fn option(socket: impl AsFd, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len())
        .map_err(|_| Error::new("getsockopt", libc::EINVAL))?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, which are the buffer's.
    let got =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    match got {
        0 => Ok(value.len().min(length as usize)),
        _ => Err(Error::last("getsockopt")),
    }
}

/// A connected pair that keeps message boundaries.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    nix_socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(error("socketpair"))
}

/// A stream socket connected to the socket file at `path`.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    connect(path, SockType::Stream, SockFlag::empty())
}

/// The same, non-blocking: a server that accepts nobody is `EAGAIN`.
pub fn connect_stream_nonblocking(path: &Path) -> Result<OwnedFd> {
    connect(path, SockType::Stream, SockFlag::SOCK_NONBLOCK)
}

/// A datagram socket connected to the socket file at `path`.
pub fn connect_datagram(path: &Path) -> Result<OwnedFd> {
    connect(path, SockType::Datagram, SockFlag::empty())
}

/// The same, non-blocking: a full queue of the receiver's is `EAGAIN`.
pub fn connect_datagram_nonblocking(path: &Path) -> Result<OwnedFd> {
    connect(path, SockType::Datagram, SockFlag::SOCK_NONBLOCK)
}

/// A non-blocking TCP socket that is being connected to `address`. Once it is writable,
/// [`take_error`] says whether it is.
pub fn begin_tcp(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix_socket::socket(family, SockType::Stream, flags, None);
    let socket = socket.map_err(error("socket"))?;
    match nix_socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(error("connect")(errno).on(address)),
    }
}

/// Takes the error that a socket has met (`SO_ERROR`), if it has.
pub fn take_error(socket: impl AsFd) -> Result<()> {
    match nix_socket::getsockopt(&socket, nix_socket::sockopt::SocketError) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(Error::new("connect", errno)),
        Err(errno) => Err(error("getsockopt")(errno)),
    }
}

/// A datagram socket connected to the abstract address `name`, given without its NUL.
pub fn connect_abstract_datagram(name: &[u8]) -> Result<OwnedFd> {
    connect_to(UnixAddr::new_abstract(name), SockType::Datagram, SockFlag::empty())
}

fn connect(path: &Path, kind: SockType, flags: SockFlag) -> Result<OwnedFd> {
    connect_to(UnixAddr::new(path), kind, flags).map_err(|error| error.on(path.display()))
}

fn connect_to(address: nix::Result<UnixAddr>, kind: SockType, flags: SockFlag) -> Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let address = address.map_err(error("connect"))?;
    let socket =
        nix_socket::socket(AddressFamily::Unix, kind, flags, None).map_err(error("socket"))?;
    nix_socket::connect(socket.as_raw_fd(), &address).map_err(error("connect"))?;
    Ok(socket)
}

/// A datagram socket bound to a new socket file at `path`.
pub fn bind_datagram(path: &Path) -> Result<OwnedFd> {
    let socket =
        nix_socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(error("socket"))?;
    let address = UnixAddr::new(path).map_err(|e| error("bind")(e).on(path.display()))?;
    nix_socket::bind(socket.as_raw_fd(), &address)
        .map_err(|e| error("bind")(e).on(path.display()))?;
    Ok(socket)
}

/// The user who opened the other end of a connected socket (`SO_PEERCRED`).
pub fn peer_uid(socket: impl AsFd) -> Result<u32> {
    nix_socket::getsockopt(&socket, nix_socket::sockopt::PeerCredentials)
        .map(|credentials| credentials.uid())
        .map_err(error("getsockopt"))
}

/// Sends one message with descriptors. A peer that is gone is `EPIPE`, not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
    let slices = [IoSlice::new(bytes)];
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        let sent = nix_socket::sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &slices,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(error("sendmsg")(errno)),
            Ok(n) if n < bytes.len() => return Err(Error::new("sendmsg", libc::EMSGSIZE)),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message of at most `buffer.len()` bytes; a longer one is `EMSGSIZE`. 0
/// bytes are the end. The descriptors that came with it are owned from here on.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    loop {
        let message = match nix_socket::recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::Error::EINTR) => continue,
            result => result.map_err(error("recvmsg"))?,
        };
        let mut fds = Vec::new();
        for item in message.cmsgs().map_err(error("recvmsg"))? {
            if let ControlMessageOwned::ScmRights(received) = item {
                // SAFETY: the kernel has just made these descriptors for this process,
                // and each is taken up exactly once here.
                fds.extend(received.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(Error::new("recvmsg", libc::EMSGSIZE));
        }
        return Ok((message.bytes, fds));
    }
}
