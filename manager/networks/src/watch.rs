//! Notices when somebody removes an interface of ours, sets it down or takes its address, and has
//! it put right.

use std::{
    collections::BTreeSet,
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

use crate::{
    Inner,
    healing::Finding,
    host::bridges_translate,
    link::{Change, changes},
};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// The least time between two repairs, for the case that somebody fights us, in milliseconds.
const LEAST_PAUSE_MS: u16 = 100;

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
        bind(watched.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).context("bind rtnetlink")?;
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
    let mut translate = bridges_translate();
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
        let mut changes = take(watched, &mut buffer);
        // Somebody has loaded br_netfilter, or turned it on: ports need another mode for it. Nobody
        // tells of that, and an idle manager sleeps: it is seen with the next interface.
        let before = std::mem::replace(&mut translate, bridges_translate());
        if translate && !before {
            tracing::info!("bridges ask the filters of IP now (br_netfilter)");
            changes.push(None);
        }
        if changes.is_empty() {
            continue;
        }
        let Some(inner) = inner.upgrade() else { return };
        let findings: BTreeSet<_> =
            changes.into_iter().filter_map(|change| finding(&inner, change)).collect();
        let _entered = inner.runtime.enter();
        let mut healed = false;
        for finding in findings {
            match inner.heal(&finding) {
                Ok(something) => healed |= something,
                Err(error) => tracing::warn!(?finding, %error, "not put right"),
            }
        }
        if healed {
            let mut stop = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
            _ = poll(&mut stop, PollTimeout::from(LEAST_PAUSE_MS));
        }
    }
}

/// What a change may mean; nothing where interfaces go as they should.
fn finding(inner: &Inner, change: Option<Change>) -> Option<Finding> {
    match change {
        Some(Change::Gone(name)) => (!inner.departures.gone(&name)).then_some(Finding::Link(name)),
        Some(Change::Idle(name)) => {
            (!inner.departures.awaits(&name)).then_some(Finding::Link(name))
        }
        Some(Change::Address(address)) => Some(Finding::Address(address)),
        None => Some(Finding::Anything),
    }
}

/// The changes of all notifications that are there; none: there were more than the buffer held.
fn take(watched: &OwnedFd, buffer: &mut [u8]) -> Vec<Option<Change>> {
    let mut found = Vec::new();
    loop {
        match fd::read(watched, buffer) {
            Ok(n) => found.extend(changes(&buffer[..n]).into_iter().map(Some)),
            Err(error) if error.errno() == libc::ENOBUFS => found.push(None),
            Err(_) => return found,
        }
    }
}
