//! Processes: exec, wait, pidfd, credentials, limits, priorities, personality.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{Error, Result, check, check_fd, retry};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code a shell would report: the exit code, or 128 + the signal.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A NULL-terminated array of strings, built before the exec that uses it, so that the
/// exec itself allocates nothing.
pub struct StringArray {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl StringArray {
    /// Takes the strings over.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: strings }
    }
}

/// execve(2). Returns only when it failed. Async-signal-safe.
pub fn execve(path: &CStr, args: &StringArray, env: &StringArray) -> Error {
    // SAFETY: `path` is NUL-terminated; both arrays are NULL-terminated arrays of
    // NUL-terminated strings, owned by the borrowed StringArrays.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Error::last("execve")
}

/// execveat(2) of the file that `fd` is open on. Returns only when it failed.
pub fn execveat(fd: impl AsFd, args: &StringArray, env: &StringArray) -> Error {
    // SAFETY: the path is a static empty string; the arrays are as in `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last("execveat")
}

/// faccessat2(2) with `AT_EACCESS` (kernel 5.8): whether the effective user may execute the
/// path as this process sees it; never on a mount without exec.
pub fn may_execute(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS,
        )
    };
    check("faccessat2", result).map(drop).map_err(|e| e.on(path.to_string_lossy()))
}

/// stat(2) of a path as this process sees it, following links.
pub fn stat(path: &CStr) -> Result<libc::stat> {
    // SAFETY: all-zero is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `stat` is ours to write.
    let result = unsafe { libc::stat(path.as_ptr(), &raw mut stat) };
    check("stat", result.into()).map_err(|e| e.on(path.to_string_lossy()))?;
    Ok(stat)
}

/// _exit(2): ends at once, without running destructors or flushing anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

/// waitpid(2): waits until the child `pid` has ended.
pub fn wait(pid: i32) -> Result<Exit> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to.
    retry("waitpid", || unsafe { libc::waitpid(pid, &raw mut status, 0) }.into())?;
    Ok(exit_of(status))
}

/// waitpid(-1, WNOHANG): the next child that has ended, if there is one.
pub fn reap_any() -> Result<Option<(i32, Exit)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the kernel to write to.
    let pid =
        retry("waitpid", || unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into());
    match pid {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((i32::try_from(pid).unwrap_or(0), exit_of(status)))),
        Err(error) if error.errno() == libc::ECHILD => Ok(None),
        Err(error) => Err(error),
    }
}

/// pidfd_open(2).
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor.
    check_fd("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_send_signal(2).
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo asks the kernel to fill it in, as kill(2) does.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, std::ptr::null::<u8>(), 0)
    };
    check("pidfd_send_signal", result).map(drop)
}

/// pidfd_getfd(2): a duplicate of another process's descriptor.
pub fn take_fd(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: pidfd_getfd takes integers and returns a new descriptor.
    check_fd("pidfd_getfd", unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0) })
}

/// Waits until a descriptor is readable (a pidfd: until its process has ended), at most
/// `timeout_ms` (-1: without end). Says whether it is.
pub fn wait_readable(fd: impl AsFd, timeout_ms: i32) -> Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one pollfd.
    let n = retry("poll", || unsafe { libc::poll(&raw mut poll, 1, timeout_ms) }.into())?;
    Ok(n > 0)
}

/// kill(2): only where no pidfd can be had, such as for a process group.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two integers.
    check("kill", unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// getpid(2).
#[must_use]
pub fn id() -> i32 {
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// geteuid(2).
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// getegid(2).
#[must_use]
pub fn effective_gid() -> u32 {
    // SAFETY: getegid takes nothing and cannot fail.
    unsafe { libc::getegid() }
}

/// setpgid(2): a process group of its own, in the caller's session.
pub fn new_group() -> Result<()> {
    // SAFETY: setpgid takes two integers.
    check("setpgid", unsafe { libc::setpgid(0, 0) }.into()).map(drop)
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    // SAFETY: setsid takes nothing.
    check("setsid", unsafe { libc::setsid() }.into()).map(drop)
}

/// setpgid(2): makes the caller the leader of a new process group.
pub fn lead_group() -> Result<()> {
    // SAFETY: setpgid takes integers.
    check("setpgid", unsafe { libc::setpgid(0, 0) }.into()).map(drop)
}

/// umask(2): the mask that was in force.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: umask takes an integer and cannot fail.
    unsafe { libc::umask(mask) }
}

/// fchdir(2).
pub fn change_directory(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: fchdir takes an integer.
    retry("fchdir", || unsafe { libc::fchdir(fd) }.into()).map(drop)
}

/// chdir(2).
pub fn change_directory_to(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    retry("chdir", || unsafe { libc::chdir(path.as_ptr()) }.into())
        .map(drop)
        .map_err(|e| e.on(path.to_string_lossy()))
}

/// getcwd(2) by the raw call: the C library's falls back to walking the tree, but what
/// matters here is the kernel's answer, which starts with `(unreachable)` for a directory
/// outside the root.
pub fn current_directory() -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length describe `buffer`.
    let n = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let n = usize::try_from(check("getcwd", n)?).unwrap_or(0);
    buffer.truncate(n.saturating_sub(1));
    Ok(buffer)
}

/// setgroups(2), setresgid(2), setresuid(2) by the raw calls, in that order.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length describe `groups`.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check("setgroups", result).map(drop)
}

/// setresgid(2) of all three ids.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: setresgid takes integers.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check("setresgid", result).map(drop).map_err(|e| e.on(gid))
}

/// setresuid(2) of all three ids.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: setresuid takes integers.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check("setresuid", result).map(drop).map_err(|e| e.on(uid))
}

/// setfsuid(2) and setfsgid(2) of this thread: whose files it makes. From 0 to another, it takes the
/// capabilities for files away, which then can be made effective again.
pub fn set_file_ids(uid: u32, gid: u32) -> Result<()> {
    for (name, call, id) in
        [("setfsgid", libc::SYS_setfsgid, gid), ("setfsuid", libc::SYS_setfsuid, uid)]
    {
        // SAFETY: both take an integer.
        unsafe { libc::syscall(call, id) };
        // They tell of no failure, but of the id before: none is changed to what is no id.
        // SAFETY: the same.
        if unsafe { libc::syscall(call, u32::MAX) } != libc::c_long::from(id) {
            return Err(Error::new(name, libc::EPERM).on(id));
        }
    }
    Ok(())
}

fn prctl(name: &'static str, option: i32, argument: libc::c_ulong) -> Result<i64> {
    // SAFETY: the options used in this module take integers only.
    check(name, unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privileges() -> Result<()> {
    prctl("prctl PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// PR_SET_PDEATHSIG: the signal this process gets when its parent's thread ends; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    let signal = libc::c_ulong::try_from(signal).unwrap_or(0);
    prctl("prctl PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, signal).map(drop)
}

/// PR_SET_DUMPABLE: whether other processes of the same user may trace this one.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl("prctl PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, dumpable.into()).map(drop)
}

/// PR_SET_CHILD_SUBREAPER.
pub fn set_subreaper(on: bool) -> Result<()> {
    prctl("prctl PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, on.into()).map(drop)
}

/// PR_SET_NAME: the name that `ps` shows, cut at 15 bytes.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    check("prctl PR_SET_NAME", result.into()).map(drop)
}

/// prlimit(2): a limit of a process; 0 is this one.
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: prlimit64 reads one rlimit64; a null old limit is not written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<u8>(),
        )
    };
    check("prlimit", result).map(drop)
}

/// prlimit(2): the soft and the hard limit of process `pid`, 0 for this one.
pub fn limit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null new limit changes nothing; prlimit64 writes one rlimit64.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<u8>(), &raw mut limit)
    };
    check("getrlimit", result)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: personality takes an integer.
    check("personality", unsafe { libc::personality(persona) }.into()).map(drop)
}

/// ioprio_set(2) for this process: class and level as the kernel packs them.
pub fn set_io_priority(class: i32, level: i32) -> Result<()> {
    // SAFETY: ioprio_set takes integers; 1 is IOPRIO_WHO_PROCESS, 0 this process.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, class << 13 | level) };
    check("ioprio_set", result).map(drop)
}

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedulingAttributes {
    /// The size of this structure; set by [`set_scheduling`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) for this process.
pub fn set_scheduling(mut attributes: SchedulingAttributes) -> Result<()> {
    attributes.size = size_of::<SchedulingAttributes>() as u32;
    // SAFETY: the kernel reads `size` bytes of the structure.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    check("sched_setattr", result).map(drop)
}

/// sched_setaffinity(2) for process `pid`, 0 for this one; bit n of the words is processor
/// n. The kernel reads as many words as it has processors for and ignores the rest.
pub fn set_affinity(pid: i32, words: &[u64]) -> Result<()> {
    // SAFETY: pointer and length describe `words`.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(words), words.as_ptr())
    };
    check("sched_setaffinity", result).map(drop)
}

/// The processors that this process may run on (sched_getaffinity(2)), as words whose bit n
/// is processor n.
pub fn affinity() -> Result<[u64; 16]> {
    let mut words = [0_u64; 16];
    // SAFETY: pointer and length describe `words`.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&words), words.as_mut_ptr())
    };
    check("sched_getaffinity", result)?;
    Ok(words)
}

/// The processor that this process runs on at the moment (getcpu(2)).
pub fn current_processor() -> Result<u32> {
    let mut processor = 0_u32;
    // SAFETY: `processor` is a valid place for the kernel to write to; the others are unused.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getcpu,
            &raw mut processor,
            std::ptr::null_mut::<u32>(),
            std::ptr::null_mut::<u8>(),
        )
    };
    check("getcpu", result)?;
    Ok(processor)
}

/// set_mempolicy(2); bit n of the words is memory node n.
pub fn set_memory_policy(mode: i32, words: &[u64]) -> Result<()> {
    let (pointer, bits) = match words {
        [] => (std::ptr::null(), 0),
        words => (words.as_ptr(), words.len() * 64 + 1),
    };
    // SAFETY: `pointer` is null or to `bits - 1` bits; the kernel reads one bit fewer
    // than it is told.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    check("set_mempolicy", result).map(drop)
}

/// keyctl(KEYCTL_JOIN_SESSION_KEYRING): a session keyring of this name; its serial number.
pub fn join_session_keyring(name: &CStr) -> Result<i64> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) };
    check("keyctl", result)
}

/// keyctl(KEYCTL_SETPERM) of a key.
pub fn set_key_permissions(serial: i64, permissions: u32) -> Result<()> {
    // SAFETY: KEYCTL_SETPERM takes integers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, 5, serial, permissions) };
    check("keyctl", result).map(drop)
}

/// keyctl(KEYCTL_DESCRIBE): `type;uid;gid;perm;description`.
pub fn describe_key(serial: i64) -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 1024];
    // SAFETY: pointer and length describe `buffer`.
    let n =
        unsafe { libc::syscall(libc::SYS_keyctl, 6, serial, buffer.as_mut_ptr(), buffer.len()) };
    let n = usize::try_from(check("keyctl", n)?).unwrap_or(0);
    buffer.truncate(n.min(buffer.len()).saturating_sub(1));
    Ok(buffer)
}

/// Waits until at least one of the descriptors is readable or at its end, at most
/// `timeout_ms` (-1: without end); says which are.
pub fn wait_any(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> Result<Vec<bool>> {
    let mut polls: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: pointer and length describe `polls`.
    retry("poll", || unsafe {
        libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) as libc::c_long
    })?;
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}

/// A child that has ended and is not yet reaped (waitid with WNOWAIT).
pub fn ended_child() -> Result<Option<i32>> {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid place for the kernel to write to.
    let result =
        retry("waitid", || unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) }.into());
    match result {
        Err(error) if error.errno() == libc::ECHILD => Ok(None),
        Err(error) => Err(error),
        Ok(_) => {
            // SAFETY: waitid filled in a child's information, or left the zeros.
            let pid = unsafe { info.si_pid() };
            Ok((pid != 0).then_some(pid))
        }
    }
}

/// getppid(2).
#[must_use]
pub fn parent_id() -> i32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { libc::getppid() }
}

/// prctl(PR_SCHED_CORE_CREATE) for this process's group: only these may share a core (kernel
/// 5.14, built with core scheduling).
pub fn create_core_scheduling_group() -> Result<()> {
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
    const SCOPE_PROCESS_GROUP: libc::c_ulong = 2;
    // SAFETY: prctl with integers only.
    let result =
        unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, SCOPE_PROCESS_GROUP, 0) };
    check("prctl", result.into()).map(drop)
}
