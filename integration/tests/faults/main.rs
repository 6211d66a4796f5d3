//! The shim under faults: killed at each of its system calls, and refused each write of what
//! must not be lost. `make faults` runs it.
#![forbid(unsafe_code)]

mod errors;
mod kills;
mod life;

use std::process::ExitCode;

use hull_integration::runtime;
use hull_integration::shim::shim;

fn main() -> ExitCode {
    hull_integration::suite::main(
        "faults",
        || format!("{} over {}", shim().banner, runtime().banner),
        &[kills::TESTS, errors::TESTS],
    )
}
