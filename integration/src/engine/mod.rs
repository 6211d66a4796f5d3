//! Stock container engines, each started by the test on private places and told to
//! use the runtime under test.
//!
//! An engine is made for one test and lives as long as its value: its files are below
//! one [`Site`], its containers below one cgroup. Dropping it removes the containers
//! through the engine itself, ends the daemons, and then fails the test if a process,
//! mount, cgroup, or state directory of it is still there.
//!
//! Nothing of the machine's own engines is read or changed, and no service is started.

mod client;
pub mod containerd;
mod daemon;
pub mod docker;
mod either;
mod grpc;
mod hull;
mod image;
pub mod lab;
mod places;
mod podman;
mod registry;
pub(crate) mod residue;
mod site;
mod stock;
mod terminal;

pub use client::Client;
pub use containerd::{Containerd, Setup};
pub use docker::Docker;
pub use either::{Engine, reference};
pub use grpc::Grpc;
pub use hull::{Hull, SYSTEMD_CGROUPS, program};
pub use image::{busybox_archive, cached, debian_archive, oci_layout};
pub use lab::{Lab, Side};
pub use podman::Podman;
pub use registry::Registry;
pub(crate) use residue::mounts_below;
pub use site::Site;
pub use stock::stock;
pub use terminal::Terminal;

use crate::Invocation;

/// Ends with code 7 when asked to, as a program of a container should.
pub const SLEEPER: &str = "trap 'exit 7' TERM; trap 'echo usr1' USR1; while :; do sleep 0.05; done";

/// The runtime under test, as an engine is told of it.
pub fn runtime_path() -> &'static str {
    crate::runtime().program.to_str().expect("the path is text")
}

/// A command of words. The first is a program of Debian's or a path.
pub fn command<S: AsRef<str>>(words: &[S]) -> Invocation {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let (program, args) = words.split_first().expect("a command line has a program");
    let program = match program.contains('/') {
        true => (*program).to_owned(),
        false => stock(program),
    };
    Invocation::new(program).args(args)
}
