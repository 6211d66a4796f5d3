//! hulld and hull, as a person at a terminal and a script use them.
//!
//! Tests of what docker promises too take an [`Engine`]: `HULL_ENGINE=docker` runs them on
//! Debian's docker, which proves them. Tests of what is ours alone take a `Hull`, and are
//! counted as not applicable to docker.
//!
//! [`Engine`]: hull_integration::engine::Engine
#![forbid(unsafe_code)]

mod api;
mod concurrency;
mod firewalls;
mod formats;
mod full_disk;
mod images;
mod lifecycle;
mod logging;
mod network;
mod network_parents;
mod network_places;
mod network_ports;
mod network_recovery;
mod options;
mod recovery;
mod sessions;
mod storage;
mod systemd;
mod volumes;

use std::path::Path;
use std::process::ExitCode;

use hull_integration::engine::{program, reference};
use hull_integration::require;

/// Ends a test of the machine's own settings and services, unless the machine was made for it.
fn require_vm() {
    let ours = Path::new("/vm/command").exists();
    require!(ours, "it changes the machine itself: `make test-vm` has a machine for it");
}

fn main() -> ExitCode {
    hull_integration::suite::main(
        "manager",
        || match reference() {
            true => "Debian's docker".to_owned(),
            false => program("HULL_HULLD", "hulld"),
        },
        &[
            api::TESTS,
            concurrency::TESTS,
            firewalls::TESTS,
            formats::TESTS,
            full_disk::TESTS,
            images::TESTS,
            lifecycle::TESTS,
            logging::TESTS,
            network::TESTS,
            network_parents::TESTS,
            network_places::TESTS,
            network_ports::TESTS,
            network_recovery::TESTS,
            options::TESTS,
            recovery::TESTS,
            sessions::TESTS,
            storage::TESTS,
            systemd::TESTS,
            volumes::TESTS,
        ],
    )
}
