//! Staying with a process: signals passed on, a terminal shown, an exit code brought home.
//!
//! Nothing here polls by time: one poll(2) on the process's pidfd, a signalfd, and where
//! there is a terminal on its master and our standard input.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use hull_runtime_sys as sys;

use super::notify;
use crate::attachment::Attached;

/// Our terminal in raw mode, put back when dropped.
struct RawMode {
    attributes: sys::tty::Attributes,
}

impl RawMode {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        sys::tty::is_terminal(&stdin)
            .then(|| sys::tty::make_raw(&stdin).ok())
            .flatten()
            .map(|attributes| Self { attributes })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = sys::tty::restore(std::io::stdin(), &self.attributes);
    }
}

/// Waits until the process `pid` has ended; returns its exit code as a shell would. All
/// signals must be blocked. With `reap`, children that are not ours by name are reaped too;
/// with `listener`, readiness is passed on.
pub(super) fn wait(
    pid: i32,
    pidfd: &OwnedFd,
    attached: &mut Attached,
    reap: bool,
    mut listener: Option<notify::Listener>,
) -> Result<i32> {
    let terminal = match attached.console_receiver.take() {
        Some(receiver) => {
            attached.console = None;
            Some(receive_master(&receiver)?)
        }
        None => None,
    };
    let _raw = terminal.as_ref().and_then(|_| RawMode::enter());
    if let Some(master) = &terminal {
        copy_size(master);
    }
    let signals = sys::signal::descriptor()?;
    let mut relay = terminal.as_ref().map(Relay::new);
    let exit = loop {
        let mut watched: Vec<BorrowedFd<'_>> = vec![signals.as_fd(), pidfd.as_fd()];
        watched.extend(listener.iter().map(AsFd::as_fd));
        let own = watched.len();
        if let Some(relay) = &relay {
            watched.extend(relay.watched());
        }
        let ready = sys::process::wait_any(&watched, -1)?;
        if let Some(relay) = &mut relay {
            relay.step(&ready[own..])?;
        }
        if let Some(notifying) = &listener
            && ready[2]
            && notifying.step()?
        {
            listener = None;
        }
        while let Some(received) = sys::signal::next(&signals)? {
            match received.signal {
                libc::SIGCHLD => {}
                libc::SIGWINCH => {
                    if let Some(master) = &terminal {
                        copy_size(master);
                    }
                }
                // What the terminal sends to the whole group reaches the container by
                // the terminal already; the kernel's own broken pipe is ours alone.
                libc::SIGPIPE | libc::SIGTTOU | libc::SIGTTIN | libc::SIGURG => {}
                signal => {
                    let _ = sys::process::send_signal(pidfd, signal);
                }
            }
        }
        if ready[1] {
            break sys::process::wait(pid)?;
        }
        if reap {
            reap_others(pid)?;
        }
    };
    if let Some(relay) = relay {
        relay.drain();
    }
    Ok(exit.shell_code())
}

/// Reaps orphans of the container, which the kernel gives to us as their subreaper.
fn reap_others(pid: i32) -> Result<()> {
    while let Some(ended) = sys::process::ended_child()? {
        if ended == pid {
            break;
        }
        sys::process::wait(ended)?;
    }
    Ok(())
}

fn receive_master(receiver: &OwnedFd) -> Result<OwnedFd> {
    let mut name = [0; 4096];
    let (_, mut fds) =
        sys::socket::receive(receiver, &mut name).context("cannot receive the terminal")?;
    fds.pop().context("the container's process sent no terminal")
}

fn copy_size(master: &OwnedFd) {
    if let Ok((rows, columns)) = sys::tty::size(std::io::stdin()) {
        let _ = sys::tty::set_size(master, rows, columns);
    }
}

/// Bytes between our standard streams and the terminal's master.
struct Relay<'a> {
    master: &'a OwnedFd,
    stdin_open: bool,
    master_open: bool,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Self {
        Self { master, stdin_open: true, master_open: true }
    }

    fn watched(&self) -> Vec<BorrowedFd<'a>> {
        // `step` takes the results in this order.
        let mut list = Vec::new();
        if self.master_open {
            list.push(self.master.as_fd());
        }
        if self.stdin_open {
            list.push(sys::fd::STDIN);
        }
        list
    }

    fn step(&mut self, ready: &[bool]) -> Result<()> {
        let mut ready = ready.iter();
        let master_ready = self.master_open && *ready.next().unwrap_or(&false);
        let stdin_ready = self.stdin_open && *ready.next().unwrap_or(&false);
        let mut buffer = [0; 4096];
        if master_ready {
            match sys::fd::read(self.master, &mut buffer) {
                // EIO: the last process that had the terminal open has closed it.
                Ok(0) | Err(_) => self.master_open = false,
                Ok(n) => sys::fd::write_all(sys::fd::STDOUT, &buffer[..n])
                    .context("cannot write to standard output")?,
            }
        }
        if stdin_ready {
            match sys::fd::read(sys::fd::STDIN, &mut buffer) {
                Ok(0) | Err(_) => self.stdin_open = false,
                Ok(n) => {
                    if sys::fd::write_all(self.master, &buffer[..n]).is_err() {
                        self.stdin_open = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows what the process wrote before it ended.
    fn drain(self) {
        let mut buffer = [0; 4096];
        while self.master_open && sys::process::wait_readable(self.master, 0).unwrap_or(false) {
            match sys::fd::read(self.master, &mut buffer) {
                Ok(n) if n > 0 => {
                    if sys::fd::write_all(sys::fd::STDOUT, &buffer[..n]).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}
