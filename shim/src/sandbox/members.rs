//! The containers of a sandbox on disk, for `delete` after the shim's death: containerd then
//! calls it for the sandbox alone, and knows of no shim of the containers.
//!
//! In the sandbox's bundle, which is root's alone: one symlink a container, to its bundle.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hull_specs_oci::ContainerId;

/// The directory of symlinks.
const DIRECTORY: &str = "containers";

/// Notes a container before anything of it is made.
///
/// # Errors
/// The sandbox's bundle cannot be written.
pub(super) fn add(sandbox: &Path, id: &str, bundle: &Path) -> Result<()> {
    let directory = sandbox.join(DIRECTORY);
    let link = directory.join(id);
    let context = || format!("cannot note the container in {}", directory.display());
    fs::create_dir_all(&directory).with_context(context)?;
    match symlink(bundle, &link) {
        // Left by a failure; the container is another one of the same name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&link).and_then(|()| symlink(bundle, &link))
        }
        result => result,
    }
    .with_context(context)
}

/// Forgets a container. Its sandbox's bundle may be gone before it.
///
/// # Errors
/// The sandbox's bundle cannot be written.
pub(super) fn remove(sandbox: &Path, id: &str) -> Result<()> {
    let link = sandbox.join(DIRECTORY).join(id);
    match fs::remove_file(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", link.display())),
    }
}

/// The containers that a bundle's sandbox has, with their bundles; none if it is no sandbox's.
///
/// # Errors
/// The directory is there and cannot be read.
pub(crate) fn list(bundle: &Path) -> Result<Vec<(String, PathBuf)>> {
    let directory = bundle.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut members = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<ContainerId>() else { continue };
        let link = entry.path();
        let target =
            fs::read_link(&link).with_context(|| format!("cannot read {}", link.display()))?;
        members.push((id.to_string(), target));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_noted_and_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let sandbox = place.path();
        assert_eq!(list(sandbox).unwrap(), []);
        remove(sandbox, "one").unwrap();
        add(sandbox, "one", Path::new("/old")).unwrap();
        add(sandbox, "one", Path::new("/b/one")).unwrap();
        add(sandbox, "two", Path::new("/b/two")).unwrap();
        let mut members = list(sandbox).unwrap();
        members.sort();
        let expected = [("one", "/b/one"), ("two", "/b/two")];
        assert_eq!(members, expected.map(|(id, path)| (id.to_owned(), path.into())));
        remove(sandbox, "one").unwrap();
        remove(sandbox, "one").unwrap();
        assert_eq!(list(sandbox).unwrap().len(), 1);
    }
}
