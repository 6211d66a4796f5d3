//! The harness that drives the built binaries, and the peers' beside them, as root.
//!
//! A test makes a [`Bundle`], changes the one thing it is about, and drives it as a
//! [`Container`] through the command line of the runtime that `HULL_RUNTIME` names
//! (default: the `hull-runtime` built beside the test). Nothing here links the
//! product: only processes, files and exit codes are seen, so that runc and crun can
//! take its place and prove the tests.
//!
//! Invariants: every command has a time limit and is killed at it; every container
//! has its own directories and cgroup, and the end of a test checks that nothing of
//! them is left; nothing of the machine is changed outside them.
#![forbid(unsafe_code)]

mod bundle;
pub mod cgroup;
mod console;
mod container;
pub mod engine;
pub mod figures;
mod gate;
mod invocation;
mod leftovers;
pub mod mutation;
mod program;
mod runtime;
pub mod shim;
pub mod suite;
mod syscall_program;
pub mod syscall_sweep;
mod transcript;
mod user;
mod wait;

pub use bundle::{Bundle, scratch_dir};
pub use console::{ConsoleSocket, Pty, ReceivedFds, receive_fds};
pub use container::Container;
pub use gate::{NotRun, not_run};
pub use invocation::{Invocation, Output, Running};
pub use program::write_program;
pub use runtime::{Peer, Runtime, runtime, systemd_driver};
pub use suite::Test;
pub use syscall_program::{Argument, SyscallProgram};
pub use transcript::note;
pub use user::User;
pub use wait::{SOON, wait_for, wait_until};

/// The statically linked probe, as the bytes of an executable.
pub const PROBE: &[u8] = include_bytes!(env!("HULL_PROBE_BINARY"));
