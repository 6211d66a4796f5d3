//! A container's directories: the bundle, in the exec root, and its own files, in the data root.

use std::{
    fs,
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use hull_manager_core::{Error, Result, error::IoContext as _, files::private_directory};
use hull_runtime_sys::{mount, namespace};

use crate::{Inner, exit_record};

/// The longest exec root, in bytes: a shim's socket in it is named by 64 digits, and a socket's
/// path has 107.
pub(crate) const MAX_EXEC_ROOT: usize = 107 - "/s/".len() - 64;

/// Where the shim mounts the root file system.
pub(crate) const ROOTFS: &str = "rootfs";

/// Where a sysfs is mounted of the network that a container does not own.
pub(crate) const SYS: &str = "sysfs";

/// Where the memory is mounted that a container shares with others.
pub(crate) const SHM: &str = "shm";

impl Inner {
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.settings().exec_root.join("containers").join(id)
    }

    /// The container's own files, which outlive a reboot.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.settings().data_root.join("containers").join(id)
    }

    /// Where clients are attached.
    pub(crate) fn attach_socket(&self, id: &str) -> PathBuf {
        self.settings().exec_root.join("s").join(format!("{}.attach", id.get(..32).unwrap_or(id)))
    }

    /// Takes the exit record out of the bundle, which is about to go.
    pub(crate) fn keep_exit_record(&self, id: &str) -> Result<()> {
        let to = self.directory(id).join(exit_record::FILE);
        let begun = to.with_extension("begun");
        let keep = || match fs::copy(self.bundle(id).join(exit_record::FILE), &begun) {
            // Nobody wrote one.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            copied => copied
                .and_then(|_| fs::rename(&begun, &to))
                .inspect_err(|_| drop(fs::remove_file(&begun)))
                .about(to.display()),
        };
        self.parts.store.with_reserve(keep)
    }

    /// The directories of all containers.
    pub(crate) fn make_directories(&self) -> Result<()> {
        let settings = self.settings();
        let (data, exec) = (&settings.data_root, &settings.exec_root);
        private_directory(&data.join("containers"), 0o700)?;
        // Through it a container in a user namespace of its own gets to its bundle.
        private_directory(&exec.join("containers"), 0o711)?;
        for name in ["s", "runtime"] {
            private_directory(&exec.join(name), 0o700)?;
        }
        Ok(())
    }
}

/// Makes an empty bundle.
pub(crate) fn make(bundle: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(bundle).about(bundle.display())
}

/// Lets a group of the host's pass to what is in a bundle, and nobody else.
pub(crate) fn open_to(bundle: &Path, group: u32) -> Result<()> {
    chown(bundle, None, Some(group))
        .and_then(|()| fs::set_permissions(bundle, fs::Permissions::from_mode(0o710)))
        .about(bundle.display())
}

/// Removes a bundle; that there is none is well. What is mounted there is not touched: it is
/// unmounted, and only an empty directory is removed in its place.
pub(crate) fn remove(bundle: &Path) -> Result<()> {
    for name in [ROOTFS, SHM, SYS] {
        let path = bundle.join(name);
        match fs::remove_dir(&path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                mount::unmount(&path, true).map_err(anyhow::Error::new)?;
                fs::remove_dir(&path).about(path.display())?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.about(path.display())?,
        }
    }
    remove_tree(bundle)
}

/// Mounts memory that containers share.
pub(crate) fn mount_shm(path: &Path, bytes: u64) -> Result<()> {
    let mount = || -> anyhow::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        let tmpfs = mount::Context::open("tmpfs")?;
        for (key, value) in [("source", "shm"), ("mode", "1777"), ("size", &bytes.to_string())] {
            tmpfs.set(key, value)?;
        }
        tmpfs.create()?;
        let attributes =
            mount::Attributes::NO_SUID | mount::Attributes::NO_DEV | mount::Attributes::NO_EXEC;
        mount::attach(tmpfs.mount(attributes)?, fs::File::open(path)?)?;
        Ok(())
    };
    mount().map_err(|cause| Error::internal("cannot mount shared memory").because(cause))
}

/// Mounts a sysfs of a network namespace, to be looked at. Who owns the namespace may do that, and
/// a container in a user namespace of its own does not.
pub(crate) fn mount_sysfs(path: &Path, network: &Path) -> Result<()> {
    let mount = || -> anyhow::Result<()> {
        fs::DirBuilder::new().mode(0o755).create(path)?;
        let network = fs::File::open(network)?;
        // It stays in the namespace, and ends.
        let thread = std::thread::spawn(move || -> anyhow::Result<OwnedFd> {
            namespace::setns(&network, libc::CLONE_NEWNET)?;
            let sysfs = mount::Context::open("sysfs")?;
            sysfs.create()?;
            let quiet =
                mount::Attributes::NO_SUID | mount::Attributes::NO_DEV | mount::Attributes::NO_EXEC;
            Ok(sysfs.mount(mount::Attributes::READ_ONLY | quiet)?)
        });
        let sysfs = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        Ok(mount::attach(sysfs, fs::File::open(path)?)?)
    };
    mount().map_err(|cause| Error::internal("cannot mount the network's sysfs").because(cause))
}

/// Removes a directory of ours with all that is in it; that there is none is well.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.about(directory.display()),
    }
}

/// The names in a directory; none if it is not there.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.about(directory.display())?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_removed_but_not_what_is_in_its_rootfs() {
        let place = tempfile::tempdir().unwrap();
        let bundle = place.path().join("b");
        make(&bundle).unwrap();
        fs::write(bundle.join("config.json"), "{}").unwrap();
        let rootfs = bundle.join(ROOTFS);
        fs::create_dir(&rootfs).unwrap();
        fs::write(rootfs.join("precious"), "").unwrap();
        assert!(remove(&bundle).is_err());
        assert!(rootfs.join("precious").exists());
        fs::remove_file(rootfs.join("precious")).unwrap();
        remove(&bundle).unwrap();
        assert!(!bundle.exists());
        remove(&bundle).unwrap();
    }
}
