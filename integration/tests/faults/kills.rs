//! `kill -9` at each system call of the shim that has an effect, and at moments in between, when
//! its runtime works: its own `delete` then removes everything, and tells the exit status if
//! anybody can have heard it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::shim::{Fault, Injector, SOON};
use hull_integration::{note, tests, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::life::{Life, STEPS, Step};

tests![
    a_shim_that_is_killed_while_it_creates_leaves_nothing,
    a_shim_that_is_killed_while_it_starts_leaves_nothing,
    a_shim_that_is_killed_around_an_exec_leaves_nothing,
    a_shim_that_is_killed_around_the_exit_leaves_nothing,
    a_shim_that_is_killed_while_it_deletes_leaves_nothing,
    a_runtime_that_dies_with_its_shim_while_it_creates_leaves_nothing,
    a_runtime_that_dies_with_its_shim_around_an_exec_leaves_nothing,
    a_runtime_that_dies_with_its_shim_while_it_deletes_leaves_nothing,
    a_log_has_no_gap_and_no_copy_wherever_its_shim_is_killed,
];

/// How many moments of a step are tried.
const MOMENTS: u32 = 60;

/// Calls that change nothing outside the process.
const PURE: &[&str] = &[
    "brk",
    "clock_gettime",
    "epoll_pwait",
    "epoll_wait",
    "fcntl",
    "fstat",
    "fstatfs",
    "getpid",
    "getuid",
    "geteuid",
    "getsockopt",
    "getsockname",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "poll",
    "pread64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "stat",
    "statx",
];

/// Does everything before `step`.
fn until(step: Step) -> Life {
    let mut life = Life::new();
    for before in STEPS.into_iter().filter(|before| *before < step) {
        life.step(before).unwrap_or_else(|refusal| panic!("{before:?}: {refusal:?}"));
    }
    life
}

fn kill_at_each_call(step: Step, known: &[u32]) {
    let mut life = until(step);
    let counter = Injector::attach(life.shim(), "all", 1, Fault::None, &[]);
    life.step(step).unwrap_or_else(|refusal| panic!("{step:?}: {refusal:?}"));
    let (calls, _) = counter.detach();
    life.end(step);
    let mut points = 0;
    for call in calls.keys().filter(|call| !PURE.contains(&call.as_str())) {
        for at in 1.. {
            note(&format!("{step:?}: {call}, time {at}"));
            let mut life = until(step);
            let injector = Injector::attach(life.shim(), call, at, Fault::Kill, &[]);
            let done = life.step(step);
            injector.detach();
            if done.is_err() {
                wait_until("the end of the shim", SOON, || life.is_dead());
            } else if !life.is_dead() {
                life.end(step);
                break;
            }
            life.clean_up(known);
            points += 1;
        }
    }
    println!("faults: {points} points of {step:?}: {:?}", calls.keys().collect::<Vec<_>>());
}

fn kill_at_moments(step: Step, known: &[u32]) {
    // The quickest of some, because others use the machine, too.
    let took = (0..3).map(|_| {
        let mut life = until(step);
        let started = Instant::now();
        life.step(step).unwrap_or_else(|refusal| panic!("{step:?}: {refusal:?}"));
        let took = started.elapsed();
        life.end(step);
        took
    });
    let took = took.min().unwrap_or_default();
    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let delay: Duration = took * moment / MOMENTS;
        note(&format!("{step:?}: after {delay:?} of {took:?}"));
        let mut life = until(step);
        let shim = Pid::from_raw(life.shim());
        let killer = thread::spawn(move || {
            // Not to wait for something, but to be at another place each time.
            thread::sleep(delay);
            kill(shim, Signal::SIGKILL).expect("it lives");
        });
        cut_short += u32::from(life.step(step).is_err());
        killer.join().expect("it has killed");
        wait_until("the end of the shim", SOON, || life.is_dead());
        life.clean_up(known);
    }
    println!("faults: {cut_short} of {MOMENTS} moments were within {step:?}, of {took:?}");
    assert!(cut_short > 0, "{step:?} was always done");
}

fn a_runtime_that_dies_with_its_shim_while_it_creates_leaves_nothing() {
    kill_at_moments(Step::Create, &[137]);
}

fn a_runtime_that_dies_with_its_shim_around_an_exec_leaves_nothing() {
    kill_at_moments(Step::Exec, &[137]);
}

fn a_runtime_that_dies_with_its_shim_while_it_deletes_leaves_nothing() {
    kill_at_moments(Step::Delete, &[7]);
}

fn a_shim_that_is_killed_while_it_creates_leaves_nothing() {
    kill_at_each_call(Step::Create, &[137]);
}

fn a_shim_that_is_killed_while_it_starts_leaves_nothing() {
    kill_at_each_call(Step::Start, &[137]);
}

fn a_shim_that_is_killed_around_an_exec_leaves_nothing() {
    kill_at_each_call(Step::Exec, &[137]);
}

fn a_shim_that_is_killed_around_the_exit_leaves_nothing() {
    // Until the record is written nobody has heard of it.
    kill_at_each_call(Step::Exit, &[7, 137]);
}

fn a_shim_that_is_killed_while_it_deletes_leaves_nothing() {
    kill_at_each_call(Step::Delete, &[7]);
}

/// What of the output is in a log and its rotated files, put together again.
fn logged(log: &str) -> String {
    let rotated = (1..100).rev().map(|number| format!("{log}.{number}"));
    let texts = rotated.chain([log.to_owned()]).filter_map(|path| fs::read_to_string(path).ok());
    let mut output = String::new();
    for line in texts.collect::<String>().lines() {
        let entry: Value = serde_json::from_str(line).expect("entries are whole");
        output.push_str(entry["log"].as_str().expect("a text"));
    }
    output
}

fn a_log_has_no_gap_and_no_copy_wherever_its_shim_is_killed() {
    // Lines in pieces, so that some reads end within a line.
    let script = "i=0; while [ $i -lt 60 ]; do printf 'li'; printf \"ne $i\\n\"; i=$((i+1)); done
        printf end; sleep 1000";
    let expected: String = (0..60).map(|number| format!("line {number}\n")).collect();
    let mut points = 0;
    for call in ["write", "pwrite64", "open", "openat", "rename", "renameat", "unlink"] {
        for at in 1.. {
            note(&format!("{call}, time {at}"));
            let mut life = Life::with(script, "&max-size=1k&max-file=90");
            let log = life.log();
            life.step(Step::Create).expect("nothing fails yet");
            let injector = Injector::attach(life.shim(), call, at, Fault::Kill, &[]);
            // It may be killed before the answer or after it.
            let _ = life.step(Step::Start);
            let whole = format!("{expected}end");
            let partial = || fs::read(format!("{log}.partial")).unwrap_or_default();
            let is_done = || partial().ends_with(b"end") && logged(&log) == expected;
            wait_until("the end of shim or output", SOON, || life.is_dead() || is_done());
            injector.detach();
            let done = !life.is_dead();
            if done {
                life.kill();
            }
            life.clean_up(&[137]);
            let seen = logged(&log);
            assert!(whole.starts_with(&seen), "{seen:?}");
            if done {
                assert_eq!(seen, whole);
                break;
            }
            points += 1;
        }
    }
    println!("faults: {points} points of a log");
    assert!(points > 0, "nothing was killed");
}
