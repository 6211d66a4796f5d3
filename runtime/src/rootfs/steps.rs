//! The steps of a plan: what is mounted where, and how, in types.

use std::path::PathBuf;

use hull_runtime_sys::mount::{Attributes, Propagation};
use hull_specs_oci as oci;

use super::{
    devices::Dev,
    options::{Below, Flags},
};

/// One step of building the file system.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Bind(Bind),
    FileSystem(FileSystem),
    Cgroup(Cgroup),
    Remount(Remount),
    Dev(Dev),
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    pub(crate) recursive: bool,
    pub(crate) change: FlagChange,
    pub(crate) below: Below,
    pub(crate) propagation: Vec<(Propagation, bool)>,
    pub(crate) id_map: Option<IdMap>,
}

/// The flags that a bind mount or a remount asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlagChange {
    pub(crate) set: Flags,
    /// Asked to be off, in so many words.
    pub(crate) cleared: Flags,
}

impl FlagChange {
    /// Without any word about flags a bind mount keeps those of its source.
    pub(crate) fn is_empty(self) -> bool {
        self.set.is_empty() && self.cleared.is_empty()
    }
}

/// The mapping of an id-mapped mount.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IdMap {
    pub(crate) recursive: bool,
    pub(crate) mapping: Mapping,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mapping {
    /// These ids.
    Ids { uids: Vec<oci::IdMapping>, gids: Vec<oci::IdMapping> },
    /// Those of the user namespace at this path.
    Namespace(PathBuf),
}

/// A file system of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) destination: PathBuf,
    pub(crate) attributes: Attributes,
    /// Flags of the file system itself.
    pub(crate) flags: Flags,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) below: Below,
    pub(crate) propagation: Vec<(Propagation, bool)>,
    pub(crate) copy_up: bool,
    /// Becomes read-only when everything is in place: a tmpfs, and whatever is at `/dev`.
    pub(crate) read_only_late: bool,
}

/// A parameter of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// The container's view of its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    pub(crate) source: String,
    pub(crate) destination: PathBuf,
    pub(crate) change: FlagChange,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) propagation: Vec<(Propagation, bool)>,
}

/// A change of what is mounted at a destination already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remount {
    pub(crate) destination: PathBuf,
    /// Only the mount, not its file system.
    pub(crate) bind: bool,
    pub(crate) change: FlagChange,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) below: Below,
    pub(crate) propagation: Vec<(Propagation, bool)>,
}
