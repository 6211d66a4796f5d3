//! The runtime's suite: one module a feature, every test against the command line.
#![forbid(unsafe_code)]

mod apparmor;
mod checkpoint;
mod devices;
mod exec;
mod hooks;
mod information;
mod input;
mod lifecycle;
mod mounts;
mod mutants;
mod namespaces;
mod process;
mod resources;
mod rootless;
mod run;
mod seccomp;
mod security;
mod stress;
mod systemd;
mod terminal;

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
            rootless::TESTS,
            systemd::TESTS,
            apparmor::TESTS,
            terminal::TESTS,
            information::TESTS,
            seccomp::TESTS,
            input::TESTS,
            security::TESTS,
            stress::TESTS,
            checkpoint::TESTS,
            mutants::TESTS,
        ],
    )
}
