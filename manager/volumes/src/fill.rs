//! Filling an empty volume with what the image has at its place.
//!
//! Killed at any instruction, the volume is empty or whole the next time it is used:
//!
//! | left behind | the next use |
//! | --- | --- |
//! | `.hull-staged`, in part filled | removes it: the volume counts as empty |
//! | `.hull-filled`, whole | moves what is in it out, and removes it |

use std::{
    ffi::CStr,
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{fd, path};

const STAGED: &CStr = c".hull-staged";
const FILLED: &CStr = c".hull-filled";

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Brings the volume to a whole state, and says whether it is empty.
fn settle(root: &OwnedFd) -> Result<bool> {
    let names = path::entries(fd::openat(root, c".", DIRECTORY, 0)?)?;
    if names.iter().any(|name| name.as_c_str() == FILLED) {
        finish(root)?;
        return Ok(false);
    }
    if names.iter().any(|name| name.as_c_str() == STAGED) {
        remove_tree(root, STAGED)?;
    }
    Ok(names.iter().all(|name| name.as_c_str() == STAGED || name.as_c_str() == c"lost+found"))
}

/// Fills the volume whose root is open, if it is empty: `write` gets a directory to write into,
/// whose own owner and mode become the volume's, too. Says whether it was filled.
pub(crate) fn fill(root: &OwnedFd, write: impl FnOnce(&OwnedFd) -> Result<()>) -> Result<bool> {
    // Two containers that begin at once fill one volume once. The lock ends with its descriptor.
    let lock = fs::File::from(fd::openat(root, c".", DIRECTORY, 0)?);
    lock.lock().context("lock a volume")?;
    if !settle(root)? {
        return Ok(false);
    }
    fd::mkdirat(root, STAGED, 0o700)?;
    let staged = fd::openat(root, STAGED, DIRECTORY, 0)?;
    if let Err(error) = write(&staged).and_then(|()| Ok(fd::sync(&staged)?)) {
        drop(remove_tree(root, STAGED));
        return Err(error);
    }
    fd::rename(root, STAGED, FILLED)?;
    finish(root)?;
    Ok(true)
}

fn finish(root: &OwnedFd) -> Result<()> {
    let filled = fd::openat(root, FILLED, DIRECTORY, 0)?;
    let stat = path::stat(&filled)?;
    for name in path::entries(&filled)? {
        path::move_new(&filled, &name, root, &name)?;
    }
    path::chown(root, stat.st_uid, stat.st_gid)?;
    path::chmod(root, stat.st_mode & 0o7777)?;
    remove_tree(root, FILLED)
}

/// Removes a tree by its name in a directory that is open. No link is followed: neither the name
/// itself nor any below it (std removes by descriptors).
fn remove_tree(root: &OwnedFd, name: &CStr) -> Result<()> {
    let directory = format!("/proc/self/fd/{}", root.as_raw_fd());
    let path = Path::new(&directory).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
    fs::remove_dir_all(&path).with_context(|| format!("remove {}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use anyhow::bail;

    use super::*;

    fn root(directory: &Path) -> OwnedFd {
        path::open_without_links(directory, libc::O_PATH | libc::O_DIRECTORY).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Where a descriptor's directory is.
    fn at(directory: &OwnedFd) -> std::path::PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap()
    }

    fn write(directory: &OwnedFd) -> Result<()> {
        fs::write(at(directory).join("a"), "1")?;
        fs::create_dir(at(directory).join("b"))?;
        fs::write(at(directory).join("b/c"), "2")?;
        path::chmod(directory, 0o1751)?;
        Ok(())
    }

    #[test]
    fn an_empty_volume_is_filled_once_and_takes_the_mode() {
        let volume = tempfile::tempdir().unwrap();
        let root = root(volume.path());
        assert!(fill(&root, write).unwrap());
        assert_eq!(names(volume.path()), ["a", "b"]);
        assert_eq!(fs::read(volume.path().join("b/c")).unwrap(), b"2");
        assert_eq!(fs::metadata(volume.path()).unwrap().permissions().mode() & 0o7777, 0o1751);
        assert!(!fill(&root, |_| bail!("not asked")).unwrap());
    }

    #[test]
    fn a_failure_leaves_it_empty() {
        let volume = tempfile::tempdir().unwrap();
        let root = root(volume.path());
        let failed = fill(&root, |staged| {
            write(staged)?;
            bail!("no space")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no space");
        assert_eq!(names(volume.path()), [""; 0]);
    }

    #[test]
    fn what_a_killed_manager_left_is_undone_or_finished() {
        let volume = tempfile::tempdir().unwrap();
        let root = root(volume.path());
        // Killed while it wrote: begins again.
        fs::create_dir_all(volume.path().join(".hull-staged/half")).unwrap();
        assert!(fill(&root, write).unwrap());
        assert_eq!(names(volume.path()), ["a", "b"]);
        // Killed after it had written all, and moved some.
        fs::create_dir(volume.path().join(".hull-filled")).unwrap();
        fs::rename(volume.path().join("b"), volume.path().join(".hull-filled/b")).unwrap();
        assert!(!fill(&root, |_| bail!("not asked")).unwrap());
        assert_eq!(names(volume.path()), ["a", "b"]);
    }

    #[test]
    fn a_link_in_the_place_of_the_staging_is_not_followed() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("canary"), "1").unwrap();
        std::os::unix::fs::symlink(other.path(), volume.path().join(".hull-staged")).unwrap();
        let result = fill(&root(volume.path()), write);
        assert!(result.is_err() || names(volume.path()) == ["a", "b"]);
        assert_eq!(names(other.path()), ["canary"]);
    }
}
