//! From an archive to files beneath one directory (R11).
//!
//! Every name is used as (descriptor of its parent, last component), and parents are resolved by
//! openat2 as if the directory were `/`. So links, those of the archive too, lead nowhere else.
//! Single pass, and every step costs a bounded number of system calls: a regular file usually
//! open, write, futimens and close.

mod directories;
mod whiteouts;

use std::{
    collections::BTreeMap,
    ffi::CString,
    io::BufRead,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{self as sys, entry, fd, path};
use serde::{Deserialize, Serialize};

use crate::{
    budget::Budgets,
    error::{Shown, refuse},
    removal,
    tar::{Entry, Extent, Kind, Reader, Time, clean, split},
};
use directories::{Directories, Directory};
use whiteouts::Whiteout;

/// What entries whose name begins with `.wh.` mean (OCI image specification, layer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whiteouts {
    /// They become overlayfs's: character devices 0:0, and the attribute of opaque directories.
    /// The target holds this layer alone.
    #[default]
    Overlay,
    /// What they name is removed: the target holds the layers below. What this archive has put
    /// there stays, whatever the order.
    Remove,
    /// Nothing: they are files like others.
    Keep,
}

/// Who owns what is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owners {
    /// Who the archive says.
    #[default]
    Archive,
    /// This user and group.
    Are(u32, u32),
}

/// The ids of the host that a user namespace has, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// What is 0 in the namespace: user and group.
    pub first: u32,
    /// How many there are.
    pub size: u32,
}

/// How an archive is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// What `.wh.` means.
    pub whiteouts: Whiteouts,
    /// Who owns what is made.
    pub owners: Owners,
    /// Owners are those of a user namespace, of which the target shows the host's ids.
    pub ids: Option<Ids>,
    /// Refuse to put a directory where another thing is, and the reverse; else it is replaced.
    pub keep_kinds: bool,
    /// Limits.
    pub budgets: Budgets,
}

/// What was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files, holes included, hard links once.
    pub file_bytes: u64,
    /// Attributes that are not on the list of those taken: not applied.
    pub dropped_attributes: u64,
}

/// Applies an archive, not compressed, beneath the directory `root`. What was made stays when it
/// fails.
///
/// # Errors
/// [`crate::Refused`] if it is the archive's fault; the kernel's otherwise.
pub fn apply(root: BorrowedFd<'_>, input: impl BufRead, options: &Options) -> Result<Applied> {
    apply_at(root, b"", input, options)
}

/// As [`apply`], beneath the directory `at` of the root: links lead anywhere beneath the root.
///
/// # Errors
/// As [`apply`], and if `at` is not a directory.
pub fn apply_at(
    root: BorrowedFd<'_>,
    at: &[u8],
    input: impl BufRead,
    options: &Options,
) -> Result<Applied> {
    apply_with(root, at, input, options, false)
}

/// As [`apply_at`]. `exact` says that modes are made as they are asked for: the umask is 0, and no
/// directory has an access control list by default.
pub(crate) fn apply_with(
    root: BorrowedFd<'_>,
    at: &[u8],
    input: impl BufRead,
    options: &Options,
    exact: bool,
) -> Result<Applied> {
    let mut reader = Reader::new(input, options.budgets);
    let mut applier = Applier {
        directories: Directories::new(root, options.whiteouts)?,
        written: whiteouts::Written::default(),
        times: BTreeMap::new(),
        options: *options,
        exact,
        // With ids to be mapped, nothing has its owner from its birth.
        us: match options.ids {
            Some(_) => (u32::MAX, u32::MAX),
            None => (sys::process::effective_uid(), sys::process::effective_gid()),
        },
        applied: Applied::default(),
    };
    let at = clean_target(at, &options.budgets)?;
    if applier.directories.open_existing(&at)?.is_none() {
        anyhow::bail!("{} is not a directory", Shown(&at));
    }
    while let Some(mut entry) = reader.next_entry()? {
        if !at.is_empty() {
            move_beneath(&at, &mut entry);
        }
        applier.place(&entry, &mut reader).with_context(|| Shown(&entry.path).to_string())?;
    }
    applier.applied.entries = reader.entries();
    applier.set_directory_times()?;
    Ok(applier.applied)
}

/// Where to apply: like a name, but `..` means what it means to people.
fn clean_target(at: &[u8], budgets: &Budgets) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for component in at.split(|b| *b == b'/') {
        match component {
            b".." => drop(parts.pop()),
            component => parts.push(component),
        }
    }
    clean(&[b"/", &parts.join(&b'/')[..]].concat(), budgets)
}

fn move_beneath(at: &[u8], entry: &mut Entry) {
    let moved = |path: &[u8]| match path {
        b"" => at.to_vec(),
        path => [at, b"/", path].concat(),
    };
    entry.path = moved(&entry.path);
    if let Kind::HardLink(target) = &mut entry.kind {
        *target = moved(target);
    }
}

struct Applier<'a> {
    directories: Directories<'a>,
    written: whiteouts::Written,
    /// Of directories: set at the end, because what is made in them changes them.
    times: BTreeMap<Vec<u8>, Time>,
    options: Options,
    exact: bool,
    us: (u32, u32),
    applied: Applied,
}

/// What was in a name's place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    /// Something that this removed.
    Other,
}

impl Applier<'_> {
    fn place(&mut self, entry: &Entry, reader: &mut Reader<impl BufRead>) -> Result<()> {
        if entry.path.is_empty() {
            return self.root(entry);
        }
        let (parent, name) = split(&entry.path);
        if self.options.whiteouts != Whiteouts::Keep {
            match whiteouts::of(parent, name)? {
                Whiteout::No => {}
                Whiteout::Ignored => return Ok(()),
                found => return self.whiteout(parent, &found),
            }
        }
        let directory = self.directories.open(parent)?;
        let c_name = c_name(name)?;
        match &entry.kind {
            Kind::Directory => self.directory(&directory, &c_name, entry)?,
            Kind::File { size, data } => {
                self.file(&directory, &c_name, entry, *size, data.as_deref(), reader)?;
            }
            Kind::HardLink(target) => self.hard_link(&directory, &c_name, target)?,
            Kind::SymbolicLink(target) => {
                let target = CString::new(target.clone())?;
                self.make(&directory, &c_name, || path::symlink(&target, &directory.fd, &c_name))?;
                self.describe_special(&directory, &c_name, entry, false)?;
            }
            Kind::Character(0, 0) if self.options.whiteouts == Whiteouts::Overlay => {
                refuse!("a character device 0:0 is a whiteout of overlayfs, not of an archive");
            }
            Kind::Character(..) | Kind::Block(..) | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::Character(major, minor) => (libc::S_IFCHR, libc::makedev(major, minor)),
                    Kind::Block(major, minor) => (libc::S_IFBLK, libc::makedev(major, minor)),
                    _ => (libc::S_IFIFO, 0),
                };
                self.make(&directory, &c_name, || {
                    path::mknod(&directory.fd, &c_name, kind | entry.mode, device)
                })?;
                self.describe_special(&directory, &c_name, entry, true)?;
            }
        }
        if self.options.whiteouts == Whiteouts::Remove {
            self.written.insert(&directory, name);
        }
        Ok(())
    }

    /// The root is there, and stays a directory.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            refuse!("the root is not a directory in the archive");
        }
        let directory = self.directories.open(b"")?;
        self.describe_directory(&directory.fd, entry, true)?;
        self.directories.forget();
        self.times.insert(Vec::new(), entry.modified);
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        entry: &Entry,
    ) -> Result<()> {
        let make = || fd::mkdirat(&parent.fd, name, entry.mode & 0o777);
        let before = match make() {
            Err(error) if error.errno() == libc::EEXIST => {
                let before = self.make_way(parent, name, true)?;
                if before != Before::Directory {
                    make()?;
                }
                before
            }
            result => result.map(|()| Before::Nothing)?,
        };
        let opened = open_directory(parent, name)?;
        if before == Before::Other && self.options.whiteouts == Whiteouts::Overlay {
            // Between the layers below and this directory stood something else.
            whiteouts::make_opaque(&opened)?;
        }
        let fresh_and_simple = before != Before::Directory && !parent.sets_group;
        self.describe_directory(&opened, entry, !fresh_and_simple)?;
        self.times.insert(entry.path.clone(), entry.modified);
        self.directories.insert(&entry.path, opened)
    }

    fn describe_directory(&mut self, fd: &OwnedFd, entry: &Entry, existed: bool) -> Result<()> {
        let owner = self.owner(entry)?;
        if existed || owner != self.us {
            entry::chown_of(fd, owner.0, owner.1).context("set the owner")?;
        }
        self.set_attributes(fd, entry)?;
        if existed || !self.exact || entry.mode & 0o7000 != 0 || owner != self.us {
            entry::chmod_of(fd, entry.mode)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        entry: &Entry,
        size: u64,
        data: Option<&[Extent]>,
        reader: &mut Reader<impl BufRead>,
    ) -> Result<()> {
        const FLAGS: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
        let file =
            self.make(parent, name, || fd::openat(&parent.fd, name, FLAGS, entry.mode & 0o777))?;
        match data {
            None => write_all(&file, reader)?,
            Some(extents) => write_extents(&file, size, extents, reader)?,
        }
        self.applied.file_bytes += size;
        let owner = self.owner(entry)?;
        let chown = owner != self.us || parent.sets_group;
        if chown {
            entry::chown_of(&file, owner.0, owner.1).context("set the owner")?;
        }
        // A change of owner takes set-id bits and capabilities away, so they come after it.
        if entry.mode & 0o7000 != 0 || !self.exact {
            entry::chmod_of(&file, entry.mode)?;
        }
        self.set_attributes(&file, entry)?;
        entry::set_times_of(&file, entry.modified)?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        target: &[u8],
    ) -> Result<()> {
        let (target_parent, target_name) = split(target);
        if target_name.is_empty() {
            refuse!("a hard link to the root");
        }
        let Some(directory) = self.directories.open_existing(target_parent)? else {
            refuse!("a hard link to {}, which is not there", Shown(target));
        };
        let target_name = c_name(target_name)?;
        let found = match path::stat_at(&directory.fd, &target_name) {
            Err(error) if error.errno() == libc::ENOENT => {
                refuse!("a hard link to {}, which is not there", Shown(target));
            }
            result => result?,
        };
        if path::is_directory(&found) || is_whiteout(&found) {
            refuse!("a hard link to {}, which is no file", Shown(target));
        }
        // A link to itself says nothing new, and must not remove what it names.
        if let Ok(here) = path::stat_at(&parent.fd, name)
            && (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        self.make(parent, name, || entry::link(&directory.fd, &target_name, &parent.fd, name))
    }

    /// Runs `make`; if something is in its way, removes that and runs it again.
    fn make<T>(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        make: impl Fn() -> sys::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(error) if error.errno() == libc::EEXIST => {
                self.make_way(parent, name, false)?;
                Ok(make()?)
            }
            Err(error) if error.errno() == libc::EPERM && error.call() == "mknodat" => {
                Err(error).context("make a device node (CAP_MKNOD)")
            }
            result => Ok(result?),
        }
    }

    /// Removes what is at a name, unless it is a directory and one is wanted.
    fn make_way(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        wanted_directory: bool,
    ) -> Result<Before> {
        let found = path::stat_at(&parent.fd, name)?;
        let is_directory = path::is_directory(&found);
        if is_directory && wanted_directory {
            return Ok(Before::Directory);
        }
        if self.options.keep_kinds && is_directory != wanted_directory {
            refuse!(
                "cannot overwrite {} with {}",
                if is_directory { "directory" } else { "non-directory" },
                if is_directory { "non-directory" } else { "directory" }
            );
        }
        // A link or directory that goes away may be in the way of cached parents.
        if is_directory || path::is_link(&found) {
            self.directories.forget();
        }
        let is_busy = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<sys::Error>().is_some_and(|error| error.errno() == libc::EBUSY)
        };
        match removal::remove(&parent.fd, name) {
            // Something is mounted there. C libraries have different words for it.
            Err(error) if error.chain().any(is_busy) => {
                anyhow::bail!("unlinkat: device or resource busy")
            }
            removed => removed.map(|()| Before::Other),
        }
    }

    fn describe_special(
        &mut self,
        parent: &Directory,
        name: &std::ffi::CStr,
        entry: &Entry,
        has_mode: bool,
    ) -> Result<()> {
        let owner = self.owner(entry)?;
        if owner != self.us || parent.sets_group {
            entry::chown(&parent.fd, name, owner.0, owner.1).context("set the owner")?;
        }
        if has_mode && !self.exact {
            let fd = fd::openat(&parent.fd, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            path::chmod(fd, entry.mode)?;
        }
        // Neither links nor devices have attributes of those that are taken.
        self.applied.dropped_attributes += entry.attributes.len() as u64;
        entry::set_times(&parent.fd, name, entry.modified)?;
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> Result<(u32, u32)> {
        let (uid, gid) = match self.options.owners {
            Owners::Archive => (entry.uid, entry.gid),
            Owners::Are(uid, gid) => (uid, gid),
        };
        let Some(Ids { first, size }) = self.options.ids else { return Ok((uid, gid)) };
        if uid >= size || gid >= size {
            refuse!("the container's user namespace has no id for the owner {uid}:{gid}");
        }
        Ok((first + uid, first + gid))
    }

    fn set_attributes(&mut self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.attributes {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                refuse!("the attribute {} is overlayfs's own", Shown(name));
            }
            if !is_taken(name) {
                self.applied.dropped_attributes += 1;
                continue;
            }
            let value = match self.options.ids {
                Some(ids) if name == CAPABILITY => &of_root(value, ids.first),
                _ => value,
            };
            let name = CString::new(name.clone())?;
            match path::set_attribute(fd, &name, value) {
                // A file system without such attributes.
                Err(error) if error.errno() == libc::ENOTSUP => {
                    self.applied.dropped_attributes += 1;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn set_directory_times(&mut self) -> Result<()> {
        for (path, time) in std::mem::take(&mut self.times) {
            // Something else may have taken its place.
            if let Some(directory) = self.directories.open_existing(&path)? {
                entry::set_times_of(&directory.fd, time)?;
            }
        }
        Ok(())
    }
}

/// The attributes that archives may set: what programs and users put there. The others are the
/// kernel's and the host's (labels, integrity, overlayfs's own).
pub(crate) fn is_taken(name: &[u8]) -> bool {
    name == CAPABILITY || name.starts_with(b"user.")
}

const CAPABILITY: &[u8] = b"security.capability";

/// A program's capabilities as they hold in the user namespace of this root (`struct
/// vfs_ns_cap_data`): version 3 is version 2 with the root's id behind it.
fn of_root(value: &[u8], root: u32) -> Vec<u8> {
    const VERSION_2: [u8; 3] = [0, 0, 2];
    match value.get(1..4) {
        Some(version) if version == VERSION_2 && value.len() == 20 => {
            [&[value[0], 0, 0, 3], &value[4..], &root.to_le_bytes()].concat()
        }
        _ => value.to_vec(),
    }
}

pub(crate) fn c_name(name: &[u8]) -> Result<CString> {
    Ok(CString::new(name)?)
}

fn open_directory(parent: &Directory, name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    Ok(fd::openat(&parent.fd, name, flags, 0)?)
}

fn write_all(file: &OwnedFd, reader: &mut Reader<impl BufRead>) -> Result<()> {
    while let Some(piece) = reader.chunk()? {
        let written = fd::write(file.as_fd(), piece)?;
        reader.consume(written);
    }
    Ok(())
}

fn write_extents(
    file: &OwnedFd,
    size: u64,
    extents: &[Extent],
    reader: &mut Reader<impl BufRead>,
) -> Result<()> {
    entry::truncate(file, size)?;
    for extent in extents {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            let Some(piece) = reader.chunk()? else {
                refuse!("a sparse file has less data than its map says");
            };
            let length = usize::try_from(end - at).map_or(piece.len(), |n| n.min(piece.len()));
            entry::write_at(file, &piece[..length], at)?;
            reader.consume(length);
            at += length as u64;
        }
    }
    Ok(())
}

pub use whiteouts::{OPAQUE_ATTRIBUTE, OPAQUE_MARK, is_whiteout};
