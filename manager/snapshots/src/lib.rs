//! Snapshots: what is below a container, and what it changes.
//!
//! Words, as in containerd: a *layer* is committed, never changes, and is named by its chain id;
//! an *active* snapshot lies on a layer and takes what a container changes; a *view* lies on one
//! and takes nothing. Active snapshots and views are named by a key.
//!
//! A layer begins *staged*: an empty directory into which somebody unpacks, in overlayfs's own
//! form (a whiteout is a 0:0 character device, an opaque directory has the attribute), without
//! knowing what will be below it. So all layers of an image are unpacked at once, and
//! [`Snapshotter::commit_layer`] says afterwards what lies on what.
//!
//! Crash rules: a directory without a row is removed at the next start, and so is what was
//! staged. A row without its directory is a finding of [`Snapshotter::check`].
#![forbid(unsafe_code)]

mod directory;
mod measure;
mod overlay;
mod records;
mod tree;
mod vfs;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_archive::{Source, worker::Changed};
use hull_manager_core::{Error, Result, Store};
use hull_specs_image::Digest;

pub use overlay::Overlay;
pub use vfs::Vfs;

/// The drivers, by the names that are asked for.
pub const DRIVERS: [&str; 3] = ["overlayfs", "overlay2", "vfs"];

/// A mount, as containerd's types have it: what the shim mounts as a container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of mount(8).
    pub options: Vec<String>,
}

/// An empty directory for one layer.
#[derive(Debug)]
pub struct Staged {
    /// Open for reading.
    pub dir: OwnedFd,
    /// The same by name.
    pub path: PathBuf,
}

/// How much a snapshot holds, without what is below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of regular files, each once.
    pub bytes: u64,
    /// Files, directories and the rest.
    pub inodes: u64,
}

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Being unpacked.
    Staged,
    /// Committed.
    Layer,
    /// Taking changes.
    Active,
    /// Taking none.
    View,
}

/// A snapshot, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The key, or a layer's chain id as text.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The layer it lies on.
    pub parent: Option<Digest>,
}

/// What a snapshot changed, and what it lies on.
#[derive(Debug)]
pub struct Changes {
    /// What the changes are found in.
    pub root: OwnedFd,
    /// What is below, as a container sees it; nothing if it lies on nothing.
    pub below: Option<OwnedFd>,
    /// How they are found: in the uppermost directory of an overlay, or by comparing.
    pub form: Changed,
}

impl Changes {
    /// To walk through them.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        let below = self.below.as_ref().map(OwnedFd::as_fd);
        match self.form {
            Changed::Upper => Source::Upper(self.root.as_fd(), below),
            Changed::Tree => Source::Tree(self.root.as_fd(), below),
        }
    }
}

/// Something wrong on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `snapshot …`.
    pub subject: String,
    /// In a sentence.
    pub problem: String,
    /// What was done, if anything.
    pub repaired: Option<String>,
}

/// Keeps layers and what lies on them. Calls may block on the disk.
pub trait Snapshotter: Send + Sync {
    /// `overlayfs` or `vfs`.
    fn name(&self) -> &'static str;

    /// A new empty directory for a layer; one that was staged under this key is removed.
    fn stage(&self, key: &str) -> Result<Staged>;

    /// The staged directory becomes the layer `chain_id` on `parent`. If there is that layer
    /// already, the staged directory is removed; if that layer's directory was lost, it becomes it.
    fn commit_layer(&self, key: &str, chain_id: &Digest, parent: Option<&Digest>) -> Result<()>;

    /// Whether there is a layer, and on the disk too.
    fn has_layer(&self, chain_id: &Digest) -> Result<bool>;

    /// Removes a layer.
    ///
    /// # Errors
    /// [`hull_manager_core::ErrorKind::FailedPrecondition`] while something lies on it.
    fn remove_layer(&self, chain_id: &Digest) -> Result<()>;

    /// A new active snapshot, and how to mount it.
    fn prepare(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>>;

    /// A new view, and how to mount it.
    fn view(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>>;

    /// How to mount an active snapshot or a view.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Removes an active snapshot, a view, or what was staged. Not an error if it is not there.
    fn remove(&self, key: &str) -> Result<()>;

    /// What an active snapshot changed.
    fn changes(&self, key: &str) -> Result<Changes>;

    /// A mount of a snapshot that is attached nowhere: its root directory, to look into or,
    /// unless `read_only`, to change. Not while a container has it mounted.
    fn mount_detached(&self, key: &str, read_only: bool) -> Result<OwnedFd>;

    /// The same of a layer with all below it; always read-only.
    fn mount_layer(&self, chain_id: &Digest) -> Result<OwnedFd>;

    /// How much an active snapshot or a view holds.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// How much a layer holds.
    fn layer_usage(&self, chain_id: &Digest) -> Result<Usage>;

    /// docker's `GraphDriver.Data`.
    fn data(&self, key: &str) -> Result<BTreeMap<String, String>>;

    /// The same of a layer.
    fn layer_data(&self, chain_id: &Digest) -> Result<BTreeMap<String, String>>;

    /// All snapshots.
    fn list(&self) -> Result<Vec<Info>>;

    /// What is wrong on disk; with `repair`, and what was done about it.
    fn check(&self, repair: bool) -> Result<Vec<Finding>>;
}

/// Opens the snapshotter that is asked for; or the one that the data root was used with, else
/// overlayfs where it works, else plain copies.
///
/// # Errors
/// If it is asked for and can't work here, the data root was used with another, or its directory
/// can't be used.
pub fn open(driver: Option<&str>, root: &Path, store: &Store) -> Result<Arc<dyn Snapshotter>> {
    let asked = match driver {
        Some("overlay2") => Some("overlayfs"),
        Some(driver @ ("overlayfs" | "vfs")) => Some(driver),
        Some(other) => {
            return Err(Error::invalid(format!(
                "storage-driver: {other:?} is not overlayfs or vfs"
            )));
        }
        None => None,
    };
    let used = records::driver(store)?;
    if let (Some(asked), Some(used)) = (asked, &used)
        && asked != used
    {
        return Err(Error::conflict(format!(
            "storage-driver: the snapshots of this data root are of {used}: use that, or another data root than for {asked}"
        )));
    }
    match asked.or(used.as_deref()) {
        Some("vfs") => Ok(Arc::new(Vfs::open(&root.join("vfs"), store)?)),
        // It works here: it did. Trying it anew takes room, and who has none must get in to make it.
        Some(driver) if used.as_deref() == Some(driver) => {
            Ok(Arc::new(Overlay::open(&root.join("overlayfs"), store)?))
        }
        Some(_) => {
            overlay::probe(root).map_err(|cause| {
                Error::conflict(format!(
                    "storage-driver: overlayfs does not work on {}",
                    root.display()
                ))
                .because(cause)
            })?;
            Ok(Arc::new(Overlay::open(&root.join("overlayfs"), store)?))
        }
        None => match overlay::probe(root) {
            Ok(()) => Ok(Arc::new(Overlay::open(&root.join("overlayfs"), store)?)),
            Err(error) => {
                tracing::warn!(%error, "overlayfs does not work here: layers are copied");
                Ok(Arc::new(Vfs::open(&root.join("vfs"), store)?))
            }
        },
    }
}

/// What there is to say of a layer whose directory is gone.
fn gone(layer: Option<&Digest>, cause: impl Into<anyhow::Error>) -> Error {
    let layer = layer.map(ToString::to_string).unwrap_or_default();
    Error::corrupt(format!(
        "layer {layer} is gone from the disk: hull system check --repair unpacks it again"
    ))
    .because(cause)
}
