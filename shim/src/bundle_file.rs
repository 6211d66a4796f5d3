//! The shim's files in a bundle. None is for others than root: containerd lets some users into the
//! directory.
//!
//! Records are small files of JSON, replaced as a whole. One is written under another name and renamed: whoever reads finds a whole one or none.
//! One that has to outlive a power cut is synced, and so is its directory. A write that fails
//! leaves the record that was there, and the caller has the error to try again with.

use std::{
    ffi::{CStr, CString},
    fs::OpenOptions,
    io::Write,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use hull_runtime_sys::{
    fd::{self, AT_FDCWD, openat},
    path::{c_path, stat, unlink},
};
use serde::{Deserialize, Serialize};

const MODE: u32 = 0o600;

/// The format's version; a record of another one is refused rather than guessed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(crate) struct Version;

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if number == u32::from(Self) { Ok(Self) } else { Err(format!("unknown version {number}")) }
    }
}

/// What a record is worth after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is on the disk when the write returns.
    Synced,
    /// Nothing: it is about a live process.
    Volatile,
}

/// Writes a record into the directory `dir`, in place of one that is there.
///
/// # Errors
/// No space, and other failures of the disk. The record that was there is unchanged, unless
/// the last step, the sync of the directory, failed.
pub(crate) fn write(dir: &Path, name: &CStr, text: &[u8], durability: Durability) -> Result<()> {
    let synced = durability == Durability::Synced;
    let dir = open_directory(dir)?;
    let temporary = temporary(name);
    remove_if_there(&dir, &temporary)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = openat(&dir, &temporary, flags, MODE)?;
    let written = fd::write_all(&file, text)
        .and_then(|()| if synced { fd::sync(&file) } else { Ok(()) })
        .and_then(|()| fd::rename(&dir, &temporary, name));
    if let Err(error) = written {
        // On a full disk the space is wanted back.
        let _ = unlink(&dir, &temporary);
        return Err(error.into());
    }
    if synced {
        fd::sync(&dir)?;
    }
    Ok(())
}

/// Writes a file that nobody reads before it is whole.
///
/// # Errors
/// No space, and other failures of the disk.
pub(crate) fn put(path: &Path, content: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(MODE).open(path);
    file.and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a record of at most `limit_bytes`; `None` if there is none.
///
/// # Errors
/// It is not one of ours: too large, not a regular file.
pub(crate) fn read(dir: &Path, name: &CStr, limit_bytes: usize) -> Result<Option<Vec<u8>>> {
    let dir = open_directory(dir)?;
    // A FIFO in its place must not hold us up.
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match openat(&dir, name, flags, 0) {
        Err(error) if error.errno() == libc::ENOENT => return Ok(None),
        file => file?,
    };
    ensure!(stat(&file)?.st_mode & libc::S_IFMT == libc::S_IFREG, "not a regular file");
    Ok(Some(fd::read_to_end(&file, limit_bytes)?))
}

/// Removes a record, and what a write that was cut off has left. That there is none is well.
pub(crate) fn remove(dir: &Path, name: &CStr) -> Result<()> {
    let dir = open_directory(dir)?;
    remove_if_there(&dir, &temporary(name))?;
    remove_if_there(&dir, name)
}

/// The name under which a record is written: no record's name starts like it.
fn temporary(name: &CStr) -> CString {
    let name = [b".".as_slice(), name.to_bytes()].concat();
    CString::new(name).expect("a name holds no NUL")
}

fn open_directory(dir: &Path) -> Result<OwnedFd> {
    Ok(openat(AT_FDCWD, &c_path(dir)?, libc::O_RDONLY | libc::O_DIRECTORY, 0)?)
}

fn remove_if_there(dir: &OwnedFd, name: &CStr) -> Result<()> {
    match unlink(dir, name) {
        Err(error) if error.errno() == libc::ENOENT => Ok(()),
        result => Ok(result?),
    }
}

/// Points in time as RFC 3339 with nanoseconds, in UTC.
pub(crate) mod timestamp {
    use std::time::SystemTime;

    use hull_specs_oci::time::{parse_rfc3339, rfc3339_nano};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        rfc3339_nano(*time).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        parse(&String::deserialize(from)?)
    }

    fn parse<E: Error>(text: &str) -> Result<SystemTime, E> {
        parse_rfc3339(text).ok_or_else(|| E::custom("not a time in RFC 3339"))
    }

    /// The same, or null.
    pub(crate) mod option {
        use super::*;

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<SystemTime>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(rfc3339_nano).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<SystemTime>, D::Error> {
            Option::<String>::deserialize(from)?.map(|text| parse(&text)).transpose()
        }
    }
}
