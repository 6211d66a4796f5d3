//! The root: making it a mount, and entering it.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    fd::{AT_FDCWD, openat, read_to_end},
    mount::{self, Attributes, Change, Propagation},
    namespace::chroot_here,
    path::{self, c_path},
    process::change_directory,
};

use super::{
    Plan, Root, file_system,
    plan::{Entry, Start},
};

/// A mount table larger than this is not read.
const MOUNT_TABLE_LIMIT_BYTES: usize = 64 << 20;

fn propagate(mount: impl AsFd, propagation: Propagation, recursive: bool) -> Result<()> {
    let change = Change { propagation: Some(propagation), ..Change::default() };
    mount::set_attributes(mount, change, recursive).map_err(|error| {
        let unsupported = mount::is_unsupported(&error);
        let error = anyhow::Error::from(error);
        if unsupported {
            error.context("the kernel lacks mount_setattr: Linux 5.14 or newer is needed")
        } else {
            error.context("error changing mount propagation")
        }
    })
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    Ok(openat(AT_FDCWD, &c_path(path)?, libc::O_PATH | libc::O_DIRECTORY, 0)?)
}

/// Makes the namespace's mounts independent of the host's and the root a mount of its own.
pub(super) fn prepare(plan: &Plan) -> Result<Root> {
    let directory = path::open_without_links(&plan.root, libc::O_PATH | libc::O_DIRECTORY);
    let directory = match directory {
        Err(error) if error.errno() == libc::ELOOP => {
            return Err(error).context("invalid rootfs: not an absolute path, or a symlink");
        }
        result => result.context("invalid rootfs")?,
    };
    let fd = match plan.start {
        Start::HostNamespace => directory,
        Start::OwnNamespace { namespace, parent_may_be_shared, root } => {
            propagate(open_directory(Path::new("/"))?, namespace.0, namespace.1)?;
            if parent_may_be_shared {
                close_parent(&directory, root)?;
            }
            let copy = mount::copy_of(&directory, true).context("error preparing rootfs")?;
            // Also the copy of a slave listens to the host, until it is told not to.
            if root != Propagation::Slave {
                propagate(&copy, root, false)?;
            }
            mount::attach(&copy, &directory).context("error preparing rootfs")?;
            copy
        }
    };
    Ok(Root { fd, null: None, warnings: Vec::new(), late: Vec::new(), host_null: None })
}

/// Makes the mount that a directory is on no longer shared.
fn close_parent(directory: &OwnedFd, propagation: Propagation) -> Result<()> {
    /// More levels than any path has.
    const LEVELS: usize = libc::PATH_MAX as usize / 2;
    let mut above = directory.try_clone().context("error preparing rootfs")?;
    for _ in 0..LEVELS {
        if path::is_mount_root(&above)? {
            break;
        }
        above = openat(&above, c"..", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    }
    propagate(above, propagation, false)
}

/// Enters the root: from here on it is `/` and the current directory of this process.
pub(crate) fn enter(plan: &Plan, root: &Root) -> Result<()> {
    jail(plan, root).context("error jailing process inside rootfs")?;
    if let Entry::Pivot { propagation: Some((propagation, recursive)), .. }
    | Entry::Move { propagation: Some((propagation, recursive)) } = plan.entry
    {
        propagate(&root.fd, propagation, recursive)
            .context("unable to apply root propagation flags")?;
    }
    Ok(())
}

fn jail(plan: &Plan, root: &Root) -> Result<()> {
    match plan.entry {
        Entry::Pivot { old_root_shared, .. } => {
            if old_root_shared {
                // Detaching it would otherwise unmount on the host. Slave, not private:
                // the host's own unmounts must still reach it while it lives.
                let old = open_directory(Path::new("/"))?;
                change_directory(&root.fd)?;
                mount::pivot_root_here()?;
                propagate(old, Propagation::Slave, true)?;
            } else {
                change_directory(&root.fd)?;
                mount::pivot_root_here()?;
            }
            // The old root now lies over the new one, where the current directory is.
            Ok(mount::detach_here()?)
        }
        Entry::Move { .. } => {
            hide_full_mounts(&plan.root)?;
            change_directory(&root.fd)?;
            mount::attach(&root.fd, open_directory(Path::new("/"))?)?;
            Ok(chroot_here()?)
        }
        Entry::Chroot => {
            change_directory(&root.fd)?;
            Ok(chroot_here()?)
        }
    }
}

/// Without pivot_root(2) the host's mounts stay in the namespace, where a whole procfs or
/// sysfs would allow the container to mount another one without the masks. They are
/// detached, or covered where that is not permitted.
fn hide_full_mounts(root: &Path) -> Result<()> {
    let table = openat(AT_FDCWD, c"/proc/self/mountinfo", libc::O_RDONLY, 0)?;
    let table = read_to_end(table, MOUNT_TABLE_LIMIT_BYTES)?;
    for mount_point in full_mounts(&table, root) {
        let directory =
            match openat(AT_FDCWD, &c_path(&mount_point)?, libc::O_PATH | libc::O_DIRECTORY, 0) {
                Ok(directory) => directory,
                // It went away with what it was mounted on.
                Err(error) if error.errno() == libc::ENOENT => continue,
                Err(error) => return Err(error.into()),
            };
        propagate(&directory, Propagation::Slave, true)?;
        change_directory(&directory)?;
        match mount::detach_here() {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::EPERM) => {
                let cover = file_system::pseudo("tmpfs", "tmpfs", &[], Attributes::NONE)?;
                mount::attach(cover, directory)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The mount points outside of `root` where the whole of a procfs or sysfs is mounted.
fn full_mounts(table: &[u8], root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(inner), Some(place)) = (fields.nth(3), fields.next()) else { continue };
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        if inner == b"/" && matches!(kind, Some(b"proc" | b"sysfs")) {
            let place = PathBuf::from(OsString::from_vec(unescape(place)));
            if !place.starts_with(root) {
                found.push(place);
            }
        }
    }
    found
}

/// Turns `\040` and its like back into bytes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| {
            digits.iter().try_fold(0_u32, |value, digit| {
                (b'0'..=b'7').contains(digit).then(|| value * 8 + u32::from(digit - b'0'))
            })
        });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_kernel_file_systems_outside_of_the_root_are_found() {
        let table = b"\
22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw
23 1 0:22 / /sys rw - sysfs sysfs rw
24 1 0:22 /kernel /mnt/part rw - sysfs sysfs rw
25 1 0:21 / /with\\040space rw shared:1 master:2 - proc none rw
26 1 0:21 / /c/rootfs/proc rw - proc proc rw
27 1 8:1 / / rw - ext4 /dev/vda1 rw
broken line
";
        let found = full_mounts(table, Path::new("/c/rootfs"));
        let expected = ["/proc", "/sys", "/with space"].map(PathBuf::from);
        assert_eq!(found, expected);
    }
}
