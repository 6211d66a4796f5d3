//! From an image and what was asked to the OCI runtime configuration.
//!
//! Pure: nothing here reads a file, knows a path of its own, or asks the kernel. What depends on
//! the host comes in as values ([`Host`], [`Input`]), so that every rule is a table in a test.
//!
//! 1. [`effective()`]: options and image put together, checked, with the manager's defaults. All
//!    that can be wrong with a request is said here, before anything is made.
//! 2. [`volumes_from::inherit`]: the mounts of other containers.
//! 3. [`user::resolve`]: names to numbers, from the image's `passwd` and `group`.
//! 4. [`config()`]: the document for the runtime; [`process()`]: that of an exec.
//!
//! The rules and the words are docker's, unless a comment says why not.
#![forbid(unsafe_code)]

pub mod apparmor;
mod capabilities;
pub mod cdi;
mod config;
mod defaults;
mod devices;
mod effective;
mod env;
mod error;
mod health;
mod logging;
pub mod mounts;
mod names;
pub mod path;
mod process;
mod resources;
mod seccomp;
mod security;
mod signal;
mod sysctl;
pub mod syslog;
mod ulimit;
pub mod user;
pub mod volumes_from;

pub use config::{Files, Input, Join, config};
pub use defaults::{Defaults, Host};
pub use devices::{HostDevice, wanted as wanted_devices};
pub use effective::{Effective, args, cgroup_parent as check_cgroup_parent, effective};
pub use error::{Error, Result};
pub use logging::{check as check_log, parse_bool};
pub use names::{container_of, hostname};
pub use process::process;
pub use resources::{check as check_resources, lower as resources};
pub use security::{SystemPaths, paths_of};
pub use signal::parse as parse_signal;
pub use ulimit::check as check_ulimits;
