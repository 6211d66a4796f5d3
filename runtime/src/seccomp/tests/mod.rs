//! Profiles compiled and run.

mod machine;
mod random;

use hull_runtime_sys::seccomp::{self as sys, ret};
use hull_specs_oci::{Seccomp, SeccompArch};
use serde_json::{Value, json};

use super::{Program, compile, compile_for};
use machine::{Data, check, run};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const X32: u32 = 1 << 30;
const EPERM: u32 = ret::ERRNO | 1;
const ENOSYS: u32 = ret::ERRNO | 38;

const DEFAULT: &str = include_str!("../../../testdata/seccomp/default.json");

fn profile(value: Value) -> Seccomp {
    serde_json::from_value(value).unwrap()
}

fn build_for(native: SeccompArch, value: Value) -> Program {
    let program = compile_for(&profile(value), native, |_| true).unwrap();
    check(&program.instructions);
    program
}

fn build(value: Value) -> Program {
    build_for(SeccompArch::X86_64, value)
}

fn refusal(value: Value) -> String {
    let error = compile_for(&profile(value), SeccompArch::X86_64, |_| true).unwrap_err();
    format!("{error:#}")
}

impl Program {
    fn answer(&self, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        run(&self.instructions, &Data { number, arch, args }).0
    }

    fn call(&self, number: u32) -> u32 {
        self.answer(X86_64, number, [0; 6])
    }
}

#[test]
fn a_default_profile_gives_each_call_its_answer() {
    let program = build(serde_json::from_str(DEFAULT).unwrap());
    assert!(program.warnings.is_empty(), "{:?}", program.warnings);
    assert_eq!((program.flags, program.notify), (sys::SPEC_ALLOW, false));
    assert_eq!(program.call(0), ret::ALLOW, "read");
    assert_eq!(program.call(165), EPERM, "mount");
    assert_eq!(program.call(435), ENOSYS, "clone3");
    assert_eq!(program.call(470), ENOSYS, "newer than the profile");
    assert_eq!(program.answer(X86_64, 41, [40, 0, 0, 0, 0, 0]), EPERM, "vsock");
    assert_eq!(program.answer(X86_64, 41, [2, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 41, [40 | 1 << 32, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 56, [0x1000_0000, 0, 0, 0, 0, 0]), EPERM, "new userns");
    assert_eq!(program.answer(X86_64, 56, [0x11, 0, 0, 0, 0, 0]), ret::ALLOW, "fork");
    assert_eq!(program.answer(X86, 3, [0; 6]), ret::ALLOW, "32-bit read");
    assert_eq!(program.answer(X86, 21, [0; 6]), EPERM, "32-bit mount");
    assert_eq!(program.answer(X86_64, X32 + 520, [0; 6]), ret::ALLOW, "x32 execve");
    assert_eq!(program.answer(AARCH64, 63, [0; 6]), ret::KILL_THREAD, "foreign");
}

/// A profile that returns errno 77 for read under one condition on argument 1.
fn conditional(op: &str, value: u64, value_two: u64) -> Program {
    build(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 1, "op": op, "value": value, "valueTwo": value_two}],
        }],
    }))
}

#[test]
fn operators_compare_all_64_bits() {
    const HIGH: u64 = 1 << 32;
    let v = HIGH + 5;
    let samples = [0, 4, 5, 6, HIGH, v - 1, v, v + 1, 2 * HIGH, 2 * HIGH + 4, u64::MAX];
    let below = |x: u64| x < v;
    let table: [(&str, &dyn Fn(u64) -> bool); 6] = [
        ("SCMP_CMP_NE", &|x| x != v),
        ("SCMP_CMP_LT", &below),
        ("SCMP_CMP_LE", &|x| x <= v),
        ("SCMP_CMP_EQ", &|x| x == v),
        ("SCMP_CMP_GE", &|x| !below(x)),
        ("SCMP_CMP_GT", &|x| x > v),
    ];
    for (op, holds) in table {
        let program = conditional(op, v, 0);
        for x in samples {
            let answer = program.answer(X86_64, 0, [9, x, 9, 9, 9, 9]);
            let expected = if holds(x) { ret::ERRNO | 77 } else { ret::ALLOW };
            assert_eq!(answer, expected, "{x:#x} {op} {v:#x}");
        }
    }
}

#[test]
fn masks_apply_to_the_argument_and_to_the_value() {
    let mask = (0xff << 32) | 0xf0;
    // The bits of the value outside of the mask don't count.
    let program = conditional("SCMP_CMP_MASKED_EQ", mask, (0x21 << 32) | 0x5f);
    let hit = ret::ERRNO | 77;
    assert_eq!(program.answer(X86_64, 0, [0, (0x21 << 32) | 0x50, 0, 0, 0, 0]), hit);
    assert_eq!(program.answer(X86_64, 0, [0, (0xa21 << 32) | 0x15f, 0, 0, 0, 0]), hit);
    assert_eq!(program.answer(X86_64, 0, [0, (0x20 << 32) | 0x50, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 0, [0, (0x21 << 32) | 0x40, 0, 0, 0, 0]), ret::ALLOW);
    let everything = conditional("SCMP_CMP_MASKED_EQ", 0, 5);
    assert_eq!(everything.answer(X86_64, 0, [1; 6]), hit);
}

#[test]
fn conditions_on_several_arguments_must_all_hold() {
    let program = build(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [
            {"index": 5, "value": 7, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 3, "op": "SCMP_CMP_GT"}]}],
    }));
    assert_eq!(program.answer(X86_64, 0, [4, 0, 0, 0, 0, 7]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 0, [3, 0, 0, 0, 0, 7]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 0, [4, 0, 0, 0, 0, 8]), ret::ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_so_are_their_neighbours() {
    let program = build(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [
            {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"},
            {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]}],
    }));
    assert_eq!(program.answer(X86_64, 0, [3, 0, 0, 0, 0, 0]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 0, [5, 0, 0, 0, 0, 0]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 0, [0, 0, 9, 0, 0, 0]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 0, [4, 0, 8, 0, 0, 0]), ret::ALLOW);
}

#[test]
fn every_action_returns_its_value() {
    let table = [
        ("SCMP_ACT_KILL", None, ret::KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, ret::KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, ret::KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, ret::TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(38), ENOSYS),
        ("SCMP_ACT_ERRNO", Some(0), ret::ERRNO),
        ("SCMP_ACT_TRACE", None, ret::TRACE | 1),
        ("SCMP_ACT_TRACE", Some(65535), ret::TRACE | 65535),
        ("SCMP_ACT_LOG", None, ret::LOG),
        ("SCMP_ACT_ALLOW", None, ret::ALLOW),
    ];
    for (action, errno, expected) in table {
        let other = if expected == ret::ALLOW { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" };
        let mut rule = json!({"names": ["read"], "action": action});
        let mut default = json!({"defaultAction": action, "syscalls": [
            {"names": ["mseal"], "action": other}]});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
            default["defaultErrnoRet"] = json!(errno);
        }
        let program = build(json!({"defaultAction": other, "syscalls": [rule]}));
        assert_eq!(program.call(0), expected, "{action} by a rule");
        assert_eq!(build(default).call(0), expected, "{action} by default");
    }
    let notify = build(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}));
    assert_eq!(notify.call(83), ret::USER_NOTIF);
    assert!(notify.notify);
    assert_eq!(notify.load_flags(), sys::SPEC_ALLOW | sys::NEW_LISTENER);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let allow = json!([{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}]);
    for (action, newer, older) in [
        ("SCMP_ACT_ERRNO", ENOSYS, EPERM),
        ("SCMP_ACT_KILL", ENOSYS, ret::KILL_THREAD),
        ("SCMP_ACT_TRAP", ENOSYS, ret::TRAP),
        ("SCMP_ACT_LOG", ret::LOG, ret::LOG),
        ("SCMP_ACT_TRACE", ret::TRACE | 1, ret::TRACE | 1),
    ] {
        let program = build(json!({"defaultAction": action, "syscalls": allow}));
        assert_eq!(program.call(437), ret::ALLOW);
        assert_eq!(program.call(436), older, "{action}");
        assert_eq!(program.call(438), newer, "{action}");
        // Above all numbers, libseccomp's guard against x32 is what is left without ours.
        let above = if newer == ENOSYS { ENOSYS } else { ret::KILL_THREAD };
        assert_eq!(program.call(0x8000_0000), above, "{action}");
    }
    // Names count as known even where the action is the default one, or the argument's.
    let program = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mseal"], "action": "SCMP_ACT_ERRNO"}]}));
    assert_eq!(program.call(462), EPERM);
    assert_eq!(program.call(463), ENOSYS);
    // Without any name above number 0, there is nothing to compare with.
    let program = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(program.call(463), EPERM);
}

#[test]
fn x32_is_foreign_unless_listed() {
    let rules = json!([{"names": ["read", "execve"], "action": "SCMP_ACT_ALLOW"}]);
    let without = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert_eq!(without.call(X32), ret::KILL_THREAD);
    assert_eq!(without.call(X32 + 520), ret::KILL_THREAD);
    assert_eq!(without.call(u32::MAX), EPERM, "a tracer's way to skip a call");
    let with = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]}));
    assert_eq!(with.call(X32), ret::ALLOW);
    assert_eq!(with.call(X32 + 520), ret::ALLOW);
    assert_eq!(with.call(X32 + 59), EPERM, "the number of x86_64's execve");
    assert_eq!(with.call(X32 + 521), ENOSYS);
    assert_eq!(with.call(60), ENOSYS, "x86_64 has a newest call of its own");
}

#[test]
fn the_native_architecture_is_always_covered_and_others_only_if_listed() {
    let value = json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["openat", "set_tls"], "action": "SCMP_ACT_ALLOW"}]});
    let program = build_for(SeccompArch::Aarch64, value);
    assert_eq!(program.answer(AARCH64, 56, [0; 6]), ret::ALLOW);
    assert_eq!(program.answer(ARM, 322, [0; 6]), ret::ALLOW);
    assert_eq!(program.answer(ARM, 0x000f_0005, [0; 6]), ret::ALLOW);
    assert_eq!(program.answer(ARM, 0x000f_0004, [0; 6]), ret::LOG);
    assert_eq!(program.answer(X86_64, 257, [0; 6]), ret::KILL_THREAD);
    assert_eq!(program.answer(0x8000_0016, 288, [0; 6]), ret::KILL_THREAD);
}

#[test]
fn socket_and_ipc_calls_of_x86_are_ruled_in_both_forms() {
    let program = build(json!({
        "defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["connect", "shmget"], "action": "SCMP_ACT_TRAP"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            {"names": ["accept4"], "action": "SCMP_ACT_KILL",
             "args": [{"index": 3, "value": 1, "op": "SCMP_CMP_EQ"}]}],
    }));
    let x86 = |number, args| program.answer(X86, number, args);
    assert_eq!(x86(362, [0; 6]), ret::TRAP, "connect");
    assert_eq!(x86(102, [3, 0, 0, 0, 0, 0]), ret::TRAP, "socketcall(connect)");
    assert_eq!(x86(117, [23, 0, 0, 0, 0, 0]), ret::TRAP, "ipc(shmget)");
    assert_eq!(x86(117, [24, 0, 0, 0, 0, 0]), ret::LOG, "ipc(shmctl)");
    assert_eq!(x86(359, [40, 0, 0, 0, 0, 0]), ret::LOG, "socket(vsock)");
    // The first argument says which call it is, so that nothing is known of the call's own.
    assert_eq!(x86(102, [1, 0, 0, 0, 0, 0]), ret::ALLOW, "socketcall(socket)");
    assert_eq!(x86(102, [18, 0, 0, 1, 0, 0]), ret::KILL_THREAD, "other conditions stay");
    assert_eq!(x86(102, [18, 0, 0, 0, 0, 0]), ret::LOG);
    assert_eq!(program.answer(X86_64, 42, [0; 6]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 102, [3, 0, 0, 0, 0, 0]), ret::LOG, "getuid");
}

#[test]
fn narrow_architectures_compare_low_halves() {
    let program = build(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP",
            "args": [{"index": 0, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_EQ"}]}],
    }));
    assert_eq!(program.answer(X86, 3, [5, 0, 0, 0, 0, 0]), ret::TRAP);
    assert_eq!(program.answer(X86_64, 0, [5, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 0, [0x1_0000_0005, 0, 0, 0, 0, 0]), ret::TRAP);
}

#[test]
fn rules_equal_to_the_default_keep_nothing_from_applying() {
    let program = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(program.call(0), ret::ALLOW);
}

#[test]
fn unknown_names_are_warned_of_and_skipped() {
    let program = build(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["frobnicate", "read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(program.warnings, ["unknown seccomp syscall frobnicate ignored"]);
    assert_eq!(program.call(0), ret::ALLOW);
}

#[test]
fn flags_are_the_profiles_and_only_without_any_the_runtimes() {
    let with = |flags: Value, supported: u32| {
        let mut value = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        if !flags.is_null() {
            value["flags"] = flags;
        }
        compile_for(&profile(value), SeccompArch::X86_64, |flag| flag & !supported == 0)
            .map(|program| program.flags)
            .map_err(|error| format!("{error:#}"))
    };
    let all = sys::LOG | sys::SPEC_ALLOW | sys::WAIT_KILLABLE_RECV;
    assert_eq!(with(Value::Null, all), Ok(sys::SPEC_ALLOW));
    assert_eq!(with(Value::Null, 0), Ok(0));
    assert_eq!(with(json!([]), all), Ok(0));
    assert_eq!(with(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), 0), Ok(0));
    assert_eq!(with(json!(["SECCOMP_FILTER_FLAG_LOG"]), all), Ok(sys::LOG));
    let both = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(with(both, all), Ok(sys::LOG | sys::SPEC_ALLOW));
    let error = with(json!(["SECCOMP_FILTER_FLAG_LOG"]), 0).unwrap_err();
    assert!(error.contains("SECCOMP_FILTER_FLAG_LOG is not supported"), "{error}");
    let error = with(json!(["SECCOMP_FILTER_FLAG_NEW"]), all).unwrap_err();
    assert_eq!(error, "seccomp flag SECCOMP_FILTER_FLAG_NEW is not known");
    let error = with(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), all).unwrap_err();
    assert!(error.contains("SCMP_ACT_NOTIFY"), "{error}");
}

#[test]
fn profiles_that_cannot_be_honoured_are_refused() {
    let allow = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let table = [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}),
            "cannot be used as default action",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
            "cannot be used for the write syscall",
        ),
        (allow(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})), "listenerPath is not set"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "listenerMetadata is set but listenerPath is not",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "SCMP_ACT_ALLOW takes no errno",
        ),
        (
            allow(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "seccomp rule for read: SCMP_ACT_KILL takes no errno",
        ),
        (
            allow(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "errno 4096 of SCMP_ACT_ERRNO is above 4095",
        ),
        (
            allow(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"})),
            "empty string is not a valid syscall",
        ),
        (
            allow(json!({"names": ["read"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "only have arguments 0 to 5, not 6",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PARISC"]}),
            "SCMP_ARCH_PARISC has no table of system calls",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [
                if cfg!(target_endian = "little") { "SCMP_ARCH_S390X" } else { "SCMP_ARCH_ARM" }]}),
            "has another byte order than this machine",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_KILL",
                 "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["read"], "action": "SCMP_ACT_LOG",
                 "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "rules for read on SCMP_ARCH_X86_64 give different actions",
        ),
    ];
    for (value, expected) in table {
        let error = refusal(value);
        assert!(error.contains(expected), "{error}");
    }
}

/// One rule with its own value for each of `count` calls.
fn long_profile(count: u64) -> Value {
    let names = syscalls::x86_64::Sysno::iter().map(|call| call.name());
    let rules: Vec<_> = (0..count)
        .zip(names)
        .map(|(i, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": i % 2 + 1,
                "args": [{"index": 2, "value": i << 32 | 5, "op": "SCMP_CMP_LE"}]})
        })
        .collect();
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

#[test]
fn jumps_reach_across_long_programs() {
    let program = build(long_profile(300));
    assert!(program.instructions.len() > 1500);
    for i in 0..300_u32 {
        let value = (u64::from(i) << 32) + 5;
        let hit = ret::ERRNO | (i % 2 + 1);
        assert_eq!(program.answer(X86_64, i, [0, 0, value, 0, 0, 0]), hit, "{i}");
        assert_eq!(program.answer(X86_64, i, [0, 0, value + 1, 0, 0, 0]), ret::ALLOW, "{i}");
    }
    assert_eq!(program.answer(X86, 3, [0; 6]), ret::KILL_THREAD);
}

#[test]
fn a_program_too_long_for_the_kernel_is_refused() {
    let mut value = long_profile(330);
    let entries = value["syscalls"].as_array_mut().unwrap();
    for entry in entries.iter_mut() {
        let mut more = entry["args"][0].clone();
        for index in [0, 1, 3] {
            more["index"] = json!(index);
            entry["args"].as_array_mut().unwrap().push(more.clone());
        }
    }
    let error = refusal(value);
    assert!(error.contains("and the kernel takes 4096"), "{error}");
}

#[test]
fn a_search_is_short() {
    let program = build(serde_json::from_str(DEFAULT).unwrap());
    assert!(program.instructions.len() < 500, "{}", program.instructions.len());
    for number in (0..470).filter(|number| ![41, 56, 135].contains(number)) {
        let data = Data { number, arch: X86_64, args: [0; 6] };
        let (_, steps) = run(&program.instructions, &data);
        assert!(steps <= 14, "{number} takes {steps}");
    }
}

#[test]
fn features_lists_are_true() {
    let actions = super::known_actions();
    assert_eq!(actions.len(), 9);
    assert!(actions.is_sorted() && super::known_operators().is_sorted());
    for arch in super::known_architectures() {
        let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}]});
        build(value);
    }
    let supported = super::supported_flags();
    assert!(supported.contains(&"SECCOMP_FILTER_FLAG_LOG"));
    for flag in supported {
        let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
            "listenerPath": "/x",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]});
        compile(&profile(value)).unwrap();
    }
    assert!(super::known_flags().contains(&"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"));
}
