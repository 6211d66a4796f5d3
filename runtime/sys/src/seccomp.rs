//! seccomp(2): loading a filter, and asking the kernel what it knows.
//!
//! Nothing here sets `no_new_privs`: whether a process gives up gaining privileges is the
//! caller's decision, and without it the kernel asks for `CAP_SYS_ADMIN` instead.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

use libc::{c_int, c_long, c_uint, c_void};

pub use libc::sock_filter;

use crate::{Error, Result, check, retry};

const SET_MODE_FILTER: c_uint = 1;
const GET_ACTION_AVAIL: c_uint = 2;

/// `SECCOMP_FILTER_FLAG_TSYNC`: the filter is for every thread of the process.
pub const TSYNC: u32 = 1 << 0;
/// `SECCOMP_FILTER_FLAG_LOG`: everything but "allow" is logged.
pub const LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: leave the speculative store bypass mitigation off.
pub const SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return the descriptor of user notifications.
pub const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: once its notification was received, a process
/// waits for the answer undisturbed by anything but fatal signals (Linux 5.19).
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// `SECCOMP_RET_*`: what a filter returns.
pub mod ret {
    /// The thread is killed.
    pub const KILL_THREAD: u32 = 0;
    /// The process is killed.
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    /// The thread gets SIGSYS.
    pub const TRAP: u32 = 0x0003_0000;
    /// The call fails with the errno in the low 16 bits.
    pub const ERRNO: u32 = 0x0005_0000;
    /// The call waits for an answer from the holder of the listener.
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    /// A tracer decides; it gets the low 16 bits.
    pub const TRACE: u32 = 0x7ff0_0000;
    /// The call is made and logged.
    pub const LOG: u32 = 0x7ffc_0000;
    /// The call is made.
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// Loads a filter into the calling thread; with [`NEW_LISTENER`] among the flags, returns
/// the listener (which the kernel creates close-on-exec).
///
/// Allocates nothing and takes no lock, so it may run in the child of a clone.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`; `EINVAL` for a program or a
/// combination of flags that the kernel refuses.
pub fn load(filter: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| Error::new("seccomp", libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let result =
        retry("seccomp", || seccomp(SET_MODE_FILTER, flags, ptr::from_ref(&program).cast()))?;
    if flags & NEW_LISTENER == 0 {
        // With TSYNC, a positive result is the thread that could not be synchronised.
        return if result == 0 { Ok(None) } else { Err(Error::new("seccomp", libc::ESRCH)) };
    }
    let fd = c_int::try_from(result).map_err(|_| Error::new("seccomp", libc::EBADF))?;
    // SAFETY: with NEW_LISTENER the kernel's result is a descriptor it has just made for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows a return action ([`ret`]).
#[must_use]
pub fn action_available(action: u32) -> bool {
    check("seccomp", seccomp(GET_ACTION_AVAIL, 0, ptr::from_ref(&action).cast())).is_ok()
}

/// Whether the kernel takes these flags together.
///
/// The flags are checked before the program is read, so that a program at address 0 ends
/// in `EFAULT` when the flags are good; nothing can get loaded.
#[must_use]
pub fn flags_available(flags: u32) -> bool {
    match check("seccomp", seccomp(SET_MODE_FILTER, flags, ptr::null())) {
        Ok(_) => false,
        Err(error) => error.errno() == libc::EFAULT,
    }
}

fn seccomp(operation: c_uint, flags: c_uint, argument: *const c_void) -> c_long {
    // SAFETY: `argument` is null, which the kernel answers with EFAULT, or points to the
    // sock_fprog or the u32 that the operation reads, alive during the call; a sock_fprog
    // describes a slice that outlives it too. The kernel copies and keeps no pointer.
    unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW_ALL: [sock_filter; 1] = [sock_filter { code: 0x06, jt: 0, jf: 0, k: ret::ALLOW }];

    #[test]
    fn the_kernel_knows_the_actions_of_the_specification_and_no_others() {
        for action in [
            ret::KILL_THREAD,
            ret::KILL_PROCESS,
            ret::TRAP,
            ret::ERRNO,
            ret::USER_NOTIF,
            ret::TRACE,
            ret::LOG,
            ret::ALLOW,
        ] {
            assert!(action_available(action), "{action:#x}");
        }
        assert!(!action_available(0x1234_0000));
    }

    #[test]
    fn flags_are_probed_without_loading_anything() {
        let state = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let filters = |status: String| {
            status.lines().find(|line| line.starts_with("Seccomp_filters:")).map(str::to_owned)
        };
        let before = filters(state());
        assert!(before.is_some());
        assert!(flags_available(0));
        assert!(flags_available(LOG));
        assert!(flags_available(SPEC_ALLOW | NEW_LISTENER));
        assert!(!flags_available(1 << 30));
        assert_eq!(filters(state()), before);
    }

    /// Runs `f` in a thread that has given up gaining privileges, which is what a filter
    /// stays with: it neither needs a privilege nor reaches another test.
    fn confined<T: Send>(f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    // SAFETY: PR_SET_NO_NEW_PRIVS takes four plain numbers.
                    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
                    assert_eq!(result, 0);
                    f()
                })
                .join()
                .unwrap()
        })
    }

    /// Returns `action` for getppid, which nothing here needs, and allows the rest.
    fn only_getppid(action: u32) -> [sock_filter; 4] {
        let number = u32::try_from(libc::SYS_getppid).unwrap();
        [
            sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
            sock_filter { code: 0x06, jt: 0, jf: 0, k: action },
            ALLOW_ALL[0],
        ]
    }

    #[test]
    fn a_loaded_filter_decides() {
        let (result, ppid, errno) = confined(|| {
            let result = load(&only_getppid(ret::ERRNO | 77), LOG);
            // SAFETY: getppid takes nothing.
            let ppid = unsafe { libc::syscall(libc::SYS_getppid) };
            (result, ppid, Error::last("getppid").errno())
        });
        assert!(matches!(result, Ok(None)), "{result:?}");
        assert_eq!((ppid, errno), (-1, 77));
    }

    #[test]
    fn a_listener_is_close_on_exec() {
        use std::os::fd::AsRawFd;
        let flags = confined(|| {
            let listener = load(&only_getppid(ret::USER_NOTIF), NEW_LISTENER).unwrap().unwrap();
            // SAFETY: F_GETFD takes a descriptor, which `listener` keeps open.
            unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFD) }
        });
        assert_eq!(flags, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_program_the_kernel_refuses_is_an_error_with_the_calls_name() {
        let nothing: [sock_filter; 0] = [];
        let error = confined(|| load(&nothing, 0)).unwrap_err();
        assert_eq!((error.call(), error.errno()), ("seccomp", libc::EINVAL));
        let too_long = vec![ALLOW_ALL[0]; 70_000];
        assert_eq!(load(&too_long, 0).unwrap_err().errno(), libc::EINVAL);
    }
}
