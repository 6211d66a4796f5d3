//! How much a directory holds.

use std::{collections::HashSet, os::fd::OwnedFd};

use hull_manager_core::{Error, Result};
use hull_runtime_sys::{
    fd::openat,
    path::{entries, is_directory, stat, stat_at},
};
use libc::{O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};

use crate::Usage;

/// Directories within directories.
const MAX_DEPTH: usize = 4096;

/// Counts bytes of files and inodes below an open directory, itself included; a file with several
/// names once. A container may change it meanwhile: no name is followed anywhere else.
pub(crate) fn measure(root: OwnedFd) -> Result<Usage> {
    let internal = |error: hull_runtime_sys::Error| Error::from(anyhow::Error::new(error));
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let mut add = |found: &libc::stat| {
        if found.st_nlink < 2 || is_directory(found) || seen.insert(found.st_ino) {
            usage.bytes += content(found);
            usage.inodes += 1;
        }
    };
    add(&stat(&root).map_err(internal)?);
    let mut open = vec![(entries(&root).map_err(internal)?.into_iter(), root)];
    while let Some((names, directory)) = open.last_mut() {
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        // What is gone by now takes nothing.
        let Ok(found) = stat_at(&*directory, &name) else { continue };
        add(&found);
        if is_directory(&found) && open.len() < MAX_DEPTH {
            let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
            let Some((_, directory)) = open.last() else { break };
            let Ok(below) = openat(directory, &name, flags, 0) else { continue };
            let Ok(names) = entries(&below) else { continue };
            open.push((names.into_iter(), below));
        }
    }
    Ok(usage)
}

/// What a file counts: what is in it, as docker has it. Directories and blocks are the disk's
/// affair.
pub(crate) fn content(found: &libc::stat) -> u64 {
    match found.st_mode & libc::S_IFMT {
        libc::S_IFREG => u64::try_from(found.st_size).unwrap_or(0),
        _ => 0,
    }
}
