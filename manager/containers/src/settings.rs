//! What the manager's configuration says about containers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hull_manager_core::{Error, Result};
use hull_manager_spec::Defaults;

use crate::bundle::MAX_EXEC_ROOT;

/// Where things are, and what holds where a request says nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For `containers/ID`: hostname, hosts, resolv.conf, the log, the last exit's record.
    pub data_root: PathBuf,
    /// For `containers/ID` (bundles), `s` (sockets), `runtime` (the runtimes' state).
    pub exec_root: PathBuf,
    /// The shim's program, containerd-shim-hull-v2.
    pub shim: PathBuf,
    /// The runtimes, by name: all of `defaults.runtimes`.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The host, and what containers get unless they ask otherwise.
    pub defaults: Defaults,
    /// The program that is mounted as the init; none: `--init` is refused.
    pub init_path: Option<PathBuf>,
    /// Whose ranges in `/etc/subuid` and `/etc/subgid` `--userns=auto` takes; or the range itself,
    /// `FIRST:SIZE`.
    pub userns_user: String,
    /// Directories of CDI specifications.
    pub cdi_dirs: Vec<PathBuf>,
    /// How long a container may take to stop when the manager ends; see `live_restore`.
    pub shutdown_timeout: Duration,
    /// Containers go on when the manager ends; else it stops them, as dockerd does.
    pub live_restore: bool,
}

/// An OCI runtime that containers may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// A path, or a name in `$PATH`.
    pub path: PathBuf,
}

impl Settings {
    /// Refuses what can't work together.
    pub(crate) fn check(&self) -> Result<()> {
        let (data, exec) = (&self.data_root, &self.exec_root);
        if !self.shim.is_absolute() {
            return Err(Error::invalid(format!(
                "there is no {} beside this program: --shim-path says where it is",
                self.shim.display()
            )));
        }
        for path in [data, exec] {
            if !path.is_absolute() {
                return Err(Error::invalid(format!("{} is not an absolute path", path.display())));
            }
        }
        if exec.as_os_str().len() > MAX_EXEC_ROOT {
            return Err(Error::invalid(format!(
                "the exec root {} is too long: sockets in it allow {MAX_EXEC_ROOT} bytes",
                exec.display()
            )));
        }
        for name in self.defaults.runtimes.iter().chain([&self.defaults.runtime]) {
            if !self.runtimes.contains_key(name) {
                return Err(Error::invalid(format!("runtime {name} has no program")));
            }
        }
        Ok(())
    }
}
