//! The drivers' own directories.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::Path,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::mount::{Attributes, Change, copy_at, set_attributes};

use crate::Mount;

pub(crate) fn make(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().mode(mode).create(path).about(path.display())?;
    // Whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).about(path.display())
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    Ok(fs::File::open(path).about(path.display())?.into())
}

/// How to mount a directory as a root.
pub(crate) fn bind(path: &Path, read_only: bool) -> Mount {
    Mount {
        kind: "bind".into(),
        source: path.display().to_string(),
        options: vec!["rbind".into(), if read_only { "ro" } else { "rw" }.into()],
    }
}

/// A mount of a directory that is attached nowhere.
pub(crate) fn detached(path: &Path, read_only: bool) -> Result<OwnedFd> {
    let internal = |error: hull_runtime_sys::Error| Error::from(anyhow::Error::new(error));
    let mount = copy_at(path, false).map_err(internal)?;
    if read_only {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        set_attributes(&mount, change, false).map_err(internal)?;
    }
    Ok(mount)
}
