//! How much a volume holds.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use anyhow::Result;
use hull_runtime_sys::path::{self, Links};

/// Bytes on the disk of all below a directory, hard links once. What changes meanwhile counts
/// with either size; other file systems that are mounted there don't count.
pub(crate) fn bytes(root: impl AsFd) -> Result<u64> {
    let root = root.as_fd();
    let device = path::stat(root)?.st_dev;
    let mut seen = HashSet::new();
    let mut pending = vec![PathBuf::from(".")];
    let mut total = 0_u64;
    while let Some(relative) = pending.pop() {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened: Result<OwnedFd, _> =
            path::open_in_root(root, &relative, flags, 0, Links::Refuse);
        // Gone, or no directory any more.
        let Ok(directory) = opened else { continue };
        for name in path::entries(&directory)? {
            let Ok(stat) = path::stat_at(&directory, &name) else { continue };
            if stat.st_dev != device
                || stat.st_nlink > 1 && !path::is_directory(&stat) && !seen.insert(stat.st_ino)
            {
                continue;
            }
            total = total.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
            if path::is_directory(&stat) {
                use std::os::unix::ffi::OsStrExt as _;
                pending.push(relative.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), vec![1; 100_000]).unwrap();
        fs::hard_link(directory.path().join("a/b"), directory.path().join("c")).unwrap();
        std::os::unix::fs::symlink("/usr", directory.path().join("d")).unwrap();
        let root = path::open_without_links(directory.path(), libc::O_PATH).unwrap();
        let found = bytes(&root).unwrap();
        assert!((100_000..200_000).contains(&found), "{found}");
    }
}
