//! Places of a container's own, where mounts wait for the runtime.
//!
//! The runtime takes the source of a bind mount as a path. A path into a volume could be changed by
//! a container that has the volume mounted, between our look and the runtime's (CVE-2017-1002101):
//! so what is below a volume's root is opened beneath its descriptor, once, and that very directory
//! is mounted at a place that no container can reach: `VOLUMES/CONTAINER/N`, below directories of
//! mode 0700 of the manager's own.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use hull_manager_core::{Error, Result, error::IoContext as _, files::private_directory};
use hull_runtime_sys::{
    mount::{self, Change, Propagation},
    path::{self, Links},
};

/// What is at `subpath` beneath `root`, links followed inside it, whoever changes it meanwhile.
pub(crate) fn find(root: impl AsFd, subpath: &str) -> Result<OwnedFd> {
    let relative = Path::new(subpath);
    let plain = relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !plain {
        return Err(Error::invalid("subpath must be a relative path within the volume"));
    }
    path::open_in_root(root, relative, libc::O_PATH, 0, Links::Follow).map_err(|cause| {
        let what = format!("subpath {subpath:?}");
        match cause.errno() {
            libc::ENOENT => Error::invalid(format!("{what} does not exist")),
            _ => Error::from(anyhow::Error::new(cause).context(what)),
        }
    })
}

/// A copy of the mount that `file` is on, beginning there, at a new place of the container's.
pub(crate) fn put(all: &Path, container: &str, file: impl AsFd) -> Result<PathBuf> {
    let detached = mount::copy_of(&file, true).context("copy a mount")?;
    // What the host mounts or unmounts later at the original is not the container's.
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    mount::set_attributes(&detached, private, true).context("a mount's propagation")?;
    attach(all, container, detached)
}

/// Attaches a detached mount at a new place of the container's.
pub(crate) fn attach(all: &Path, container: &str, detached: impl AsFd) -> Result<PathBuf> {
    let directory = all.join(container);
    private_directory(&directory, 0o700)?;
    let is_directory = path::is_directory(&path::stat(&detached).context("stat a mount")?);
    let count = fs::read_dir(&directory).about(directory.display())?.count();
    let place = directory.join(count.to_string());
    if is_directory {
        fs::create_dir(&place).about(place.display())?;
    } else {
        fs::File::create_new(&place).about(place.display())?;
    }
    let target = path::open_without_links(&place, libc::O_PATH).context("a place")?;
    mount::attach(&detached, &target).with_context(|| format!("mount {}", place.display()))?;
    Ok(place)
}

/// Unmounts and removes all places of a container. What is not there is no error.
pub(crate) fn clear(all: &Path, container: &str) -> Result<()> {
    let directory = all.join(container);
    let places = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        places => places.about(directory.display())?,
    };
    for place in places {
        let place = place.about(directory.display())?.path();
        unmount_all(&place)?;
        let kind = fs::symlink_metadata(&place).about(place.display())?;
        let removed = if kind.is_dir() { fs::remove_dir(&place) } else { fs::remove_file(&place) };
        removed.about(place.display())?;
    }
    fs::remove_dir(&directory).about(directory.display())
}

/// Unmounts all that lies at a path, lazily: the container may still have it open.
pub(crate) fn unmount_all(path: &Path) -> Result<()> {
    // So many mounts on one another nobody makes here.
    for _ in 0..64 {
        match mount::unmount(path, true) {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::ENOENT) => return Ok(()),
            Err(error) => return Err(anyhow::Error::new(error).into()),
        }
    }
    Err(Error::internal(format!("{} stays mounted", path.display())))
}
