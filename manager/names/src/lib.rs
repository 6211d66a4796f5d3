//! The name service: containers of a user-defined network find each other by name; every other
//! question goes to the host's resolvers.
//!
//! A container asks 127.0.0.11 in its own network namespace ([`Sockets`]). One thread of the
//! manager answers all containers, so that whoever floods it takes at most one processor and
//! none of the manager's other work. What is answered is a pure function of the question, the
//! [`Zone`]s of all networks and what the container may see of them ([`View`]).
//!
//! ```text
//! container's namespace           the thread "names"
//! 127.0.0.11:53  --- question --> react: names, aliases, links, reverse ---> answer
//!                                   | nobody's name
//!                                   v
//!                                 forward: resolv.conf's resolvers, from the manager's namespace
//! ```
//!
//! Nothing is remembered on disk. After a restart of the manager its owner opens the sockets
//! again and inserts the members again; a question in between is lost, and its asker repeats it.
//!
//! Order for who attaches a container: `network` once for each network, `insert` it where it can
//! be found, then `serve`. To detach: `stop`, `remove`. All but `stop` take microseconds.
#![forbid(unsafe_code)]

mod directory;
mod forward;
mod packet;
mod resolvers;
mod serve;
mod sockets;
mod zone;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    directory::Directory,
    forward::Preferred,
    packet::{Reaction, Transport},
    resolvers::Resolvers,
};
pub use crate::{
    directory::{Forward, Link, View},
    resolvers::parse as parse_resolv_conf,
    sockets::{ADDRESS, Sockets},
    zone::{Member, Zone},
};

/// The port of the protocol.
const DNS_PORT: u16 = 53;

/// Where the service finds things.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's list of resolvers; read again when it has changed.
    pub resolv_conf: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into() }
    }
}

/// The running service; clones share it. It ends with the last of them.
#[derive(Clone, Debug)]
pub struct Names {
    shared: Arc<Shared>,
    served: Arc<Mutex<HashMap<String, Arc<Viewer>>>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What all containers' tasks see.
#[derive(Debug)]
struct Shared {
    directory: RwLock<Directory>,
    resolvers: Resolvers,
    budget: Arc<Semaphore>,
}

/// One served container.
#[derive(Debug)]
struct Viewer {
    view: RwLock<View>,
    preferred: Preferred,
}

enum Order {
    Serve { id: String, sockets: Sockets, viewer: Arc<Viewer> },
    Stop { id: String, done: oneshot::Sender<()> },
}

impl Names {
    /// Starts the service's thread.
    ///
    /// # Errors
    /// If the thread or its runtime can't be made.
    pub fn start(settings: Settings) -> Result<Self> {
        let shared = Arc::new(Shared {
            directory: RwLock::default(),
            resolvers: Resolvers::new(settings.resolv_conf),
            budget: Arc::new(Semaphore::new(serve::MAX_EVERYWHERE)),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .about("the name service's runtime")?;
        let (orders, received) = mpsc::unbounded_channel();
        let seen = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("names".into())
            .spawn(move || runtime.block_on(obey(received, seen)))
            .about("start the name service's thread")?;
        Ok(Self { shared, served: Arc::default(), orders })
    }

    /// Makes a network known, or renames it; its members stay.
    pub fn network(&self, id: &str, name: &str) {
        self.directory().name(id, name);
    }

    /// Forgets a network and its members.
    pub fn forget_network(&self, id: &str) {
        self.directory().forget(id);
    }

    /// Adds a member to a network, in place of one with the same id. From now on it is answered.
    ///
    /// # Errors
    /// If the network is not known.
    pub fn insert(&self, network: &str, member: Member) -> Result<()> {
        match self.directory().zone(network) {
            Some(zone) => {
                zone.insert(member);
                Ok(())
            }
            None => Err(Error::not_found(format!("network {network} not found"))),
        }
    }

    /// Removes a member from a network. Idempotent.
    pub fn remove(&self, network: &str, member: &str) {
        if let Some(zone) = self.directory().zone(network) {
            zone.remove(member);
        }
    }

    /// Answers a container on `sockets`, with what it sees in `view`. Sockets that it had before
    /// are closed.
    ///
    /// # Errors
    /// If the service's thread has ended.
    pub fn serve(&self, id: &str, sockets: Sockets, view: View) -> Result<()> {
        let viewer = Arc::new(Viewer { view: RwLock::new(view), preferred: Preferred::default() });
        self.served().insert(id.to_owned(), Arc::clone(&viewer));
        self.orders
            .send(Order::Serve { id: id.to_owned(), sockets, viewer })
            .map_err(|_| Error::internal("the name service has ended"))
    }

    /// Changes what a served container sees: it was connected or disconnected.
    ///
    /// # Errors
    /// If it is not served.
    pub fn set_view(&self, id: &str, view: View) -> Result<()> {
        match self.served().get(id) {
            Some(viewer) => {
                *viewer.view.write().unwrap_or_else(PoisonError::into_inner) = view;
                Ok(())
            }
            None => Err(Error::not_found(format!("the name service does not serve {id}"))),
        }
    }

    /// What a served container sees.
    #[must_use]
    pub fn view(&self, id: &str) -> Option<View> {
        self.served().get(id).map(|viewer| viewer.view().clone())
    }

    /// Closes a container's sockets; when it returns they don't hold the namespace any more.
    /// Idempotent.
    pub async fn stop(&self, id: &str) {
        self.served().remove(id);
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop { id: id.to_owned(), done }).is_ok() {
            // Its end, in any way, is the end of the sockets.
            drop(stopped.await);
        }
    }

    fn directory(&self) -> RwLockWriteGuard<'_, Directory> {
        self.shared.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) -> MutexGuard<'_, HashMap<String, Arc<Viewer>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn react(&self, query: &[u8], transport: Transport, viewer: &Viewer) -> Reaction {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        packet::react(query, transport, &directory, &viewer.view())
    }
}

impl Viewer {
    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service's thread: one task a container.
async fn obey(mut orders: mpsc::UnboundedReceiver<Order>, shared: Arc<Shared>) {
    let mut tasks = HashMap::new();
    while let Some(order) = orders.recv().await {
        let (old, done) = match order {
            Order::Serve { id, sockets, viewer } => {
                let task = serve::container(sockets, viewer, Arc::clone(&shared));
                (tasks.insert(id, tokio::spawn(task)), None)
            }
            Order::Stop { id, done } => (tasks.remove(&id), Some(done)),
        };
        if let Some(task) = old {
            task.abort();
            drop(task.await);
        }
        drop(done);
    }
}
