//! The runtime's suite: one module a feature, every test against the command line.
#![forbid(unsafe_code)]

mod exec;
mod lifecycle;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_integration::suite::main("runtime", &[lifecycle::TESTS, run::TESTS, exec::TESTS])
}
