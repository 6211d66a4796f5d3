//! The profile of containers that name none: docker's of today, but for `socketcall`.
//!
//! Allowed is what is named here; all else gives EPERM. Not named, and so denied (R20): the key
//! rings, io_uring, userfaultfd, and, without the capability that they need anyway, mounts, bpf,
//! modules, new namespaces. Sockets of the kernel's crypto (AF_ALG, CVE-2026-31431) and of virtual
//! machines (AF_VSOCK) are denied by their family. A filter can't look at the family behind
//! `socketcall`, the 32-bit multiplexer, so that is denied as a whole; docker's table has it, and
//! with it the hole. C libraries fall back from nothing to it: they call `socket` since Linux 4.3.

use hull_specs_oci::{self as oci, SeccompAction, SeccompArch, SeccompArg, SeccompOperator};

use super::Facts;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The flags of clone(2) that make namespaces: mount, cgroup, UTS, IPC, user, PID, network.
const NEW_NAMESPACES: u64 =
    0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// Personalities that give nothing away: Linux, Linux with a short stack address, both of 32-bit
/// uname, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// For every container.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset \
    chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range \
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate \
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 \
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 \
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom \
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents \
    io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc \
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr \
    lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create \
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 \
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd \
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat \
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 \
    pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv \
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat \
    rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount \
    statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid \
    write writev";
/// With a capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// On an architecture, by Go's name.
const BY_ARCHITECTURE: [(&[&str], &str); 6] = [
    (&["ppc64le"], "swapcontext sync_file_range2"),
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&["amd64"], "arch_prctl"),
    (&["amd64", "386"], "modify_ldt"),
    (&["s390", "s390x"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (&["riscv64"], "riscv_flush_icache"),
];

/// The architecture with those whose programs it runs, too.
fn architectures(architecture: &str) -> Vec<SeccompArch> {
    use SeccompArch as A;
    match architecture {
        "amd64" => vec![A::X86_64, A::X86, A::X32],
        "arm64" => vec![A::Aarch64, A::Arm],
        "mips64" => vec![A::Mips64, A::Mips, A::Mips64n32],
        "mips64le" => vec![A::Mipsel64, A::Mipsel, A::Mipsel64n32],
        "s390x" => vec![A::S390x, A::S390],
        "riscv64" => vec![A::Riscv64],
        "loong64" => vec![A::Loongarch64],
        // Empty is the runtime's own.
        _ => Vec::new(),
    }
}

fn allow(names: &str, args: Vec<SeccompArg>) -> oci::SeccompSyscall {
    let names = names.split_whitespace().map(str::to_owned).collect();
    oci::SeccompSyscall { names, action: SeccompAction::Allow, errno_ret: None, args }
}

fn first(op: SeccompOperator, value: u64) -> Vec<SeccompArg> {
    vec![SeccompArg { index: 0, value, value_two: 0, op }]
}

pub(super) fn profile(facts: &Facts<'_>) -> oci::Seccomp {
    use SeccompOperator::{EqualTo, GreaterThan, LessThan, MaskedEqual};
    let has = |cap: &str| facts.capabilities.iter().any(|other| other == cap);
    let mut syscalls = vec![allow(ALWAYS, Vec::new())];
    if facts.kernel >= (4, 8) {
        // Before, ptrace(2) could change a call after the filter had seen it.
        syscalls.push(allow("process_vm_readv process_vm_writev ptrace", Vec::new()));
    }
    for (op, family) in [(LessThan, AF_ALG), (EqualTo, AF_ALG + 1), (GreaterThan, AF_VSOCK)] {
        syscalls.push(allow("socket", first(op, family)));
    }
    for personality in PERSONALITIES {
        syscalls.push(allow("personality", first(EqualTo, personality)));
    }
    for (_, names) in
        BY_ARCHITECTURE.iter().filter(|(arches, _)| arches.contains(&facts.architecture))
    {
        syscalls.push(allow(names, Vec::new()));
    }
    for (_, names) in BY_CAPABILITY.iter().filter(|(cap, _)| has(cap)) {
        syscalls.push(allow(names, Vec::new()));
    }
    if !has("CAP_SYS_ADMIN") {
        let mut flags = first(MaskedEqual, NEW_NAMESPACES);
        // There the stack comes before the flags.
        flags[0].index = u32::from(facts.architecture.starts_with("s390"));
        syscalls.push(allow("clone", flags));
        // Its flags are behind a pointer; programs that are told it is not there take clone.
        syscalls.push(oci::SeccompSyscall {
            names: vec!["clone3".to_owned()],
            action: SeccompAction::Errno,
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    oci::Seccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(EPERM),
        architectures: architectures(facts.architecture),
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(caps: &[&str]) -> oci::Seccomp {
        let capabilities: Vec<_> = caps.iter().map(|&cap| cap.to_owned()).collect();
        profile(&Facts { architecture: "amd64", kernel: (6, 18), capabilities: &capabilities })
    }

    /// What is allowed whatever the arguments are.
    fn open(profile: &oci::Seccomp, name: &str) -> bool {
        profile.syscalls.iter().any(|rule| {
            rule.action == SeccompAction::Allow
                && rule.args.is_empty()
                && rule.names.iter().any(|other| other == name)
        })
    }

    #[test]
    fn what_is_dangerous_is_not_there() {
        let profile = of(&[]);
        for name in [
            "socketcall",
            "socket",
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "io_uring_enter",
            "userfaultfd",
            "bpf",
            "unshare",
            "setns",
            "mount",
            "clone",
            "clone3",
            "open_by_handle_at",
            "perf_event_open",
            "kexec_load",
            "personality",
            "reboot",
        ] {
            assert!(!open(&profile, name), "{name}");
        }
        for name in ["read", "execve", "openat2", "futex_waitv", "ptrace", "arch_prctl"] {
            assert!(open(&profile, name), "{name}");
        }
        let clone3 = profile.syscalls.iter().find(|rule| rule.names == ["clone3"]).unwrap();
        assert_eq!((clone3.action, clone3.errno_ret), (SeccompAction::Errno, Some(ENOSYS)));
    }

    #[test]
    fn no_rule_lets_a_family_through_that_is_denied() {
        let profile = of(&[]);
        let through = |family: u64| {
            profile.syscalls.iter().filter(|rule| rule.names == ["socket"]).any(|rule| {
                rule.args.iter().all(|arg| match arg.op {
                    SeccompOperator::LessThan => family < arg.value,
                    SeccompOperator::EqualTo => family == arg.value,
                    SeccompOperator::GreaterThan => family > arg.value,
                    _ => panic!("an operator that the table does not have"),
                })
            })
        };
        let denied: Vec<u64> = (0..64).filter(|family| !through(*family)).collect();
        assert_eq!(denied, [AF_ALG, AF_VSOCK]);
    }

    #[test]
    fn capabilities_open_what_they_are_for() {
        let admin = of(&["CAP_SYS_ADMIN"]);
        for name in ["mount", "unshare", "clone", "clone3", "bpf"] {
            assert!(open(&admin, name), "{name}");
        }
        assert!(!admin.syscalls.iter().any(|rule| rule.action == SeccompAction::Errno));
        assert!(open(&of(&["CAP_SYS_CHROOT"]), "chroot") && !open(&of(&[]), "chroot"));
    }
}
