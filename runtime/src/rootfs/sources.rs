//! Sources of bind mounts that the container's process cannot open itself.
//!
//! The parent calls this before it makes the container's process: to map ids, which takes
//! privilege over the file system, and, for a container with a user namespace, to reach
//! what only root on the host may reach.

use std::{
    ffi::OsStr,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    fd::{AT_FDCWD, openat},
    mount::{self, Change},
    path::{self, c_path},
};
use hull_specs_oci as oci;

use super::{
    bind::Given,
    plan::Plan,
    steps::{Bind, IdMap, Mapping, Step},
};

/// Gives user namespaces with a mapping: a process has to be made for one, which is not
/// this module's affair.
pub(crate) trait UserNamespaces {
    /// A user namespace that maps ids so.
    fn user_namespace(
        &mut self,
        uids: &[oci::IdMapping],
        gids: &[oci::IdMapping],
    ) -> Result<OwnedFd>;
}

/// What was opened, by the index of its step.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    given: Vec<(usize, Given)>,
}

impl Sources {
    /// Opens, in the parent's namespaces, what the container's process cannot.
    pub(crate) fn open(plan: &Plan, namespaces: &mut dyn UserNamespaces) -> Result<Self> {
        let mut given = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let Step::Bind(bind) = step else { continue };
            // A source that everybody can reach is left to the container's process: there
            // the kernel itself locks the flags that the mount has on the host.
            if bind.id_map.is_none() && (!plan.user_namespace || is_open_to_all(&bind.source)?) {
                continue;
            }
            let tree = open(bind, namespaces).with_context(|| {
                format!(
                    "error opening {:?} for the mount at \"/{}\"",
                    bind.source,
                    bind.destination.display()
                )
            })?;
            given.push((index, Given { tree, lock: plan.user_namespace }));
        }
        Ok(Self { given })
    }

    /// The source of the step with this index, if it was opened.
    pub(super) fn take(&mut self, index: usize) -> Option<Given> {
        let at = self.given.iter().position(|(step, _)| *step == index)?;
        Some(self.given.swap_remove(at).1)
    }
}

fn open(bind: &Bind, namespaces: &mut dyn UserNamespaces) -> Result<OwnedFd> {
    let tree = mount::copy_at(&bind.source, bind.recursive)?;
    if let Some(id_map) = &bind.id_map {
        map(&tree, id_map, namespaces)?;
    }
    Ok(tree)
}

/// Shows a detached mount's owners through a mapping (kernel 5.12, and the file system
/// must take part).
fn map(tree: &OwnedFd, id_map: &IdMap, namespaces: &mut dyn UserNamespaces) -> Result<()> {
    let namespace: OwnedFd = match &id_map.mapping {
        Mapping::Ids { uids, gids } => namespaces.user_namespace(uids, gids)?,
        Mapping::Namespace(path) => File::open(path)
            .with_context(|| format!("error opening user namespace {}", path.display()))?
            .into(),
    };
    use std::os::fd::AsFd;
    let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
    match mount::set_attributes(tree, change, id_map.recursive) {
        Err(error) if error.errno() == libc::EINVAL => Err(error)
            .context("failed to set MOUNT_ATTR_IDMAP (maybe the file system does not support it)"),
        result => result.context("failed to set MOUNT_ATTR_IDMAP"),
    }
}

/// Whether every directory on the way, by name and for real, lets everybody through.
fn is_open_to_all(source: &Path) -> Result<bool> {
    let handle = openat(AT_FDCWD, &c_path(source)?, libc::O_PATH, 0)?;
    Ok(ancestors_are_open(source)? && ancestors_are_open(&real_path(&handle)?)?)
}

fn real_path(handle: &OwnedFd) -> Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let proc = openat(AT_FDCWD, c"/proc/self/fd", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let name = c_path(OsStr::from_bytes(handle.as_raw_fd().to_string().as_bytes()))?;
    Ok(path::readlink(proc, &name)?)
}

fn ancestors_are_open(path: &Path) -> Result<bool> {
    for directory in path.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty()) {
        let handle = openat(AT_FDCWD, &c_path(directory)?, libc::O_PATH, 0)?;
        if path::stat(&handle)?.st_mode & libc::S_IXOTH == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
