//! Starting another program, and going on without being one's own parent.

use std::{
    ffi::{CStr, CString, c_void},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
};

use crate::{Error, Result, check, process::StringArray};

/// A program to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// The file; no search in `PATH`.
    pub path: &'a CStr,
    /// Its arguments, beginning with its name.
    pub args: Vec<CString>,
    /// Its whole environment.
    pub env: Vec<CString>,
    /// Its descriptors 0, 1, 2 and so on. It has no others.
    pub fds: &'a [BorrowedFd<'a>],
    /// The signal it gets when this thread ends.
    pub death_signal: Option<i32>,
}

/// A started program.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
}

/// What the child reads and reports; it lives on the parent's stack, which stands still.
struct Shared<'a> {
    path: &'a CStr,
    args: &'a StringArray,
    env: &'a StringArray,
    fds: &'a [i32],
    death_signal: i32,
    parent: i32,
    error: Option<(&'static str, i32)>,
}

/// The child's stack. It makes some ten system calls; execve is the deepest.
const STACK: usize = 32 << 10;

/// Starts a program with the signal mask empty, in a process group of the caller's.
///
/// The child borrows this process's memory until its exec, as with vfork(2), so nothing is
/// copied, however large the process.
///
/// # Errors
/// Those of the exec itself, too.
pub fn spawn(program: Program<'_>) -> Result<Child> {
    let args = StringArray::new(program.args);
    let env = StringArray::new(program.env);
    // The numbers must lie above the wanted ones, so that none is overwritten before its turn.
    let lowest = i32::try_from(program.fds.len()).unwrap_or(i32::MAX).max(3);
    let above: Vec<OwnedFd> =
        program.fds.iter().map(|fd| crate::fd::duplicate(fd, lowest)).collect::<Result<_>>()?;
    let fds: Vec<i32> = above.iter().map(AsRawFd::as_raw_fd).collect();
    let mut shared = Shared {
        path: program.path,
        args: &args,
        env: &env,
        fds: &fds,
        death_signal: program.death_signal.unwrap_or(0),
        parent: crate::process::id(),
        error: None,
    };
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let mut pidfd: i32 = -1;
    let mask = crate::signal::block_all()?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack grows down from its aligned end and outlives the child's use of it,
    // because CLONE_VFORK holds this thread until the child has exec'd or ended; so does
    // `shared`, which nobody else touches meanwhile. Every signal is blocked, so that no
    // handler of ours runs in the child on our memory.
    let pid = unsafe {
        libc::clone(
            enter,
            stack.as_mut_ptr_range().end.cast::<c_void>(),
            flags,
            (&raw mut shared).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let result = check("clone", pid.into());
    mask.restore()?;
    result?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    let child = Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } };
    match shared.error {
        None => Ok(child),
        Some((call, errno)) => {
            crate::process::wait(pid)?;
            Err(Error::new(call, errno).on(program.path.to_string_lossy()))
        }
    }
}

/// The child, on the parent's memory: async-signal-safe, no allocation.
extern "C" fn enter(shared: *mut c_void) -> i32 {
    // SAFETY: `spawn` passes its `Shared`, which is valid and ours alone until the exec.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    shared.error = Some(become_program(shared));
    127
}

/// Does not return unless a call failed: its name and errno.
fn become_program(shared: &Shared<'_>) -> (&'static str, i32) {
    fn failed(call: &'static str) -> (&'static str, i32) {
        (call, Error::last(call).errno())
    }
    crate::signal::reset_dispositions();
    if shared.death_signal != 0 {
        // SAFETY: prctl with integers only.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, shared.death_signal) } == -1 {
            return failed("prctl");
        }
        // SAFETY: getppid takes nothing. A parent that ended before the prctl sends nothing.
        if unsafe { libc::getppid() } != shared.parent {
            return ("getppid", libc::ESRCH);
        }
    }
    for (wanted, fd) in (0i32..).zip(shared.fds) {
        // SAFETY: dup3 takes integers; both are descriptors of this process or free.
        if unsafe { libc::dup3(*fd, wanted, 0) } == -1 {
            return failed("dup3");
        }
    }
    let first = shared.fds.len() as libc::c_uint;
    // SAFETY: close_range takes integers.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if closed == -1 {
        return failed("close_range");
    }
    if let Err(error) = crate::signal::unblock_all() {
        return (error.call(), error.errno());
    }
    let error = crate::process::execve(shared.path, shared.args, shared.env);
    (error.call(), error.errno())
}

/// Has a program killed when the thread that starts it ends: with this process at the latest.
pub fn kill_with_parent(command: &mut std::process::Command) {
    let parent = crate::process::id();
    let ask = move || {
        crate::process::set_parent_death_signal(libc::SIGKILL)
            .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: getppid takes nothing. A parent that ended before the prctl sends nothing.
        match unsafe { libc::getppid() } == parent {
            true => Ok(()),
            false => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing unless the
    // first fails, which with a valid signal it does not.
    unsafe { command.pre_exec(ask) };
}

/// Which side of a [`fork`] the caller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The caller, with the child's process id.
    Parent(i32),
    /// The copy.
    Child,
}

/// fork(2). The caller must be single-threaded, because the copy goes on with its heap.
pub fn fork() -> Result<Fork> {
    // SAFETY: the caller is single-threaded, so the child's copy of memory is consistent.
    match check("fork", unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(i32::try_from(pid).unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::process::{Exit, wait};

    fn shell(script: &CStr, fds: &[BorrowedFd<'_>]) -> Result<Exit> {
        let args = vec![c"sh".into(), c"-c".into(), script.into()];
        let child = spawn(Program {
            path: c"/bin/sh",
            args,
            env: vec![c"A=b".into()],
            fds,
            death_signal: Some(libc::SIGKILL),
        })?;
        wait(child.pid)
    }

    #[test]
    fn a_program_gets_its_descriptors_and_environment_and_no_more() {
        let (reader, writer) = crate::fd::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let leak = crate::fd::duplicate(&null, 40).unwrap();
        let fds = [null.as_fd(), null.as_fd(), null.as_fd(), writer.as_fd()];
        let script = c"[ ! -e /proc/self/fd/40 ] && echo $A >&3";
        assert_eq!(shell(script, &fds).unwrap(), Exit::Code(0));
        drop((writer, leak));
        let out = crate::fd::read_to_end(&reader, 4096).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "b\n");
    }

    #[test]
    fn a_program_that_cannot_be_run_is_an_error_and_leaves_no_child() {
        let program = Program {
            path: c"/nonexistent",
            args: vec![c"x".into()],
            env: vec![],
            fds: &[],
            death_signal: None,
        };
        let error = spawn(program).unwrap_err();
        assert_eq!(error.to_string(), "execve /nonexistent: no such file or directory");
    }
}
