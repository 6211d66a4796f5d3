//! The labels of the kernel's security modules: an AppArmor profile, an SELinux label.
//!
//! Both take effect at the next exec and are written through a private procfs: by a path of
//! the container's own `/proc` the write could be led elsewhere and the label bypassed
//! (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

/// `SELINUX_MAGIC`.
const SELINUX_MAGIC: u32 = 0xf97c_ff8c;

pub(super) fn plan(what: &str, label: &str) -> Result<Option<String>> {
    if label.chars().any(char::is_control) {
        bail!("{what} {label:?} holds a control character");
    }
    Ok((!label.is_empty()).then(|| label.to_owned()))
}

/// Refuses an SELinux label on a system that would not enforce it. For the parent, which
/// still sees the host's `/sys`.
pub(super) fn check_selinux(label: Option<&String>) -> Result<()> {
    if label.is_some() {
        let mounted = sys::path::open_without_links("/sys/fs/selinux", libc::O_PATH)
            .and_then(sys::path::file_system);
        match mounted {
            Ok(file_system) if file_system.magic == SELINUX_MAGIC => {}
            _ => bail!(
                "selinux label is specified in config, but selinux is disabled or not supported"
            ),
        }
    }
    Ok(())
}

pub(super) fn apply_apparmor(profile: Option<&String>, procfs: impl AsFd) -> Result<()> {
    let Some(profile) = profile else { return Ok(()) };
    let write = || {
        let procfs = procfs.as_fd();
        // Its own directory since kernel 5.8, for systems with several modules.
        let file = match open(procfs, c"self/attr/apparmor/exec") {
            Err(error) if error.errno() == libc::ENOENT => open(procfs, c"self/attr/exec"),
            result => result,
        }?;
        sys::fd::write_all(file, format!("exec {profile}").as_bytes())
    };
    write()
        .with_context(|| format!("apparmor failed to apply profile {profile:?}"))
        .context("unable to apply apparmor profile")
}

pub(super) fn apply_selinux(label: Option<&String>, procfs: impl AsFd) -> Result<()> {
    let Some(label) = label else { return Ok(()) };
    let write = || sys::fd::write_all(open(&procfs, c"self/attr/exec")?, label.as_bytes());
    write().with_context(|| format!("can't set process label {label:?}"))
}

fn open(procfs: impl AsFd, path: &std::ffi::CStr) -> sys::Result<OwnedFd> {
    sys::fd::openat(procfs, path, libc::O_WRONLY, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_line_of_text() {
        assert_eq!(plan("apparmorProfile", "").unwrap(), None);
        assert_eq!(plan("apparmorProfile", "docker-default").unwrap().unwrap(), "docker-default");
        for label in ["a\nb", "a\0", "\u{7f}"] {
            assert!(plan("selinuxLabel", label).is_err());
        }
    }
}
