//! The documents of the OCI runtime specification 1.3 (Linux), as plain serde types.
//!
//! Fields carry the specification's names in snake case and its meaning unchanged; the
//! specification's own text is their documentation. Two rules hold throughout:
//! `null` and an absent key mean the same (Go callers write both), and text that the
//! specification leaves open (capability names, mount options, sysctl names) stays text,
//! so that the layer which acts on it can decide between an error and a warning.
//!
//! Why not the `oci-spec` crate here: see this package's README. The crate checks these
//! types in the tests instead.

mod config;
pub mod features;
mod id;
mod linux;
mod seccomp;
mod state;
mod strict;
pub mod time;

pub use config::*;
pub use id::{ContainerId, ExecId, InvalidId};
pub use linux::*;
pub use seccomp::*;
pub use state::{ContainerProcessState, State, Status};
pub use strict::deserialize;

/// The newest version of the specification that these types describe.
pub const VERSION: &str = "1.3.0";

/// Reads `null` as the type's default: Go marshals empty slices and maps that way.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// Keeps optional flags out of the written document.
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
