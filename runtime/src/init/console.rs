//! The container's terminal.
//!
//! It is opened from the container's own devpts, so that its number is the container's,
//! but nothing of it is trusted: the file must be on a devpts, the peer is had by ioctl and
//! not by name, and what is put on /dev/console is that descriptor (CVE-2025-52565 class).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

const DEVPTS_SUPER_MAGIC: u32 = 0x1cd1;

/// Opens a terminal beneath `root`, sends its master over `socket`, returns its peer.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    socket: &OwnedFd,
    size: Option<crate::process::ConsoleSize>,
) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let ptmx = sys::path::open_in_root(root, "dev/pts/ptmx", flags, 0, sys::path::Links::Refuse)
        .context("cannot open the container's /dev/pts/ptmx")?;
    if sys::path::file_system(&ptmx)?.magic != DEVPTS_SUPER_MAGIC {
        bail!("the container's /dev/pts/ptmx is not on a devpts");
    }
    let (master, peer, number) =
        sys::tty::open_pair(ptmx).context("cannot make the container's terminal")?;
    if let Some(size) = size {
        sys::tty::set_size(&master, size.rows, size.columns)?;
    }
    let name = sys::tty::peer_path(number);
    sys::socket::send(socket, name.as_bytes(), &[master.as_raw_fd()])
        .context("cannot send the terminal to the console socket")?;
    Ok(peer)
}

/// Makes the terminal this process's standard streams and its controlling terminal.
pub(crate) fn take(peer: &OwnedFd) -> Result<()> {
    for number in 0..3 {
        sys::fd::place(peer.as_fd(), number).context("cannot place the terminal")?;
    }
    sys::tty::make_controlling(peer).context("cannot make the terminal the controlling one")
}
