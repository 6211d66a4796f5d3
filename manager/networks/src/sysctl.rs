//! Sysctls of network namespaces.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    self as sys, fd,
    mount::{Attributes, Context},
};

/// How many containers share a procfs.
const SHARED: usize = 16;

/// Ways to containers' sysctls.
///
/// A procfs remembers all that was looked up in it, and finds the `eth0` of one namespace by going
/// through those of all others: a third of a millisecond for each of 300 namespaces, measured.
/// So containers' are looked up in one that nobody else sees, and a new one every few containers.
#[derive(Debug, Default)]
pub(crate) struct Sysctls(Mutex<(Option<Arc<OwnedFd>>, usize)>);

/// Writes sysctls of the namespace of the thread that calls.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Arc<OwnedFd>);

impl Sysctls {
    /// For one container.
    pub(crate) fn writer(&self) -> Result<Writer> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(procfs), 1..SHARED) = &*last {
            let procfs = Arc::clone(procfs);
            last.1 += 1;
            return Ok(Writer(procfs));
        }
        let procfs = Arc::new(procfs()?);
        *last = (Some(Arc::clone(&procfs)), 1);
        Ok(Writer(procfs))
    }
}

/// One of its own; where that may not be made, everybody's.
fn procfs() -> Result<OwnedFd> {
    let make = || {
        let context = Context::open("proc")?;
        context.create()?;
        context.mount(Attributes::NONE)
    };
    let open = |_| fd::openat(fd::AT_FDCWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0);
    make().or_else(open).context("open a procfs")
}

impl Writer {
    /// Writes `net/KEY`. False: the kernel does not have it.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<bool> {
        let path = CString::new(format!("sys/net/{key}")).context("a key with a NUL byte")?;
        let write = || -> sys::Result<()> {
            let file = fd::openat(&self.0, &path, libc::O_WRONLY, 0)?;
            fd::write_all(file, value.as_bytes())
        };
        match write() {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == libc::ENOENT => Ok(false),
            Err(error) if error.errno() == libc::EROFS && self.has(&path, value) => Ok(true),
            Err(error) => Err(error).with_context(|| format!("write {value} to sysctl net/{key}")),
        }
    }

    fn has(&self, path: &CStr, value: &str) -> bool {
        let mut buffer = [0; 256];
        let read = fd::openat(&self.0, path, libc::O_RDONLY, 0)
            .and_then(|file| fd::read(file, &mut buffer));
        read.is_ok_and(|count| buffer[..count].trim_ascii_end() == value.as_bytes())
    }
}

/// Writes `net/KEY` of the calling thread's namespace, which is the host's, unless it is so
/// already: where they are read-only, somebody else has set them. False: the kernel does not have
/// it.
pub(crate) fn set(key: &str, value: &str) -> Result<bool> {
    if get(key).as_deref() == Some(value) {
        return Ok(true);
    }
    let path = Path::new("/proc/sys/net").join(key);
    match fs::write(&path, value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("write {value} to {}", path.display())),
    }
}

/// The same for what is better so, but not needed: where it cannot be written, it is said.
pub(crate) fn prefer(key: &str, value: &str) -> Result<()> {
    match set(key, value) {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::ReadOnlyFilesystem) =>
        {
            tracing::warn!("{error:#}");
            Ok(())
        }
        result => result.map(drop),
    }
}

/// Reads `net/KEY` of the calling thread's namespace, which is the host's.
pub(crate) fn get(key: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok()?;
    Some(text.trim_end().to_owned())
}
