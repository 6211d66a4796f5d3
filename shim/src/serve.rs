//! The shim itself: from its fork to its shutdown.

use std::{cell::Cell, fs, os::unix::net::UnixListener, path::Path, rc::Rc, time::Duration};

use anyhow::Result;
use hull_runtime_sys::{process, signal};

use crate::{events::Publisher, log, reactor, task::Shim, ttrpc};

/// How long events may take to be sent when the shim ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long a shim waits for whoever had it started: containerd can end in between.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// Serves until containerd has deleted every container and says that this is all.
///
/// # Errors
/// The shim cannot serve.
pub(crate) fn run(
    namespace: &str,
    events: &str,
    listener: UnixListener,
    socket: &Path,
) -> Result<()> {
    signal::block_all()?;
    process::set_subreaper(true)?;
    let publisher = Publisher::new(namespace, events);
    let namespace = namespace.to_owned();
    let served = reactor::run(async move {
        let shim = Rc::new(Shim::new(&namespace, Rc::clone(&publisher)));
        let told = Rc::clone(&shim);
        reactor::spawn(async move {
            let reaped = reactor::reap(|signal| {
                // A shim outlives whoever wants to end it, for its containers' sake.
                if matches!(signal, libc::SIGTERM | libc::SIGINT) {
                    told.end_if_idle();
                }
            });
            if let Err(error) = reaped.await {
                log::error(&format!("children cannot be reaped: {}", log::sentence(&error)));
            }
        });
        let service = Rc::clone(&shim);
        let connections = Rc::new(Cell::new(0));
        let counted = Rc::clone(&connections);
        reactor::spawn(async move {
            if let Err(error) = ttrpc::serve(listener, service, counted).await {
                log::error(&format!("connections cannot be accepted: {}", log::sentence(&error)));
            }
        });
        let orphan = Rc::clone(&shim);
        reactor::spawn(async move {
            while !orphan.has_begun() {
                reactor::sleep(ORPHAN_LIMIT).await;
                if connections.get() == 0 && !orphan.has_begun() {
                    orphan.end_if_idle();
                }
            }
        });
        shim.shutdown.wait().await;
        reactor::within(FLUSH_LIMIT, publisher.flush()).await;
    });
    // Whoever comes now must find nobody rather than a socket that nobody serves.
    let _ = fs::remove_file(socket);
    served
}
