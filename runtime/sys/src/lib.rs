//! Every raw system call and every `unsafe` block of the workspace.
//!
//! What may enter: one thin function a system call (or a kernel interface that is only
//! reachable through several, such as `SCM_RIGHTS`), taking borrowed descriptors and
//! typed flags, returning owned descriptors, with the call's name in the error. What may
//! not: policy, knowledge of the OCI documents, or anything that decides.
//!
//! `EINTR` is retried here unless a function says otherwise. Every descriptor is
//! close-on-exec from birth.
#![allow(unsafe_code, reason = "this crate is where unsafe code lives")]

mod error;

pub mod arena;
pub mod bpf;
pub mod caps;
pub mod clock;
pub mod entry;
pub mod epoll;
pub mod event;
pub mod fd;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tty;

pub use error::{Error, Result};
pub(crate) use error::{check, check_fd, retry};
