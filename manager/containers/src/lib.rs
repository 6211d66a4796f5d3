//! Containers: what is to run, and what became of it.
//!
//! The store keeps intent: the options, and facts that only the manager knows (`record`).
//! Whether a container runs is never stored: it is seen from its shim, and from the exit record
//! when there is no shim. Each container has one task that owns it (`owner`) and takes requests
//! in turn; the function that accepts or refuses them is pure (`state`). What only looks, or
//! only concerns one further process, goes to the shim past the owner.
#![forbid(unsafe_code)]

pub mod apparmor;
mod attach;
mod bundle;
mod connect;
mod copy;
mod create;
mod devices;
mod exec;
mod exit_record;
mod filesystem;
mod handle;
mod health;
mod inspect;
mod launch;
mod lifecycle;
mod links;
mod list;
mod logs;
mod network;
mod owner;
mod prepare;
mod record;
mod recover;
mod registry;
mod remove;
mod restart;
mod settings;
mod shim;
mod signal;
mod state;
mod stats;
mod top;
mod update;
mod userns;
mod volumes;
mod why;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use hull_manager_core::{Journal, Result, Store};
use hull_manager_images::Images;
use hull_manager_snapshots::Snapshotter;
use hull_manager_volumes::Volumes;
use tokio::sync::mpsc;

use crate::{
    handle::Handle,
    record::{Record, Records},
    registry::Registry,
};
pub use crate::{
    inspect::Counts,
    logs::driver::check as check_log,
    network::{Attached, Attachment, Namespace, Network},
    settings::{Runtime, Settings},
};

/// Answers that come one after the other. The sender ends when the receiver is dropped.
pub type Answers<T> = mpsc::Receiver<Result<T>>;

/// Messages of a client that come one after the other; their end is the client's.
pub type Messages<T> = mpsc::Receiver<T>;

/// What containers are built on.
pub struct Parts {
    /// For the rows of containers.
    pub store: Store,
    /// For what happens to them.
    pub journal: Journal,
    /// What they are made from.
    pub images: Images,
    /// Their file systems.
    pub snapshots: Arc<dyn Snapshotter>,
    /// What outlives them.
    pub volumes: Volumes,
    /// How they are connected.
    pub network: Arc<dyn Network>,
}

/// All containers. Clones share them.
#[derive(Clone)]
pub struct Containers(Arc<Inner>);

struct Inner {
    settings: RwLock<Arc<Settings>>,
    parts: Parts,
    records: Records,
    ranges: userns::Ranges,
    registry: Mutex<Registry<Handle>>,
    execs: exec::Execs,
    /// The manager ends.
    ending: AtomicBool,
}

impl Containers {
    /// Declares the tables and makes the directories; touches no container.
    ///
    /// # Errors
    /// If the store or a directory can't be used, or the settings contradict themselves.
    pub fn open(settings: Settings, parts: Parts) -> Result<Self> {
        settings.check()?;
        let inner = Inner {
            records: Records::open(&parts.store)?,
            ranges: userns::Ranges::open(&parts.store, &settings.userns_user)?,
            settings: RwLock::new(Arc::new(settings)),
            registry: Mutex::default(),
            execs: exec::Execs::open(&parts.store)?,
            ending: AtomicBool::new(false),
            parts,
        };
        inner.make_directories()?;
        Ok(Self(Arc::new(inner)))
    }

    /// Takes the runtimes and the time for stopping from other settings: what can change while
    /// containers run. Those that were made keep the name of their runtime.
    ///
    /// # Errors
    /// If the settings contradict themselves; then nothing is taken.
    pub fn reload(&self, fresh: &Settings) -> Result<()> {
        let mut next = Settings::clone(&self.0.settings());
        next.runtimes.clone_from(&fresh.runtimes);
        next.defaults.runtimes.clone_from(&fresh.defaults.runtimes);
        next.defaults.runtime.clone_from(&fresh.defaults.runtime);
        next.shutdown_timeout = fresh.shutdown_timeout;
        next.check()?;
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    fn find(&self, text: &str) -> Result<Arc<Handle>> {
        self.0.find(text)
    }
}

impl Inner {
    /// A panic of one holder leaves the registry whole: its changes are single insertions.
    fn registry(&self) -> MutexGuard<'_, Registry<Handle>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings as they are now.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, text: &str) -> Result<Arc<Handle>> {
        self.registry().find(text)
    }

    /// All containers, in no order.
    fn all(&self) -> Vec<Arc<Handle>> {
        self.registry().all().cloned().collect()
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Writes an event with docker's attributes: name, image, and the labels.
    fn event(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        let container = &record.container;
        let mut attributes: Vec<(&str, &str)> =
            container.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        attributes.extend([("name", container.name.as_str()), ("image", container.image.as_str())]);
        attributes.extend(more);
        self.parts.journal.record("container", action, &container.id, &attributes);
    }
}
