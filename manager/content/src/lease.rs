//! Leases: what is needed and not referenced yet.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hull_specs_image::Digest;

use crate::{Content, Shared};

/// Who has what.
#[derive(Default)]
pub(crate) struct Leases {
    counts: HashMap<Digest, usize>,
    /// While a collection runs: all that was leased at any moment of it. What it thinks of as
    /// without a reference may have got one since.
    touched: Option<HashSet<Digest>>,
}

impl Leases {
    pub(crate) fn begin(&mut self) {
        self.touched = Some(self.counts.keys().copied().collect());
    }

    pub(crate) fn end(&mut self) {
        self.touched = None;
    }

    pub(crate) fn spare(&self, digest: &Digest) -> bool {
        self.counts.contains_key(digest)
            || self.touched.as_ref().is_some_and(|touched| touched.contains(digest))
    }
}

/// Keeps blobs from being collected while it lives. Blobs that are not there yet may be added,
/// and should be, before one looks whether they are.
pub struct Lease {
    shared: Arc<Shared>,
    held: Mutex<HashSet<Digest>>,
}

impl Lease {
    /// Holds this blob too.
    pub fn add(&self, digest: Digest) {
        if lock(&self.held).insert(digest) {
            let mut leases = lock(&self.shared.leases);
            *leases.counts.entry(digest).or_default() += 1;
            if let Some(touched) = &mut leases.touched {
                touched.insert(digest);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = lock(&self.shared.leases);
        for digest in lock(&self.held).drain() {
            match leases.counts.get_mut(&digest) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(leases.counts.remove(&digest)),
            }
        }
    }
}

impl Content {
    /// A lease of nothing yet.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease { shared: self.shared.clone(), held: Mutex::default() }
    }
}

/// What these locks guard is whole after each statement: a panic elsewhere changes nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
