//! Namespaces: clone3, unshare, setns.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::{Error, Result, check, check_fd, retry};

/// Which side of a [`clone`] the caller is on.
#[derive(Debug)]
pub enum Clone {
    /// The caller, with the child's pid in the caller's pid namespace.
    Parent {
        /// The child's process id.
        pid: i32,
        /// A descriptor of the child.
        pidfd: OwnedFd,
    },
    /// The new process, with a copy of the caller's memory.
    Child,
}

/// libc has this constant in a type that it overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without shared memory, as fork does it, with new namespaces, and born in
/// `cgroup` (a cgroup v2 directory; kernel 5.7) when one is given.
///
/// The caller must be single-threaded: the child goes on with the caller's heap, whose
/// locks another thread could hold at that moment.
pub fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone> {
    let mut pidfd: i32 = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args whose pointers outlive the call, and without
    // CLONE_VM the child has its own copy of everything.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match check("clone3", pid)? {
        0 => Ok(Clone::Child),
        pid => Ok(Clone::Parent {
            pid: i32::try_from(pid).map_err(|_| Error::new("clone3", libc::EOVERFLOW))?,
            pidfd: check_fd("clone3", pidfd.into())?,
        }),
    }
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: unshare takes an integer; this process has a single thread.
    check("unshare", unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// setns(2): `fd` is a namespace file, or (kernel 5.8) a pidfd with the kinds in `flags`.
pub fn setns(fd: impl AsFd, flags: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: setns takes two integers; this process has a single thread.
    check("setns", unsafe { libc::setns(fd, flags) }.into()).map(drop)
}

/// ioctl(NS_GET_NSTYPE): the `CLONE_NEW*` value of a namespace file.
pub fn kind(fd: impl AsFd) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: NS_GET_NSTYPE takes no argument and returns an integer.
    let kind = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE as _) };
    Ok(i32::try_from(check("ioctl", kind.into())?).unwrap_or(0))
}

/// ioctl(NS_GET_USERNS): the user namespace that owns a namespace.
pub fn owner(fd: impl AsFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: NS_GET_USERNS takes no argument and returns a new descriptor.
    let owner = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_USERNS as _) };
    check_fd("ioctl", owner.into())
}

/// sethostname(2).
pub fn set_hostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    check("sethostname", result.into()).map(drop).map_err(|e| e.on(name))
}

/// setdomainname(2).
pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check("setdomainname", result.into()).map(drop).map_err(|e| e.on(name))
}

/// chroot(2) to the current directory.
pub fn chroot_here() -> Result<()> {
    // SAFETY: the path is a static NUL-terminated string.
    retry("chroot", || unsafe { libc::chroot(c".".as_ptr()) }.into()).map(drop)
}
