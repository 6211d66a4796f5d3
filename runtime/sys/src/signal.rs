//! Signals: masks, descriptors, dispositions.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::{Error, Result, check, check_fd};

/// The signal mask of this process, to be restored before an exec.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

fn set_mask(how: i32, set: &libc::sigset_t) -> Result<Mask> {
    // SAFETY: all-zero is a valid sigset_t.
    let mut old: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to valid sets.
    let errno = unsafe { libc::pthread_sigmask(how, set, &raw mut old) };
    if errno == 0 { Ok(Mask(old)) } else { Err(Error::new("sigprocmask", errno)) }
}

/// Blocks every signal and says what was blocked before.
pub fn block_all() -> Result<Mask> {
    // SAFETY: all-zero is a valid sigset_t.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a valid set.
    unsafe { libc::sigfillset(&raw mut set) };
    set_mask(libc::SIG_SETMASK, &set)
}

/// Unblocks every signal, as a container's first process expects it.
pub fn unblock_all() -> Result<()> {
    // SAFETY: all-zero is a valid sigset_t.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a valid set.
    unsafe { libc::sigemptyset(&raw mut set) };
    set_mask(libc::SIG_SETMASK, &set).map(drop)
}

impl Mask {
    /// Makes this the mask again.
    pub fn restore(&self) -> Result<()> {
        set_mask(libc::SIG_SETMASK, &self.0).map(drop)
    }
}

/// Gives every signal its default disposition. Handlers do not survive an exec, but
/// *ignored* does: a caller that ignores SIGPIPE would hand that to the container.
pub fn reset_dispositions() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; the calls for SIGKILL, SIGSTOP and the
        // C library's own signals fail and change nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A signal as a signalfd delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The signal's number.
    pub signal: i32,
    /// Who sent it, in our pid namespace (0 from outside).
    pub pid: i32,
}

/// A non-blocking descriptor that delivers every signal; all must be blocked.
pub fn descriptor() -> Result<OwnedFd> {
    // SAFETY: all-zero is a valid sigset_t.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a valid set.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: the pointer is to a valid set.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check_fd("signalfd", fd.into())
}

/// The next signal of a [`descriptor`], if one waits.
pub fn next(fd: impl AsFd) -> Result<Option<Received>> {
    // SAFETY: all-zero is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: pointer and length describe `info`, which any bytes are valid for.
    let n =
        unsafe { libc::read(fd.as_fd().as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
    match check("read", n as libc::c_long) {
        Ok(_) => Ok(Some(Received {
            signal: i32::try_from(info.ssi_signo).unwrap_or(0),
            pid: i32::try_from(info.ssi_pid).unwrap_or(0),
        })),
        Err(error) if error.errno() == libc::EAGAIN => Ok(None),
        Err(error) => Err(error),
    }
}
