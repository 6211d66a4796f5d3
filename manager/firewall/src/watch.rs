//! Notices what others do to nftables, and puts our tables back.

use std::{
    os::fd::{AsFd, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::socket::MsgFlags,
};

use crate::{
    firewall::Firewall,
    netlink::Socket,
    nft::{Attributes, SUBSYSTEM, message, messages},
};

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;

/// Room for the notifications of a transaction of many thousand elements.
const RECEIVE_BYTES: usize = 8 * 1024 * 1024;

/// The least time between two repairs, for the case that somebody fights us.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// While this lives, our tables come back when somebody flushes them, and published ports follow
/// the host's input policy.
pub struct Watch {
    thread: Option<JoinHandle<()>>,
    /// Its end ends the thread.
    stop: Option<OwnedFd>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            _ = thread.join();
        }
    }
}

impl Firewall {
    /// Watches from now on. Must be called in the network namespace that the firewall was opened
    /// in. Without rules of ours there is nothing to watch, and nothing is.
    ///
    /// # Errors
    /// When the socket or the thread cannot be made.
    pub fn watch(&self) -> Result<Watch> {
        let Some(own_port) = self.port()? else {
            return Ok(Watch { thread: None, stop: None });
        };
        let socket = Socket::open(GROUP)?;
        socket.set_receive_bytes(RECEIVE_BYTES)?;
        let (stopped, stop) = std::io::pipe().context("make a pipe")?;
        let stopped = OwnedFd::from(stopped);
        // Whatever happened before the first notification.
        self.follow_the_host()?;
        let watcher = Watcher { firewall: self.clone(), socket, own_port };
        let thread = std::thread::Builder::new()
            .name("hull-firewall".into())
            .spawn(move || watcher.run(&stopped))
            .context("start the thread that watches nftables")?;
        Ok(Watch { thread: Some(thread), stop: Some(stop.into()) })
    }
}

struct Watcher {
    firewall: Firewall,
    socket: Socket,
    own_port: u32,
}

/// What others' changes mean for us.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Findings {
    /// Something of ours was removed.
    damaged: bool,
    /// Another table's chains or rules are not what they were.
    host_changed: bool,
    /// There was more than the buffer held.
    overrun: bool,
}

impl Watcher {
    fn run(mut self, stopped: &OwnedFd) {
        let mut findings = Findings::default();
        let mut last_repair: Option<Instant> = None;
        loop {
            let due = last_repair.map(|at| LEAST_PAUSE.saturating_sub(at.elapsed()));
            let wait = match due {
                _ if findings == Findings::default() => PollTimeout::NONE,
                Some(due) => PollTimeout::try_from(due).unwrap_or(PollTimeout::ZERO),
                None => PollTimeout::ZERO,
            };
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            ];
            match nix::poll::poll(&mut fds, wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "nftables is no longer watched");
                    return;
                }
            }
            if fds[1].revents().is_some_and(|events| !events.is_empty()) {
                return;
            }
            self.take(&mut findings);
            let is_due = last_repair.is_none_or(|at| at.elapsed() >= LEAST_PAUSE);
            if findings != Findings::default() && is_due {
                last_repair = Some(Instant::now());
                match self.act(findings) {
                    Ok(()) => findings = Findings::default(),
                    Err(error) => {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "the packet filter is not whole"
                        );
                        last_repair = Some(Instant::now() + RETRY);
                    }
                }
            }
        }
    }

    /// Takes all notifications that are there.
    fn take(&mut self, findings: &mut Findings) {
        loop {
            match self.socket.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(Some(datagram)) => {
                    judge(&datagram, self.own_port, self.firewall.table(), findings)
                }
                Ok(None) => return,
                Err(_) => findings.overrun = true,
            }
        }
    }

    fn act(&self, findings: Findings) -> Result<()> {
        if findings.damaged || (findings.overrun && !self.firewall.is_intact()?) {
            tracing::warn!("rules of ours were removed by somebody: putting them back");
            self.firewall.restore()?;
        }
        if findings.host_changed || findings.overrun {
            self.firewall.follow_the_host()?;
        }
        Ok(())
    }
}

fn judge(datagram: &[u8], own_port: u32, ours: &str, findings: &mut Findings) {
    let others = |port| port != own_port;
    for notification in messages(datagram).filter(|message| others(message.port)) {
        if notification.kind >> 8 != SUBSYSTEM {
            continue;
        }
        let is_ours = Attributes::of_message(notification.payload).text(1) == Some(ours);
        match notification.kind & 0xff {
            message::DELETE_TABLE | message::NEW_TABLE if is_ours => findings.damaged = true,
            message::DELETE_CHAIN | message::DELETE_RULE if is_ours => findings.damaged = true,
            message::DELETE_SET | message::DELETE_ELEMENT if is_ours => findings.damaged = true,
            message::DELETE_TABLE
            | message::NEW_CHAIN
            | message::DELETE_CHAIN
            | message::NEW_RULE
            | message::DELETE_RULE => findings.host_changed |= !is_ours,
            _ => {}
        }
    }
}
