//! CNI: network configuration lists carried out by plugins, as specification 1.1 says.
//!
//! ```text
//! add    record(no result) -> ADD first … ADD last -> record(result)
//!                                  | fails: DEL of those that began, last first; record gone
//! check  CHECK first … last, with the recorded result
//! del    DEL last … first, all of them whatever fails; record gone if none failed
//! gc     del of each record that is not valid; then GC of every plugin
//! status STATUS of every plugin
//! ```
//!
//! An attachment's record is written before the first plugin runs and holds the configuration
//! that it was made with. So DEL needs no network file, and who is killed in between finds with
//! [`Cni::attachments`] what must be deleted:
//!
//! | killed … | left | healed by |
//! | --- | --- | --- |
//! | before the record | nothing | |
//! | in ADD | a record without a result | `del`, or the next `add` of the same attachment |
//! | in DEL | the record | `del` again: plugins must allow it |
//!
//! The version is the highest that the configuration allows and every plugin speaks. CHECK exists
//! from 0.4.0 on, GC and STATUS from 1.1.0 on; with an older version they are left out, as libcni
//! does, and GC still deletes the attachments that are not valid.
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod network;
mod process;
mod request;
mod version;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use serde_json::{Map, Value};
use tokio::sync::RwLock;

use crate::{
    answer::Ended,
    cache::{Cache, Entry},
    request::Command,
};
pub use crate::{
    answer::{Addition, Address, Dns, Interface, Route},
    network::{Network, Plugin, load_directory, read_list},
    request::Attachment,
    version::Version,
};

/// How long a plugin may take to say what it speaks: it only prints.
const VERSION: Duration = Duration::from_secs(10);

/// How long one may take to collect what nobody has any more. Additions to its network wait, and
/// what it leaves is there the next time.
const COLLECTION: Duration = Duration::from_secs(30);

/// How plugins are found and limited.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories of plugins, in the order of search.
    pub path: Vec<PathBuf>,
    /// The directory of the attachments' records; made if it is not there.
    pub records: PathBuf,
    /// How long one plugin may take.
    pub time_limit: Duration,
    /// `PATH` of the plugins, which call programs such as iptables. They see nothing else of our
    /// environment.
    pub program_path: String,
}

impl Settings {
    /// Debian's and the usual directory of plugins, two minutes a plugin.
    #[must_use]
    pub fn new(records: PathBuf) -> Self {
        Self {
            path: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into(), "/usr/libexec/cni".into()],
            records,
            time_limit: Duration::from_secs(120),
            program_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        }
    }
}

/// An attachment that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The network's name.
    pub network: String,
    /// The parameters of its ADD.
    pub attachment: Attachment,
    /// What was made; none: its ADD did not end well, and it must be deleted.
    pub addition: Option<Addition>,
}

/// The executor; clones share it. An operation that has begun goes on to its end also when its
/// future is dropped. Operations of one container must not be called at the same time.
#[derive(Clone, Debug)]
pub struct Cni {
    inner: Arc<Inner>,
}

/// Which versions a plugin's file speaks.
type Known = HashMap<(PathBuf, FileVersion), Arc<[Version]>>;

#[derive(Debug)]
struct Inner {
    settings: Settings,
    cache: Cache,
    /// What each plugin speaks, while its file stays the same.
    versions: Mutex<Known>,
    /// ADD and DEL may run side by side, GC only alone (specification, "lifecycle & ordering").
    gates: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

/// Device, inode, and the time of the last change.
type FileVersion = (u64, u64, i64, i64);

impl Cni {
    /// An executor on the records below `settings.records`.
    ///
    /// # Errors
    /// If the directory of records can't be made, or is another user's.
    pub fn open(settings: Settings) -> Result<Self> {
        let cache = Cache::open(&settings.records)?;
        let (versions, gates) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { settings, cache, versions, gates }) })
    }

    /// Attaches an interface of a container to a network. What an earlier ADD of the same
    /// attachment has left is deleted first.
    ///
    /// # Errors
    /// The failed plugin's sentence; then those that began are deleted again. What could not be
    /// deleted stays recorded.
    pub async fn add(&self, network: &Network, attachment: Attachment) -> Result<Addition> {
        attachment.check()?;
        let network = network.clone();
        self.run(|inner| async move {
            let gate = inner.gate(&network.name);
            let _shared = gate.read().await;
            inner.add(network, attachment).await
        })
        .await
    }

    /// Asks the plugins whether an attachment is as they made it. Nothing is asked if the
    /// network says so, or before version 0.4.0.
    ///
    /// # Errors
    /// The first complaint; [`hull_manager_core::ErrorKind::NotFound`]: it is not attached.
    pub async fn check(&self, network: &str, container: &str, interface: &str) -> Result<()> {
        let key = (network.to_owned(), container.to_owned(), interface.to_owned());
        self.run(|inner| async move {
            let gate = inner.gate(&key.0);
            let _shared = gate.read().await;
            inner.check(&key.0, &key.1, &key.2).await
        })
        .await
    }

    /// Detaches. Idempotent: what is not recorded is not attached.
    ///
    /// # Errors
    /// Of every plugin that failed; then the record stays, for another attempt.
    pub async fn del(&self, network: &str, container: &str, interface: &str) -> Result<()> {
        let key = (network.to_owned(), container.to_owned(), interface.to_owned());
        self.run(|inner| async move {
            let gate = inner.gate(&key.0);
            let _shared = gate.read().await;
            match inner.cache.read(&key.0, &key.1, &key.2)? {
                Some(entry) => inner.del(&entry, None).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Deletes all attachments of a network that are not among `valid` (container's id and
    /// interface), and has the plugins clean up whatever else they find. `valid` is asked while
    /// nothing is added.
    ///
    /// # Errors
    /// Of `valid`, and of every plugin that failed, after all had their turn.
    pub async fn gc(
        &self,
        network: &Network,
        valid: impl FnOnce() -> Result<Vec<(String, String)>> + Send + 'static,
    ) -> Result<()> {
        let network = network.clone();
        self.run(|inner| async move {
            let gate = inner.gate(&network.name);
            let _alone = gate.write().await;
            inner.gc(&network, &valid()?).await
        })
        .await
    }

    /// Asks the plugins whether they could ADD now. Before version 1.1.0 nothing can be asked.
    ///
    /// # Errors
    /// The first complaint; a plugin that is not there is one.
    pub async fn status(&self, network: &Network) -> Result<()> {
        let network = network.clone();
        self.run(|inner| async move { inner.status(&network).await }).await
    }

    /// The version that the operations on a network would use.
    ///
    /// # Errors
    /// If a plugin is not there, or there is no version that all of them speak.
    pub async fn version(&self, network: &Network) -> Result<Version> {
        let network = network.clone();
        self.run(|inner| async move { inner.version(&network).await }).await
    }

    /// What an attachment was given; none: it is not attached.
    ///
    /// # Errors
    /// If its record can't be read.
    pub fn attached(
        &self,
        network: &str,
        container: &str,
        interface: &str,
    ) -> Result<Option<Addition>> {
        let entry = self.inner.cache.read(network, container, interface)?;
        entry.and_then(|entry| entry.result).map(Addition::read).transpose()
    }

    /// All recorded attachments.
    ///
    /// # Errors
    /// If the directory of records can't be read.
    pub fn attachments(&self) -> Result<Vec<Recorded>> {
        let entries = self.inner.cache.list()?.into_iter().map(|entry| Recorded {
            network: entry.network.name,
            attachment: entry.attachment,
            addition: entry.result.and_then(|raw| Addition::read(raw).ok()),
        });
        Ok(entries.collect())
    }

    /// Runs an operation in a task of its own, so that it is never left half done.
    async fn run<T, F>(&self, operation: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match tokio::spawn(operation(Arc::clone(&self.inner))).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal("a network operation ended").because(error)),
        }
    }
}

impl Inner {
    async fn add(&self, network: Network, attachment: Attachment) -> Result<Addition> {
        let old =
            self.cache.read(&network.name, &attachment.container_id, &attachment.interface)?;
        if let Some(old) = old
            && let Err(error) = self.del(&old, None).await
        {
            if old.result.is_some() {
                return Err(error);
            }
            // It never came to be. If it is in the way, the plugins will say so.
            tracing::warn!("an interrupted addition: {error}");
        }
        let version = self.version(&network).await?;
        let mut entry = Entry { network, version, attachment, result: None };
        self.cache.write(&entry)?;
        for begun in 0..entry.network.plugins.len() {
            let plugin = &entry.network.plugins[begun];
            let ended =
                match self.execute(Command::Add, &entry, plugin, entry.result.as_ref()).await {
                    Ok(ended) => ended,
                    Err(error) => return Err(self.undo(entry, begun, None, error).await),
                };
            match answer::value(&plugin.kind, &ended) {
                Ok(result) => entry.result = Some(result),
                Err(error) => {
                    let refused = answer::is_refusal(&ended).then_some(begun);
                    return Err(self.undo(entry, begun, refused, error).await);
                }
            }
        }
        let last = entry.network.plugins.len() - 1;
        let raw = entry.result.clone().unwrap_or_default();
        match Addition::read(raw).and_then(|addition| {
            self.cache.write(&entry)?;
            Ok(addition)
        }) {
            Ok(addition) => Ok(addition),
            Err(error) => {
                let error = error.context(format!("plugin {}", entry.network.plugins[last].kind));
                Err(self.undo(entry, last, None, error).await)
            }
        }
    }

    /// Deletes what an ADD began. What can't be deleted now stays recorded, as not attached.
    async fn undo(
        &self,
        mut entry: Entry,
        last_begun: usize,
        refused: Option<usize>,
        error: Error,
    ) -> Error {
        entry.network.plugins.truncate(last_begun + 1);
        if let Err(undo) = self.del(&entry, refused).await {
            tracing::warn!("undo: {undo}");
            entry.result = None;
            if let Err(unrecorded) = self.cache.write(&entry) {
                tracing::warn!("{unrecorded}");
            }
        }
        error
    }

    async fn check(&self, network: &str, container: &str, interface: &str) -> Result<()> {
        let entry = self.cache.read(network, container, interface)?;
        let Some(entry) = entry.filter(|entry| entry.result.is_some()) else {
            return Err(Error::not_found(format!(
                "{container} is not attached to network {network} by {interface}"
            )));
        };
        if entry.network.disable_check || entry.version < Version::CHECK {
            return Ok(());
        }
        for plugin in &entry.network.plugins {
            let ended = self.execute(Command::Check, &entry, plugin, entry.result.as_ref()).await?;
            answer::succeeded(&plugin.kind, &ended)?;
        }
        Ok(())
    }

    /// Deletes all that can be deleted. The record goes last, and only then. The plugin `refused`
    /// has refused to ADD in good order; if it refuses to DEL too, there is nothing of it: else a
    /// configuration that a plugin does not take could never be got rid of.
    async fn del(&self, entry: &Entry, refused: Option<usize>) -> Result<()> {
        let previous = entry.result.as_ref().filter(|_| entry.version >= Version::CHECK);
        let mut failures = Vec::new();
        for (index, plugin) in entry.network.plugins.iter().enumerate().rev() {
            let result = match self.execute(Command::Del, entry, plugin, previous).await {
                Ok(ended) if refused == Some(index) && answer::is_refusal(&ended) => Ok(()),
                Ok(ended) => answer::succeeded(&plugin.kind, &ended),
                Err(error) => Err(error),
            };
            failures.extend(result.err());
        }
        if failures.is_empty() { self.cache.remove(entry) } else { Err(joined(failures)) }
    }

    async fn gc(&self, network: &Network, valid: &[(String, String)]) -> Result<()> {
        if network.disable_gc {
            return Ok(());
        }
        let mut failures = Vec::new();
        for entry in self.cache.list()? {
            let attachment = &entry.attachment;
            let is_valid = valid.iter().any(|(container, interface)| {
                (container, interface) == (&attachment.container_id, &attachment.interface)
            });
            if entry.network.name == network.name && !is_valid {
                failures.extend(self.del(&entry, None).await.err());
            }
        }
        let version = self.version(network).await?;
        if version >= Version::GC_AND_STATUS {
            let limit = self.settings.time_limit.min(COLLECTION);
            for plugin in &network.plugins {
                let request = request::of_network(network, plugin, version, Some(valid));
                failures.extend(self.ask(Command::Gc, plugin, request, limit).await.err());
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(joined(failures)) }
    }

    async fn status(&self, network: &Network) -> Result<()> {
        let version = self.version(network).await?;
        if version < Version::GC_AND_STATUS {
            return Ok(());
        }
        for plugin in &network.plugins {
            let request = request::of_network(network, plugin, version, None);
            self.ask(Command::Status, plugin, request, self.settings.time_limit).await?;
        }
        Ok(())
    }

    /// GC or STATUS of one plugin.
    async fn ask(
        &self,
        command: Command,
        plugin: &Plugin,
        request: Map<String, Value>,
        limit: Duration,
    ) -> Result<()> {
        let environment = request::environment(command, None, false);
        let ended = self.spawn(plugin, environment, request, limit).await?;
        answer::succeeded(&plugin.kind, &ended)
    }

    /// ADD, CHECK or DEL of one plugin.
    async fn execute(
        &self,
        command: Command,
        entry: &Entry,
        plugin: &Plugin,
        previous: Option<&Value>,
    ) -> Result<Ended> {
        let attachment = &entry.attachment;
        let request =
            request::attachment(&entry.network, plugin, entry.version, attachment, previous);
        // A DEL after the namespace's end names none (specification, DEL's optional parameters):
        // plugins take a file that is no namespace for an error.
        let netns = command != Command::Del || is_namespace(attachment);
        let environment = request::environment(command, Some(attachment), netns);
        self.spawn(plugin, environment, request, self.settings.time_limit).await
    }

    async fn spawn(
        &self,
        plugin: &Plugin,
        mut environment: Vec<(&'static str, String)>,
        request: Map<String, Value>,
        limit: Duration,
    ) -> Result<Ended> {
        let path = process::find(&plugin.kind, &self.settings.path)?;
        let directories = std::env::join_paths(&self.settings.path)
            .map_err(|error| Error::invalid("the plugins' path").because(error))?;
        environment.push(("CNI_PATH", directories.to_string_lossy().into_owned()));
        environment.push(("PATH", self.settings.program_path.clone()));
        let request = Value::Object(request).to_string();
        process::execute(&path, &environment, request.as_bytes(), limit).await
    }

    /// The highest version that the configuration allows and all plugins speak. One that does not
    /// say what it speaks, as those from before VERSION, is tried with what the others speak.
    async fn version(&self, network: &Network) -> Result<Version> {
        let mut common = network.versions.clone();
        for plugin in &network.plugins {
            let path = process::find(&plugin.kind, &self.settings.path)?;
            let spoken = match self.spoken(plugin, path).await {
                Ok(spoken) => spoken,
                Err(error) => {
                    tracing::debug!("{error}");
                    continue;
                }
            };
            common.retain(|version| spoken.contains(version));
            if common.is_empty() {
                return Err(Error::invalid(format!(
                    "network {} allows CNI version {}, but plugin {} speaks {}",
                    network.name,
                    version::list(&network.versions),
                    plugin.kind,
                    version::list(&spoken)
                )));
            }
        }
        common.last().copied().ok_or_else(|| Error::invalid("no CNI version"))
    }

    async fn spoken(&self, plugin: &Plugin, path: PathBuf) -> Result<Arc<[Version]>> {
        let file = fs::metadata(&path).about(path.display())?;
        let key = (path, (file.dev(), file.ino(), file.ctime(), file.ctime_nsec()));
        let known = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(versions) = known().get(&key) {
            return Ok(Arc::clone(versions));
        }
        let newest = Version::SPOKEN[Version::SPOKEN.len() - 1].to_string();
        let request = Map::from_iter([("cniVersion".to_owned(), Value::String(newest))]);
        let environment = request::environment(Command::Version, None, false);
        let limit = self.settings.time_limit.min(VERSION);
        let ended = self.spawn(plugin, environment, request, limit).await?;
        let versions: Arc<[Version]> = answer::versions(&plugin.kind, &ended)?.into();
        known().insert(key, Arc::clone(&versions));
        Ok(versions)
    }

    fn gate(&self, network: &str) -> Arc<RwLock<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds a gate holds a clone of it.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(gates.entry(network.to_owned()).or_default())
    }
}

fn is_namespace(attachment: &Attachment) -> bool {
    fs::File::open(&attachment.netns)
        .is_ok_and(|file| hull_runtime_sys::namespace::kind(&file).is_ok())
}

/// Several failures in one sentence; the kind is the first's.
fn joined(failures: Vec<Error>) -> Error {
    let words: Vec<String> = failures.iter().map(Error::to_string).collect();
    let kind = failures.first().map_or(hull_manager_core::ErrorKind::Internal, Error::kind);
    Error::new(kind, words.join("; "))
}
