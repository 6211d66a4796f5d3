//! Files with other ids than on the disk, for a container in a user namespace: containerd's
//! snapshotters ask for it by `uidmap=CONTAINER:HOST:SIZE` and `gidmap=…`, commas between several.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::{
    caps, fd,
    mount::{Change, set_attributes},
    namespace::{Clone as Side, clone},
    path::c_path,
    process,
};

/// What the kernel reads of a user namespace's two maps; nothing: no map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IdMap {
    pub(super) uids: String,
    pub(super) gids: String,
}

/// A map in the kernel's form.
pub(super) fn lines(map: &str) -> Result<String> {
    let mut lines = String::new();
    for one in map.split(',') {
        let numbers: Vec<u32> = one.split(':').map_while(|number| number.parse().ok()).collect();
        let [container, host, size] = numbers.as_slice() else {
            bail!("{map:?} is no map of ids: CONTAINER:HOST:SIZE");
        };
        lines += &format!("{container} {host} {size}\n");
    }
    Ok(lines)
}

impl IdMap {
    pub(super) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Shows the files of a mount that nobody uses yet with these ids.
    pub(super) fn apply(&self, mount: impl AsFd) -> Result<()> {
        let namespace = self.namespace().context("make a user namespace for the map of ids")?;
        let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
        // Kernel 5.12, and file systems that can: most since 6.3.
        set_attributes(mount, change, false).context("map the ids of a mount")
    }

    /// Does what makes files, as the root of the container. An overlay makes files in the name of
    /// whoever has mounted it, and the host's own root has no id in the map.
    pub(super) fn as_root<T>(&self, make: impl FnOnce() -> T) -> Result<T> {
        let root = |lines: &str| -> Option<u32> {
            lines.lines().find_map(|line| line.strip_prefix("0 ")?.split(' ').next()?.parse().ok())
        };
        let ids = root(&self.uids).zip(root(&self.gids));
        let (uid, gid) = ids.context("the map of ids has none for root")?;
        let (own_uid, own_gid) = (process::effective_uid(), process::effective_gid());
        let capabilities = caps::get()?;
        process::set_file_ids(uid, gid)?;
        let made = caps::set(capabilities).map(|()| make());
        process::set_file_ids(own_uid, own_gid)?;
        caps::set(capabilities)?;
        Ok(made?)
    }

    /// A user namespace that nobody is in.
    fn namespace(&self) -> Result<OwnedFd> {
        let (ours, theirs) = fd::pipe()?;
        match clone(u64::from(libc::CLONE_NEWUSER.cast_unsigned()), None)? {
            Side::Child => {
                // Lives until its other end is closed.
                drop(theirs);
                let _ = fd::read(&ours, &mut [0]);
                process::exit_now(0)
            }
            Side::Parent { pid, .. } => {
                let open = || -> Result<OwnedFd> {
                    fs::write(format!("/proc/{pid}/uid_map"), &self.uids)?;
                    fs::write(format!("/proc/{pid}/gid_map"), &self.gids)?;
                    let path = c_path(format!("/proc/{pid}/ns/user"))?;
                    Ok(fd::openat(fd::AT_FDCWD, &path, libc::O_RDONLY, 0)?)
                };
                let opened = open();
                drop(theirs);
                process::wait(pid)?;
                opened
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_as_containerd_writes_them() {
        assert_eq!(lines("0:100000:65536").unwrap(), "0 100000 65536\n");
        assert_eq!(lines("0:5:1,1:9:2").unwrap(), "0 5 1\n1 9 2\n");
        let map = IdMap { uids: lines("1:5:2").unwrap(), gids: lines("0:1:1").unwrap() };
        assert!(map.as_root(|| ()).is_err());
        for bad in ["", "0", "0:1", "0:1:2:3", "a:b:c", "0:1:2,", "0:1:-2"] {
            assert!(lines(bad).is_err(), "{bad:?}");
        }
    }
}
