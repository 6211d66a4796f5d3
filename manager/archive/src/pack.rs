//! From files to an archive. The same files give the same bytes: names are sorted, owners are
//! numbers, times are whole seconds as in everybody's layers, and nothing else is said.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStringExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use hull_runtime_sys::{
    entry, fd,
    path::{self, Links},
};

use crate::{
    apply::is_taken,
    budget::MAX_DEPTH,
    changes::{self, Found},
    error::Shown,
    tar::{Entry, Kind, Time, Writer},
};

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files, hard links once.
    pub file_bytes: u64,
}

/// Writes an archive of what is at `at` beneath `root`, resolved as if `root` were `/`, under the
/// name `name`: a file or directory of that name, or with an empty name what is in the directory.
/// If `at` is a link itself, it is packed as one unless `follow`.
///
/// # Errors
/// If there is no such thing, it can't be read, or the output fails.
pub fn pack(
    root: BorrowedFd<'_>,
    at: &Path,
    name: &[u8],
    follow: bool,
    output: impl Write,
) -> Result<Packed> {
    let mut packer = Packer::new(output);
    let no_link = if follow { 0 } else { libc::O_NOFOLLOW };
    let found = path::open_in_root(root, at, libc::O_PATH | no_link, 0, Links::Follow)?;
    let stat = path::stat(&found)?;
    if path::is_directory(&stat) {
        let directory = fd::openat(&found, c".", DIRECTORY, 0)?;
        if !name.is_empty() {
            packer.described(&directory, &stat, name.to_vec())?;
        }
        packer.tree(&directory, name, 0)?;
    } else {
        if name.is_empty() {
            bail!("{} is not a directory", at.display());
        }
        // A descriptor that was only opened as a path says where, and is opened again by name.
        let parent = at.parent().unwrap_or(Path::new(""));
        let file = if follow { at.to_owned() } else { parent.to_owned() };
        if follow && !path::is_link(&stat) {
            packer.reopened(root, &file, &stat, name)?;
        } else {
            let directory = path::open_in_root(root, parent, DIRECTORY, 0, Links::Follow)?;
            let last = at.file_name().context("no name to pack")?;
            packer.node(&directory, &path::c_path(last)?, name.to_vec(), 0)?;
        }
    }
    packer.finish()
}

/// Writes a layer: what is changed, and whiteouts for what is gone.
///
/// # Errors
/// If the files can't be read, or the output fails.
pub fn diff(source: &changes::Source<'_>, output: impl Write) -> Result<Packed> {
    let mut packer = Packer::new(output);
    // Directories that are as they were: written only if something beneath them changed.
    let mut passed: Vec<(OwnedFd, CString, Vec<u8>)> = Vec::new();
    changes::walk(source, &mut |directory, name, path, found| {
        if found == Found::Passed {
            passed.retain(|(_, _, above)| changes::is_above(above, path));
            passed.push((fd::duplicate(directory, 3)?, name.to_owned(), path.to_vec()));
            return Ok(());
        }
        for (directory, name, above) in passed.drain(..) {
            if changes::is_above(&above, path) {
                packer.entry(&directory, &name, above)?;
            }
        }
        match found {
            Found::Removed => packer.whiteout(path),
            Found::Opaque => packer.marker([path, b"/.wh..wh..opq"].concat()),
            _ => packer.entry(directory, name, path.to_vec()).map(drop),
        }
    })?;
    packer.finish()
}

struct Packer<W: Write> {
    writer: Writer<W>,
    packed: Packed,
    /// Where files with several names were first.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    fn new(output: W) -> Self {
        Self {
            writer: Writer::new(output),
            packed: Packed::default(),
            first_names: HashMap::new(),
            buffer: vec![0; 128 << 10],
        }
    }

    fn finish(mut self) -> Result<Packed> {
        let (_, entries) = self.writer.finish()?;
        self.packed.entries = entries;
        Ok(self.packed)
    }

    /// What is in a directory, in the order of names.
    fn tree(&mut self, directory: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let mut names = path::entries(directory)?;
        names.sort_unstable();
        for name in names {
            let path = join(path, name.to_bytes());
            self.node(directory, &name, path, depth)?;
        }
        Ok(())
    }

    /// A file, or a directory with what is in it.
    fn node(&mut self, parent: &OwnedFd, name: &CStr, path: Vec<u8>, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            bail!("{} is nested deeper than {MAX_DEPTH} directories", Shown(&path));
        }
        match self.entry(parent, name, path.clone())? {
            Some(directory) => self.tree(&directory, &path, depth + 1),
            None => Ok(()),
        }
    }

    /// One entry; the descriptor if it is a directory. Sockets have no meaning in an archive, and
    /// what went away meanwhile is not there.
    fn entry(&mut self, parent: &OwnedFd, name: &CStr, path: Vec<u8>) -> Result<Option<OwnedFd>> {
        let shown = Shown(&path).to_string();
        self.entry_at(parent, name, path).context(shown)
    }

    fn entry_at(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: Vec<u8>,
    ) -> Result<Option<OwnedFd>> {
        let stat = match path::stat_at(parent, name) {
            Err(error) if error.errno() == libc::ENOENT => return Ok(None),
            result => result?,
        };
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                let directory = fd::openat(parent, name, DIRECTORY, 0)?;
                self.described(&directory, &stat, path)?;
                return Ok(Some(directory));
            }
            libc::S_IFSOCK => return Ok(None),
            libc::S_IFREG => {
                if let Some(first) = self.first_name(&stat, &path) {
                    self.write(&stat, path, Kind::HardLink(first), Vec::new())?;
                } else {
                    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
                    let file = fd::openat(parent, name, flags, 0)?;
                    self.described(&file, &path::stat(&file)?, path)?;
                }
                return Ok(None);
            }
            libc::S_IFLNK => {
                Kind::SymbolicLink(path::readlink(parent, name)?.into_os_string().into_vec())
            }
            libc::S_IFCHR => Kind::Character(libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
            libc::S_IFBLK => Kind::Block(libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
            _ => Kind::Fifo,
        };
        let kind = match self.first_name(&stat, &path) {
            Some(first) => Kind::HardLink(first),
            None => kind,
        };
        self.write(&stat, path, kind, Vec::new())?;
        Ok(None)
    }

    fn reopened(
        &mut self,
        root: BorrowedFd<'_>,
        at: &Path,
        stat: &libc::stat,
        name: &[u8],
    ) -> Result<()> {
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            bail!("{} is no regular file, directory or link", at.display());
        }
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let file = path::open_in_root(root, at, flags, 0, Links::Follow)?;
        self.described(&file, &path::stat(&file)?, name.to_vec())
    }

    /// An open file or directory, with its attributes and its content.
    fn described(&mut self, file: &OwnedFd, stat: &libc::stat, path: Vec<u8>) -> Result<()> {
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFREG => {
                Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0), data: None }
            }
            _ => bail!("{} changed its type while it was packed", Shown(&path)),
        };
        let size = if let Kind::File { size, .. } = kind { size } else { 0 };
        let is_file = kind != Kind::Directory;
        self.write(stat, path, kind, attributes(file)?)?;
        if is_file {
            self.content(file, size)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        stat: &libc::stat,
        path: Vec<u8>,
        kind: Kind,
        attributes: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let entry = Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: Time { seconds: stat.st_mtime, nanoseconds: 0 },
            attributes,
        };
        self.writer.entry(&entry).context("write the archive")
    }

    /// Exactly the bytes that the header has announced: a file that shrinks is filled up, as tar
    /// does, and what it grows by comes too late.
    fn content(&mut self, file: &OwnedFd, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let want =
                usize::try_from(left).map_or(self.buffer.len(), |n| n.min(self.buffer.len()));
            let buffer = &mut self.buffer[..want];
            let length = match fd::read(file.as_fd(), buffer)? {
                0 => {
                    buffer.fill(0);
                    want
                }
                length => length,
            };
            self.writer.content(&self.buffer[..length]).context("write the archive")?;
            left -= length as u64;
        }
        self.writer.fill(size).context("write the archive")?;
        self.packed.file_bytes += size;
        Ok(())
    }

    /// The name that a file of several names was packed under, if it was.
    fn first_name(&mut self, stat: &libc::stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.first_names.get(&key) {
            return Some(first.clone());
        }
        self.first_names.insert(key, path.to_vec());
        None
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = crate::tar::split(path);
        self.marker(join(parent, &[b".wh.", name].concat()))
    }

    /// An empty file of no time and no owner.
    fn marker(&mut self, path: Vec<u8>) -> Result<()> {
        let entry = Entry {
            path,
            kind: Kind::File { size: 0, data: None },
            mode: 0,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            attributes: Vec::new(),
        };
        self.writer.entry(&entry).context("write the archive")
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The attributes that belong into an archive, in the order of names.
pub(crate) fn attributes(file: &OwnedFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for name in entry::attributes(file)? {
        if is_taken(name.to_bytes())
            && !name.to_bytes().starts_with(b"user.overlay.")
            && let Some(value) = entry::attribute(file, &name)?
        {
            attributes.push((CString::into_bytes(name), value));
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}
