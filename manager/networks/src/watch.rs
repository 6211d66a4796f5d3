//! Notices when somebody removes an interface of ours, and makes it again.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Weak,
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::fd;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket,
        sockopt,
    },
};

use crate::{Inner, definition::Driver, link::removed};

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// Room for the notifications of hundreds of containers that come or go at once.
const RECEIVE_BYTES: usize = 1 << 20;

/// While this lives, removed interfaces come back.
pub(crate) struct Watch {
    thread: Option<JoinHandle<()>>,
    /// Its end ends the thread.
    stop: Option<OwnedFd>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by the thread itself; one that panicked has said so.
            if thread.thread().id() != std::thread::current().id() {
                _ = thread.join();
            }
        }
    }
}

/// What was removed.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Link(String),
    /// Nobody knows: there was more than the buffer held.
    Anything,
}

impl Watch {
    /// Watches the calling thread's namespace from now on, for as long as `inner` is there.
    pub(crate) fn start(inner: Weak<Inner>) -> Result<Self> {
        let watched = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .context("open rtnetlink")?;
        // Beyond the host's limit; without the capability as far as that goes.
        if setsockopt(&watched, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&watched, sockopt::RcvBuf, &RECEIVE_BYTES).context("SO_RCVBUF")?;
        }
        bind(watched.as_raw_fd(), &NetlinkAddr::new(0, LINKS)).context("bind rtnetlink")?;
        let (stopped, stop) = std::io::pipe().context("make a pipe")?;
        let stopped = OwnedFd::from(stopped);
        let thread = std::thread::Builder::new()
            .name("hull-links".into())
            .spawn(move || run(&watched, &stopped, &inner))
            .context("start the thread that watches interfaces")?;
        Ok(Self { thread: Some(thread), stop: Some(stop.into()) })
    }
}

fn run(watched: &OwnedFd, stopped: &OwnedFd, inner: &Weak<Inner>) {
    let mut buffer = vec![0; 65536];
    loop {
        let mut fds = [
            PollFd::new(watched.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "interfaces are no longer watched");
                return;
            }
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        let findings = take(watched, &mut buffer);
        if findings.is_empty() {
            continue;
        }
        let Some(inner) = inner.upgrade() else { return };
        let _entered = inner.runtime.enter();
        for finding in findings {
            if let Err(error) = inner.heal(&finding) {
                tracing::warn!(?finding, %error, "a removed interface is not made again");
            }
        }
    }
}

/// What was removed according to all notifications that are there.
fn take(watched: &OwnedFd, buffer: &mut [u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    loop {
        match fd::read(watched, buffer) {
            Ok(n) => findings.extend(removed(&buffer[..n]).into_iter().map(Finding::Link)),
            Err(error) if error.errno() == libc::ENOBUFS => findings.push(Finding::Anything),
            Err(_) => return findings,
        }
    }
}

impl Inner {
    fn heal(&self, finding: &Finding) -> hull_manager_core::Result<()> {
        let (networks, containers) = match finding {
            Finding::Link(name) => {
                if let Some(id) = name.strip_prefix("hv") {
                    // Mostly the end of a container: then its row is gone when it is our turn.
                    (Vec::new(), self.records.container_of(id)?.into_iter().collect())
                } else {
                    let state = self.state();
                    let of_network = |known: &&crate::catalog::Known| {
                        matches!(&known.definition.driver, Driver::Bridge(bridge)
                            if bridge.owned && bridge.interface == *name)
                    };
                    let networks: Vec<_> = state
                        .catalog
                        .all()
                        .filter(of_network)
                        .map(|known| known.definition.clone())
                        .collect();
                    drop(state);
                    let mut containers = Vec::new();
                    for network in &networks {
                        let endpoints = self.records.members(&network.id)?;
                        containers.extend(endpoints.into_iter().map(|e| e.container));
                    }
                    (networks, containers)
                }
            }
            Finding::Anything => {
                let state = self.state();
                let networks = state.catalog.all().map(|known| known.definition.clone()).collect();
                drop(state);
                let sandboxes = self.records.sandboxes()?;
                (networks, sandboxes.into_iter().map(|sandbox| sandbox.container).collect())
            }
        };
        for network in networks {
            tracing::warn!(network = %network.name, "its bridge was removed by somebody");
            self.establish(&network)?;
        }
        for container in containers {
            let _turn = self.turn(&container);
            if self.records.sandbox(&container)?.is_some()
                && !self.records.is_leaving(&container)?
            {
                self.check(&container)?;
            }
        }
        Ok(())
    }
}
