//! The program that test containers run: it reports what a process inside sees,
//! as one JSON object, or does one thing and reports how that ended.
//!
//! It reads everything from `/proc` as a container's own program would, judges
//! nothing, and leaves a field out (`null`) when it cannot be read.
#![forbid(unsafe_code)]

mod action;
mod report;
mod scan;

use std::process::ExitCode;

use serde_json::Value;

const USAGE: &str = "usage: probe report [PATH...] | mknod PATH c|b MAJOR MINOR | open PATH r|w|rw \
                     | write PATH TEXT | alloc BYTES [HOLD_SECONDS] | sleep SECONDS | spin SECONDS \
                     | scan | pry NAME | notify MESSAGE... | as UID PROGRAM [ARG...]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Some(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(64)
        }
    }
}

fn run(words: &[&str]) -> Option<Value> {
    match words {
        ["report", paths @ ..] => Some(report::report(paths)),
        ["mknod", path, kind, major, minor] => {
            action::mknod(path, kind, major.parse().ok()?, minor.parse().ok()?)
        }
        ["open", path, mode] => action::open(path, mode),
        ["write", path, text] => Some(action::write(path, text)),
        ["alloc", bytes] => action::alloc(bytes.parse().ok()?, 0),
        ["alloc", bytes, hold] => action::alloc(bytes.parse().ok()?, hold.parse().ok()?),
        ["sleep", seconds] => Some(action::sleep(seconds.parse().ok()?)),
        ["scan"] => Some(scan::scan()),
        ["pry", own] => Some(scan::pry(own)),
        ["notify", messages @ ..] => Some(action::notify(messages)),
        ["as", id, program, args @ ..] => {
            Some(action::become_user(id.parse().ok()?, program, args))
        }
        ["spin", seconds] => Some(action::spin(seconds.parse().ok()?)),
        _ => None,
    }
}
