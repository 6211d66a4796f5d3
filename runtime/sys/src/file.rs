//! Files: status, permission, owner.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd},
};

use crate::{Result, check, retry};

/// What stat(2) says, as far as anybody here asks.
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
