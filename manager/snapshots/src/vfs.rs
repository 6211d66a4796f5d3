//! Snapshots for file systems without overlay: each layer is a whole tree, made of a copy of its
//! parent's, and so is what a container changes.
//!
//! `ROOT/NUMBER/fs` is the tree. A tree that is being copied is staged: a manager that is killed
//! meanwhile removes it at its next start.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use hull_manager_archive::{ChangeKind, changes, worker::Changed};
use hull_manager_core::{Error, Result, Store};
use hull_runtime_sys::path::{self, Links};
use hull_specs_image::Digest;

use crate::{
    Changes, Finding, Info, Kind, Mount, Snapshotter, Staged, Usage,
    directory::{bind, detached, make, open},
    gone,
    measure::content,
    records::{Record, Records},
    tree,
};

/// The snapshotter.
pub struct Vfs {
    records: Records,
}

impl Vfs {
    /// Snapshots in `root`.
    ///
    /// # Errors
    /// If the directory can't be used.
    pub fn open(root: &Path, store: &Store) -> Result<Self> {
        Ok(Self { records: Records::open(store, "vfs", root)? })
    }

    fn fs(&self, number: i64) -> PathBuf {
        self.records.directory(number).join("fs")
    }

    fn insert(&self, key: &str, kind: Kind, parent: Option<&Digest>) -> Result<Record> {
        self.records.insert(key, kind, parent, |directory| {
            make(directory, 0o711)?;
            make(&directory.join("fs"), 0o755)
        })
    }

    /// The tree that a snapshot shows: a view's is its parent's.
    fn shown(&self, record: &Record) -> PathBuf {
        match (record.kind, record.parent) {
            (Kind::View, Some(parent)) => self.fs(parent),
            _ => self.fs(record.number),
        }
    }

    fn mounts_of(&self, record: &Record) -> Vec<Mount> {
        vec![bind(&self.shown(record), record.kind == Kind::View)]
    }

    fn changes_of(&self, record: &Record) -> Result<Changes> {
        Ok(Changes {
            root: open(&self.fs(record.number))?,
            below: record.parent.map(|parent| open(&self.fs(parent))).transpose()?,
            form: Changed::Tree,
        })
    }

    /// What differs from the parent: the rest is the parent's, even if it lies here again.
    fn usage_of(&self, record: &Record) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut seen = HashSet::new();
        let mut add = |found: &libc::stat| {
            if path::is_directory(found) || seen.insert(found.st_ino) {
                usage.bytes += content(found);
                usage.inodes += 1;
            }
        };
        let found = self.changes_of(record)?;
        add(&path::stat(&found.root).map_err(anyhow::Error::new)?);
        if record.kind == Kind::View {
            return Ok(usage);
        }
        for change in changes(&found.source())? {
            if change.kind == ChangeKind::Deleted {
                continue;
            }
            let at = Path::new(std::ffi::OsStr::from_bytes(&change.path));
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            // What is gone by now takes nothing.
            if let Ok(file) = path::open_in_root(&found.root, at, flags, 0, Links::Refuse)
                && let Ok(stat) = path::stat(file)
            {
                add(&stat);
            }
        }
        Ok(usage)
    }
}

impl Snapshotter for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn stage(&self, key: &str) -> Result<Staged> {
        if self.records.find(key)?.is_some_and(|record| record.kind == Kind::Staged) {
            self.remove(key)?;
        }
        let path = self.fs(self.insert(key, Kind::Staged, None)?.number);
        Ok(Staged { dir: open(&path)?, path })
    }

    fn commit_layer(&self, key: &str, chain_id: &Digest, parent: Option<&Digest>) -> Result<()> {
        let is_new = self.records.commit(key, chain_id, parent, |staged, below| {
            let below = below
                .map(|below| {
                    fs::File::open(self.fs(below))
                        .map(OwnedFd::from)
                        .map_err(|cause| gone(parent, cause))
                })
                .transpose()?;
            Ok(tree::fill(&open(&self.fs(staged))?, below.as_ref())?)
        })?;
        if is_new { Ok(()) } else { self.remove(key) }
    }

    fn has_layer(&self, chain_id: &Digest) -> Result<bool> {
        self.records.has_layer(chain_id)
    }

    fn remove_layer(&self, chain_id: &Digest) -> Result<()> {
        match self.records.remove(&chain_id.to_string(), true)? {
            true => Ok(()),
            false => Err(Error::not_found(format!("no layer {chain_id}"))),
        }
    }

    fn prepare(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>> {
        // Staged until it is whole. Not in the row's transaction: that would hold up everybody.
        let record = self.insert(key, Kind::Staged, parent)?;
        let copied = || -> Result<()> {
            let Some(below) = record.parent else { return Ok(()) };
            let below = fs::File::open(self.fs(below)).map_err(|cause| gone(parent, cause))?;
            Ok(tree::copy(&open(&self.fs(record.number))?, &below.into())?)
        };
        if let Err(error) = copied().and_then(|()| self.records.promote(&record, Kind::Active)) {
            if let Err(error) = self.remove(key) {
                tracing::warn!(snapshot.key = key, %error, "a half-made snapshot stays");
            }
            return Err(error);
        }
        Ok(self.mounts_of(&Record { kind: Kind::Active, ..record }))
    }

    fn view(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>> {
        Ok(self.mounts_of(&self.insert(key, Kind::View, parent)?))
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        Ok(self.mounts_of(&self.records.get(key)?))
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.records.remove(key, false).map(drop)
    }

    fn changes(&self, key: &str) -> Result<Changes> {
        self.changes_of(&self.records.get(key)?)
    }

    fn mount_detached(&self, key: &str, read_only: bool) -> Result<OwnedFd> {
        let record = self.records.get(key)?;
        detached(&self.shown(&record), read_only || record.kind == Kind::View)
    }

    fn mount_layer(&self, chain_id: &Digest) -> Result<OwnedFd> {
        detached(&self.fs(self.records.layer(chain_id)?.number), true)
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        self.usage_of(&self.records.get(key)?)
    }

    fn layer_usage(&self, chain_id: &Digest) -> Result<Usage> {
        self.usage_of(&self.records.layer(chain_id)?)
    }

    fn data(&self, _: &str) -> Result<BTreeMap<String, String>> {
        // docker's driver of this name says nothing either.
        Ok(BTreeMap::new())
    }

    fn layer_data(&self, _: &Digest) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn list(&self) -> Result<Vec<Info>> {
        Ok(self.records.list()?.into_iter().map(|(info, _)| info).collect())
    }

    fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        self.records.check(repair)
    }
}
