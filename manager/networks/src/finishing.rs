//! Connections that are being taken away, after who asked for it has his answer.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest that somebody waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

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
