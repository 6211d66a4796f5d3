//! Files: opening in a root, status, permission, owner.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{Error, Result, check, check_fd, retry};

/// How often a lookup that raced with a rename or mount is repeated before it fails.
const LOOKUP_ATTEMPTS: u32 = 128;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2) with `root` as the root directory: no `..`, absolute link or link of procfs
/// leads out of it. `O_CLOEXEC` is always set. A lookup that the kernel gave up because of
/// a concurrent rename (`EAGAIN`) is repeated, within a bound.
pub fn open_in_root(root: impl AsFd, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: u64::try_from(flags | libc::O_CLOEXEC).unwrap_or(0),
        mode: 0,
        resolve: libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
    };
    let root = root.as_fd().as_raw_fd();
    let mut attempts = LOOKUP_ATTEMPTS;
    loop {
        // SAFETY: `path` is NUL-terminated; pointer and size describe `how`.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root,
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        match check_fd("openat2", fd) {
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) if error.errno() == libc::EAGAIN && attempts > 0 => attempts -= 1,
            result => return result.map_err(|e| e.on(path.to_string_lossy())),
        }
    }
}

/// What fstat(2) says, as far as anybody here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// File type and permissions (`S_IF*` and below).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size in bytes.
    pub size_bytes: u64,
    /// The device that a device file stands for.
    pub device: (u32, u32),
}

impl Status {
    /// Whether the file is of this type (`S_IFREG` and so on).
    #[must_use]
    pub fn is(&self, kind: libc::mode_t) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

fn status_from(stat: &libc::stat) -> Status {
    Status {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        device: (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
    }
}

/// fstat(2).
pub fn status(fd: impl AsFd) -> Result<Status> {
    // SAFETY: all-zero is a valid stat, which fstat then overwrites.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the kernel to write to.
    let result = unsafe { libc::fstat(fd.as_fd().as_raw_fd(), &raw mut stat) };
    check("fstat", result.into())?;
    Ok(status_from(&stat))
}

/// stat(2) of a path as this process sees it, following links.
pub fn status_of(path: &CStr) -> Result<Status> {
    // SAFETY: all-zero is a valid stat, which stat then overwrites.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `stat` valid for the kernel to write to.
    let result = unsafe { libc::stat(path.as_ptr(), &raw mut stat) };
    check("stat", result.into()).map_err(|e| e.on(path.to_string_lossy()))?;
    Ok(status_from(&stat))
}

/// faccessat2(2) with `AT_EACCESS`: whether the effective user may execute the path; not on
/// a mount without exec.
pub fn may_execute(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS,
        )
    };
    check("faccessat2", result).map(drop).map_err(|e| e.on(path.to_string_lossy()))
}

/// fchown(2) of the owner; the group stays.
pub fn set_owner(fd: impl AsFd, uid: u32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: fchown takes integers; a gid of -1 leaves the group alone.
    retry("fchown", || unsafe { libc::fchown(fd, uid, u32::MAX) }.into()).map(drop)
}

/// Whether the file's mount refuses to execute (fstatvfs's `ST_NOEXEC`).
pub fn is_on_noexec_mount(fd: impl AsFd) -> Result<bool> {
    // SAFETY: all-zero is a valid statvfs, which fstatvfs then overwrites.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the kernel to write to.
    let result = unsafe { libc::fstatvfs(fd.as_fd().as_raw_fd(), &raw mut stat) };
    check("fstatvfs", result.into())?;
    Ok(stat.f_flag & libc::ST_NOEXEC != 0)
}

/// The magic number of the file system that `path` is on (statfs(2)).
pub fn file_system_magic(path: &CStr) -> Result<i64> {
    // SAFETY: all-zero is a valid statfs, which the call then overwrites.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `stat` valid for the kernel to write to.
    let result = retry("statfs", || unsafe { libc::statfs(path.as_ptr(), &raw mut stat) }.into());
    result.map_err(|e: Error| e.on(path.to_string_lossy()))?;
    Ok(stat.f_type)
}
