//! Bind mounts.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    mount::{self, Attributes, Change},
    path::{self, is_directory},
};

use super::{
    Root,
    options::{Below, Flags},
    propagate,
    steps::{Bind, FlagChange},
    target::{self, What},
};

/// procfs gives its root this inode number in every instance.
const PROC_ROOT_INODE: u64 = 1;

/// Flags that the kernel locks on mounts that came from a more privileged namespace.
const LOCKABLE: Flags = Flags::READ_ONLY.or(Flags::NO_SUID).or(Flags::NO_DEV).or(Flags::NO_EXEC);

/// Where the copy of the source comes from.
#[derive(Debug)]
pub(crate) struct Given {
    /// A detached copy, already id-mapped if it shall be.
    pub(crate) tree: OwnedFd,
    /// It was made outside of the container's user namespace: the kernel has not locked
    /// its flags, so they are treated here as if it had.
    pub(crate) lock: bool,
}

pub(super) fn apply(root: &mut Root, bind: &Bind, given: Option<Given>) -> Result<()> {
    let (tree, lock) = match given {
        Some(given) => (given.tree, given.lock),
        None => (mount::copy_at(&bind.source, bind.recursive)?, false),
    };
    let stat = path::stat(&tree)?;
    let what = target::what_is(&tree)?;
    let target = target::open(root, &bind.destination, !is_directory(&stat), what)?;
    if what == What::BoundProc
        && target.path.as_os_str() == "proc"
        && stat.st_ino != PROC_ROOT_INODE
    {
        root.warnings.push(format!(
            "{} is bound at /proc but is not the root of a procfs",
            bind.source.display()
        ));
    }
    set_flags(&tree, bind.change, lock)
        .context("failed to set user-requested vfs flags on bind-mount")?;
    set_below(&tree, bind.below)?;
    mount::attach(&tree, &target.fd)?;
    propagate(&tree, &bind.propagation)
}

/// Gives a mount the flags that were asked for, and no others but its access-time mode.
/// Nothing asked for, in either direction, leaves the source's flags.
///
/// In a user namespace the source's flags may be locked. Then they stay, unless they were
/// asked to be off: a mount that is not as asked for is an error.
pub(super) fn set_flags(mount: &OwnedFd, change: FlagChange, lock: bool) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    let set = change.set.attributes();
    let mut clear = (LOCKABLE | Flags::NO_SYMLINKS).attributes();
    // As in mount(2), the mode of access times stays if no word is about it.
    if change.set.has(Flags::ATIME) {
        clear = clear | Attributes::ACCESS_TIME | Attributes::NO_DIR_ACCESS_TIME;
    }
    let attempt = Change { set, clear: clear_for(set, clear), ..Change::default() };
    let refusal = if lock {
        None
    } else {
        match mount::set_attributes(mount, attempt, false) {
            Ok(()) => return Ok(()),
            Err(error) if error.errno() == libc::EPERM => Some(error),
            Err(error) => return Err(error.into()),
        }
    };

    let existing = Attributes::of(mount)?;
    let refused = |what: String| match refusal {
        Some(error) => anyhow::Error::from(error).context(what),
        None => anyhow::anyhow!(what),
    };
    let atime = Attributes::ACCESS_TIME | Attributes::NO_DIR_ACCESS_TIME;
    if !change.cleared.attributes().both(existing).is_empty() {
        let words = change.cleared.words();
        return Err(refused(format!("cannot clear locked flags (among {words})")));
    }
    if change.set.has(Flags::ATIME) && set.both(atime) != existing.both(atime) {
        return Err(refused("cannot change locked access-time flags".to_owned()));
    }
    let keep = existing.both(LOCKABLE.attributes());
    let set = set.without(atime) | keep;
    let clear = clear_for(set, clear.without(atime));
    let change = Change { set, clear, ..Change::default() };
    mount::set_attributes(mount, change, false).context("locked flags stay as they are")
}

/// What to clear so that exactly `set` of `clear` is on. The access-time field is cleared
/// as a whole even if part of it is set, because mount_setattr(2) wants it so.
fn clear_for(set: Attributes, clear: Attributes) -> Attributes {
    clear.without(set.without(Attributes::ACCESS_TIME))
}

/// Sets and clears flags of a mount and all mounts beneath it.
pub(super) fn set_below(mount: &OwnedFd, below: Below) -> Result<()> {
    if below.is_empty() {
        return Ok(());
    }
    let change = Change { set: below.set, clear: below.clear, ..Change::default() };
    mount::set_attributes(mount, change, true).context("failed to set recursive mount flags")
}
