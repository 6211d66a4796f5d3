//! The runtime's suite: one module a feature, every test against the command line.
#![forbid(unsafe_code)]

mod devices;
mod exec;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_integration::suite::main(
        "runtime",
        &[
            lifecycle::TESTS,
            run::TESTS,
            exec::TESTS,
            process::TESTS,
            mounts::TESTS,
            namespaces::TESTS,
            hooks::TESTS,
            devices::TESTS,
            resources::TESTS,
        ],
    )
}
