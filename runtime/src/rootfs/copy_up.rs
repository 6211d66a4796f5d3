//! `tmpcopyup`: what a directory holds, copied into the tmpfs that will cover it.
//!
//! Copied are directories, files, links, device files and pipes, with mode and owner. The
//! walk goes by descriptors and follows no link; it ends at a depth that no honest image
//! has, because each level holds two descriptors.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use hull_runtime_sys::{
    fd::{mkdirat, openat},
    path,
};

const DEPTH_LIMIT: u32 = 200;

/// Copies the content of the directory `from` into the directory `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let (from, to) = (openat(from, c".", flags, 0)?, openat(to, c".", flags, 0)?);
    copy_directory(from.as_fd(), to.as_fd(), 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    ensure!(depth < DEPTH_LIMIT, "directories are nested more than {DEPTH_LIMIT} deep");
    for name in path::entries(from)? {
        copy_entry(from, to, &name, depth)
            .with_context(|| format!("error copying {}", name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let stat = path::stat_at(from, name)?;
    let mode = stat.st_mode & 0o7777;
    let no_follow = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let copy: OwnedFd = match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let source = openat(from, name, flags, 0)?;
            mkdirat(to, name, 0o700)?;
            let copy = openat(to, name, flags, 0)?;
            copy_directory(source.as_fd(), copy.as_fd(), depth + 1)?;
            copy
        }
        libc::S_IFREG => {
            let mut source = File::from(openat(from, name, libc::O_RDONLY | no_follow, 0)?);
            ensure!(source.metadata()?.is_file(), "it was replaced while being copied");
            let create = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let mut copy = File::from(openat(to, name, create, 0o600)?);
            io::copy(&mut source, &mut copy)?;
            copy.into()
        }
        libc::S_IFLNK => {
            let target = path::readlink(from, name)?;
            path::symlink(&path::c_path(target)?, to, name)?;
            openat(to, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?
        }
        kind => {
            path::mknod(to, name, kind | 0o600, stat.st_rdev)?;
            openat(to, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?
        }
    };
    // The owner first: a change of owner takes set-id bits away.
    path::chown(&copy, stat.st_uid, stat.st_gid)?;
    if !path::is_link(&stat) {
        path::chmod(&copy, mode)?;
    }
    Ok(())
}
