//! The runtime's suite: one module a feature, every test against the command line.
#![forbid(unsafe_code)]

mod apparmor;
mod checkpoint;
mod default_profiles;
mod delegated;
mod devices;
mod exec;
mod hooks;
mod information;
mod input;
mod lifecycle;
mod mounts;
mod mutants;
mod namespaces;
mod notify;
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

use hull_integration::runtime;

fn main() -> ExitCode {
    hull_integration::suite::main(
        "runtime",
        || runtime().banner.clone(),
        &[
            lifecycle::TESTS,
            run::TESTS,
            notify::TESTS,
            rootless::TESTS,
            delegated::TESTS,
            exec::TESTS,
            process::TESTS,
            mounts::TESTS,
            namespaces::TESTS,
            hooks::TESTS,
            devices::TESTS,
            resources::TESTS,
            systemd::TESTS,
            apparmor::TESTS,
            terminal::TESTS,
            information::TESTS,
            seccomp::TESTS,
            default_profiles::TESTS,
            input::TESTS,
            security::entering::TESTS,
            security::paths::TESTS,
            security::identity::TESTS,
            security::surface::TESTS,
            security::encoding::TESTS,
            stress::TESTS,
            checkpoint::TESTS,
            mutants::TESTS,
        ],
    )
}
