//! Network namespaces that are ours: made, pinned to a file, entered, ended.
//!
//! A namespace lives as long as it is bound to its file, `ROOT/ID`, whatever becomes of us.
//! A thread that has entered one never comes back: it ends, so that no work of the manager's
//! can happen in a container's namespace by mistake (R19).

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_runtime_sys::{self as sys, fd, mount, namespace};

use crate::{netlink::Socket, sysctl::Sysctls};

/// What docker sets in a container's namespace: any user may ping, and listen on ports below
/// 1024, which it could by its capabilities as root.
const UNPRIVILEGED: [(&str, &str); 2] =
    [("ipv4/ping_group_range", "0 2147483647"), ("ipv4/ip_unprivileged_port_start", "0")];

/// Where namespaces are pinned.
#[derive(Debug)]
pub(crate) struct Namespaces {
    root: PathBuf,
    pub(crate) sysctls: Sysctls,
}

impl Namespaces {
    /// Below `root`, which is there.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, sysctls: Sysctls::default() }
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The ids of those that are there, whole or not.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let about = || format!("read {}", self.root.display());
        fs::read_dir(&self.root)
            .with_context(about)?
            .map(|entry| Ok(entry.with_context(about)?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// One that is there.
    pub(crate) fn open(&self, id: &str) -> Result<Option<OwnedFd>> {
        match sys::path::open_without_links(self.path(id), libc::O_RDONLY) {
            Ok(file) => Ok(is_namespace(&file).then_some(file)),
            Err(error) if error.errno() == libc::ENOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The file that one is to be bound to. What an interrupted start has left is replaced.
    fn place(&self, id: &str) -> Result<PathBuf> {
        self.remove(id)?;
        let path = self.path(id);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// One that somebody else has made is bound to our file, too.
    pub(crate) fn adopt(&self, id: &str, theirs: &Path) -> Result<()> {
        let theirs =
            fs::File::open(theirs).with_context(|| format!("open {}", theirs.display()))?;
        if !is_namespace(&theirs) {
            bail!("what the caller named is no network namespace");
        }
        pin(&theirs, &self.place(id)?)
    }

    /// A new one, with its loopback up.
    pub(crate) fn make(&self, id: &str) -> Result<OwnedFd> {
        let path = self.place(id)?;
        let sysctls = self.sysctls.writer()?;
        on_thread(|| {
            namespace::unshare(libc::CLONE_NEWNET).context("make a network namespace")?;
            sys::netlink::raise_loopback()?;
            for (key, value) in UNPRIVILEGED {
                sysctls.set(key, value)?;
            }
            let ours = fd::openat(fd::AT_FDCWD, c"/proc/thread-self/ns/net", libc::O_RDONLY, 0)?;
            pin(&ours, &path).map(|()| ours)
        })
    }

    /// Unpins one; it ends with its last process. Idempotent.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        loop {
            match mount::unmount(&path, true) {
                Ok(()) => {}
                // Not a mount point (any more), or not there.
                Err(error) if matches!(error.errno(), libc::EINVAL | libc::ENOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn pin(namespace: impl AsFd, path: &Path) -> Result<()> {
    let target = sys::path::open_without_links(path, libc::O_PATH)?;
    mount::copy_of(namespace, false)
        .and_then(|copy| mount::attach(copy, target))
        .with_context(|| format!("bind a network namespace to {}", path.display()))
}

/// Whether an open file is a network namespace, and not the empty file it is bound to.
fn is_namespace(file: impl AsFd) -> bool {
    namespace::kind(file).is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}

/// Does something in a namespace, on a thread that ends with it.
pub(crate) fn inside<T: Send>(
    namespace: impl AsFd + Sync,
    work: impl FnOnce(&Socket) -> Result<T> + Send,
) -> Result<T> {
    on_thread(|| {
        namespace::setns(&namespace, libc::CLONE_NEWNET)
            .context("enter the container's network namespace")?;
        work(&Socket::open()?)
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("hull-netns".into())
            .spawn_scoped(scope, work)
            .context("start a thread")?
            .join()
            .map_err(|_| anyhow!("a thread for a network namespace has panicked"))?
    })
}
