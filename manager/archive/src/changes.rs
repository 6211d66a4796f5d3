//! What differs between a container's files and its image's.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use anyhow::{Result, bail};
use hull_runtime_sys::{
    entry, fd,
    path::{self, Links},
};
use serde::{Deserialize, Serialize};

use crate::{
    apply::{OPAQUE_ATTRIBUTE, is_whiteout},
    budget::MAX_DEPTH,
    error::Shown,
    pack::{attributes, join},
    scaffold,
};

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// How overlayfs marks whiteouts where it can't make devices (kernel 6.7): on empty files, in
/// directories whose opaque attribute is `x`.
const WHITEOUT_ATTRIBUTE: &CStr = c"trusted.overlay.whiteout";

/// Where changes are looked for.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The upper directory of an overlay, and what is below it, merged; without that, everything
    /// in the upper directory counts as added.
    Upper(BorrowedFd<'a>, Option<BorrowedFd<'a>>),
    /// A whole tree, and the one that it was copied from, if any, of which size, type, owner,
    /// mode, time, attributes and target are compared.
    Tree(BorrowedFd<'a>, Option<BorrowedFd<'a>>),
}

/// What [`walk`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Added,
    Modified,
    Removed,
    /// A directory that is as it was, on the way to changes.
    Passed,
    /// Of the directory just found: what was below is no longer there.
    Opaque,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is another, or a directory in which something changed.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

/// A file that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Its path, beginning with a slash.
    pub path: Vec<u8>,
    /// What became of it.
    pub kind: ChangeKind,
}

/// The changes, in the order of paths, as `docker diff` tells them: directories above a change
/// count as modified.
///
/// # Errors
/// If the files can't be read.
pub fn changes(source: &Source<'_>) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    // Directories that nothing has happened in yet.
    let mut passed: Vec<Vec<u8>> = Vec::new();
    walk(source, &mut |_, _, path, found| {
        let path = [b"/", path].concat();
        let kind = match found {
            Found::Passed => {
                passed.push(path);
                return Ok(());
            }
            Found::Opaque => return Ok(()),
            Found::Added => ChangeKind::Added,
            Found::Modified => ChangeKind::Modified,
            Found::Removed => ChangeKind::Deleted,
        };
        for parent in passed.drain(..) {
            if is_above(&parent, &path) {
                changes.push(Change { path: parent, kind: ChangeKind::Modified });
            }
        }
        changes.push(Change { path, kind });
        Ok(())
    })?;
    changes.sort_unstable();
    Ok(changes)
}

/// Whether a path leads through a directory.
pub(crate) fn is_above(directory: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// What is told of each file: the directory it is in, its name there, and its path.
type Visitor<'a> = dyn FnMut(&OwnedFd, &CStr, &[u8], Found) -> Result<()> + 'a;

/// Visits what changed, in the order of names, directories before what is in them.
pub(crate) fn walk(source: &Source<'_>, visit: &mut Visitor<'_>) -> Result<()> {
    let visit: &mut Visitor<'_> = &mut |directory, name, path, found| {
        let what = match found {
            Found::Added => scaffold::what_is(directory, name, path)?,
            _ => scaffold::Is::Change,
        };
        match what {
            scaffold::Is::Change => visit(directory, name, path, found),
            scaffold::Is::Directory => visit(directory, name, path, Found::Passed),
            scaffold::Is::Untouched => Ok(()),
        }
    };
    match *source {
        Source::Upper(upper, base) => {
            upper_level(&fd::openat(upper, c".", DIRECTORY, 0)?, base, false, b"", 0, visit)
        }
        Source::Tree(tree, base) => {
            let tree = fd::openat(tree, c".", DIRECTORY, 0)?;
            let base = base.map(|base| fd::openat(base, c".", DIRECTORY, 0)).transpose()?;
            tree_level(&tree, base.as_ref(), b"", 0, visit)
        }
    }
}

fn sorted(directory: &OwnedFd, path: &[u8], depth: usize) -> Result<Vec<std::ffi::CString>> {
    if depth >= MAX_DEPTH {
        bail!("{} is nested deeper than {MAX_DEPTH} directories", Shown(path));
    }
    let mut names = path::entries(directory)?;
    names.sort_unstable();
    Ok(names)
}

/// `opaque` directories, and all in them, hide what is below: that is told name by name where it
/// is known, so that it does not depend on how the directory came to be.
fn upper_level(
    directory: &OwnedFd,
    base: Option<BorrowedFd<'_>>,
    opaque: bool,
    path: &[u8],
    depth: usize,
    visit: &mut Visitor<'_>,
) -> Result<()> {
    let marks_files =
        entry::attribute(directory, OPAQUE_ATTRIBUTE)?.is_some_and(|value| value == b"x");
    let mut names: Vec<_> =
        sorted(directory, path, depth)?.into_iter().map(|name| (name, true)).collect();
    if let Some(base) = base.filter(|_| opaque)
        && let Some(below) = beneath(base, path, DIRECTORY)?
    {
        for name in path::entries(&below)? {
            if present(directory, &name)?.is_none() {
                names.push((name, false));
            }
        }
        names.sort_unstable();
    }
    for (name, here) in names {
        let path = join(path, name.to_bytes());
        if !here {
            visit(directory, &name, &path, Found::Removed)?;
            continue;
        }
        let Some(stat) = present(directory, &name)? else { continue };
        let below = match base {
            Some(base) => beneath(base, &path, libc::O_PATH | libc::O_NOFOLLOW)?,
            None => None,
        };
        let below = below.map(path::stat).transpose()?;
        if is_whiteout(&stat) || marks_files && is_marked(directory, &name, &stat)? {
            // Made and removed again, it was never there to see.
            if below.is_some() || base.is_none() {
                visit(directory, &name, &path, Found::Removed)?;
            }
            continue;
        }
        let found = match &below {
            None => Found::Added,
            Some(below) if path::is_directory(&stat) && is_same(&stat, below) => Found::Passed,
            Some(_) => Found::Modified,
        };
        visit(directory, &name, &path, found)?;
        if path::is_directory(&stat) {
            let child = fd::openat(directory, &name, DIRECTORY, 0)?;
            let marked =
                entry::attribute(&child, OPAQUE_ATTRIBUTE)?.is_some_and(|value| value == b"y");
            if marked && base.is_none() {
                visit(directory, &name, &path, Found::Opaque)?;
            }
            upper_level(&child, base, opaque || marked, &path, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// What is at a path of the tree below, if there is such a thing.
fn beneath(base: BorrowedFd<'_>, path: &[u8], flags: i32) -> Result<Option<OwnedFd>> {
    let at = Path::new(OsStr::from_bytes(if path.is_empty() { b"." } else { path }));
    match path::open_in_root(base, at, flags, 0, Links::Refuse) {
        Err(error)
            if matches!(
                error.errno(),
                libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG
            ) =>
        {
            Ok(None)
        }
        result => Ok(Some(result?)),
    }
}

fn present(directory: &OwnedFd, name: &CStr) -> Result<Option<libc::stat>> {
    match path::stat_at(directory, name) {
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        result => Ok(Some(result?)),
    }
}

fn is_marked(directory: &OwnedFd, name: &CStr, stat: &libc::stat) -> Result<bool> {
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_size != 0 {
        return Ok(false);
    }
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fd::openat(directory, name, flags, 0)?;
    Ok(entry::attribute(file.as_fd(), WHITEOUT_ATTRIBUTE)?.is_some())
}

fn tree_level(
    directory: &OwnedFd,
    base: Option<&OwnedFd>,
    path: &[u8],
    depth: usize,
    visit: &mut Visitor<'_>,
) -> Result<()> {
    let mut names: Vec<_> =
        sorted(directory, path, depth)?.into_iter().map(|name| (name, true)).collect();
    if let Some(base) = base {
        for name in path::entries(base)? {
            if present(directory, &name)?.is_none() {
                names.push((name, false));
            }
        }
    }
    names.sort_unstable();
    for (name, here) in names {
        let path = join(path, name.to_bytes());
        if !here {
            visit(directory, &name, &path, Found::Removed)?;
            continue;
        }
        let Some(stat) = present(directory, &name)? else { continue };
        let below = match base {
            Some(base) => present(base, &name)?,
            None => None,
        };
        let same = match (&below, base) {
            (Some(below), Some(base)) => {
                is_same(&stat, below) && is_same_inside((directory, &stat), (base, below), &name)?
            }
            _ => false,
        };
        let is_directory = path::is_directory(&stat);
        match (&below, same, is_directory) {
            (None, ..) => visit(directory, &name, &path, Found::Added)?,
            (Some(_), false, _) => visit(directory, &name, &path, Found::Modified)?,
            (Some(_), true, true) => visit(directory, &name, &path, Found::Passed)?,
            (Some(_), true, false) => {}
        }
        if is_directory {
            let child = fd::openat(directory, &name, DIRECTORY, 0)?;
            let below = match (base, below.as_ref().is_some_and(path::is_directory)) {
                (Some(base), true) => Some(fd::openat(base, &name, DIRECTORY, 0)?),
                _ => None,
            };
            tree_level(&child, below.as_ref(), &path, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// By everything that stat(2) says and a change of content alters. The sizes of directories are
/// the file system's affair.
fn is_same(one: &libc::stat, other: &libc::stat) -> bool {
    let size = |stat: &libc::stat| if path::is_directory(stat) { 0 } else { stat.st_size };
    let known = |stat: &libc::stat| {
        (
            (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev),
            (size(stat), stat.st_mtime, stat.st_mtime_nsec),
        )
    };
    known(one) == known(other)
}

/// What stat(2) does not say: a link's target, a file's attributes, and whether it has got another
/// name (an overlay has copied it then).
fn is_same_inside(
    (directory, stat): (&OwnedFd, &libc::stat),
    (base, below): (&OwnedFd, &libc::stat),
    name: &CStr,
) -> Result<bool> {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFLNK => Ok(path::readlink(directory, name)? == path::readlink(base, name)?),
        libc::S_IFREG | libc::S_IFDIR => {
            if !path::is_directory(stat) && stat.st_nlink > below.st_nlink {
                return Ok(false);
            }
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let taken = |at: &OwnedFd| attributes(&fd::openat(at, name, flags, 0)?);
            Ok(taken(directory)? == taken(base)?)
        }
        _ => Ok(true),
    }
}
