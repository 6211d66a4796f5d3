//! Terminals.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::sys::termios::{self, SetArg};

use crate::{Error, Result, check, check_fd};

/// The terminal's attributes, to be put back later.
#[derive(Clone, Debug)]
pub struct Attributes(termios::Termios);

/// Opens a new pseudo-terminal of the devpts instance whose `ptmx` file `ptmx` is: the
/// master, the peer (by ioctl, so that no path of the container is used; kernel 4.13),
/// and the peer's number.
pub fn open_pair(ptmx: OwnedFd) -> Result<(OwnedFd, OwnedFd, u32)> {
    let raw = ptmx.as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    let result = unsafe { libc::ioctl(raw, libc::TIOCSPTLCK, &raw const unlock) };
    check("ioctl TIOCSPTLCK", result.into())?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes an unsigned int.
    let result = unsafe { libc::ioctl(raw, libc::TIOCGPTN, &raw mut number) };
    check("ioctl TIOCGPTN", result.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let peer = unsafe { libc::ioctl(raw, libc::TIOCGPTPEER, flags) };
    Ok((ptmx, check_fd("ioctl TIOCGPTPEER", peer.into())?, number))
}

/// Makes the terminal the controlling one of this process, which must lead a session.
pub fn make_controlling(tty: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let result = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check("ioctl TIOCSCTTY", result.into()).map(drop)
}

/// Sets the window size, in characters.
pub fn set_size(tty: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    let result = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("ioctl TIOCSWINSZ", result.into()).map(drop)
}

/// The window size: rows, then columns.
pub fn size(tty: impl AsFd) -> Result<(u16, u16)> {
    // SAFETY: all-zero is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a winsize.
    let result = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check("ioctl TIOCGWINSZ", result.into())?;
    Ok((size.ws_row, size.ws_col))
}

/// Whether the descriptor is a terminal.
#[must_use]
pub fn is_terminal(fd: impl AsFd) -> bool {
    // SAFETY: isatty takes an integer.
    unsafe { libc::isatty(fd.as_fd().as_raw_fd()) == 1 }
}

/// Puts the terminal into raw mode and returns the mode it was in.
pub fn make_raw(tty: impl AsFd) -> Result<Attributes> {
    let old = termios::tcgetattr(&tty).map_err(|e| Error::new("tcgetattr", e as i32))?;
    let mut raw = old.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(&tty, SetArg::TCSANOW, &raw)
        .map_err(|e| Error::new("tcsetattr", e as i32))?;
    Ok(Attributes(old))
}

/// Stops showing what is typed, for a password, and returns the mode the terminal was in.
pub fn hide_input(tty: impl AsFd) -> Result<Attributes> {
    let old = termios::tcgetattr(&tty).map_err(|e| Error::new("tcgetattr", e as i32))?;
    let mut hidden = old.clone();
    hidden.local_flags.remove(termios::LocalFlags::ECHO);
    termios::tcsetattr(&tty, SetArg::TCSAFLUSH, &hidden)
        .map_err(|e| Error::new("tcsetattr", e as i32))?;
    Ok(Attributes(old))
}

/// Clears ONLCR, so that what the container writes passes unchanged: the terminal that
/// shows it does the translation.
pub fn pass_newlines(tty: impl AsFd) -> Result<()> {
    let mut mode = termios::tcgetattr(&tty).map_err(|e| Error::new("tcgetattr", e as i32))?;
    mode.output_flags.remove(termios::OutputFlags::ONLCR);
    termios::tcsetattr(&tty, SetArg::TCSANOW, &mode).map_err(|e| Error::new("tcsetattr", e as i32))
}

/// Puts back attributes that [`make_raw`] returned.
pub fn restore(tty: impl AsFd, attributes: &Attributes) -> Result<()> {
    termios::tcsetattr(&tty, SetArg::TCSANOW, &attributes.0)
        .map_err(|e| Error::new("tcsetattr", e as i32))
}

/// The path of the peer with this number, as the container sees it.
#[must_use]
pub fn peer_path(number: u32) -> CString {
    CString::new(format!("/dev/pts/{number}")).expect("a number holds no NUL")
}

/// tcsetpgrp(3): the process group that gets the keyboard's signals.
///
/// # Errors
/// `ENOTTY` where there is no terminal, or not the caller's.
pub fn set_foreground(terminal: impl AsFd, group: i32) -> Result<()> {
    // SAFETY: tcsetpgrp takes integers.
    let result = unsafe { libc::tcsetpgrp(terminal.as_fd().as_raw_fd(), group) };
    check("tcsetpgrp", result.into()).map(drop)
}
