//! The content store: an OCI image layout on disk (OCI image specification, image layout).
//!
//! ```text
//! oci-layout  index.json        index.json lists what references name; it is derived
//! blobs/sha256/HEX              whole, verified, on the disk before it is there
//! ingest/HEX                    what was fetched of a blob so far
//! ingest/new-…                  a blob whose digest is not known yet; nobody's after a restart
//! ```
//!
//! A blob appears by rename(2), after its bytes had the digest that is its name and fsync(2).
//! Who needs one takes a [`Lease`] first and looks second: what is leased, or was at any moment
//! of a collection, is not collected. Leases live in memory: a manager that died needs nothing,
//! and what it left is found without a reference.
//!
//! Paths here are made of configuration and digests only.
#![forbid(unsafe_code)]

mod check;
mod collect;
mod ingest;
mod layout;
mod lease;

use std::{
    collections::HashMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use hull_manager_core::{Error, Result, error::IoContext as _, files};
use hull_specs_image::Digest;

pub use collect::Collected;
pub use ingest::{Claim, Ingest, NewBlob};
pub use lease::Lease;

/// The store; clones share it.
#[derive(Clone)]
pub struct Content {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    blobs: PathBuf,
    ingests: PathBuf,
    leases: Mutex<lease::Leases>,
    /// One writer a digest.
    writers: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// One collection at a time.
    collection: Mutex<()>,
    /// One writer of `index.json`.
    index: Mutex<()>,
}

impl Content {
    /// Opens the store in `root`, made if it is not there. What an earlier manager was writing
    /// without knowing its digest is removed.
    ///
    /// # Errors
    /// If it can't be made, or is a layout of another version.
    pub fn open(root: &Path) -> Result<Self> {
        let (blobs, ingests) = (root.join("blobs/sha256"), root.join("ingest"));
        for directory in [root, &root.join("blobs"), &blobs, &ingests] {
            files::private_directory(directory, 0o700)?;
        }
        files::remove_unfinished(root)?;
        layout::open(root)?;
        ingest::remove_nameless(&ingests)?;
        Ok(Self {
            shared: Arc::new(Shared {
                root: root.to_owned(),
                blobs,
                ingests,
                leases: Mutex::default(),
                writers: Mutex::default(),
                collection: Mutex::default(),
                index: Mutex::default(),
            }),
        })
    }

    /// Where the blob is, or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.blobs.join(digest.hex())
    }

    /// Whether the blob is there, whole.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Its size in bytes, if it is there.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        std::fs::symlink_metadata(self.path(digest))
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|metadata| metadata.len())
    }

    /// The blob, to be read.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        match File::open(self.path(digest)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::not_found(format!("blob {digest} is not in the content store")))
            }
            other => other.about(format!("open blob {digest}")),
        }
    }

    /// The bytes of a small blob, which are compared with its digest again: what decides
    /// something must be what was fetched.
    ///
    /// # Errors
    /// If it is not there, larger than `max_bytes`, or damaged.
    pub fn read(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .about(format!("read blob {digest}"))?;
        if bytes.len() as u64 > max_bytes {
            return Err(Error::exhausted(format!(
                "blob {digest} is larger than {max_bytes} bytes"
            )));
        }
        if Digest::of(&bytes) != *digest {
            return Err(Error::corrupt(format!("blob {digest} is damaged")));
        }
        Ok(bytes)
    }

    /// Adds a small blob.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add(&self, bytes: &[u8], lease: &Lease) -> Result<Digest> {
        let digest = Digest::of(bytes);
        lease.add(digest);
        if !self.has(&digest) {
            let mut blob = self.create()?;
            blob.write(bytes)?;
            blob.finish(lease)?;
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests;
