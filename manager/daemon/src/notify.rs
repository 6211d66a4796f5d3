//! Tells systemd where we are (sd_notify(3)), if it asked by `NOTIFY_SOCKET`.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::{
        ffi::OsStrExt as _,
        net::{SocketAddr, UnixDatagram},
    },
};

/// Requests are answered.
pub(crate) fn ready() {
    send("READY=1\nSTATUS=answering requests");
}

/// The configuration is being read again.
pub(crate) fn reloading() {
    send("RELOADING=1");
}

/// No new request is taken.
pub(crate) fn stopping() {
    send("STOPPING=1");
}

/// systemd waits for it, nobody else does: a failure is nobody's.
fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        drop(socket.send_to_addr(state.as_bytes(), &address));
    }
}
