//! Connections that are being taken away, after who asked for it has his answer.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest that somebody waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that an interface may take to go with its namespace, which somebody may hold.
const DEPARTURE: Duration = Duration::from_secs(1);

/// Whose they are.
#[derive(Default)]
pub(crate) struct Finishing {
    containers: Mutex<BTreeSet<String>>,
    none: Condvar,
}

impl Finishing {
    pub(crate) fn begin(&self, container: &str) {
        self.containers().insert(container.to_owned());
    }

    pub(crate) fn end(&self, container: &str) {
        let mut containers = self.containers();
        containers.remove(container);
        if containers.is_empty() {
            self.none.notify_all();
        }
    }

    /// Waits until there is none, and says whether there was one.
    pub(crate) fn wait(&self) -> bool {
        let containers = self.containers();
        let were = !containers.is_empty();
        drop(self.none.wait_timeout_while(containers, PATIENCE, |all| !all.is_empty()));
        were
    }

    fn containers(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interfaces that go with their namespaces.
///
/// The kernel takes away together whatever ends meanwhile: 32 pairs within a fifth of a second. To
/// be told to remove them costs as much for every few, each under the lock that whatever is made
/// waits for (measured).
#[derive(Default)]
pub(crate) struct Departures {
    awaited: Mutex<BTreeSet<String>>,
    changed: Condvar,
}

impl Departures {
    /// From now on these are told of; before they begin to go.
    pub(crate) fn expect(&self, names: &[String]) {
        self.awaited().extend(names.iter().cloned());
    }

    /// One is gone, and whether somebody waits for that.
    pub(crate) fn gone(&self, name: &str) -> bool {
        let awaited = self.awaited().remove(name);
        if awaited {
            self.changed.notify_all();
        }
        awaited
    }

    /// Whether somebody waits for one to be gone.
    pub(crate) fn awaits(&self, name: &str) -> bool {
        self.awaited().contains(name)
    }

    /// Waits until these are gone, and gives those that are.
    pub(crate) fn wait(&self, names: Vec<String>) -> Vec<String> {
        let left = |all: &mut BTreeSet<String>| names.iter().any(|name| all.contains(name));
        let waited = self.changed.wait_timeout_while(self.awaited(), DEPARTURE, left);
        let mut awaited = waited.unwrap_or_else(PoisonError::into_inner).0;
        names.into_iter().filter(|name| !awaited.remove(name)).collect()
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
