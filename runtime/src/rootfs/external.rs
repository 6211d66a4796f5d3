//! What CRIU must be told of a container's mounts, since it neither saves nor makes what
//! comes from outside; and the mount points that it expects to find on a restore.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    mount,
    path::{self, Links, Missing},
};

use super::{
    CgroupMounts, Plan, Root, bind,
    steps::{Bind, Step},
    target::{self, What},
};

/// A mount that comes from outside of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// Where it is in the container, with links of the root file system followed.
    pub(crate) destination: PathBuf,
    /// What it is on the host.
    pub(crate) source: PathBuf,
}

impl Plan {
    /// The mounts that come from outside.
    pub(crate) fn external(&self, cgroups: &CgroupMounts) -> Result<Vec<External>> {
        let root = path::open_without_links(&self.root, libc::O_PATH | libc::O_DIRECTORY)
            .context("invalid rootfs")?;
        let mut external = Vec::new();
        let mut add = |destination: &Path, source: PathBuf| -> Result<()> {
            external.push(External { destination: real(&root, destination)?, source });
            Ok(())
        };
        for step in &self.steps {
            match step {
                Step::Bind(bind) => add(&bind.destination, bind.source.clone())?,
                // With a cgroup namespace, and on v2, they are mounts of their own.
                Step::Cgroup(cgroup) if !self.cgroup_namespace => {
                    for hierarchy in &cgroups.v1 {
                        add(&cgroup.destination.join(&hierarchy.directory), hierarchy.own.clone())?;
                    }
                }
                Step::Dev(dev) => {
                    for device in &dev.devices {
                        let source = Path::new("/").join(&device.path);
                        add(&device.path, source)?;
                    }
                }
                Step::Cgroup(_) | Step::FileSystem(_) | Step::Remount(_) => {}
            }
        }
        Ok(external)
    }

    /// The masked paths that are files in a root, as configured.
    pub(crate) fn masked_files(&self, root: &OwnedFd) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for masked in &self.seal.masked_paths {
            match path::open_in_root(root, masked, libc::O_PATH, 0, Links::Follow) {
                Ok(file) if !path::is_directory(&path::stat(&file)?) => files.push(masked.clone()),
                Ok(_) => {}
                Err(error) if error.errno() == libc::ENOENT => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(files)
    }

    /// Whether any path is masked.
    pub(crate) fn masks(&self) -> bool {
        !self.seal.masked_paths.is_empty()
    }
}

/// Where a destination is, absolute, as far as its components are there.
fn real(root: &OwnedFd, destination: &Path) -> Result<PathBuf> {
    let destination = path::clean(destination);
    let mut there = destination.as_path();
    loop {
        match path::resolve(root, there, Missing::Fail) {
            Ok(found) => {
                let rest = destination.strip_prefix(there).unwrap_or(Path::new(""));
                // Joining with nothing would leave a slash at the end.
                let path = Path::new("/").join(found.path);
                return Ok(if rest.as_os_str().is_empty() { path } else { path.join(rest) });
            }
            Err(error) if error.errno() == libc::ENOENT => match there.parent() {
                Some(parent) => there = parent,
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes the mount points that a restore needs, in a root that is mounted here for that
/// purpose. Bind mounts are made on the way, because there may be mount points in them, and
/// stay until the caller detaches the root. What is beneath a tmpfs CRIU brings back with
/// the tmpfs.
pub(crate) fn make_mount_points(plan: &Plan, root: OwnedFd) -> Result<()> {
    let mut root =
        Root { fd: root, null: None, warnings: Vec::new(), late: Vec::new(), host_null: None };
    for step in &plan.steps {
        let destination = match step {
            Step::Bind(bind) => &bind.destination,
            Step::FileSystem(fs) => &fs.destination,
            Step::Cgroup(_) | Step::Remount(_) | Step::Dev(_) => continue,
        };
        if beneath_tmpfs(plan, destination) {
            continue;
        }
        let made = match step {
            Step::Bind(bind) => mount_plainly(&mut root, bind),
            Step::FileSystem(fs) => {
                let what = if fs.kind == "proc" { What::Proc } else { What::Other };
                target::open(&root, destination, false, what).map(drop)
            }
            _ => Ok(()),
        };
        made.with_context(|| {
            format!("cannot make the mount point /{} for the restore", destination.display())
        })?;
    }
    Ok(())
}

fn beneath_tmpfs(plan: &Plan, destination: &Path) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::FileSystem(fs) => {
            fs.kind == "tmpfs"
                && destination != fs.destination
                && destination.starts_with(&fs.destination)
        }
        _ => false,
    })
}

/// The mount alone: CRIU makes the one that stays, with its flags.
fn mount_plainly(root: &mut Root, bind: &Bind) -> Result<()> {
    let plain =
        Bind { change: Default::default(), id_map: None, propagation: Vec::new(), ..bind.clone() };
    bind::apply(root, &plain, None)
}

/// Mounts a container's root file system at a directory of the host, beneath which nothing
/// is mounted, and gives the root of that mount.
pub(crate) fn mount_at(plan: &Plan, directory: &OwnedFd) -> Result<OwnedFd> {
    let root = path::open_without_links(&plan.root, libc::O_PATH | libc::O_DIRECTORY)
        .context("invalid rootfs")?;
    let copy = mount::copy_of(&root, true).context("error preparing rootfs")?;
    mount::attach(&copy, directory).context("error preparing rootfs")?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_of_the_root_are_followed_as_far_as_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::create_dir(dir.path().join("var")).unwrap();
        symlink("/run", dir.path().join("var/run")).unwrap();
        symlink("../../../../etc", dir.path().join("out")).unwrap();
        let root = path::open_without_links(dir.path(), libc::O_PATH | libc::O_DIRECTORY).unwrap();
        for (destination, expected) in [
            ("var/run", "/run"),
            ("var/run/x/y", "/run/x/y"),
            ("new/../var/run/x", "/run/x"),
            ("not/there", "/not/there"),
            ("out/passwd", "/out/passwd"),
        ] {
            assert_eq!(real(&root, Path::new(destination)).unwrap(), Path::new(expected));
        }
    }
}
