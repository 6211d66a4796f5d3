//! Seccomp: actions, operators, flags, several architectures, the listener.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use hull_integration::{
    Bundle, Container, SOON, SyscallProgram, peer_lacks, receive_fds, tests, wait_for,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

tests![
    an_allowed_call_works,
    an_errno_is_returned,
    an_errno_of_its_own_is_returned,
    the_default_errno_is_returned,
    a_call_newer_than_the_profile_does_not_exist,
    a_killed_process_is_killed_by_sigsys,
    a_killed_thread_is_killed,
    a_trap_gives_sigsys,
    a_trace_without_a_tracer_is_enosys,
    a_logged_call_works,
    each_operator_compares,
    several_arguments_all_have_to_match,
    several_rules_of_one_call_are_alternatives,
    a_large_profile_works,
    flags_are_accepted,
    an_unknown_call_is_ignored,
    an_unknown_action_is_refused,
    an_unknown_operator_is_refused,
    an_unknown_architecture_is_refused,
    the_32_bit_table_is_filtered_as_well,
    a_foreign_table_is_refused,
    it_works_without_no_new_privileges,
    it_applies_to_exec,
    the_mode_is_reported,
    a_listener_receives_the_descriptor_and_the_state,
    a_listener_that_is_missing_is_an_error,
    a_listener_without_notify_is_not_needed,
    notify_without_a_listener_is_refused,
    start_container_hooks_are_filtered,
];

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const SIGSYS: i32 = 31;
/// `personality` of x86-64: nothing else here calls it.
const PERSONALITY: u64 = 135;
const QUERY: u64 = 0xffff_ffff;

fn profile(default: &str, syscalls: Value) -> Value {
    json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": syscalls })
}

/// A bundle that makes one call as its whole program.
fn calling(program: &SyscallProgram, profile: Value) -> Bundle {
    Bundle::new().syscall_program("/call", program).args(&["/call"]).set("/linux/seccomp", profile)
}

fn exit_of(program: &SyscallProgram, profile: Value) -> i32 {
    let output = Container::new(calling(program, profile)).run();
    output.code().unwrap_or_else(|| panic!("{}", output.summary()))
}

fn personality() -> SyscallProgram {
    SyscallProgram::new(PERSONALITY).argument(QUERY)
}

fn rule(action: &str) -> Value {
    json!([{ "names": ["personality"], "action": action }])
}

fn refused(profile: Value) {
    let container = Container::new(Bundle::new().set("/linux/seccomp", profile));
    container.run().fails();
    container.assert_gone();
}

fn an_allowed_call_works() {
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", json!([]))), 0);
}

fn an_errno_is_returned() {
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"))), EPERM);
}

fn an_errno_of_its_own_is_returned() {
    let rules = json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]);
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rules)), 77);
    let rules = json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 }]);
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rules)), 0);
}

/// What a program and a runtime need at the end, allowed.
fn needed() -> Value {
    json!({
        "names": [
            "execve", "exit", "exit_group", "write", "read", "close", "futex", "getdents64", "fstat",
            "newfstatat", "openat", "mmap", "munmap", "mprotect", "brk", "rt_sigaction",
            "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "prctl", "capset", "capget",
            "setgroups", "setresuid", "setresgid", "setuid", "setgid", "fchdir", "chdir",
            "fcntl", "epoll_ctl", "epoll_pwait", "getpid", "gettid", "tgkill", "nanosleep",
            "madvise", "clone", "clone3", "pipe2", "sched_yield", "statfs", "fstatfs", "poll", "lseek",
            "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "getrandom",
            "umask", "ioctl", "dup", "dup3", "setsid", "sendmsg", "sendto", "recvfrom", "recvmsg", "socket",
            "close_range", "openat2", "readlinkat", "readlink", "getuid", "getgid", "geteuid", "getegid",
            "seccomp", "faccessat", "faccessat2", "stat", "lstat", "getppid", "kill", "keyctl",
            "unlinkat", "mkdirat", "getcwd", "wait4", "waitid", "exit", "timer_create", "sched_getaffinity",
            "setitimer", "timer_settime", "timer_delete", "nanosleep", "eventfd2", "epoll_create1"
        ],
        "action": "SCMP_ACT_ALLOW",
    })
}

fn the_default_errno_is_returned() {
    let mut with_default = profile("SCMP_ACT_ERRNO", json!([needed()]));
    assert_eq!(exit_of(&personality(), with_default.clone()), EPERM);
    with_default["defaultErrnoRet"] = json!(6);
    assert_eq!(exit_of(&personality(), with_default), 6);
}

fn a_call_newer_than_the_profile_does_not_exist() {
    // runc answers ENOSYS for what is above the newest number that the profile names.
    peer_lacks!("crun", "it answers the default errno");
    let newest = SyscallProgram::new(500);
    assert_eq!(exit_of(&newest, profile("SCMP_ACT_ERRNO", json!([needed()]))), ENOSYS);
    let mut with_default = profile("SCMP_ACT_ERRNO", json!([needed()]));
    with_default["defaultErrnoRet"] = json!(6);
    assert_eq!(exit_of(&newest, with_default), ENOSYS);
}

fn a_killed_process_is_killed_by_sigsys() {
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL"] {
        assert_eq!(
            exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule(action))),
            128 + SIGSYS,
            "{action}"
        );
    }
}

fn a_killed_thread_is_killed() {
    let code = exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_KILL_THREAD")));
    assert_eq!(code, 128 + SIGSYS, "the only thread was the process");
}

fn a_trap_gives_sigsys() {
    let code = exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_TRAP")));
    assert_eq!(code, 128 + SIGSYS);
}

fn a_trace_without_a_tracer_is_enosys() {
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_TRACE"))), ENOSYS);
}

fn a_logged_call_works() {
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_LOG"))), 0);
}

fn compare(operator: &str, value: u64, value_two: u64) -> Value {
    json!([{
        "names": ["dup2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
        "args": [{ "index": 1, "value": value, "valueTwo": value_two, "op": operator }],
    }])
}

fn each_operator_compares() {
    // dup2(1, x): x decides. A large number is EBADF by itself (9).
    let call = |number: u64| SyscallProgram::new(33).argument(1).argument(number);
    let big: u64 = 0x1_0000_0005;
    for (operator, value, value_two, matching, other) in [
        ("SCMP_CMP_EQ", 5, 0, 5, 6),
        ("SCMP_CMP_NE", 5, 0, 6, 5),
        ("SCMP_CMP_LT", 5, 0, 4, 5),
        ("SCMP_CMP_LE", 5, 0, 5, 6),
        ("SCMP_CMP_GT", 5, 0, 6, 5),
        ("SCMP_CMP_GE", 5, 0, 5, 4),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x20, 0x2f, 0x1f),
        // Both halves of the 64 bits count.
        ("SCMP_CMP_EQ", big, 0, big, 5),
        ("SCMP_CMP_NE", big, 0, 5, big),
        ("SCMP_CMP_LT", big, 0, 7, big + 1),
        ("SCMP_CMP_GT", big, 0, big + 1, 7),
        ("SCMP_CMP_GE", big, 0, big, 0xffff_ffff),
        ("SCMP_CMP_LE", big, 0, 0xffff_ffff, 0x2_0000_0000),
        ("SCMP_CMP_MASKED_EQ", 0x1_0000_0000, 0x1_0000_0000, big, 5),
    ] {
        let rules = || profile("SCMP_ACT_ALLOW", compare(operator, value, value_two));
        assert_eq!(exit_of(&call(matching), rules()), 99, "{operator} {value:#x} of {matching:#x}");
        assert_ne!(exit_of(&call(other), rules()), 99, "{operator} {value:#x} of {other:#x}");
    }
}

fn several_arguments_all_have_to_match() {
    let rules = json!([{
        "names": ["dup2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
        "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
            { "index": 1, "value": 5, "op": "SCMP_CMP_EQ" },
        ],
    }]);
    let call = |one: u64, two: u64| {
        exit_of(
            &SyscallProgram::new(33).argument(one).argument(two),
            profile("SCMP_ACT_ALLOW", rules.clone()),
        )
    };
    assert_eq!(call(1, 5), 99);
    assert_ne!(call(1, 6), 99);
    assert_ne!(call(2, 5), 99);
}

fn several_rules_of_one_call_are_alternatives() {
    let one = |value: u64| {
        json!({ "names": ["dup2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
                "args": [{ "index": 1, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    let rules = json!([one(5), one(7)]);
    let call = |two: u64| {
        exit_of(
            &SyscallProgram::new(33).argument(1).argument(two),
            profile("SCMP_ACT_ALLOW", rules.clone()),
        )
    };
    assert_eq!((call(5), call(7)), (99, 99));
    assert_ne!(call(6), 99);
}

fn a_large_profile_works() {
    let mut rules = vec![needed()];
    for value in 0..400 {
        rules.push(json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": value * 3 + 1, "op": "SCMP_CMP_EQ" }],
        }));
    }
    let with = |value: u64| {
        exit_of(
            &SyscallProgram::new(PERSONALITY).argument(value),
            profile("SCMP_ACT_ERRNO", json!(rules)),
        )
    };
    assert_eq!(with(QUERY), EPERM);
    assert_eq!(with(399 * 3 + 2), EPERM);
}

fn flags_are_accepted() {
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
    ] {
        if flags.as_array().is_some_and(|all| !all.is_empty()) {
            peer_lacks!("runc 1.1.5", "flags other than TSYNC are newer");
        }
        let mut with_flags = profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"));
        with_flags["flags"] = flags;
        assert_eq!(exit_of(&personality(), with_flags), EPERM);
    }
    let mut unknown = profile("SCMP_ACT_ALLOW", json!([]));
    unknown["flags"] = json!(["SECCOMP_FILTER_FLAG_NOSUCH"]);
    peer_lacks!("runc", "an empty profile is not looked at");
    refused(unknown);
}

fn an_unknown_call_is_ignored() {
    let rules = json!([{ "names": ["no_such_call", "personality"], "action": "SCMP_ACT_ERRNO" }]);
    assert_eq!(exit_of(&personality(), profile("SCMP_ACT_ALLOW", rules)), EPERM);
}

fn an_unknown_action_is_refused() {
    refused(profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_NOSUCH")));
    refused(profile("SCMP_ACT_NOSUCH", json!([])));
}

fn an_unknown_operator_is_refused() {
    refused(profile("SCMP_ACT_ALLOW", compare("SCMP_CMP_NOSUCH", 1, 0)));
}

fn an_unknown_architecture_is_refused() {
    let mut odd = profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"));
    odd["architectures"] = json!(["SCMP_ARCH_NOSUCH"]);
    refused(odd);
}

/// Whether this kernel has the 32-bit entry at all.
fn has_compat() -> bool {
    // getpid of the 32-bit table
    exit_of(&SyscallProgram::compat(20), profile("SCMP_ACT_ALLOW", json!([]))) == 0
}

fn the_32_bit_table_is_filtered_as_well() {
    hull_integration::require!(has_compat(), "the kernel has no 32-bit system calls");
    // personality is 136 in the 32-bit table
    let call = SyscallProgram::compat(136).argument(QUERY);
    assert_eq!(exit_of(&call, profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"))), EPERM);
    assert_eq!(exit_of(&call, profile("SCMP_ACT_ALLOW", json!([]))), 0);
}

fn a_foreign_table_is_refused() {
    hull_integration::require!(has_compat(), "the kernel has no 32-bit system calls");
    let mut native = profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO"));
    native["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    let call = SyscallProgram::compat(20);
    assert_eq!(exit_of(&call, native), 128 + SIGSYS);
}

fn it_works_without_no_new_privileges() {
    for set in [true, false] {
        let bundle = calling(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")))
            .set("/process/noNewPrivileges", set);
        Container::new(bundle).run().exits(EPERM);
    }
}

fn it_applies_to_exec() {
    let bundle = Bundle::sleeper()
        .syscall_program("/call", &personality())
        .set("/linux/seccomp", profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")));
    let container = Container::new(bundle);
    container.run_detached().ok();
    container.exec(&["/call"]).exits(EPERM);
}

fn the_mode_is_reported() {
    let bundle =
        Bundle::probe(&[]).set("/linux/seccomp", profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")));
    let report = Container::new(bundle).report();
    assert_eq!((&report["seccomp"], &report["seccompFilters"]), (&json!("2"), &json!("1")));
    assert_eq!(Container::new(Bundle::probe(&[])).report()["seccomp"], "0");
}

fn with_listener(bundle: Bundle) -> (Bundle, UnixListener) {
    let path = bundle.dir().join("listener.sock");
    let listener = UnixListener::bind(&path).expect("the bundle is writable");
    listener.set_nonblocking(true).expect("a socket");
    let bundle = bundle
        .set("/linux/seccomp/listenerPath", path.to_str().expect("text"))
        .set("/linux/seccomp/listenerMetadata", "some metadata");
    (bundle, listener)
}

fn a_listener_receives_the_descriptor_and_the_state() {
    let bundle = calling(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_NOTIFY")));
    let (bundle, listener) = with_listener(bundle);
    let container = Container::new(bundle);
    let running = container.with_bundle(&["run"]).start();
    let stream = wait_for("a connection to the listener", SOON, || {
        listener.accept().ok().map(|(stream, _)| stream)
    });
    stream.set_nonblocking(false).expect("a socket");
    let received = receive_fds(&stream, SOON);
    let state: Value = serde_json::from_slice(&received.payload).expect("JSON");
    assert_eq!(state["metadata"], "some metadata");
    assert_eq!(state["state"]["id"], json!(container.id));
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{state}");
    assert_eq!(received.fds.len(), 1);
    // The call is waiting for an answer; nobody listens any more: it does not exist.
    let mut fds = [PollFd::new(received.fds[0].as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(SOON).expect("it is short");
    assert_eq!(poll(&mut fds, limit), Ok(1), "a call is reported");
    drop(received);
    running.wait().exits(ENOSYS);
}

fn a_listener_that_is_missing_is_an_error() {
    let bundle = calling(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_NOTIFY")))
        .set("/linux/seccomp/listenerPath", "/no/such/socket");
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn a_listener_without_notify_is_not_needed() {
    let bundle = calling(&personality(), profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")))
        .set("/linux/seccomp/listenerPath", "/no/such/socket");
    peer_lacks!("crun", "it connects all the same");
    Container::new(bundle).run().exits(EPERM);
}

fn notify_without_a_listener_is_refused() {
    peer_lacks!("crun 1.8", "it goes on without");
    refused(profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_NOTIFY")));
    // The runtime itself would wait for an answer to its own calls.
    let (bundle, _listener) =
        with_listener(Bundle::new().set("/linux/seccomp", profile("SCMP_ACT_NOTIFY", json!([]))));
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn start_container_hooks_are_filtered() {
    let bundle = Bundle::shell("echo ran > /tmp/mark")
        .syscall_program("/call", &personality())
        .set("/linux/seccomp", profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO")))
        .push("/hooks/startContainer", json!({ "path": "/call" }));
    let container = Container::new(bundle);
    container.run().fails();
    assert!(!container.bundle.path("/tmp/mark").exists());
    container.assert_gone();
}
