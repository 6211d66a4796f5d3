//! A snapshotter in a directory of its own, and trees as text.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_archive::{diff, worker};
use hull_manager_core::Store;
use hull_manager_snapshots::{Changes, Snapshotter, open};
use hull_specs_image::Digest;

pub(crate) struct Fixture {
    pub(crate) driver: &'static str,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
}

impl Fixture {
    pub(crate) fn new(driver: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("meta.db")).unwrap();
        fs::create_dir(directory.path().join("snapshots")).unwrap();
        let snapshots = open(Some(driver), &directory.path().join("snapshots"), &store).unwrap();
        Self { driver, directory, store, snapshots }
    }

    /// Where the driver keeps its directories.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("snapshots").join(self.driver)
    }

    pub(crate) fn directories(&self) -> usize {
        fs::read_dir(self.root()).unwrap().count()
    }

    /// As after a crash: the store and the directories are opened again.
    pub(crate) fn restart(&mut self) {
        self.store = Store::open(&self.directory.path().join("meta.db")).unwrap();
        let root = self.directory.path().join("snapshots");
        self.snapshots = open(Some(self.driver), &root, &self.store).unwrap();
    }

    /// A layer in which `make` makes files.
    pub(crate) fn layer(
        &self,
        name: &str,
        parent: Option<&Digest>,
        make: impl FnOnce(&Path),
    ) -> Digest {
        let staged = self.snapshots.stage(name).unwrap();
        make(&staged.path);
        let chain_id = Digest::of(name.as_bytes());
        self.snapshots.commit_layer(name, &chain_id, parent).unwrap();
        chain_id
    }

    /// A layer with one file of its own name.
    pub(crate) fn simple(&self, name: &str, parent: Option<&Digest>) -> Digest {
        self.layer(name, parent, |root| fs::write(root.join(name), name).unwrap())
    }

    /// The names in a snapshot.
    pub(crate) fn names(&self, key: &str) -> Vec<String> {
        names(&self.snapshots.mount_detached(key, true).unwrap())
    }

    /// Runs a script in a snapshot's root, as a container would.
    pub(crate) fn change(&self, key: &str, script: &str) {
        let root = self.snapshots.mount_detached(key, false).unwrap();
        sh(&at(&root), script);
    }
}

/// Runs a script in a directory.
pub(crate) fn sh(directory: &Path, script: &str) {
    let directory = fs::File::open(directory).unwrap();
    let here = format!("/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd());
    // A mount that is attached nowhere has no path that a shell could find out.
    let status = std::process::Command::new("sh")
        .args(["-euc", script])
        .current_dir(&here)
        .env("PWD", &here)
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

/// The archive of what was changed, as a worker makes it.
pub(crate) fn archive(changes: &Changes) -> Vec<u8> {
    let mut bytes = Vec::new();
    diff(&changes.source(), &mut bytes).unwrap();
    bytes
}

/// The same as text.
pub(crate) fn listed(changes: &Changes) -> Vec<String> {
    let bytes = archive(changes);
    let mut reader = hull_manager_archive::tar::Reader::new(&bytes[..], Default::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        lines.push(format!(
            "{} {:?} {:o} {}:{} {} {:?}",
            String::from_utf8_lossy(&entry.path),
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.modified.seconds,
            entry.attributes,
        ));
    }
    lines
}

/// Unpacks an archive as the manager does.
pub(crate) fn unpack(root: &OwnedFd, bytes: &[u8]) {
    let job = worker::Job::Unpack { options: Default::default() };
    use std::os::fd::AsFd as _;
    worker::perform(&job, root.as_fd(), None, bytes, std::io::sink()).unwrap();
}

pub(crate) fn at(root: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd()).into()
}

pub(crate) fn names(root: &OwnedFd) -> Vec<String> {
    let entries = fs::read_dir(at(root)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All that a tree is, as text: what is a hard link says of what.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut first = BTreeMap::new();
    walk(root, Path::new(""), &mut lines, &mut first);
    lines
}

fn walk(
    root: &Path,
    at: &Path,
    lines: &mut BTreeMap<String, String>,
    first: &mut BTreeMap<u64, String>,
) {
    let path = root.join(at);
    // The root is named by a link to it.
    let found =
        if at.as_os_str().is_empty() { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
    let found = found.unwrap();
    let kind = found.file_type();
    let name = at.display().to_string();
    let mut line = format!(
        "{:o} {}:{} {}.{}",
        found.mode(),
        found.uid(),
        found.gid(),
        found.mtime(),
        found.mtime_nsec()
    );
    if kind.is_file() {
        line += &format!(" {} {}", found.size(), Digest::of(&fs::read(&path).unwrap()));
    } else if kind.is_symlink() {
        line += &format!(" to {}", fs::read_link(&path).unwrap().display());
    } else if kind.is_char_device() || kind.is_block_device() {
        line += &format!(" {:x}", found.rdev());
    }
    if kind.is_file() || kind.is_dir() {
        let open = fs::File::open(&path).unwrap();
        let mut attributes: Vec<_> = hull_runtime_sys::entry::attributes(&open)
            .unwrap()
            .into_iter()
            .map(|name| {
                let value = hull_runtime_sys::entry::attribute(&open, &name).unwrap();
                format!(" {}={value:?}", name.to_string_lossy())
            })
            .collect();
        attributes.sort();
        line += &attributes.concat();
    }
    if !kind.is_dir() && found.nlink() > 1 {
        let first = first.entry(found.ino()).or_insert_with(|| name.clone());
        line += &format!(" is {first}");
    }
    lines.insert(name, line);
    if kind.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        entries.sort();
        for entry in entries {
            walk(root, &at.join(entry), lines, first);
        }
    }
}
