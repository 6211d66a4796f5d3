//! What the runtime remembers of a container: `ROOT/ID/state.json`.
//!
//! Only facts that cannot be looked up again: which process it is, where its cgroup is,
//! what it was made from. Whether it lives is asked of the kernel each time.

use std::collections::BTreeMap;

use hull_specs_oci as oci;
use serde::{Deserialize, Serialize};

use crate::{cgroup, criu, resctrl};

/// The format's version; a file of another version is refused rather than guessed at.
pub(crate) const VERSION: u32 = 1;

/// How far `create` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// `create` is at work, or was killed in the middle of it.
    Creating,
    /// `create` finished.
    Created,
}

/// A process, such that a later one with the same number is not mistaken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat, in clock ticks after boot.
    pub(crate) start_time: u64,
    /// /proc/sys/kernel/random/boot_id at that time.
    pub(crate) boot_id: String,
}

/// The content of `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) phase: Phase,
    pub(crate) id: String,
    pub(crate) oci_version: String,
    /// Absolute.
    pub(crate) bundle: String,
    /// Absolute.
    pub(crate) rootfs: String,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    /// Who ran `create`.
    pub(crate) owner: u32,
    /// The container's first process, once there is one.
    pub(crate) init: Option<ProcessIdentity>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The namespaces that are not the runtime's own: what `exec` must enter.
    pub(crate) namespaces: Vec<oci::NamespaceKind>,
    pub(crate) cgroup: cgroup::Location,
    #[serde(default)]
    pub(crate) resctrl: Option<resctrl::Group>,
    /// The limits that hold now: those of the configuration, as `update` has changed them.
    pub(crate) resources: oci::Resources,
    /// Whether failures of permission on cgroups are passed over.
    pub(crate) rootless: bool,
    /// Whether the container keeps its caller's session keyring.
    pub(crate) no_new_keyring: bool,
    /// What its first process's standard streams were when it was made, for a checkpoint:
    /// later they may be something of the container's own.
    #[serde(default)]
    pub(crate) descriptors: criu::Descriptors,
}
