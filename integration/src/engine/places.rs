//! Places outside a site that stock programs write to whatever they are told.
//!
//! What was not there before the first engine of the process is removed after the
//! last, when it is empty or a cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// Children before their parents.
const PLACES: &[&str] = &[
    "/etc/cni/net.d/cni.lock",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/opt/containerd",
    "/run/containerd/fifo",
    "/run/containerd/runc/default",
    "/run/containerd/runc/moby",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/run/containerd",
    "/run/docker/plugins",
    "/run/docker",
    "/run/runc",
    "/run/hull-runtime",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/containers/cache/blob-info-cache-v1.boltdb",
    "/var/lib/containers/cache",
    "/var/lib/containers",
];

#[derive(Debug)]
struct Ledger {
    sites: usize,
    absent: BTreeSet<&'static str>,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger { sites: 0, absent: BTreeSet::new() });

/// Notes that a site is in use.
pub(super) fn enter() {
    let mut ledger = LEDGER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if ledger.sites == 0 {
        ledger.absent =
            PLACES.iter().copied().filter(|path| fs::symlink_metadata(path).is_err()).collect();
    }
    ledger.sites += 1;
}

/// Notes that a site is not used any more.
pub(super) fn leave() {
    let mut ledger = LEDGER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ledger.sites -= 1;
    if ledger.sites > 0 {
        return;
    }
    for path in PLACES.iter().filter(|path| ledger.absent.contains(*path)) {
        // A directory that somebody else uses by now is not empty, and stays.
        let _ = match Path::new(path).is_dir() {
            true => fs::remove_dir(path),
            false => fs::remove_file(path),
        };
    }
}
