//! The runtime's suite: one module a feature, every test against the command line.
#![forbid(unsafe_code)]

mod lifecycle;

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_integration::suite::main("runtime", &[lifecycle::TESTS])
}
