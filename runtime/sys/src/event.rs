//! Descriptors that become readable when something happens elsewhere: eventfd, inotify.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use crate::{Error, Result, check, check_fd};

/// A new eventfd with the value 0, non-blocking.
///
/// # Errors
/// `EMFILE` and the like.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check_fd("eventfd2", fd.into())
}

/// A new inotify instance, non-blocking.
///
/// # Errors
/// `EMFILE` when the user has too many.
pub fn inotify() -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    check_fd("inotify_init1", fd.into())
}

/// Watches the file at `path` for modifications; returns the watch's number, which the events
/// carry.
///
/// # Errors
/// `ENOENT`, `ENOSPC` when the user has too many watches.
pub fn watch_modifications(inotify: impl AsFd, path: &Path) -> Result<i32> {
    watch(inotify, path, libc::IN_MODIFY)
}

fn watch(inotify: impl AsFd, path: &Path, mask: u32) -> Result<i32> {
    let call = "inotify_add_watch";
    let text = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(call, libc::EINVAL).on(path.display()))?;
    // SAFETY: `text` is a NUL-terminated string that outlives the call.
    let watch =
        unsafe { libc::inotify_add_watch(inotify.as_fd().as_raw_fd(), text.as_ptr(), mask) };
    check(call, watch.into()).map_err(|error| error.on(path.display()))?;
    Ok(watch)
}

/// Watches the directory at `path` for files of it that are modified, made, or renamed into it.
///
/// # Errors
/// `ENOENT`, `ENOSPC` when the user has too many watches.
pub fn watch_directory(inotify: impl AsFd, path: &Path) -> Result<i32> {
    watch(inotify, path, libc::IN_MODIFY | libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR)
}
