//! The directory of containers' state: one locked directory a container.
//!
//! A container exists from the moment its directory does. The directory is made with an
//! exclusive mkdir, so two creates of one id cannot both succeed; its file `lock` is held
//! by whoever changes the container. Nothing here is synced to disk: the records describe
//! live processes, and mean nothing after the machine has lost its power.

use std::{
    ffi::CString,
    fs::{self, File},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

use super::{
    Failure,
    record::{Record, VERSION},
};

/// The largest state file that is read, in bytes: a configuration, which may have 16 MiB, or
/// a record, which holds a configuration's annotations and little else.
const MAX_RECORD_BYTES: usize = 17 << 20;

const RECORD: &str = "state.json";
const LOCK: &str = "lock";
/// The bundle's config.json as it was when the container was made.
const SPEC: &str = "config.json";

/// The directory of all containers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
}

/// Holds the container for one change; dropped with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] OwnedFd);

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where the container's directory is.
    pub(crate) fn path(&self, id: &oci::ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Makes the container's directory; fails if the id is taken.
    pub(crate) fn create(&self, id: &oci::ContainerId) -> Result<(Dir, Lock)> {
        let path = self.path(id);
        // 0711, as runc has it: the way to a container's sockets stays open, the list of
        // containers does not.
        let make = || fs::DirBuilder::new().mode(0o711).create(&path);
        match make() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.make_root()?;
                make()
            }
            result => result,
        }
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Exists.into(),
            _ => anyhow::Error::new(error)
                .context(format!("cannot make the state directory {}", path.display())),
        })?;
        let dir = Dir::open(path)?;
        let lock = dir.lock()?;
        Ok((dir, lock))
    }

    fn make_root(&self) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).with_context(|| {
            format!("cannot make the directory of containers {}", self.root.display())
        })
    }

    /// Opens the directory of an existing container.
    pub(crate) fn open(&self, id: &oci::ContainerId) -> Result<Dir> {
        Dir::open(self.path(id))
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<oci::ContainerId>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", self.root.display()))?;
            let name = entry.file_name();
            if let Some(Ok(id)) = name.to_str().map(str::parse::<oci::ContainerId>)
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

impl Dir {
    fn open(path: PathBuf) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .context("the root directory's name holds a NUL")?;
        let flags = libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW;
        match sys::fd::openat(sys::fd::AT_FDCWD, &name, flags, 0) {
            Ok(fd) => Ok(Self { path, fd }),
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => {
                Err(Failure::NotExist.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for whoever is changing the container, then holds it.
    ///
    /// # Errors
    /// `container does not exist` if it is gone by then, and maybe another has its id.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let file = sys::fd::openat(&self.fd, c"lock", libc::O_RDWR | libc::O_CREAT, 0o600);
        let file = match file {
            Err(error) if error.errno() == libc::ENOENT => return Err(Failure::NotExist.into()),
            result => result.with_context(|| format!("cannot open {LOCK}"))?,
        };
        sys::fd::lock(&file).with_context(|| format!("cannot lock {}", self.path.display()))?;
        let own = sys::path::stat(&self.fd)?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.st_dev, own.st_ino) => Ok(Lock(file)),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot look at {}", self.path.display()))
            }
            _ => Err(Failure::NotExist.into()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let c_name = CString::new(name).context("a file name holds a NUL")?;
        match sys::fd::openat(&self.fd, &c_name, libc::O_RDONLY | libc::O_NOFOLLOW, 0) {
            Err(error) if error.errno() == libc::ENOENT => Ok(None),
            Err(error) => Err(error.into()),
            Ok(file) => {
                let mut content = Vec::new();
                File::from(file)
                    .take(MAX_RECORD_BYTES as u64 + 1)
                    .read_to_end(&mut content)
                    .with_context(|| format!("cannot read {}", self.path.join(name).display()))?;
                if content.len() > MAX_RECORD_BYTES {
                    bail!("{} is larger than 17 MiB", self.path.join(name).display());
                }
                Ok(Some(content))
            }
        }
    }

    /// The record; `None` when `create` was killed before it wrote one.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let Some(content) = self.read(RECORD)? else { return Ok(None) };
        let what = || format!("cannot understand {}", self.path.join(RECORD).display());
        let record: Record = serde_json::from_slice(&content).with_context(what)?;
        if record.version != VERSION {
            bail!(
                "{} has format {}, and this runtime writes format {VERSION}",
                self.path.join(RECORD).display(),
                record.version
            );
        }
        Ok(Some(record))
    }

    /// Replaces the record; a reader sees the old one or the new one.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        let content = serde_json::to_vec(record).context("cannot encode the state")?;
        self.replace(c".state.json.new", c"state.json", &content)
    }

    /// Keeps the configuration that the container was made from.
    pub(crate) fn save_spec(&self, content: &[u8]) -> Result<()> {
        self.replace(c".config.json.new", c"config.json", content)
    }

    fn replace(&self, new: &std::ffi::CStr, name: &std::ffi::CStr, content: &[u8]) -> Result<()> {
        let write = || -> sys::Result<()> {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
            let file = sys::fd::openat(&self.fd, new, flags, 0o600)?;
            sys::fd::write_all(&file, content)?;
            sys::fd::rename(&self.fd, new, name)
        };
        write().with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// The configuration that the container was made from.
    pub(crate) fn spec(&self) -> Result<oci::Spec> {
        let content = self.read(SPEC)?.context("the container's configuration is missing")?;
        crate::spec::parse(&content).context("cannot understand the container's configuration")
    }

    /// Removes the directory with all that is in it. Idempotent.
    pub(crate) fn remove(self) -> Result<()> {
        loop {
            match fs::remove_dir_all(&self.path) {
                // Whoever came to wait has made the lock's file again, each at most once.
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    break Err(error)
                        .with_context(|| format!("cannot remove {}", self.path.display()));
                }
                _ => break Ok(()),
            }
        }
    }

    /// Whether others can write here: state that others could have forged is not used.
    pub(crate) fn check_owner(&self) -> Result<()> {
        let metadata = fs::metadata(&self.path)
            .with_context(|| format!("cannot look at {}", self.path.display()))?;
        if metadata.permissions().mode() & 0o022 != 0 {
            bail!("{} is writable by others", self.path.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> oci::ContainerId {
        text.parse().unwrap()
    }

    #[test]
    fn one_id_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("a/b"));
        let (dir, _lock) = store.create(&id("x")).unwrap();
        let error = store.create(&id("x")).unwrap_err();
        assert_eq!(error.to_string(), "container with given ID already exists");
        assert_eq!(store.ids().unwrap(), [id("x")]);
        assert!(dir.record().unwrap().is_none());
        dir.remove().unwrap();
        assert_eq!(store.open(&id("x")).unwrap_err().to_string(), "container does not exist");
        assert!(store.ids().unwrap().is_empty());
    }

    #[test]
    fn who_waited_for_a_removed_container_does_not_get_the_next_one() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let (dir, _lock) = store.create(&id("x")).unwrap();
        let late = store.open(&id("x")).unwrap();
        dir.remove().unwrap();
        assert_eq!(late.lock().unwrap_err().to_string(), "container does not exist");
        let late = store.open(&id("x"));
        assert_eq!(late.unwrap_err().to_string(), "container does not exist");
        let (dir, _lock) = store.create(&id("x")).unwrap();
        let late = store.open(&id("x")).unwrap();
        // Its file is made again between the removal of the others and of the directory.
        fs::rename(&dir.path, root.path().join("y")).unwrap();
        let (_next, _held) = store.create(&id("x")).unwrap();
        assert_eq!(late.lock().unwrap_err().to_string(), "container does not exist");
    }

    #[test]
    fn removals_and_who_waits_do_not_disturb_each_other() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        for _ in 0..200 {
            let (dir, lock) = store.create(&id("x")).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| store.open(&id("x")).and_then(|late| late.lock()).is_ok());
                }
                dir.remove().unwrap();
            });
            drop(lock);
            // What a late one has made is a container whose creation was cut off.
            if let Ok(left) = store.open(&id("x")) {
                left.remove().unwrap();
            }
        }
    }

    #[test]
    fn a_directory_that_is_a_link_is_no_container() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", root.path().join("x")).unwrap();
        let store = Store::new(root.path());
        assert!(store.open(&id("x")).is_err());
        assert!(store.ids().unwrap().is_empty());
    }

    #[test]
    fn a_record_of_another_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let (dir, _lock) = store.create(&id("x")).unwrap();
        fs::write(dir.path.join(RECORD), "{\"version\":1}").unwrap();
        assert!(dir.record().unwrap_err().to_string().starts_with("cannot understand"));
    }
}
