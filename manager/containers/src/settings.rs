//! What the manager's configuration says about containers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hull_specs_api::v1;

/// Where things are, and what holds where a request says nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For `containers/ID`: hostname, hosts, resolv.conf, the log, the last exit's record.
    pub data_root: PathBuf,
    /// For `containers/ID` (bundles), `s` (shims' sockets), `runtime` (the runtimes' state).
    pub exec_root: PathBuf,
    /// The shim's program, containerd-shim-hull-v2.
    pub shim: PathBuf,
    /// By name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// One of `runtimes`.
    pub default_runtime: String,
    /// Where a container says nothing; docker's default-ulimits.
    pub default_ulimits: Vec<v1::Ulimit>,
    /// json-file unless configured.
    pub log_driver: String,
    /// For containers that use `log_driver` and name no driver.
    pub log_options: BTreeMap<String, String>,
    /// Whether containers have an init where they say nothing.
    pub init: bool,
    /// The program that is mounted as the init; none: `--init` is refused.
    pub init_path: Option<PathBuf>,
    /// cgroup parent where a container names none; empty: /hull.
    pub cgroup_parent: String,
    /// The runtime asks systemd for cgroups.
    pub systemd_cgroup: bool,
    /// Directories of CDI specifications.
    pub cdi_dirs: Vec<PathBuf>,
    /// The user whose subordinate ids `--userns=auto` takes.
    pub userns_owner: String,
    /// How long [`crate::Containers::shutdown`] may take.
    pub shutdown_timeout: Duration,
    /// Containers go on without the manager; else `shutdown` stops them.
    pub live_restore: bool,
}

/// An OCI runtime that containers may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// A path, or a name in `$PATH`.
    pub path: PathBuf,
}
