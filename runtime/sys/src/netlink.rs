//! Network links of this process's network namespace.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::{Result, check, check_fd};

/// Brings up the loopback interface.
pub fn raise_loopback() -> Result<()> {
    // SAFETY: socket takes integers and returns a new descriptor.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket: OwnedFd = check_fd("socket", socket.into())?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check("ioctl SIOCSIFFLAGS", result.into()).map(drop)
}

/// A route netlink socket of this process's present network namespace; it stays with that
/// namespace when the process leaves.
pub fn route_socket() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers and returns a new descriptor.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check_fd("socket", socket.into())
}
