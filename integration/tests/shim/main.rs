//! The shim's suite. In most tests the test itself is containerd: it starts the shim,
//! calls it and takes its events. The rest goes through a real containerd.
//!
//! Proven on containerd-shim-runc-v2 (`HULL_SHIM=runc`).
#![forbid(unsafe_code)]

mod api;
mod attach;
mod bootstrap;
mod containerd;
mod control;
mod errors;
mod exec;
mod faults;
mod fuzz;
mod lifecycle;
mod log;
mod options;
mod pod;
mod recovery;
mod sandbox;
mod scale;
mod security;
mod stdio;
mod terminal;

use std::process::ExitCode;

use hull_integration::runtime;
use hull_integration::shim::shim;

fn main() -> ExitCode {
    hull_integration::suite::main(
        "shim",
        || format!("{} over {}", shim().banner, runtime().banner),
        &[
            lifecycle::TESTS,
            exec::TESTS,
            control::TESTS,
            stdio::TESTS,
            terminal::TESTS,
            errors::TESTS,
            pod::TESTS,
            sandbox::TESTS,
            bootstrap::TESTS,
            options::TESTS,
            faults::TESTS,
            recovery::TESTS,
            fuzz::TESTS,
            scale::TESTS,
            security::TESTS,
            log::TESTS,
            attach::TESTS,
            containerd::TESTS,
            api::TESTS,
        ],
    )
}
