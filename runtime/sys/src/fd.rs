//! Descriptors: open, flags, duplicates, pipes, locks, memory files.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{Error, Result, check, check_fd, retry};

/// The value that stands for the current directory in `*at` calls.
pub const AT_FDCWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is not a descriptor that could be closed; the kernel gives it a
    // meaning of its own in every call that takes a directory descriptor.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// The standard streams. The standard library opens `/dev/null` for those that are closed
/// when a program starts, and nothing of ours closes them.
#[must_use]
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO].map(|number| {
        // SAFETY: these numbers stay open for as long as the program runs.
        unsafe { BorrowedFd::borrow_raw(number) }
    })
}

/// openat(2) with `O_CLOEXEC`. Only for paths that the host's operator controls; paths
/// inside a container go through [`crate::path`].
pub fn openat(dir: impl AsFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let dir = dir.as_fd().as_raw_fd();
    loop {
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        match check_fd("openat", fd.into()) {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(|e| e.on(path.to_string_lossy())),
        }
    }
}

/// read(2). Async-signal-safe.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer and length describe `buffer`, which is ours to write.
    let n = retry("read", || unsafe {
        libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) as libc::c_long
    })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// Reads until end of file or until `limit` bytes have come; more is an error (`EFBIG`).
pub fn read_to_end(fd: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let n = read(&fd, &mut buffer)?;
        if n == 0 {
            return Ok(content);
        }
        if content.len() + n > limit {
            return Err(Error::new("read", libc::EFBIG));
        }
        content.extend_from_slice(&buffer[..n]);
    }
}

/// write(2), once. Async-signal-safe.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer and length describe `bytes`, which stays borrowed for the call.
    let n = retry("write", || unsafe {
        libc::write(fd, bytes.as_ptr().cast(), bytes.len()) as libc::c_long
    })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// Writes all of `bytes`.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = write(&fd, bytes)?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// fsync(2), of a file or a directory.
pub fn sync(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: fsync takes an integer.
    retry("fsync", || unsafe { libc::fsync(fd) }.into()).map(drop)
}

/// syncfs(2): all that was written to the file system on which a file is, by whomever. It fails if
/// any of that could not be written since the file was opened (from Linux 5.8 on).
pub fn sync_file_system(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: syncfs takes an integer.
    retry("syncfs", || unsafe { libc::syncfs(fd) }.into()).map(drop)
}

/// splice(2), non-blocking: moves up to `count` bytes from one pipe to another without copying
/// them. 0 is the end of the source.
///
/// # Errors
/// `EAGAIN` when the source is empty or the target full.
pub fn splice(source: impl AsFd, target: impl AsFd, count: usize) -> Result<usize> {
    let (source, target) = (source.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let moved = retry("splice", || {
        // SAFETY: null offsets are what pipes need; the rest are integers.
        unsafe {
            libc::splice(
                source,
                std::ptr::null_mut(),
                target,
                std::ptr::null_mut(),
                count,
                libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
            )
        }
        .try_into()
        .unwrap_or(-1)
    })?;
    Ok(usize::try_from(moved).unwrap_or(0))
}

/// A pipe: the read end, then the write end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that pipe2 writes.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    check("pipe2", result.into())?;
    Ok((check_fd("pipe2", ends[0].into())?, check_fd("pipe2", ends[1].into())?))
}

/// fcntl(F_DUPFD_CLOEXEC): a duplicate at `lowest` or above.
pub fn duplicate(fd: impl AsFd, lowest: i32) -> Result<OwnedFd> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) };
    check_fd("fcntl", duplicate.into())
}

/// Places a duplicate at exactly `number`, inherited over exec: for stdio and for the
/// descriptors that `--preserve-fds` passes.
pub fn place(fd: impl AsFd, number: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    if fd == number {
        // SAFETY: F_SETFD takes an integer.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        return check("fcntl", result.into()).map(drop);
    }
    // SAFETY: dup3 takes two integers; what stood at `number` belongs to the process as a
    // whole (stdio), not to an owner in this program.
    let result = unsafe { libc::dup3(fd, number, 0) };
    check("dup3", result.into()).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC only sets a flag; no descriptor is closed.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check("close_range", result).map(drop)
}

/// Closes every descriptor from `first` on, but for those `kept` (close_range(2)). For the
/// last steps before an exec: owners of the closed descriptors must not be used or dropped
/// after.
pub fn close_from(first: u32, kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> =
        kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut from = first;
    for end in kept.into_iter().filter(|fd| *fd >= first).chain([u32::MAX]) {
        if end > from {
            let to = if end == u32::MAX { end } else { end - 1 };
            // SAFETY: close_range takes integers; the caller gives the descriptors up.
            let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
            check("close_range", result)?;
        }
        from = end.saturating_add(1);
    }
    Ok(())
}

/// The calling thread gets descriptors of its own: those below `first`, and what it opens from now
/// on (close_range(2), `CLOSE_RANGE_UNSHARE`). The cost does not grow with the number of those that
/// it leaves. Other threads keep all: what they own means nothing in this one, and must be neither
/// used nor dropped there.
pub fn leave_from(first: u32) -> Result<()> {
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: close_range takes integers; what is closed is this thread's copy, which has no owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    check("close_range", result).map(drop)
}

/// Whether `number` is an open descriptor of this process.
#[must_use]
pub fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD takes no argument and changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Takes over a descriptor that this process was given by its number: the result is a
/// duplicate, and the number is closed.
pub fn take(number: i32) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    let duplicate = check_fd("fcntl", duplicate.into()).map_err(|e| e.on(number))?;
    // SAFETY: the caller has the number from outside of this program, so that it has no
    // owner in it.
    check("close", unsafe { libc::close(number) }.into())?;
    Ok(duplicate)
}

/// Whether a descriptor was opened for writing.
pub fn is_writable(fd: impl AsFd) -> Result<bool> {
    // SAFETY: F_GETFL takes no argument and changes nothing.
    let flags = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) };
    let mode = check("fcntl", flags.into())? & i64::from(libc::O_ACCMODE);
    Ok(mode != i64::from(libc::O_RDONLY))
}

/// Sets or clears `O_NONBLOCK`.
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: F_GETFL takes no argument and changes nothing.
    let flags = check("fcntl", unsafe { libc::fcntl(fd, libc::F_GETFL) }.into())?;
    let flags = i32::try_from(flags).unwrap_or(0);
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: F_SETFL takes an integer.
    check("fcntl", unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }.into()).map(drop)
}

/// Takes an exclusive record lock (fcntl(2), F_SETLKW), waiting for it. Unlike flock(2)'s it
/// belongs to this process alone: a child made by clone does not hold it.
pub fn lock(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: all-zero is a valid flock: the whole file.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: F_SETLKW reads a flock.
    retry("fcntl", || unsafe { libc::fcntl(fd, libc::F_SETLKW, &raw const whole) }.into()).map(drop)
}

/// mkfifoat(2).
pub fn mkfifoat(dir: impl AsFd, name: &CStr, mode: u32) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::mkfifoat(dir, name.as_ptr(), mode) };
    check("mkfifoat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// mkdirat(2).
pub fn mkdirat(dir: impl AsFd, name: &CStr, mode: u32) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::mkdirat(dir, name.as_ptr(), mode) };
    check("mkdirat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// renameat(2) within one directory.
pub fn rename(dir: impl AsFd, from: &CStr, to: &CStr) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: both names are NUL-terminated strings that outlive the call.
    let result = unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) };
    check("renameat", result.into()).map(drop).map_err(|e| e.on(to.to_string_lossy()))
}

/// A memory file that is closed over exec, and can be sealed.
pub fn memory_file(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    check_fd("memfd_create", fd.into())
}

/// Seals a memory file against every change of content, size and seals.
pub fn seal(fd: impl AsFd) -> Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer.
    let result = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) };
    check("fcntl", result.into()).map(drop)
}

/// sendfile(2) of `count` bytes from the start of `source`.
pub fn copy_all(source: impl AsFd, target: impl AsFd, count: u64) -> Result<()> {
    let (source, target) = (source.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let mut offset: libc::off_t = 0;
    while u64::try_from(offset).unwrap_or(u64::MAX) < count {
        let left = usize::try_from(count).unwrap_or(usize::MAX);
        // SAFETY: `offset` is a valid place for the kernel to keep the position.
        let n = retry("sendfile", || unsafe {
            libc::sendfile(target, source, &raw mut offset, left) as libc::c_long
        })?;
        if n == 0 {
            return Err(Error::new("sendfile", libc::ENODATA));
        }
    }
    Ok(())
}

/// Whether the file's mount is read-only (fstatfs's `ST_RDONLY`), or the file is a memory
/// file sealed against writing.
pub fn is_unwritable(fd: impl AsFd) -> Result<bool> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: F_GET_SEALS takes no argument; it fails with EINVAL on other files.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    if seals != -1 && seals & libc::F_SEAL_WRITE != 0 {
        return Ok(true);
    }
    // SAFETY: all-zero is a valid statvfs, which fstatvfs then overwrites.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the kernel to write to.
    let result = unsafe { libc::fstatvfs(fd, &raw mut stat) };
    check("fstatvfs", result.into())?;
    Ok(stat.f_flag & libc::ST_RDONLY != 0)
}

/// Standard input.
// SAFETY: nothing in this program closes descriptor 0.
pub const STDIN: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(0) };

/// Standard output.
// SAFETY: nothing in this program closes descriptor 1.
pub const STDOUT: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(1) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_leaves_the_others_keep() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let (before, after, own) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let before = is_open(number);
                leave_from(3).unwrap();
                let after = is_open(number);
                (before, after, std::fs::File::open("/dev/null").unwrap().as_raw_fd())
            });
            thread.join().unwrap()
        });
        assert_eq!((before, after, own), (true, false, 3));
        assert!(is_open(number));
    }
}
