//! Where containers' state is kept when the caller does not say: runc's rule.

use std::{
    env,
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hull_runtime_sys as sys;

const NAME: &str = "hull-runtime";

/// `/run/hull-runtime` with privileges, `$XDG_RUNTIME_DIR/hull-runtime` without. A root user
/// on the host has `XDG_RUNTIME_DIR` too (from `su`, say), but shares one directory.
pub(super) fn default() -> Result<PathBuf> {
    Ok(user_directory().unwrap_or_else(|| Path::new("/run").join(NAME)))
}

/// Makes the directory in `$XDG_RUNTIME_DIR`, with the sticky bit that keeps it from being
/// cleaned up by age (XDG base directory specification). /run's is made with the first
/// container.
pub(super) fn prepare(root: &Path) -> Result<()> {
    if user_directory().as_deref() != Some(root) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .and_then(|()| fs::set_permissions(root, Permissions::from_mode(0o1700)))
        .with_context(|| {
            format!("make {} (XDG_RUNTIME_DIR must be a directory of the user)", root.display())
        })
}

fn user_directory() -> Option<PathBuf> {
    let directory = env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    let user_map = || fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let user = env::var_os("USER");
    let user = user.as_deref().and_then(|user| user.to_str());
    honours(sys::process::effective_uid(), user_map, user)
        .then(|| PathBuf::from(directory).join(NAME))
}

/// Whether the user's own directory is the place.
fn honours(uid: u32, user_map: impl FnOnce() -> String, user: Option<&str>) -> bool {
    if uid != 0 {
        return true;
    }
    // The initial user namespace maps every id to itself.
    let whole = user_map().split_whitespace().eq(["0", "0", "4294967295"]);
    !whole && user != Some("root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_of_the_host_keeps_to_run() {
        let host = || "         0          0 4294967295\n".to_owned();
        let inner = || "         0       1000          1\n".to_owned();
        assert!(honours(1000, host, None));
        assert!(!honours(0, host, None));
        assert!(!honours(0, host, Some("alice")));
        assert!(honours(0, inner, None));
        assert!(honours(0, inner, Some("alice")));
        assert!(!honours(0, inner, Some("root")));
    }
}
