//! Removing whatever is at a name, however deep it is.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Result, bail};
use hull_runtime_sys::{entry, fd, path};

/// Descriptors held at once. A container may nest directories deeper than a process may hold
/// descriptors: those above are closed, and found again by `..`.
const MAX_HELD: usize = 64;

const FLAGS: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

struct Level {
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    name: CString,
    names: Vec<CString>,
}

/// Removes the file `name` in `parent`, or the directory with all that is in it. That it is not
/// there is well.
///
/// # Errors
/// If the kernel refuses, or the directories are moved about meanwhile.
pub fn remove(parent: impl AsFd, name: &CStr) -> Result<()> {
    let parent = parent.as_fd();
    match path::unlink(parent, name) {
        Err(error) if error.errno() == libc::EISDIR => {}
        Err(error) if error.errno() == libc::ENOENT => return Ok(()),
        result => return Ok(result?),
    }
    let mut levels = vec![open(parent, name)?];
    while let Some(level) = levels.last_mut() {
        let Some(fd) = &level.fd else { bail!("a directory was moved while it was removed") };
        if let Some(name) = level.names.pop() {
            match path::unlink(fd, &name) {
                Err(error) if error.errno() == libc::EISDIR => {
                    let next = open(fd, &name)?;
                    if levels.len() >= MAX_HELD {
                        let above = levels.len() - MAX_HELD;
                        if let Some(level) = levels.get_mut(above) {
                            level.fd = None;
                        }
                    }
                    levels.push(next);
                }
                Err(error) if error.errno() == libc::ENOENT => {}
                result => result?,
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        match levels.last_mut() {
            None => {
                drop(done.fd);
                entry::remove_directory(parent, &done.name)?;
            }
            Some(above) => {
                if above.fd.is_none() {
                    above.fd = done.fd.as_ref().map(|fd| back(fd, above.identity)).transpose()?;
                }
                if let Some(fd) = &above.fd {
                    entry::remove_directory(fd, &done.name)?;
                }
            }
        }
    }
    Ok(())
}

fn open(parent: impl AsFd, name: &CStr) -> Result<Level> {
    let fd = fd::openat(parent, name, FLAGS, 0)?;
    let stat = path::stat(&fd)?;
    let names = path::entries(&fd)?;
    Ok(Level { fd: Some(fd), identity: (stat.st_dev, stat.st_ino), name: name.to_owned(), names })
}

/// The directory above, if it is still the one that we came from.
fn back(fd: &OwnedFd, identity: (u64, u64)) -> Result<OwnedFd> {
    let above = fd::openat(fd, c"..", FLAGS, 0)?;
    let stat = path::stat(&above)?;
    if (stat.st_dev, stat.st_ino) != identity {
        bail!("a directory was moved while it was removed");
    }
    Ok(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_descriptors_is_removed_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), b"").unwrap();
        let root =
            fd::openat(fd::AT_FDCWD, &path::c_path(directory.path()).unwrap(), FLAGS, 0).unwrap();
        fd::mkdirat(&root, c"deep", 0o700).unwrap();
        let mut at = fd::openat(&root, c"deep", FLAGS, 0).unwrap();
        for _ in 0..3000 {
            fd::mkdirat(&at, c"d", 0o700).unwrap();
            path::symlink(c"/../outside", &at, c"link").unwrap();
            fd::openat(&at, c"file", libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap();
            at = fd::openat(&at, c"d", FLAGS, 0).unwrap();
        }
        path::symlink(path::c_path(&outside).unwrap().as_c_str(), &at, c"away").unwrap();
        remove(&root, c"deep").unwrap();
        assert!(!directory.path().join("deep").exists());
        assert!(outside.join("kept").exists());
        remove(&root, c"deep").unwrap();
    }
}
