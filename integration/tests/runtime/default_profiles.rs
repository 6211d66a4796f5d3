//! Docker's and podman's default seccomp profiles, call by call: a container tries every
//! number of each table that the profiles name, under the runtime and under runc, and the
//! filters' answers have to be the same.
//!
//! `HULL_REFERENCE` names another runc to compare with (default: Debian's).

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_integration::syscall_sweep::{self, Call, Outcome, Table};
use hull_integration::{
    Bundle, Container, Invocation, SyscallProgram, note, peer_lacks, require, runtime, tests,
};
use serde_json::{Value, json};

tests![
    dockers_answers_every_call_as_under_runc,
    podmans_answers_every_call_as_under_runc,
    a_profile_of_one_rule_less_answers_differently,
];

const DOCKER: &str = include_str!("../../testdata/docker-default-config.json");
const PODMAN: &str = "/usr/share/containers/seccomp.json";

/// Added to a profile's errnos: the sums (151, 172, 188) are nobody's errnos, so that the
/// filter's answer is told from the kernel's.
const MARK: i32 = 150;
const ENOSYS: i32 = 38;
const SIGSYS: i32 = 31;

/// The highest number of any table is 547, of the x32 ABI; 6.18 ends at 470 elsewhere.
const NUMBERS: u64 = 600;
/// What makes a number one of the x32 ABI.
const X32: u64 = 1 << 30;

/// Calls with arguments that a profile looks at: name, number, number in the 32-bit table.
const EXAMINED: &[(&str, u64, u64)] =
    &[("clone", 56, 120), ("personality", 135, 136), ("socket", 41, 359)];

/// 32-bit calls whose first argument says which call is meant, and how many there are.
const MULTIPLEXERS: &[(u64, u64)] = &[(102, 20), (117, 24)];

/// The 32-bit call that takes its set of signals by value.
const SIGSUSPEND: u64 = 72;

/// Calls of Linux 6.8 to 6.13 in Docker's profile or between those. Debian 12's libseccomp
/// knows the calls up to 6.7 (number 456), so that its runc gives all of these the answer
/// for calls that are newer than the profile; the runtime does what the profile says.
const NEWER_THAN_DEBIANS_LIBSECCOMP: &[(&str, u64)] = &[
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
];

/// What a filter did with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It answered this errno, or, where that is not marked, the kernel did.
    Errno(i32),
    Killed,
    Through,
}

fn verdict(outcome: Outcome, errnos: &BTreeSet<i32>) -> Verdict {
    match outcome {
        Outcome::Returned(errno) if errnos.contains(&errno) => Verdict::Errno(errno),
        Outcome::Signalled(SIGSYS) => Verdict::Killed,
        // Other signals come from what the call did: it was made.
        Outcome::Returned(_) | Outcome::Signalled(_) => Verdict::Through,
        Outcome::Odd(status) => panic!("a call ended with the status {status:#x}"),
    }
}

/// Every number of every table with two sets of arguments, and what the profile examines.
fn calls(profile: &Value) -> Vec<Call> {
    let mut out = BTreeSet::new();
    // None of these is a call: what a filter's searches could take for one.
    let beyond = (10..32).map(|bit| 1 << bit).chain([(1 << 31) - 1, (1 << 32) - 1]);
    let mut every = |number, arguments| {
        out.extend([
            Call { table: Table::Native, number, arguments },
            Call { table: Table::Native, number: number | X32, arguments },
            Call { table: Table::Compat, number, arguments },
        ]);
    };
    for number in (0..=NUMBERS).chain(beyond) {
        every(number, [0; 6]);
        every(number, [u64::MAX; 6]);
    }
    for rule in profile["syscalls"].as_array().expect("a list") {
        let args = rule["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in rule["names"].as_array().expect("a list").iter().filter(|_| !args.is_empty()) {
            let (_, native, compat) = EXAMINED
                .iter()
                .find(|(known, ..)| name == known)
                .unwrap_or_else(|| panic!("the numbers of {name} are not in the table"));
            for arguments in around(args) {
                out.extend([
                    Call { table: Table::Native, number: *native, arguments },
                    Call { table: Table::Native, number: native | X32, arguments },
                    Call { table: Table::Compat, number: *compat, arguments },
                ]);
            }
        }
    }
    for (number, count) in MULTIPLEXERS {
        let call = |first| Call {
            table: Table::Compat,
            number: *number,
            arguments: [first, 0, 0, 0, 0, 0],
        };
        out.extend((0..=*count).map(call));
    }
    // With all signals blocked it would wait for ever; with none it is among the rest.
    out.remove(&Call { table: Table::Compat, number: SIGSUSPEND, arguments: [u64::MAX; 6] });
    out.into_iter().collect()
}

/// Arguments for which a rule holds, and ones that differ from them in one place.
fn around(conditions: &[Value]) -> Vec<[u64; 6]> {
    let mut holding = [0; 6];
    for condition in conditions {
        let value = match condition["op"].as_str() {
            Some("SCMP_CMP_MASKED_EQ") => condition["valueTwo"].as_u64().unwrap_or(0),
            _ => condition["value"].as_u64().expect("a number"),
        };
        holding[index(condition)] = value;
    }
    let mut out = vec![holding];
    for condition in conditions {
        let (value, held) =
            (condition["value"].as_u64().expect("a number"), holding[index(condition)]);
        let bits = (0..64).map(|bit| held ^ 1 << bit);
        let near = [value.wrapping_sub(1), value, value.wrapping_add(1), !value, 0, u64::MAX];
        out.extend(bits.chain(near).map(|changed| {
            let mut arguments = holding;
            arguments[index(condition)] = changed;
            arguments
        }));
    }
    out
}

fn index(condition: &Value) -> usize {
    condition["index"].as_u64().and_then(|index| usize::try_from(index).ok()).expect("0 to 5")
}

/// The profile with `mark` added to every errno that it answers, and these errnos.
fn marked(profile: &Value, mark: i32) -> (Value, BTreeSet<i32>) {
    let mut profile = profile.clone();
    // A call that is newer than the profile gets this one from runc, whatever it says.
    let mut errnos = BTreeSet::from([ENOSYS]);
    let mut change = |slot: &mut Value| {
        let errno = slot.as_i64().map_or(1, |errno| i32::try_from(errno).expect("small")) + mark;
        errnos.insert(errno);
        *slot = json!(errno);
    };
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    change(&mut profile["defaultErrnoRet"]);
    for rule in profile["syscalls"].as_array_mut().expect("a list") {
        if rule["action"] == "SCMP_ACT_ERRNO" {
            change(&mut rule["errnoRet"]);
        }
    }
    (profile, errnos)
}

/// The answers to all calls, under one runtime.
fn answers(program: &Path, profile: &Value, mark: i32, calls: &[Call]) -> Vec<Verdict> {
    let (profile, errnos) = marked(profile, mark);
    let bundle = Bundle::new()
        .program("/sweep", syscall_sweep::program(calls))
        .args(&["/sweep"])
        .set("/linux/seccomp", profile);
    let container = Container::new(bundle);
    let run = Invocation::new(program).arg("--root").arg(container.root()).arg("run");
    let run = run.arg("--bundle").arg(container.bundle.dir()).arg(&container.id);
    let output = run.limit(Duration::from_secs(240)).run().ok();
    let written = fs::read(&output.stdout_file).expect("the scratch directory is readable");
    let outcomes = syscall_sweep::outcomes(&written, calls).expect("all calls were made");
    outcomes.into_iter().map(|outcome| verdict(outcome, &errnos)).collect()
}

/// The calls that two of them answer differently.
fn differences<'a>(
    calls: &'a [Call],
    one: &'a [Verdict],
    other: &'a [Verdict],
) -> impl Iterator<Item = (&'a Call, Verdict, Verdict)> {
    calls
        .iter()
        .zip(one.iter().zip(other))
        .filter(|(_, (one, other))| one != other)
        .map(|(call, (one, other))| (call, *one, *other))
}

fn reference() -> PathBuf {
    let program = env::var_os("HULL_REFERENCE").map_or("/usr/sbin/runc".into(), PathBuf::from);
    require!(program.is_file(), "{} is missing: it is Debian's package runc", program.display());
    program
}

#[track_caller]
fn assert_same_answers(profile: &Value) {
    peer_lacks!("runc", "it is what is compared with");
    peer_lacks!("crun", "it answers the default errno to newer calls");
    let reference = reference();
    let mut calls = calls(profile);
    let mut wrong = Vec::new();
    for mark in [MARK, 0] {
        let ours = answers(&runtime().program, profile, mark, &calls);
        let theirs = answers(&reference, profile, mark, &calls);
        let through = ours.iter().filter(|verdict| **verdict == Verdict::Through).count();
        note(&format!("{} calls, {through} get through", calls.len()));
        // A sweep that meets no denial, or nothing but denials, compares nothing.
        let made = if mark == 0 { 0 } else { 400 };
        assert!(through >= made && calls.len() - through > 400, "{through} of {}", calls.len());
        let denied = marked(profile, mark).0["defaultErrnoRet"].as_i64();
        let denied = denied.and_then(|errno| i32::try_from(errno).ok()).expect("it was set");
        for (call, ours, theirs) in differences(&calls, &ours, &theirs) {
            if newer(profile, call, Verdict::Errno(denied)) != Some((ours, theirs)) {
                wrong.push(format!("{call:x?}: {ours:?}, under runc {theirs:?}"));
            }
        }
        // Without marks only what a filter answers is compared: the kernel's own errnos
        // (EINVAL of a message queue that is there or not) look like a profile's.
        let mut answered =
            ours.iter().zip(&theirs).map(|both| both != (&Verdict::Through, &Verdict::Through));
        calls.retain(|_| answered.next() == Some(true));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// What a call that Debian's libseccomp does not know is answered, by the runtime and by
/// runc.
fn newer(profile: &Value, call: &Call, denied: Verdict) -> Option<(Verdict, Verdict)> {
    let x32 = call.table == Table::Native && call.number & X32 != 0;
    let number = if x32 { call.number & !X32 } else { call.number };
    let (name, _) = NEWER_THAN_DEBIANS_LIBSECCOMP.iter().find(|(_, known)| *known == number)?;
    let rules = profile["syscalls"].as_array()?;
    let allowed = rules.iter().any(|rule| {
        rule["action"] == "SCMP_ACT_ALLOW"
            && rule["names"].as_array().is_some_and(|names| names.contains(&json!(name)))
    });
    let absent = Verdict::Errno(ENOSYS);
    Some(match (allowed, x32) {
        (true, false) => (Verdict::Through, absent),
        // Few kernels have the x32 ABI; runc's answer for newer calls does not cover it.
        (true, true) if has_x32() => (Verdict::Through, denied),
        (true, true) => (absent, denied),
        (false, _) => (denied, absent),
    })
}

/// Whether the kernel has the x32 ABI, by its number for getpid.
fn has_x32() -> bool {
    let program = SyscallProgram::new(X32 | 39);
    let bundle = Bundle::new().syscall_program("/call", &program).args(&["/call"]);
    Container::new(bundle).run().code() == Some(0)
}

fn docker() -> Value {
    let config: Value = serde_json::from_str(DOCKER).expect("it is JSON");
    config["linux"]["seccomp"].clone()
}

/// podman's profile as podman makes it for a container on this processor that has no
/// capability of its lists: rules for others are left out.
fn podman() -> Value {
    require!(
        Path::new(PODMAN).is_file(),
        "{PODMAN} is missing: Debian's golang-github-containers-common has it"
    );
    let text = fs::read(PODMAN).expect("it is readable");
    let profile: Value = serde_json::from_slice(&text).expect("it is JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let own = |rule: &&Value| {
        let architectures = list(&rule["includes"]["arches"]);
        (architectures.is_empty() || architectures.contains(&json!("amd64")))
            && list(&rule["includes"]["caps"]).is_empty()
    };
    let rules = list(&profile["syscalls"]);
    let rules: Vec<Value> = rules
        .iter()
        .filter(own)
        .map(|rule| {
            let mut rule = rule.clone();
            let members = rule.as_object_mut().expect("a rule is an object");
            for name in ["comment", "errno", "excludes", "includes"] {
                members.remove(name);
            }
            rule
        })
        .collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn dockers_answers_every_call_as_under_runc() {
    assert_same_answers(&docker());
}

fn podmans_answers_every_call_as_under_runc() {
    assert_same_answers(&podman());
}

/// The control: the comparison finds exactly the calls of one name that is taken out.
fn a_profile_of_one_rule_less_answers_differently() {
    let whole = docker();
    let mut less = whole.clone();
    let names = less["syscalls"][0]["names"].as_array_mut().expect("a list");
    names.retain(|name| name != "sysinfo");
    let calls = calls(&whole);
    let [whole, less] =
        [whole, less].map(|profile| answers(&runtime().program, &profile, MARK, &calls));
    let found: BTreeSet<(Table, u64)> =
        differences(&calls, &whole, &less).map(|(call, ..)| (call.table, call.number)).collect();
    let expected = [(Table::Native, 99), (Table::Native, 99 | X32), (Table::Compat, 116)];
    assert_eq!(found, BTreeSet::from(expected));
}
