//! A container of this shim. A shim has one, or those of a pod.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result};
use futures_util::lock::Mutex;
use serde::{Deserialize, de::DeserializeOwned};

use super::{process::Process, state::State};
use crate::{
    cgroup::Cgroup,
    init_record::InitRecord,
    options::RuntimeOptions,
    runtime::Runtime,
    ttrpc::{Failure, Kind},
};

/// A container's configuration in its bundle.
const CONFIG: &str = "config.json";

/// Most of a `config.json`, in bytes; the runtime's own limit.
const MAX_CONFIG: u64 = 16 << 20;

pub(super) struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) runtime: Runtime,
    pub(super) options: RuntimeOptions,
    pub(super) first: Rc<Process>,
    pub(super) execs: RefCell<BTreeMap<String, Rc<Process>>>,
    /// Held by each operation that the runtime does on the container as a whole.
    pub(super) lock: Mutex<()>,
    pub(super) cgroup: RefCell<Option<Rc<Cgroup>>>,
    /// What the bundle says of the first process.
    pub(super) record: RefCell<Option<InitRecord>>,
    /// Where its root file system is mounted, if the shim has mounted it.
    pub(super) rootfs: Option<PathBuf>,
    /// It has no process-id namespace of its own: its processes do not end with the first.
    pub(super) shares_pids: bool,
    /// The first process has ended; no exec can begin any more.
    pub(super) over: Cell<bool>,
    /// It is to be restored from there.
    pub(super) checkpoint: String,
}

impl Container {
    pub(super) fn process(&self, exec_id: &str) -> Result<Rc<Process>, Failure> {
        if exec_id.is_empty() {
            return Ok(Rc::clone(&self.first));
        }
        self.execs.borrow().get(exec_id).cloned().ok_or_else(|| {
            let text = format!("process does not exist {exec_id}: not found");
            Failure::new(Kind::NotFound, text)
        })
    }

    /// The log of operations on the container as a whole; they come one at a time.
    pub(super) fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }

    /// Runs an operation of the runtime that prints nothing of interest.
    pub(super) async fn run(&self, words: &[&str]) -> Result<Vec<u8>> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        self.runtime.run(&self.log(), b"", &words).await
    }

    /// Notes in the bundle which process the first one is, and whether it was started.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn note_first(&self) -> Result<()> {
        let first = &self.first;
        let mut record = self.record.borrow_mut();
        let record = match &mut *record {
            Some(record) => record,
            none => {
                none.insert(InitRecord::new(&self.id, first.pid.get(), first.start_time.get())?)
            }
        };
        record.started_at = first.started_at.get();
        record.write(&self.bundle)
    }

    /// The state of a process as callers see it: those of a paused container are paused.
    pub(super) fn state_of(&self, process: &Process) -> State {
        match self.first.state.get() {
            state @ (State::Paused | State::Pausing) => state,
            _ => process.state.get(),
        }
    }
}

/// What of a container's configuration concerns the shim.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: Option<String>,
}

impl Config {
    /// Reads a bundle's `config.json`.
    ///
    /// # Errors
    /// It is missing, too long, or no JSON object.
    pub(crate) fn read(bundle: &Path) -> Result<Self> {
        let missing = || format!("there is no {}", bundle.join(CONFIG).display());
        Self::read_as(bundle)?.with_context(missing)
    }

    /// Reads as much of it as `T` takes; nothing if there is none, as for some sandboxes.
    ///
    /// # Errors
    /// It is too long, or no JSON object.
    pub(crate) fn read_as<T: DeserializeOwned>(bundle: &Path) -> Result<Option<T>> {
        use std::io::Read;
        let path = bundle.join(CONFIG);
        let context = || format!("cannot read {}", path.display());
        let mut text = Vec::new();
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(context)?,
        };
        file.take(MAX_CONFIG).read_to_end(&mut text).with_context(context)?;
        serde_json::from_slice(&text).map(Some).with_context(context)
    }

    /// Whether processes of the container can outlive its first one.
    pub(crate) fn shares_pids(&self) -> bool {
        let namespaces = self.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
        !namespaces.is_some_and(|namespaces| {
            namespaces.iter().any(|namespace| {
                namespace.r#type == "pid"
                    && namespace.path.as_deref().unwrap_or_default().is_empty()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_pid_namespace_ends_its_processes_with_the_first() {
        for (text, shares) in [
            (r#"{}"#, true),
            (r#"{"linux":{}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#, false),
            (r#"{"linux":{"namespaces":[{"type":"pid","path":""}]}}"#, false),
            (r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#, true),
            (r#"{"annotations":null,"linux":{"namespaces":null}}"#, true),
        ] {
            let config: Config = serde_json::from_str(text).unwrap();
            assert_eq!(config.shares_pids(), shares, "{text}");
        }
    }
}
