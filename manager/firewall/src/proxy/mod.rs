//! The proxy: takes what comes to a port's own socket, and carries it to the container.
//!
//! It serves what the kernel cannot translate (the host's loopback, and one family of addresses
//! to the other), ports that ask for it, and hosts whose input rules shall decide. Its threads
//! are its own, so that its traffic is not in the way of requests, and start with the first
//! port.

mod tcp;
pub(crate) mod udp;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::AbortHandle,
};

use crate::ports::{HostSocket, Served};

/// Two, whatever the machine has: what must be fast is translated.
const THREADS: usize = 2;

/// The threads of all proxies.
#[derive(Default)]
pub(crate) struct Proxies {
    runtime: Mutex<Option<Runtime>>,
}

/// Where a port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) first: SocketAddr,
    /// The container's address of the other family, asked where the first refuses: many programs
    /// listen on IPv4 only.
    pub(crate) other: Option<SocketAddr>,
}

/// A proxy, until it is dropped.
pub(crate) struct Service(AbortHandle);

impl Proxies {
    pub(crate) fn serve(&self, socket: &Arc<HostSocket>, target: Target) -> Result<Service> {
        let handle = self.handle()?;
        // The sockets belong to the runtime that is entered.
        let _entered = handle.enter();
        socket.served()?;
        let socket = Arc::clone(socket);
        let task = handle.spawn(async move {
            match socket.served() {
                Ok(Served::Tcp(listener)) => tcp::serve(listener, target).await,
                Ok(Served::Udp(listener)) => udp::serve(&socket, listener, target).await,
                // It was there a moment ago.
                Err(_) => {}
            }
        });
        Ok(Service(task.abort_handle()))
    }

    fn handle(&self) -> Result<Handle> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let made = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("hull-proxy")
            .enable_io()
            .enable_time()
            .build()
            .context("start the threads of the proxies")?;
        let handle = made.handle().clone();
        *runtime = Some(made);
        Ok(handle)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            // Waits for nobody: this may be a thread of an async runtime.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}
