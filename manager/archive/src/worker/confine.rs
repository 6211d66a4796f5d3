//! What a worker gives up before it reads the first byte. Each of these alone keeps an archive in
//! its directory; an error in the applier would have to get around all.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use hull_runtime_sys::{
    caps, fd, mount, namespace,
    path::{self, Links},
    process,
    seccomp::{self, ret, sock_filter},
};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
};

use super::{Mounted, job::Job};

/// Of one cached parent each, one level of a tree that is packed, and a few more.
const MAX_DESCRIPTORS: u64 = 2 * crate::budget::MAX_DEPTH as u64 + 256;
/// A zstd window of 128 MiB, the buffers, and the stacks of three threads.
const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// Capability numbers (`linux/capability.h`) that files of any owner, mode and kind need:
/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SYS_ADMIN (for the attribute of opaque
/// directories; what else it allows, the filter forbids), MKNOD, SETFCAP.
const KEPT: [u32; 8] = [0, 1, 2, 3, 4, 21, 27, 31];

/// What a job does with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    All,
    Read,
    Nothing,
}

/// Confines the calling process, which has one thread yet. Gives back the root, of which now
/// nothing is above.
pub(super) fn confine(
    root: OwnedFd,
    base: Option<BorrowedFd<'_>>,
    mounts: &[Mounted],
    job: &Job,
) -> Result<OwnedFd> {
    process::set_umask(0);
    process::set_dumpable(false)?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, MAX_DESCRIPTORS)?;
    limit(libc::RLIMIT_AS, MAX_MEMORY_BYTES)?;
    let root = alone(root)?;
    namespace::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC)
        .context("leave the namespaces (CAP_SYS_ADMIN)")?;
    if !mounts.is_empty() {
        mount_in(&root, mounts).context("mount what the container has mounted")?;
    }
    process::change_directory(&root)?;
    namespace::chroot_here().context("make the target the root (CAP_SYS_CHROOT)")?;
    let kept = KEPT.iter().fold(0, |all, capability| all | 1 << capability);
    let held = caps::get()?.permitted & kept;
    caps::clear_ambient()?;
    if let Some(id) = job.files_of() {
        // It takes capabilities for files away, which come back with the next call.
        process::set_file_ids(id, id)?;
    }
    caps::set(caps::Sets { effective: held, permitted: held, inheritable: 0 })?;
    process::set_no_new_privileges()?;
    landlock(&root, base, job.access()).context("restrict to the directory")?;
    seccomp::load(&filter(), 0).context("load the filter of system calls")?;
    Ok(root)
}

/// Lowers a limit, never raises it. Its number has another type in musl than in glibc.
fn limit(resource: impl TryInto<u32>, most: u64) -> Result<()> {
    let resource = resource.try_into().map_err(|_| anyhow::anyhow!("the number of a limit"))?;
    let (_, hard) = process::limit(0, resource)?;
    let most = most.min(hard);
    Ok(process::set_limit(0, resource, most, most)?)
}

/// The directory as the root of a mount of its own that is attached nowhere, so that `..` ends
/// there, and not only by openat2's rules. What is on a mount of another namespace (a container's)
/// or of none has nothing above it already, and the kernel refuses the copy.
fn alone(root: OwnedFd) -> Result<OwnedFd> {
    match mount::copy_of(&root, true) {
        Ok(copy) => Ok(copy),
        Err(error) if error.errno() == libc::EINVAL => Ok(root),
        Err(error) => Err(error).context("copy the mount of the target (CAP_SYS_ADMIN)"),
    }
}

/// Attaches mounts in the root, which is attached for that: before 6.15 nothing can be mounted on
/// what is in no namespace, and only in its own can a mount point not be unlinked.
fn mount_in(root: &OwnedFd, mounts: &[Mounted]) -> Result<()> {
    // Copies are peers of what they are copies of, and what is mounted would be mounted there.
    let private = |mount: &OwnedFd| {
        let propagation = Some(mount::Propagation::Private);
        let change = mount::Change { propagation, ..mount::Change::default() };
        mount::set_attributes(mount, change, true)
    };
    let top = fd::openat(fd::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    private(&top)?;
    private(root)?;
    mount::attach(root, &top)?;
    for Mounted { mount, at } in mounts {
        private(mount)?;
        let is_no_place = |errno| matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP);
        let mounted = path::open_in_root(root.as_fd(), at, libc::O_PATH, 0, Links::Follow)
            .and_then(|place| mount::attach(mount, place));
        match mounted {
            Err(error) if is_no_place(error.errno()) => {}
            mounted => mounted.with_context(|| format!("/{at}"))?,
        }
    }
    Ok(())
}

/// As far as the kernel can: before 5.13 there is no Landlock, and the rest must do.
fn landlock(root: &OwnedFd, base: Option<BorrowedFd<'_>>, access: Access) -> Result<()> {
    const KNOWN: ABI = ABI::V5;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = AccessFs::from_all(KNOWN);
    let mine = match access {
        Access::All => Some(all & !AccessFs::Execute),
        Access::Read => Some(read),
        Access::Nothing => None,
    };
    let mut rules = Ruleset::default().handle_access(all)?.create()?;
    if let Some(mine) = mine {
        rules = rules.add_rule(landlock::PathBeneath::new(root.as_fd(), mine))?;
    }
    if let Some(base) = base {
        rules = rules.add_rule(landlock::PathBeneath::new(base, read))?;
    }
    rules.restrict_self()?;
    Ok(())
}

/// What the applier and the packer call, and what threads and memory need.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    // fchmodat2(2), of which libc has no name on all machines.
    452,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fsetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `AUDIT_ARCH_*` of this machine.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// Where `struct seccomp_data` has the architecture, the number, and the low halves of the
/// arguments on machines of little endian.
const AT_ARCHITECTURE: u32 = 4;
const AT_NUMBER: u32 = 0;
const fn at_argument(n: u32) -> u32 {
    16 + 8 * n
}

fn filter() -> Vec<sock_filter> {
    const NOT_PERMITTED: u32 = ret::ERRNO | libc::EPERM as u32;
    const UNKNOWN: u32 = ret::ERRNO | libc::ENOSYS as u32;
    let mut filter = vec![
        load(AT_ARCHITECTURE),
        equal(ARCHITECTURE, 1, 0),
        answer(ret::KILL_PROCESS),
        load(AT_NUMBER),
    ];
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    for call in ALLOWED {
        filter.extend([equal(number(*call), 0, 1), answer(ret::ALLOW)]);
    }
    // The C library asks for clone3 first, whose flags a filter can't read, then for clone.
    filter.extend([equal(number(libc::SYS_clone3), 0, 1), answer(UNKNOWN)]);
    filter.extend([
        equal(number(libc::SYS_clone), 0, 4),
        load(at_argument(0)),
        any_bit(libc::CLONE_THREAD.cast_unsigned(), 0, 1),
        answer(ret::ALLOW),
        answer(NOT_PERMITTED),
    ]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        filter.extend([
            equal(number(call), 0, 4),
            load(at_argument(2)),
            any_bit(libc::PROT_EXEC.cast_unsigned(), 1, 0),
            answer(ret::ALLOW),
            answer(NOT_PERMITTED),
        ]);
    }
    filter.push(answer(NOT_PERMITTED));
    filter
}

fn load(at: u32) -> sock_filter {
    sock_filter { code: 0x20, jt: 0, jf: 0, k: at }
}

fn equal(value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x15, jt, jf, k: value }
}

fn any_bit(bits: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x45, jt, jf, k: bits }
}

fn answer(action: u32) -> sock_filter {
    sock_filter { code: 0x06, jt: 0, jf: 0, k: action }
}
