//! Closing the container's file system: read-only mounts, read-only paths, masked paths.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use hull_runtime_sys::{
    mount::{self, Attributes, Change},
    path::{self, Links},
};

use super::{Plan, Root, devices, file_system};

const READ_ONLY: Change<'static> =
    Change { set: Attributes::READ_ONLY, clear: Attributes::NONE, propagation: None, id_map: None };

/// The host's null device, detached and verified, for masks where the container's is not
/// one that we made.
pub(super) fn host_null() -> Result<OwnedFd> {
    let null = mount::copy_at("/dev/null", false).context("can't mask paths")?;
    ensure!(devices::is_null(&null)?, "can't mask paths: the host's /dev/null is invalid");
    Ok(null)
}

/// Makes read-only what shall be, then covers the masked paths. The last thing that
/// happens to the file system, after the root was entered.
pub(crate) fn seal(plan: &Plan, root: &Root) -> Result<()> {
    for mount in &root.late {
        mount::set_attributes(mount, READ_ONLY, false).context("error making a mount read-only")?;
    }
    if plan.seal.read_only_root {
        mount::set_attributes(&root.fd, READ_ONLY, false)
            .context("error setting rootfs as readonly")?;
    }
    for path in &plan.seal.read_only_paths {
        make_read_only(root, path).with_context(|| format!("can't make {path:?} read-only"))?;
    }
    let mut masks = Masks { root, label: &plan.label, directory: None, host_null_used: false };
    let mut masked: Vec<PathBuf> = Vec::with_capacity(plan.seal.masked_paths.len());
    for path in &plan.seal.masked_paths {
        let clean = path::clean(path);
        if !masked.contains(&clean) {
            masks.cover(path).with_context(|| format!("can't mask path {path:?}"))?;
            masked.push(clean);
        }
    }
    Ok(())
}

/// Opens a path of the container; `None` if there is no such thing, the only failure that
/// does not matter.
fn find(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match path::open_in_root(&root.fd, path, libc::O_PATH, 0, Links::Follow) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Covers a path with a read-only copy of itself. As in runc, mounts beneath it come along
/// and keep their own flags.
fn make_read_only(root: &Root, path: &Path) -> Result<()> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let copy = mount::copy_of(&target, true)?;
    mount::set_attributes(&copy, READ_ONLY, false)?;
    mount::attach(copy, target)?;
    Ok(())
}

/// The sources of masks.
struct Masks<'a> {
    root: &'a Root,
    label: &'a str,
    /// The first directory's mask. Later ones are copies of it, which saves the making of
    /// a file system each.
    directory: Option<OwnedFd>,
    host_null_used: bool,
}

impl Masks<'_> {
    fn cover(&mut self, path: &Path) -> Result<()> {
        let Some(target) = find(self.root, path)? else { return Ok(()) };
        if path::is_directory(&path::stat(&target)?) {
            if let Some(mask) = &self.directory {
                mount::attach(mount::copy_of(mask, false)?, target)?;
                return Ok(());
            }
            let mask = self.empty_directory()?;
            mount::attach(&mask, target)?;
            self.directory = Some(mask);
            return Ok(());
        }
        match (&self.root.null, &self.root.host_null) {
            (Some(null), _) => mount::attach(mount::copy_of(null, false)?, target)?,
            // A detached mount can be copied only from kernel 6.15 on, so it covers the
            // first path itself.
            (None, Some(null)) if self.host_null_used => {
                mount::attach(mount::copy_of(null, false)?, target)?;
            }
            (None, Some(null)) => {
                mount::attach(null, target)?;
                self.host_null_used = true;
            }
            (None, None) => anyhow::bail!("there is no null device to mask with"),
        }
        Ok(())
    }

    /// An empty file system that nothing can be written to.
    fn empty_directory(&self) -> Result<OwnedFd> {
        let mut parameters = vec![("ro", ""), ("nr_blocks", "1"), ("nr_inodes", "1")];
        if !self.label.is_empty() {
            parameters.push(("context", self.label));
        }
        file_system::pseudo("tmpfs", "tmpfs", &parameters, Attributes::READ_ONLY)
    }
}
