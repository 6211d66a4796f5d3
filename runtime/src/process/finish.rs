//! The last steps before the exec: working directory, user, capabilities.
//!
//! The working directory is the container's word, so it is entered by a descriptor that was
//! resolved within the root and through no link of procfs: `/proc/self/fd/7` would be a
//! directory of the host (CVE-2024-21626).

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys::{self as sys, path::Links};

use super::Plan;

const CWD_MODE: u32 = 0o755;

impl Plan {
    /// Makes the working directory if the container has none of that name.
    pub(crate) fn make_cwd(&self, root: impl AsFd) -> Result<()> {
        if self.cwd_is_root() {
            return Ok(());
        }
        make_directories(root, &self.cwd)
            .with_context(|| format!("mkdir {}", self.cwd.to_string_lossy()))
    }

    /// Everything that changes the process into the container's, short of its capabilities:
    /// marks descriptors from `3 + preserved_fds` close-on-exec, enters the working
    /// directory, drops the bounding set, hands over the standard streams, changes groups
    /// and user. `root` is the container's root directory.
    ///
    /// Without `change_groups` the supplementary groups stay as they are: for a user
    /// namespace that denies setgroups(2), or a caller without privileges.
    ///
    /// After this, a process that is not root has its permitted capabilities but none
    /// effective; [`Self::set_capabilities`] comes next.
    pub(crate) fn become_user(
        &self,
        root: impl AsFd,
        preserved_fds: u32,
        change_groups: bool,
    ) -> Result<()> {
        sys::fd::cloexec_from(3_u32.saturating_add(preserved_fds))
            .context("error closing exec fds")?;
        let root = root.as_fd();
        let entered = match self.enter_cwd(root) {
            Ok(()) => true,
            // The other of the two users, the runtime's and the container's, may be let in.
            Err(error) if matches!(error.errno(), libc::EPERM | libc::EACCES) => false,
            Err(error) => return Err(self.cwd_error(error)),
        };
        // Root keeps its capabilities over a change to root.
        let keeps = self.capabilities.filter(|_| self.user.uid != 0);
        if let Some(sets) = &self.capabilities {
            sets.drop_bounding()?;
        }
        if keeps.is_some() {
            sys::caps::keep_over_setuid(true).context("unable to set keep caps")?;
        }
        self.user.own_streams().context("unable to setup user")?;
        self.user.apply(change_groups).context("unable to setup user")?;
        if !entered {
            self.enter_cwd(root).map_err(|error| self.cwd_error(error))?;
        }
        verify_cwd()?;
        if keeps.is_some() {
            sys::caps::keep_over_setuid(false).context("unable to clear keep caps")?;
        }
        Ok(())
    }

    /// Sets the capabilities. Returns warnings about what could not be granted. Without
    /// `capabilities` in the configuration nothing changes.
    pub(crate) fn set_capabilities(&self) -> Result<Vec<String>> {
        self.capabilities.map_or(Ok(Vec::new()), |sets| sets.apply())
    }

    fn enter_cwd(&self, root: impl AsFd) -> sys::Result<()> {
        if self.cwd_is_root() {
            return sys::process::change_directory_to(c"/");
        }
        sys::process::change_directory(open_directory(root, &self.cwd)?)
    }

    fn cwd_error(&self, error: sys::Error) -> anyhow::Error {
        let cwd = self.cwd.to_string_lossy();
        let failure = format!("chdir to cwd ({cwd:?}) set in config.json failed");
        match error.errno() {
            libc::ELOOP => anyhow!(error)
                .context("a link in it leads in a circle or out of the container")
                .context(failure),
            _ => anyhow!(error).context(failure),
        }
    }

    fn cwd_is_root(&self) -> bool {
        self.cwd.as_c_str() == c"/"
    }
}

/// The current directory must be reachable from the root.
fn verify_cwd() -> Result<()> {
    let cwd = sys::process::current_directory();
    match cwd {
        Ok(path) if path.starts_with(b"/") => Ok(()),
        Err(error) if error.errno() != libc::ENOENT => {
            Err(error).context("failed to verify if current working directory is safe")
        }
        _ => bail!(
            "current working directory is outside of container mount namespace root \
             -- possible container breakout detected"
        ),
    }
}

fn open_directory(root: impl AsFd, path: &CStr) -> sys::Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    sys::path::open_in_root(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, Links::Follow)
}

/// mkdir -p within the root. A link or `..` in the path stays within it.
fn make_directories(root: impl AsFd, path: &CStr) -> sys::Result<()> {
    let root = root.as_fd();
    match open_directory(root, path) {
        Err(error) if error.errno() == libc::ENOENT => {}
        result => return result.map(drop),
    }
    let mut parent: Option<OwnedFd> = None;
    let mut reached = Vec::with_capacity(path.to_bytes().len());
    for name in path.to_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        reached.push(b'/');
        reached.extend_from_slice(name);
        let prefix = terminated(&reached);
        let opened = match open_directory(root, &prefix) {
            Err(error) if error.errno() == libc::ENOENT => {
                let name = terminated(name);
                let parent = parent.as_ref().map_or(root, AsFd::as_fd);
                match sys::fd::mkdirat(parent, &name, CWD_MODE) {
                    // Made by another meanwhile, or a link to nothing: opening tells.
                    Err(error) if error.errno() == libc::EEXIST => {}
                    result => result?,
                }
                open_directory(root, &prefix)
            }
            result => result,
        };
        parent = Some(opened?);
    }
    Ok(())
}

fn terminated(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("part of a string that has no NUL inside")
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{MetadataExt, symlink},
    };

    use hull_specs_oci as oci;

    use super::*;

    fn plan_with_cwd(cwd: &str) -> Plan {
        let process =
            oci::Process { cwd: cwd.to_owned(), args: vec!["x".to_owned()], ..Default::default() };
        super::super::plan(&process, None).unwrap()
    }

    #[test]
    fn the_working_directory_is_made_within_the_root() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("root");
        fs::create_dir(&path).unwrap();
        symlink("/", path.join("slash")).unwrap();
        symlink("../../..", path.join("up")).unwrap();
        let root = File::open(&path).unwrap();
        for (cwd, made) in [
            ("/a/b/c", "a/b/c"),
            ("/a//b/./d/", "a/b/d"),
            ("/x/../y/z", "y/z"),
            ("/../../../../q", "q"),
            ("/slash/s/t", "s/t"),
            ("/up/u", "u"),
        ] {
            plan_with_cwd(cwd).make_cwd(&root).unwrap();
            let metadata = fs::symlink_metadata(path.join(made)).unwrap();
            assert!(metadata.is_dir(), "{cwd}");
            assert_eq!(metadata.mode() & 0o700, 0o700, "{cwd}");
            // And again, when it is there.
            plan_with_cwd(cwd).make_cwd(&root).unwrap();
        }
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        symlink("nowhere", top.path().join("dangling")).unwrap();
        symlink("loop", top.path().join("loop")).unwrap();
        let root = File::open(top.path()).unwrap();
        for (cwd, errno) in [
            ("/file", libc::ENOTDIR),
            ("/file/x", libc::ENOTDIR),
            ("/dangling", libc::ENOENT),
            ("/dangling/x", libc::ENOENT),
            ("/loop/x", libc::ELOOP),
        ] {
            let error = plan_with_cwd(cwd).make_cwd(&root).unwrap_err();
            let root_cause = error.root_cause().downcast_ref::<sys::Error>().unwrap();
            assert_eq!(root_cause.errno(), errno, "{cwd}");
            assert!(error.to_string().starts_with(&format!("mkdir {cwd}")));
        }
        assert!(!top.path().join("nowhere").exists());
    }

    /// CVE-2024-21626: the working directory on the host through a leaked descriptor.
    #[test]
    fn a_descriptor_in_procfs_is_no_working_directory() {
        let leaked = File::open("/usr").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&leaked);
        let root = File::open("/").unwrap();
        let before = sys::process::current_directory().unwrap();
        for link in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/bin"),
            "/proc/self/root".to_owned(),
            "/proc/self/cwd".to_owned(),
        ] {
            let plan = plan_with_cwd(&link);
            assert_eq!(plan.enter_cwd(&root).unwrap_err().errno(), libc::ELOOP, "{link}");
            let error = plan.make_cwd(&root).unwrap_err();
            let cause = error.root_cause().downcast_ref::<sys::Error>().unwrap();
            assert_eq!(cause.errno(), libc::ELOOP, "{link}");
        }
        assert_eq!(sys::process::current_directory().unwrap(), before);
    }
}
