//! Names that say what the layers below no longer have.

use std::{
    collections::HashSet,
    ffi::CStr,
    hash::{BuildHasher as _, RandomState},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{entry, fd, path};

use super::{Applier, Directory, Whiteouts, c_name};
use crate::{
    error::{Shown, refuse},
    removal,
};

const PREFIX: &[u8] = b".wh.";
/// What AUFS kept for itself; only one of these names has a meaning in layers.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The attribute that hides what the layers below have in a directory.
pub const OPAQUE_ATTRIBUTE: &CStr = c"trusted.overlay.opaque";

/// The whiteout that stands in such a directory instead, on file systems without attributes. They
/// can't carry overlays anyway; whoever merges layers there knows it.
pub const OPAQUE_MARK: &CStr = c".wh..wh..opq";

/// What an entry's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whiteout {
    No,
    /// AUFS's own.
    Ignored,
    /// The parent's content is this layer's alone.
    Opaque,
    /// This name in the parent is hidden.
    Of(Vec<u8>),
}

/// What the entry `name` in `parent` means.
pub(super) fn of(parent: &[u8], name: &[u8]) -> Result<Whiteout> {
    for component in parent.split(|b| *b == b'/') {
        if component.starts_with(AUFS_PREFIX) {
            return Ok(Whiteout::Ignored);
        }
        if component.starts_with(PREFIX) {
            refuse!("{} is beneath a whiteout", Shown(name));
        }
    }
    if name == OPAQUE {
        return Ok(Whiteout::Opaque);
    }
    if name.starts_with(AUFS_PREFIX) {
        return Ok(Whiteout::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Whiteout::No),
        Some(b"" | b"." | b"..") => refuse!("{} is a whiteout of no name", Shown(name)),
        Some(hidden) => Ok(Whiteout::Of(hidden.to_vec())),
    }
}

/// Whether a file is overlayfs's whiteout.
#[must_use]
pub fn is_whiteout(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0
}

/// Marks a directory as hiding what the layers below have in it.
pub(crate) fn make_opaque(directory: impl AsFd) -> Result<()> {
    match path::set_attribute(&directory, OPAQUE_ATTRIBUTE, b"y") {
        Err(error) if error.errno() == libc::ENOTSUP => {
            match path::mknod(&directory, OPAQUE_MARK, libc::S_IFCHR, 0) {
                Err(error) if error.errno() == libc::EEXIST => Ok(()),
                result => result.context("hide the layers below (CAP_MKNOD)"),
            }
        }
        result => result.context("hide the layers below (CAP_SYS_ADMIN)"),
    }
}

/// What this archive has put into directories that held something before: pairs of a directory
/// and a name, as hashes with a key of this process, so that none can be made to collide.
#[derive(Default)]
pub(super) struct Written {
    hasher: RandomState,
    names: HashSet<u64>,
    /// Directories in which nothing is left but what was written: device and inode.
    cleaned: HashSet<(u64, u64)>,
}

impl Written {
    pub(super) fn insert(&mut self, directory: &Directory, name: &[u8]) {
        self.names.insert(self.hasher.hash_one((directory.identity, name)));
    }

    fn contains(&self, directory: (u64, u64), name: &[u8]) -> bool {
        self.names.contains(&self.hasher.hash_one((directory, name)))
    }

    /// Removes everything in a directory but what was written.
    fn clean(&mut self, directory: &OwnedFd, depth: usize) -> Result<()> {
        let stat = path::stat(directory)?;
        let identity = (stat.st_dev, stat.st_ino);
        // Each directory once, however often it is asked for: time stays near linear.
        if !self.cleaned.insert(identity) {
            return Ok(());
        }
        for name in path::entries(directory)? {
            self.clean_name(directory, identity, &name, depth)?;
        }
        Ok(())
    }

    /// Removes a name, or from a directory all that was not written.
    fn clean_name(
        &mut self,
        parent: &OwnedFd,
        identity: (u64, u64),
        name: &CStr,
        depth: usize,
    ) -> Result<()> {
        let found = match path::stat_at(parent, name) {
            Err(error) if error.errno() == libc::ENOENT => return Ok(()),
            result => result?,
        };
        let written = self.contains(identity, name.to_bytes());
        if !path::is_directory(&found) {
            if !written {
                path::unlink(parent, name)?;
            }
            return Ok(());
        }
        if depth == 0 {
            // Deeper than names of this archive reach: nothing there was written.
            return removal::remove(parent, name);
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let child = fd::openat(parent, name, flags, 0)?;
        self.clean(&child, depth - 1)?;
        if !written {
            match entry::remove_directory(parent, name) {
                Err(error) if error.errno() == libc::ENOTEMPTY => {}
                Err(error) => return Err(error.into()),
                Ok(()) => drop(self.cleaned.remove(&(found.st_dev, found.st_ino))),
            }
        }
        Ok(())
    }
}

impl Applier<'_> {
    pub(super) fn whiteout(&mut self, parent: &[u8], found: &Whiteout) -> Result<()> {
        if self.options.whiteouts == Whiteouts::Overlay {
            let directory = self.directories.open(parent)?;
            return match found {
                Whiteout::Of(name) => hide(&directory, &c_name(name)?),
                _ => make_opaque(&directory.fd),
            };
        }
        // What is not there needs no hiding.
        let Some(directory) = self.directories.open_existing(parent)? else { return Ok(()) };
        self.directories.forget();
        let depth = self.options.budgets.depth;
        match found {
            Whiteout::Of(name) => {
                self.written.clean_name(&directory.fd, directory.identity, &c_name(name)?, depth)
            }
            _ => self.written.clean(&directory.fd, depth),
        }
    }
}

/// A whiteout beside what this layer has at the name: a file hides those below by itself, and a
/// directory is made to.
fn hide(directory: &Directory, name: &CStr) -> Result<()> {
    match path::mknod(&directory.fd, name, libc::S_IFCHR, 0) {
        Err(error) if error.errno() == libc::EEXIST => {
            let found = path::stat_at(&directory.fd, name)?;
            if path::is_directory(&found) {
                make_opaque(super::open_directory(directory, name)?)?;
            }
            Ok(())
        }
        Err(error) if error.errno() == libc::EPERM => {
            Err(error).context("make a whiteout (CAP_MKNOD)")
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        let hidden = |name: &[u8]| Some(Whiteout::Of(name.to_vec()));
        for (parent, name, meaning) in [
            (&b"a/b"[..], &b"c"[..], Some(Whiteout::No)),
            (b"", b".wh.c", hidden(b"c")),
            (b"a", b".wh..c", hidden(b".c")),
            (b"a", b".wh..wh..opq", Some(Whiteout::Opaque)),
            (b"a", b".wh..wh.plnk", Some(Whiteout::Ignored)),
            (b".wh..wh.plnk", b"1.2", Some(Whiteout::Ignored)),
            (b"a", b".whx", Some(Whiteout::No)),
            (b"a", b".wh.", None),
            (b"a", b".wh..", None),
            (b"a", b".wh...", None),
            (b"a/.wh.b", b"c", None),
        ] {
            assert_eq!(of(parent, name).ok(), meaning, "{name:?}");
        }
    }
}
