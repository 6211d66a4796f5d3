//! The parents of what is made: resolved once each, as long as nothing replaces a part of them.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    fd,
    path::{self, Links, Missing},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use super::{
    Whiteouts, c_name,
    whiteouts::{is_whiteout, make_opaque},
};
use crate::{
    error::{Shown, refuse},
    tar::split,
};

/// An open directory.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// What is made in it gets its group, not ours.
    pub(super) sets_group: bool,
    /// Which it is: device and inode.
    pub(super) identity: (u64, u64),
}

/// Descriptors held at once.
const MAX_HELD: usize = 128;

/// Parents that were not in the archive.
const IMPLIED_MODE: u32 = 0o755;

const FLAGS: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;

pub(super) struct Directories<'a> {
    root: BorrowedFd<'a>,
    whiteouts: Whiteouts,
    held: HashMap<Vec<u8>, Rc<Directory>>,
    /// Most entries are in the directory of the entry before.
    last: Option<(Vec<u8>, Rc<Directory>)>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, whiteouts: Whiteouts) -> Result<Self> {
        if !path::is_directory(&path::stat(root)?) {
            anyhow::bail!("the target is not a directory");
        }
        Ok(Self { root, whiteouts, held: HashMap::new(), last: None })
    }

    /// The directory at a cleaned path, made with its parents if it is not there.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        if let Some(directory) = self.cached(path) {
            return Ok(directory);
        }
        let opened = match self.resolve(path)? {
            Some(opened) => opened,
            None => self.make(path)?,
        };
        self.hold(path, opened)
    }

    /// The directory at a cleaned path, if there is one.
    pub(super) fn open_existing(&mut self, path: &[u8]) -> Result<Option<Rc<Directory>>> {
        if let Some(directory) = self.cached(path) {
            return Ok(Some(directory));
        }
        match self.resolve(path)? {
            Some(opened) => self.hold(path, opened).map(Some),
            None => Ok(None),
        }
    }

    /// A directory that was just made, or found, at its own name.
    pub(super) fn insert(&mut self, path: &[u8], opened: OwnedFd) -> Result<()> {
        self.hold(path, opened).map(drop)
    }

    /// Something was replaced that could be a part of a path: all are resolved anew.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.last = None;
    }

    fn cached(&mut self, path: &[u8]) -> Option<Rc<Directory>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Some(Rc::clone(directory));
        }
        let directory = Rc::clone(self.held.get(path)?);
        self.last = Some((path.to_vec(), Rc::clone(&directory)));
        Some(directory)
    }

    fn hold(&mut self, path: &[u8], opened: OwnedFd) -> Result<Rc<Directory>> {
        let stat = path::stat(&opened)?;
        let directory = Rc::new(Directory {
            fd: opened,
            sets_group: stat.st_mode & libc::S_ISGID != 0,
            identity: (stat.st_dev, stat.st_ino),
        });
        if self.held.len() >= MAX_HELD {
            self.held.clear();
        }
        self.held.insert(path.to_vec(), Rc::clone(&directory));
        self.last = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Nothing if a part is missing, or is no directory.
    fn resolve(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        match path::open_in_root(self.root, as_path(path), FLAGS, 0, Links::Follow) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => Ok(None),
            Err(error) if error.errno() == libc::ELOOP => {
                refuse!("{} leads in a circle of links", Shown(path))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn make(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let (parent, name) = split(path);
        let parent = self.open(parent)?;
        let c_name = c_name(name)?;
        let make = || fd::mkdirat(&parent.fd, &c_name, IMPLIED_MODE);
        let mut opaque = false;
        match make() {
            Err(error) if error.errno() == libc::EEXIST => {
                let found = path::stat_at(&parent.fd, &c_name)?;
                if path::is_link(&found) {
                    // A dangling link: what it names is made, inside the root.
                    let target =
                        path::resolve(self.root, as_path(path), Missing::Directory(IMPLIED_MODE))
                            .and_then(|target| fd::openat(&target.fd, c".", FLAGS, 0));
                    return match target {
                        Err(error) if matches!(error.errno(), libc::ENOTDIR | libc::ELOOP) => {
                            refuse!("{} is not a directory", Shown(path))
                        }
                        result => Ok(result?),
                    };
                }
                if self.whiteouts != Whiteouts::Overlay || !is_whiteout(&found) {
                    refuse!("{} is not a directory", Shown(path));
                }
                path::unlink(&parent.fd, &c_name)?;
                make()?;
                opaque = true;
            }
            result => result.with_context(|| format!("make {}", Shown(path)))?,
        }
        let flags = FLAGS | libc::O_NOFOLLOW;
        let opened = fd::openat(parent.fd.as_fd(), &c_name, flags, 0)?;
        if opaque {
            make_opaque(&opened)?;
        }
        Ok(opened)
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}
