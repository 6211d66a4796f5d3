//! Entries of directories, by (directory, name): what archives are made of and made into.
//!
//! No function here follows a link in the name's last, and only, component.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd},
};

use crate::{Error, Result, check, retry};

/// A point in time: seconds since 1970, possibly negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    fn both(self) -> [libc::timespec; 2] {
        [libc::timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds.into() }; 2]
    }
}

/// linkat(2): another name for the file that `name` is in `dir`, a link included.
pub fn link(dir: impl AsFd, name: &CStr, new_dir: impl AsFd, new_name: &CStr) -> Result<()> {
    let (dir, new_dir) = (dir.as_fd().as_raw_fd(), new_dir.as_fd().as_raw_fd());
    // SAFETY: both names are NUL-terminated strings that outlive the call.
    let result = unsafe { libc::linkat(dir, name.as_ptr(), new_dir, new_name.as_ptr(), 0) };
    check("linkat", result.into()).map(drop).map_err(|e| e.on(new_name.to_string_lossy()))
}

/// renameat(2) from one directory to another.
pub fn rename(dir: impl AsFd, name: &CStr, new_dir: impl AsFd, new_name: &CStr) -> Result<()> {
    let (dir, new_dir) = (dir.as_fd().as_raw_fd(), new_dir.as_fd().as_raw_fd());
    // SAFETY: both names are NUL-terminated strings that outlive the call.
    let result = unsafe { libc::renameat(dir, name.as_ptr(), new_dir, new_name.as_ptr()) };
    check("renameat", result.into()).map(drop).map_err(|e| e.on(new_name.to_string_lossy()))
}

/// unlinkat(2) of an empty directory.
pub fn remove_directory(dir: impl AsFd, name: &CStr) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::unlinkat(dir, name.as_ptr(), libc::AT_REMOVEDIR) };
    check("unlinkat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// fchownat(2).
pub fn chown(dir: impl AsFd, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::fchownat(dir, name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) };
    check("fchownat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// utimensat(2): the time of the last access and of the last change of content.
pub fn set_times(dir: impl AsFd, name: &CStr, time: Time) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    let times = time.both();
    // SAFETY: `name` is NUL-terminated; `times` holds the two times that are read.
    let result =
        unsafe { libc::utimensat(dir, name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    check("utimensat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// futimens(2): as [`set_times`], of an open file.
pub fn set_times_of(file: impl AsFd, time: Time) -> Result<()> {
    let times = time.both();
    // SAFETY: `times` holds the two times that are read.
    let result = unsafe { libc::futimens(file.as_fd().as_raw_fd(), times.as_ptr()) };
    check("futimens", result.into()).map(drop)
}

/// fchmod(2) of a file that is open for reading or writing.
pub fn chmod_of(file: impl AsFd, mode: u32) -> Result<()> {
    // SAFETY: fchmod takes integers.
    check("fchmod", unsafe { libc::fchmod(file.as_fd().as_raw_fd(), mode) }.into()).map(drop)
}

/// fchown(2) of a file that is open for reading or writing.
pub fn chown_of(file: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: fchown takes integers.
    check("fchown", unsafe { libc::fchown(file.as_fd().as_raw_fd(), uid, gid) }.into()).map(drop)
}

/// ftruncate(2).
pub fn truncate(file: impl AsFd, size_bytes: u64) -> Result<()> {
    let size = i64::try_from(size_bytes).map_err(|_| Error::new("ftruncate", libc::EFBIG))?;
    let file = file.as_fd().as_raw_fd();
    // SAFETY: ftruncate takes integers.
    retry("ftruncate", || unsafe { libc::ftruncate(file, size) }.into()).map(drop)
}

/// Writes all of `bytes` at an offset (pwrite(2)).
pub fn write_at(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    let file = file.as_fd().as_raw_fd();
    while !bytes.is_empty() {
        let at = i64::try_from(offset).map_err(|_| Error::new("pwrite", libc::EFBIG))?;
        // SAFETY: pointer and length describe `bytes`.
        let written = retry("pwrite", || unsafe {
            libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), at) as libc::c_long
        })?;
        let written = usize::try_from(written).unwrap_or(0);
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

/// The names of a file's extended attributes (flistxattr(2)); none where the file system has
/// no such thing.
pub fn attributes(file: impl AsFd) -> Result<Vec<CString>> {
    let file = file.as_fd().as_raw_fd();
    let list = grown("flistxattr", |buffer| {
        // SAFETY: pointer and length describe `buffer`.
        unsafe { libc::flistxattr(file, buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    match list {
        Err(error) if error.errno() == libc::ENOTSUP => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(list) => Ok(list
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
            .map(CStr::to_owned)
            .collect()),
    }
}

/// An extended attribute (fgetxattr(2)); nothing if there is none of this name.
pub fn attribute(file: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let file = file.as_fd().as_raw_fd();
    let value = grown("fgetxattr", |buffer| {
        // SAFETY: `name` is NUL-terminated; pointer and length describe `buffer`.
        unsafe { libc::fgetxattr(file, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    match value {
        Err(error) if matches!(error.errno(), libc::ENODATA | libc::ENOTSUP) => Ok(None),
        result => result.map(Some).map_err(|e| e.on(name.to_string_lossy())),
    }
}

/// fremovexattr(2).
pub fn remove_attribute(file: impl AsFd, name: &CStr) -> Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let result = unsafe { libc::fremovexattr(file, name.as_ptr()) };
    check("fremovexattr", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// What a call writes into a buffer that may have to grow; most answers are short.
fn grown(call: &'static str, mut f: impl FnMut(&mut [u8]) -> libc::ssize_t) -> Result<Vec<u8>> {
    const MAX_BYTES: usize = 64 << 10;
    let mut buffer = vec![0; 256];
    loop {
        match retry(call, || f(&mut buffer) as libc::c_long) {
            Err(error) if error.errno() == libc::ERANGE && buffer.len() < MAX_BYTES => {
                buffer.resize(MAX_BYTES, 0);
            }
            Err(error) => return Err(error),
            Ok(length) => {
                buffer.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(buffer);
            }
        }
    }
}

/// copy_file_range(2), at the files' positions; 0 is the end of the source.
pub fn copy_range(source: impl AsFd, target: impl AsFd, count: usize) -> Result<usize> {
    let (source, target) = (source.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let null = std::ptr::null_mut::<libc::loff_t>();
    // SAFETY: null offsets mean the files' own; the rest are integers.
    let copied = retry("copy_file_range", || unsafe {
        libc::syscall(libc::SYS_copy_file_range, source, null, target, null, count, 0)
    })?;
    Ok(usize::try_from(copied).unwrap_or(0))
}

/// lseek(2) to the next data at or after `offset` (`SEEK_DATA`); nothing if there is only a
/// hole until the end.
pub fn next_data(file: impl AsFd, offset: u64) -> Result<Option<u64>> {
    match seek(file, offset, libc::SEEK_DATA) {
        Err(error) if error.errno() == libc::ENXIO => Ok(None),
        result => result.map(Some),
    }
}

/// lseek(2) to the next hole at or after `offset` (`SEEK_HOLE`): at the latest the file's end.
pub fn next_hole(file: impl AsFd, offset: u64) -> Result<u64> {
    seek(file, offset, libc::SEEK_HOLE)
}

/// lseek(2) to an offset from the start.
pub fn seek_to(file: impl AsFd, offset: u64) -> Result<u64> {
    seek(file, offset, libc::SEEK_SET)
}

fn seek(file: impl AsFd, offset: u64, whence: i32) -> Result<u64> {
    let offset = i64::try_from(offset).map_err(|_| Error::new("lseek", libc::EINVAL))?;
    // SAFETY: lseek takes integers.
    let at = unsafe { libc::lseek(file.as_fd().as_raw_fd(), offset, whence) };
    Ok(u64::try_from(check("lseek", at)?).unwrap_or(0))
}

/// fcntl(F_SETPIPE_SZ): how much a pipe holds. Without privileges the system's limit decides,
/// which is no error: the pipe then holds less.
pub fn set_pipe_size(pipe: impl AsFd, bytes: i32) {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    unsafe { libc::fcntl(pipe.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

/// Waits until nobody is left to read from the pipe that `writer` is the end of.
pub fn wait_for_reader_gone(writer: impl AsFd) -> Result<()> {
    let mut poll = libc::pollfd { fd: writer.as_fd().as_raw_fd(), events: 0, revents: 0 };
    loop {
        // SAFETY: one valid pollfd.
        retry("poll", || unsafe { libc::poll(&raw mut poll, 1, -1) }.into())?;
        if poll.revents & (libc::POLLERR | libc::POLLNVAL) != 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::fd::{AT_FDCWD, openat};

    fn directory() -> (tempfile::TempDir, std::os::fd::OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let path = crate::path::c_path(directory.path()).unwrap();
        let fd = openat(AT_FDCWD, &path, libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        (directory, fd)
    }

    #[test]
    fn a_link_is_linked_and_changed_itself() {
        let (directory, fd) = directory();
        crate::path::symlink(c"target", &fd, c"a").unwrap();
        link(&fd, c"a", &fd, c"b").unwrap();
        set_times(&fd, c"b", Time { seconds: -5, nanoseconds: 7 }).unwrap();
        let found = fs::symlink_metadata(directory.path().join("a")).unwrap();
        assert!(found.is_symlink());
        assert_eq!((found.nlink(), found.mtime(), found.mtime_nsec()), (2, -5, 7));
    }

    #[test]
    fn attributes_are_read_back_whatever_their_length() {
        let (_directory, fd) = directory();
        let file = openat(&fd, c"f", libc::O_CREAT | libc::O_RDWR, 0o600).unwrap();
        assert_eq!(attribute(&file, c"user.a"), Ok(None));
        let long = vec![b'x'; 1000];
        if crate::path::set_attribute(&file, c"user.a", &long).is_ok() {
            assert_eq!(attribute(&file, c"user.a"), Ok(Some(long)));
            assert_eq!(attributes(&file), Ok(vec![c"user.a".to_owned()]));
        }
    }

    #[test]
    fn holes_are_found_where_nothing_was_written() {
        let (_directory, fd) = directory();
        let file = openat(&fd, c"f", libc::O_CREAT | libc::O_RDWR, 0o600).unwrap();
        truncate(&file, 4 << 20).unwrap();
        write_at(&file, b"data", 2 << 20).unwrap();
        let data = next_data(&file, 0).unwrap().unwrap();
        assert!(data <= 2 << 20);
        assert!(next_hole(&file, data).unwrap() > data);
        assert_eq!(next_hole(&file, 4 << 20).map_err(|e| e.errno()), Err(libc::ENXIO));
    }

    #[test]
    fn the_last_readers_end_is_noticed() {
        let (reader, writer) = crate::fd::pipe().unwrap();
        drop(reader);
        wait_for_reader_gone(&writer).unwrap();
    }
}
