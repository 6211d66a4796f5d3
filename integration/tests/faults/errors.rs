//! The disk and the table of descriptors refuse: an exit is told all the same, nothing hangs,
//! and what is on disk is whole or not there.

use std::fs;

use hull_integration::engine::stock;
use hull_integration::shim::{Fault, Injector, SOON};
use hull_integration::{Invocation, note, tests, wait_for};
use serde_json::Value;

use super::life::{Life, Step};

tests![
    an_exit_is_told_whatever_its_record_meets,
    a_container_goes_on_whatever_its_log_meets,
    a_shim_without_descriptors_tells_the_exit_and_recovers,
];

const ERRORS: [&str; 3] = ["ENOSPC", "EIO", "EMFILE"];

/// What writes, in the words of the C libraries that the shim is linked against.
const CALLS: [&str; 11] = [
    "open",
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "close",
];

/// Has each call on one of `paths` fail, in each way, from before `first` to after the exit.
fn fail_each_call(first: Step, paths: impl Fn(&Life) -> Vec<String>, judge: impl Fn(&Life)) {
    let mut points = 0;
    for error in ERRORS {
        for call in CALLS {
            for at in 1.. {
                note(&format!("{call}, time {at}: {error}"));
                let mut life = Life::new();
                life.step(Step::Create).expect("nothing fails yet");
                if first > Step::Start {
                    life.step(Step::Start).expect("nothing fails yet");
                }
                let fault = Fault::Error(error);
                let injector = Injector::attach(life.shim(), call, at, fault, &paths(&life));
                if first <= Step::Start {
                    life.step(Step::Start).expect("no file that fails matters to it");
                }
                life.step(Step::Exit).expect("the exit is told");
                let (_, fired) = injector.detach();
                judge(&life);
                life.end(Step::Exit);
                if !fired {
                    break;
                }
                points += 1;
            }
        }
    }
    assert!(points > 0, "nothing failed");
    println!("faults: {points} errors from {first:?} on");
}

fn an_exit_is_told_whatever_its_record_meets() {
    let paths = |life: &Life| {
        let bundle = life.bundle();
        let names = ["exit.json", ".exit.json"];
        let whole = names.map(|name| format!("{bundle}/{name}"));
        names.map(str::to_owned).into_iter().chain(whole).chain([bundle]).collect()
    };
    fail_each_call(Step::Exit, paths, |life| {
        let record = wait_for("the record, at last", SOON, || {
            fs::read(format!("{}/exit.json", life.bundle())).ok()
        });
        let record: Value = serde_json::from_slice(&record).expect("a record is whole");
        assert_eq!(record["shellCode"], 7);
    });
}

fn a_container_goes_on_whatever_its_log_meets() {
    let paths = |life: &Life| vec![life.log(), format!("{}.partial", life.log())];
    fail_each_call(Step::Start, paths, |life| {
        let text = fs::read_to_string(life.log()).expect("it was made");
        for line in text.lines() {
            serde_json::from_str::<Value>(line).expect("entries are whole");
        }
    });
}

/// Lets a shim have descriptors up to a number.
fn limit(life: &Life, number: u32) {
    let pid = life.shim().to_string();
    let words = ["--pid", &pid, &format!("--nofile={number}:4096")];
    Invocation::new(stock("prlimit")).args(words).run().ok();
}

fn a_shim_without_descriptors_tells_the_exit_and_recovers() {
    let mut life = Life::new();
    life.step(Step::Create).expect("nothing fails yet");
    life.step(Step::Start).expect("nothing fails yet");
    limit(&life, 0);
    let refused = life.step(Step::Exec).expect_err("a runtime takes descriptors to run");
    // In the words of the C library.
    let words = ["no file descriptors available", "too many open files"];
    assert!(words.iter().any(|words| refused.message.contains(words)), "{refused:?}");
    life.step(Step::Exit).expect("the exit is told");
    limit(&life, 4096);
    life.end(Step::Exit);
}
