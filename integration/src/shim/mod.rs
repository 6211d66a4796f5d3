//! Acting as containerd towards a shim.
//!
//! A test makes a [`Host`], which is what a shim sees of containerd: a directory of
//! bundles, the socket that takes events, and a client of the task service. The shim is
//! only ever started, called and watched from outside, so that containerd's own shim
//! can take its place and prove the tests.
//!
//! `HULL_SHIM` names the shim: a path, or `runc` for containerd-shim-runc-v2.
//! `HULL_CONTAINERD` names a directory with another containerd and its shim than
//! Debian's. `HULL_RUNTIME` is the OCI runtime beneath.

mod attach;
mod client;
mod connection;
mod events;
mod host;
mod injector;
mod launch;
mod program;
mod sandbox;
mod stdio;
mod task;
mod wire;

pub use attach::{Attached, Told};
pub use client::{Client, Code, Refusal, Version, rpc};
pub use events::{Event, EventServer, time};
pub use host::{Host, ended};
pub use injector::{Fault, Injector};
pub use launch::{Bootstrap, Launch, StartReply};
pub use program::{Program, containerd_directory, shim};
pub use sandbox::Sandbox;
pub use stdio::{Input, Stream};
pub use task::{Console, Exit, Io, Process, Task, TaskPlan};
pub use wire::{Wire, frame, request_frame};

pub use crate::SOON;

/// A program that says `ready` and ends with code 7 when asked to. See
/// [`Process::terminate`].
pub const SLEEPER: &str = "trap 'exit 7' TERM; trap 'echo usr1' USR1; echo ready;
    while :; do sleep 0.05; done";

/// Ends the test as not applicable when containerd's own shim is driven.
#[macro_export]
macro_rules! reference_lacks {
    ($($reason:tt)+) => {
        if $crate::shim::shim().reference {
            $crate::not_run($crate::NotRun::PeerLacks(format!("containerd-shim-runc-v2: {}", format!($($reason)+))));
        }
    };
}
