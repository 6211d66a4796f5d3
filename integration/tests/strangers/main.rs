//! Stock podman, containerd and dockerd run real containers through the runtime, and podman and
//! containerd with networks by our CNI plugin.
//!
//! `HULL_RUNTIME` names another runtime to drive, by its absolute path: the suite was
//! proven on Debian's runc. What the engines add of their own is not tested; every
//! test asks for something that they can only give when the runtime did its part.
#![forbid(unsafe_code)]

mod cni;
mod containerd;
mod debian;
mod docker;
mod podman;
mod seen;
mod umoci;

use std::process::ExitCode;

use hull_integration::runtime;

fn main() -> ExitCode {
    let podman = [
        podman::lifecycle::TESTS,
        podman::limits::TESTS,
        podman::namespaces::TESTS,
        podman::pods::TESTS,
        podman::process::TESTS,
        podman::storage::TESTS,
    ];
    let docker = [
        docker::lifecycle::TESTS,
        docker::limits::TESTS,
        docker::network::TESTS,
        docker::process::TESTS,
        docker::storage::TESTS,
    ];
    let others = [cni::TESTS, debian::TESTS, containerd::TESTS, umoci::TESTS];
    hull_integration::suite::main(
        "strangers",
        || runtime().banner.clone(),
        &[&others[..], &docker, &podman].concat(),
    )
}
