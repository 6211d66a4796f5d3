//! Copying trees for file systems without overlay, by descriptors: what a tree has goes beneath
//! what another has already.
//!
//! Kept are owners, modes, times, attributes (file capabilities among them), links of both kinds,
//! devices, sockets and holes. Where the file system can share blocks (btrfs, xfs),
//! copy_file_range(2) does. Nothing else may change the trees meanwhile.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString, OsStr},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use hull_manager_archive::{OPAQUE_ATTRIBUTE, OPAQUE_MARK, is_whiteout};
use hull_runtime_sys::{
    entry::{self, Time},
    fd,
    path::{self, Links},
};

/// Directories within directories: more than layers can have.
const MAX_DEPTH: usize = 4096;

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// What is copied at once: a call that takes long can't be killed.
const PIECE_BYTES: usize = 64 << 20;

/// Brings what `below` has beneath what the layer in `target` has, which is in overlayfs's form:
/// afterwards `target` is what an overlay of both would show, and in no form but its own.
pub(crate) fn fill(target: &OwnedFd, below: Option<&OwnedFd>) -> Result<()> {
    let mut filler = Filler { root: target, names: HashMap::new() };
    filler.level(target, below, b"", 0)
}

/// Brings all that `source` has into the empty directory `target`, which becomes like it.
pub(crate) fn copy(target: &OwnedFd, source: &OwnedFd) -> Result<()> {
    fill(target, Some(source))?;
    describe(source, target, &path::stat(source)?)
}

struct Filler<'a> {
    root: &'a OwnedFd,
    /// Where files with several names were copied to: by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl Filler<'_> {
    /// A directory that both may have: the layer's own describes it.
    fn level(
        &mut self,
        target: &OwnedFd,
        below: Option<&OwnedFd>,
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        let above = path::entries(target)?;
        let modified = modified(&path::stat(target)?);
        let marked = entry::attribute(target, OPAQUE_ATTRIBUTE)?.is_some();
        let opaque = marked || above.iter().any(|name| name.as_c_str() == OPAQUE_MARK);
        let below = below.filter(|_| !opaque);
        if let Some(below) = below {
            let taken: HashSet<&CString> = above.iter().collect();
            for name in path::entries(below)? {
                if !taken.contains(&name) {
                    self.node(below, target, &name, &join(path, &name), depth)?;
                }
            }
        }
        for name in above {
            let path = join(path, &name);
            let found = path::stat_at(target, &name)?;
            if is_whiteout(&found) {
                path::unlink(target, &name)?;
            } else if path::is_directory(&found) {
                let child = fd::openat(target, &name, DIRECTORY, 0)?;
                let below = below.map(|below| directory(below, &name)).transpose()?.flatten();
                deeper(depth, &path)?;
                self.level(&child, below.as_ref(), &path, depth + 1)?;
            }
        }
        if marked {
            entry::remove_attribute(target, OPAQUE_ATTRIBUTE)?;
        }
        Ok(entry::set_times_of(target, modified)?)
    }

    /// A file, or a directory with all that is in it, that only the tree below has.
    fn node(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        self.copy(source, target, name, path, depth)
            .with_context(|| format!("copy {}", String::from_utf8_lossy(path)))
    }

    fn copy(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        let stat = path::stat_at(source, name)?;
        if path::is_directory(&stat) {
            deeper(depth, path)?;
            let from = fd::openat(source, name, DIRECTORY, 0)?;
            fd::mkdirat(target, name, 0o700)?;
            let to = fd::openat(target, name, DIRECTORY, 0)?;
            for name in path::entries(&from)? {
                self.copy(&from, &to, &name, &join(path, &name), depth + 1)?;
            }
            return describe(&from, &to, &stat);
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.names.get(&key) {
                let (parent, first) = split(first);
                let parent = path::open_in_root(self.root, parent, DIRECTORY, 0, Links::Refuse)?;
                return Ok(entry::link(&parent, &first, target, name)?);
            }
            self.names.insert(key, path.to_vec());
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => {
                let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
                let from = fd::openat(source, name, flags, 0)?;
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                let to = fd::openat(target, name, flags, 0o600)?;
                content(&from, &to, u64::try_from(stat.st_size).unwrap_or(0))?;
                return describe(&from, &to, &stat);
            }
            libc::S_IFLNK => {
                let link = path::readlink(source, name)?.into_os_string().into_vec();
                path::symlink(&CString::new(link)?, target, name)?;
                entry::chown(target, name, stat.st_uid, stat.st_gid)?;
            }
            _ => {
                path::mknod(target, name, stat.st_mode, stat.st_rdev)?;
                entry::chown(target, name, stat.st_uid, stat.st_gid)?;
                // Whatever the umask is.
                let made = fd::openat(target, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
                path::chmod(made, stat.st_mode & 0o7777)?;
            }
        }
        Ok(entry::set_times(target, name, modified(&stat))?)
    }
}

/// What is at a name, if it is a directory.
fn directory(parent: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>> {
    match fd::openat(parent, name, DIRECTORY, 0) {
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
            Ok(None)
        }
        result => Ok(Some(result?)),
    }
}

fn deeper(depth: usize, path: &[u8]) -> Result<()> {
    if depth >= MAX_DEPTH {
        bail!("{} is nested too deep", String::from_utf8_lossy(path));
    }
    Ok(())
}

/// The data, and holes where the source has holes.
fn content(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<()> {
    entry::truncate(to, size)?;
    let mut at = 0;
    while let Some(start) = entry::next_data(from, at)?
        && start < size
    {
        at = entry::next_hole(from, start)?.min(size);
        entry::seek_to(from, start)?;
        entry::seek_to(to, start)?;
        let mut left = at - start;
        while left > 0 {
            let count = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            match entry::copy_range(from, to, count)? {
                0 => bail!("it shrank while it was copied"),
                copied => left = left.saturating_sub(copied as u64),
            }
        }
    }
    Ok(())
}

fn describe(from: &OwnedFd, to: &OwnedFd, stat: &libc::stat) -> Result<()> {
    entry::chown_of(to, stat.st_uid, stat.st_gid)?;
    entry::chmod_of(to, stat.st_mode & 0o7777)?;
    // A change of owner takes capabilities away, so they come after it.
    for name in entry::attributes(from)? {
        if !is_copied(name.to_bytes()) {
            continue;
        }
        let Some(value) = entry::attribute(from, &name)? else { continue };
        path::set_attribute(to, &name, &value)?;
    }
    Ok(entry::set_times_of(to, modified(stat))?)
}

/// Attributes of the image. The others are the host's: labels and integrity, overlayfs's own.
fn is_copied(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
}

fn modified(stat: &libc::stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() {
        return name.to_bytes().to_vec();
    }
    [path, b"/", name.to_bytes()].concat()
}

/// A path's directory and its last name.
fn split(path: &[u8]) -> (&Path, CString) {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&b"."[..], path),
    };
    // It came from a C string.
    (Path::new(OsStr::from_bytes(parent)), CString::new(name).unwrap_or_default())
}
