//! What a container's root gets before its first start, as from docker's init layer: places for
//! mounts, and what programs look for. The image has it or not; it is no change of the container's.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    self as sys, entry, fd,
    path::{self, Links},
};

use crate::{changes::Source, pack::attributes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    /// Empty.
    File,
    Link(&'static CStr),
}

/// By directory, in the order in which they are made.
const ALL: [(&str, &[(&CStr, Kind)]); 3] = [
    (
        "",
        &[
            (c".dockerenv", Kind::File),
            (c"dev", Kind::Directory),
            (c"etc", Kind::Directory),
            (c"proc", Kind::Directory),
            (c"sys", Kind::Directory),
        ],
    ),
    ("dev", &[(c"console", Kind::File), (c"pts", Kind::Directory), (c"shm", Kind::Directory)]),
    (
        "etc",
        &[
            (c"hostname", Kind::File),
            (c"hosts", Kind::File),
            (c"mtab", Kind::Link(c"/proc/mounts")),
            (c"resolv.conf", Kind::File),
        ],
    ),
];

const MODE: u32 = 0o755;

/// Makes what is not there, whatever is there instead, of a container that has changed nothing
/// yet: in the upper directory of an overlay, which is not mounted (its end would wait for the
/// disk), or in a tree.
///
/// # Errors
/// The kernel's.
pub fn make(source: &Source<'_>) -> Result<()> {
    let (Source::Upper(root, below) | Source::Tree(root, below)) = *source;
    for (directory, entries) in ALL {
        make_in(root, below, directory, entries).with_context(|| format!("/{directory}"))?;
    }
    Ok(())
}

fn make_in(
    root: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    directory: &str,
    entries: &[(&CStr, Kind)],
) -> Result<()> {
    const FLAGS: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
    let at = if directory.is_empty() { "." } else { directory };
    let opened = below.map(|below| path::open_in_root(below, at, FLAGS, 0, Links::Refuse));
    let image = match opened.transpose() {
        Err(error) if error.errno() == libc::ENOENT => None,
        // A link, or no directory: the runtime says what it thinks of that.
        Err(error) if matches!(error.errno(), libc::ENOTDIR | libc::ELOOP) => return Ok(()),
        opened => opened?,
    };
    let mut missing = Vec::new();
    for (name, kind) in entries {
        let found = image.as_ref().map(|image| path::stat_at(image, name)).transpose();
        match found {
            Err(error) if error.errno() == libc::ENOENT => missing.push((name, kind)),
            found => missing.extend(found?.is_none().then_some((name, kind))),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let place = path::c_path(at)?;
    let is_new = match fd::mkdirat(root, &place, MODE) {
        Err(error) if error.errno() == libc::EEXIST => false,
        made => made.map(|()| true)?,
    };
    let place = fd::openat(root, &place, FLAGS | libc::O_NOFOLLOW, 0)?;
    if let (true, Some(image)) = (is_new, &image) {
        // As overlayfs copies a directory up.
        let stat = path::stat(image)?;
        entry::chown_of(&place, stat.st_uid, stat.st_gid)?;
        entry::chmod_of(&place, stat.st_mode & 0o7777)?;
        for (name, value) in attributes(image)? {
            path::set_attribute(&place, &CString::new(name)?, &value)?;
        }
    }
    for (name, kind) in missing {
        make_one(&place, name, *kind)?;
    }
    if let Some(image) = &image {
        // What it was is still what it is.
        let stat = path::stat(image)?;
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        entry::set_times_of(&place, entry::Time { seconds: stat.st_mtime, nanoseconds })?;
    }
    Ok(())
}

/// Leaves what is there.
fn make_one(directory: &OwnedFd, name: &CStr, kind: Kind) -> sys::Result<()> {
    let made = || -> sys::Result<()> {
        let file = match kind {
            Kind::Link(target) => return path::symlink(target, directory, name),
            Kind::Directory => {
                fd::mkdirat(directory, name, MODE)?;
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                fd::openat(directory, name, flags, 0)?
            }
            Kind::File => {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
                fd::openat(directory, name, flags, MODE)?
            }
        };
        // Whatever the umask is.
        entry::chmod_of(&file, MODE)
    };
    match made() {
        Err(error) if error.errno() == libc::EEXIST => Ok(()),
        made => made,
    }
}

/// What an added file is to those who look for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    /// The container's.
    Change,
    /// A directory as it was made: what is in it may be the container's.
    Directory,
    /// As it was made.
    Untouched,
}

/// Whether a file that was added is one of these, as it was made.
pub(crate) fn what_is(directory: &OwnedFd, name: &CStr, path: &[u8]) -> Result<Is> {
    let (parent, _) = crate::tar::split(path);
    let listed = ALL.iter().find(|(directory, _)| directory.as_bytes() == parent);
    let listed = listed.and_then(|(_, entries)| entries.iter().find(|(one, _)| *one == name));
    let Some((_, kind)) = listed else { return Ok(Is::Change) };
    let stat = path::stat_at(directory.as_fd(), name)?;
    let owner = (stat.st_uid, stat.st_gid) == (0, 0);
    let shape = (stat.st_mode & libc::S_IFMT, stat.st_mode & 0o7777, stat.st_size, stat.st_nlink);
    Ok(match (kind, shape) {
        (Kind::Directory, (libc::S_IFDIR, MODE, _, _)) if owner => Is::Directory,
        (Kind::File, (libc::S_IFREG, MODE, 0, 1)) if owner => Is::Untouched,
        (Kind::Link(target), (libc::S_IFLNK, ..))
            if owner && **target == *path::c_path(path::readlink(directory, name)?)? =>
        {
            Is::Untouched
        }
        _ => Is::Change,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, Permissions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::changes::{Change, changes};

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    /// An image, and a container's upper directory.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.path("image")).unwrap();
            fs::create_dir(place.path("upper")).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn look<T>(&self, look: impl FnOnce(&Source<'_>) -> Result<T>) -> T {
            let (upper, image) = (open(&self.path("upper")), open(&self.path("image")));
            look(&Source::Upper(upper.as_fd(), Some(image.as_fd()))).unwrap()
        }

        fn shown(&self) -> Vec<String> {
            let text = |change: Change| {
                format!("{:?} {}", change.kind, String::from_utf8(change.path).unwrap())
            };
            self.look(changes).into_iter().map(text).collect()
        }
    }

    #[test]
    fn what_is_missing_is_made_and_is_no_change() {
        let place = Place::new();
        fs::create_dir(place.path("image/etc")).unwrap();
        fs::write(place.path("image/etc/hosts"), "own").unwrap();
        fs::set_permissions(place.path("image/etc"), Permissions::from_mode(0o751)).unwrap();
        place.look(make);
        let mtab = fs::read_link(place.path("upper/etc/mtab")).unwrap();
        assert_eq!(mtab, Path::new("/proc/mounts"));
        assert!(!place.path("upper/etc/hosts").exists());
        let [before, after] =
            ["image/etc", "upper/etc"].map(|name| fs::metadata(place.path(name)).unwrap());
        assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
        assert_eq!(fs::metadata(place.path("upper/dev/shm")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(place.shown(), [""; 0]);
        fs::write(place.path("upper/etc/hostname"), "x").unwrap();
        fs::remove_file(place.path("upper/etc/mtab")).unwrap();
        symlink("/elsewhere", place.path("upper/etc/mtab")).unwrap();
        fs::set_permissions(place.path("upper/sys"), Permissions::from_mode(0o700)).unwrap();
        fs::write(place.path("upper/dev/own"), "").unwrap();
        let shown = [
            "Modified /dev",
            "Added /dev/own",
            "Modified /etc",
            "Added /etc/hostname",
            "Added /etc/mtab",
            "Added /sys",
        ];
        assert_eq!(place.shown(), shown);
    }

    #[test]
    fn a_tree_gets_the_same() {
        let place = Place::new();
        fs::create_dir_all(place.path("image/etc")).unwrap();
        fs::create_dir_all(place.path("upper/etc")).unwrap();
        let (tree, image) = (open(&place.path("upper")), open(&place.path("image")));
        let source = Source::Tree(tree.as_fd(), Some(image.as_fd()));
        make(&source).unwrap();
        assert!(place.path("upper/etc/mtab").is_symlink());
        assert_eq!(changes(&source).unwrap(), []);
        // Of nothing.
        let bare = tempfile::tempdir().unwrap();
        let tree = open(bare.path());
        make(&Source::Upper(tree.as_fd(), None)).unwrap();
        assert!(bare.path().join("dev/pts").is_dir());
        assert_eq!(changes(&Source::Upper(tree.as_fd(), None)).unwrap(), []);
    }

    #[test]
    fn what_the_image_has_instead_stays() {
        let place = Place::new();
        symlink("/usr/etc", place.path("image/etc")).unwrap();
        fs::create_dir_all(place.path("image/usr/etc")).unwrap();
        fs::write(place.path("image/dev"), "").unwrap();
        place.look(make);
        let mut made: Vec<_> = fs::read_dir(place.path("upper"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        made.sort();
        assert_eq!(made, [".dockerenv", "proc", "sys"]);
    }
}
