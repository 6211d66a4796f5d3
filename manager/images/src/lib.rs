//! Images: pull, push, load, save, import, commit, tag, remove.
//!
//! An image is a row in the store that names a configuration and a manifest in the content store
//! and, by the chain ids of its layers, snapshots. Its id is the digest of the configuration, as
//! in Docker's own image store. A reference is a row that names an image.
//!
//! Rows come last and go first: blobs and layers are whole before a row names them, and what no
//! row names is not there, whatever is on the disk; [`Images::collect`] removes it. Whoever makes
//! an image holds a lease of its blobs and its layers' chain ids meanwhile.
//!
//! What changes rows, layers or `index.json` does so under one lock (`Images::changes`), on a
//! thread for blocking work.
#![forbid(unsafe_code)]

mod changes;
mod check;
mod commit;
mod documents;
mod glob;
mod hold;
mod import;
mod install;
mod layer;
mod list;
mod load;
mod lookup;
mod outer;
mod progress;
mod pull;
mod push;
mod records;
mod removal;
mod removing;
mod save;
mod search;
mod time;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use futures_util::Stream;
use hull_manager_content::Content;
use hull_manager_core::{Error, Journal, Result, Store};
use hull_manager_registry::Registry;
use hull_manager_snapshots::Snapshotter;
use hull_specs_api::v1;
use hull_specs_image::{Digest, ImageConfig};
use tokio::sync::mpsc::Sender;

pub use check::Checked;
pub use commit::Commit;
pub use hold::Hold;

/// What images are made with.
#[derive(Clone)]
pub struct Parts {
    /// Where the rows are.
    pub store: Store,
    /// Where events go.
    pub journal: Journal,
    /// Where blobs are.
    pub content: Content,
    /// Where layers are.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Where images come from.
    pub registry: Registry,
}

/// The images of this manager; clones share them.
#[derive(Clone)]
pub struct Images {
    records: records::Records,
    journal: Journal,
    content: Content,
    snapshots: Arc<dyn Snapshotter>,
    registry: Arc<RwLock<Registry>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    changes: Mutex<()>,
    users: RwLock<Option<Users>>,
    holds: Mutex<hold::Holds>,
    pulls: pull::Pulls,
}

/// An image that is about to be used: while this lives, its layers are not removed.
#[derive(Clone)]
pub struct Image {
    /// Its id: the digest of its configuration.
    pub id: Digest,
    /// The configuration.
    pub config: Arc<ImageConfig>,
    /// The configuration, byte for byte.
    pub config_json: Arc<[u8]>,
    /// Its uppermost layer; none for an image without layers.
    pub chain_id: Option<Digest>,
    /// Its references with a tag, in full.
    pub references: Vec<String>,
    /// What keeps the layers.
    pub hold: Arc<Hold>,
}

/// A container that was made from an image.
#[derive(Clone, Debug)]
pub struct User {
    /// The image's id.
    pub image: Digest,
    /// The container's id.
    pub container: String,
    /// Whether it runs: then not even force removes its image.
    pub running: bool,
}

/// Tells who uses images; it is asked whenever an image is to be removed or counted.
pub type Users = Arc<dyn Fn() -> Vec<User> + Send + Sync>;

/// One method per RPC of `hull.v1.Images`. Streams of answers go to a channel; a caller that goes
/// away drops the future, and with it the work. In a stream of requests an error stands for a
/// client that went away before it had sent everything.
impl Images {
    /// The images in these stores.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn open(parts: Parts) -> Result<Self> {
        let Parts { store, journal, content, snapshots, registry } = parts;
        let records = records::Records::open(&store)?;
        let registry = Arc::new(RwLock::new(registry));
        let images =
            Self { records, journal, content, snapshots, registry, shared: Arc::default() };
        // A manager that died between a row and the file. Nothing of ours reads the file, and a
        // full disk, which takes none, must not keep out who makes room.
        if !images.content.index_lists(images.index()?)
            && let Err(error) = images.write_index()
        {
            tracing::warn!(%error, "index.json does not list the images");
        }
        Ok(images)
    }

    /// From now on other registries, or others of their settings. What is being moved goes on
    /// as it began.
    pub fn set_registry(&self, registry: Registry) {
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    fn registry(&self) -> Registry {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom to ask who uses images. Until it is set nobody does.
    pub fn set_users(&self, users: Users) {
        *self.shared.users.write().unwrap_or_else(PoisonError::into_inner) = Some(users);
    }

    fn users(&self) -> Vec<User> {
        let users = self.shared.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        users.map_or_else(Vec::new, |users| users())
    }

    /// Changes of rows and layers, one after the other.
    fn changes(&self) -> MutexGuard<'_, ()> {
        self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does disk work where it holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let images = self.clone();
        tokio::task::spawn_blocking(move || work(&images))
            .await
            .unwrap_or_else(|cause| Err(Error::internal("the work ended early").because(cause)))
    }

    /// An event of an image, with its labels, as docker tells it.
    fn event(&self, id: &Digest, name: &str, action: &str) {
        let labels = self.config(id).map(|(config, _)| config.config.labels).unwrap_or_default();
        let mut attributes: Vec<(&str, &str)> =
            labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        attributes.push(("name", name));
        self.journal.record("image", action, &id.to_string(), &attributes);
    }

    /// The image that a reference, an id or a unique prefix of an id names, for `platform` (empty:
    /// whichever it is for).
    ///
    /// # Errors
    /// `No such image: …`; [`hull_manager_core::ErrorKind::NotFound`] also if it is there for
    /// another platform only.
    pub fn resolve(&self, name: &str, platform: &str) -> Result<Image> {
        self.resolve_now(name, platform)
    }

    /// Whether there is an image of this id.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn has(&self, id: &Digest) -> Result<bool> {
        Ok(self.records.get(id)?.is_some())
    }

    /// Fetches an image; ends with `pulled`.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn pull(
        &self,
        request: v1::PullRequest,
        answers: Sender<v1::PullResponse>,
    ) -> Result<()> {
        self.after(pull::pull(self, request, answers).await).await
    }

    /// Sends an image; ends with `pushed`.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn push(
        &self,
        request: v1::PushRequest,
        answers: Sender<v1::PushResponse>,
    ) -> Result<()> {
        push::push(self, request, answers).await
    }

    /// Takes an archive.
    ///
    /// # Errors
    /// If it is none, or not what its digests say.
    pub async fn load(
        &self,
        requests: impl Stream<Item = Result<v1::LoadRequest>> + Send + Unpin,
        answers: Sender<v1::LoadResponse>,
    ) -> Result<()> {
        self.after(load::load(self, requests, answers).await).await
    }

    /// Writes an archive.
    ///
    /// # Errors
    /// If an image is not there.
    pub async fn save(
        &self,
        request: v1::SaveRequest,
        answers: Sender<v1::SaveResponse>,
    ) -> Result<()> {
        save::save(self, request, answers).await
    }

    /// Makes an image of a root file system's tar.
    ///
    /// # Errors
    /// If it is none, or a change is not understood.
    pub async fn import(
        &self,
        requests: impl Stream<Item = Result<v1::ImportRequest>> + Send + Unpin,
        answers: Sender<v1::ImportResponse>,
    ) -> Result<()> {
        self.after(import::import(self, requests, answers).await).await
    }

    /// Makes an image of a container; its id.
    ///
    /// # Errors
    /// If a change is not understood.
    pub async fn commit(&self, commit: Commit, progress: Sender<v1::Progress>) -> Result<Digest> {
        self.after(commit::commit(self, commit, progress).await).await
    }

    /// The list.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn list(&self, request: v1::ListImagesRequest) -> Result<v1::ListImagesResponse> {
        let images = self.blocking(move |images| images.list_now(&request)).await?;
        Ok(v1::ListImagesResponse { images })
    }

    /// All about one.
    ///
    /// # Errors
    /// `No such image: …`.
    pub async fn inspect(
        &self,
        request: v1::InspectImageRequest,
    ) -> Result<v1::InspectImageResponse> {
        self.blocking(move |images| images.inspect_now(&request)).await
    }

    /// How it was made.
    ///
    /// # Errors
    /// `No such image: …`.
    pub async fn history(
        &self,
        request: v1::ImageHistoryRequest,
    ) -> Result<v1::ImageHistoryResponse> {
        let entries = self.blocking(move |images| images.history_now(&request)).await?;
        Ok(v1::ImageHistoryResponse { entries })
    }

    /// Gives it a further reference.
    ///
    /// # Errors
    /// `No such image: …`, `invalid reference format…`.
    pub async fn tag(&self, request: v1::TagImageRequest) -> Result<v1::TagImageResponse> {
        self.blocking(move |images| images.tag_now(&request)).await?;
        Ok(v1::TagImageResponse {})
    }

    /// Takes a reference away, and the image with its last.
    ///
    /// # Errors
    /// `No such image: …`, `conflict: unable to …`.
    pub async fn remove(&self, request: v1::RemoveImageRequest) -> Result<v1::RemoveImageResponse> {
        let removed = self.blocking(move |images| images.remove_now(&request)).await?;
        Ok(v1::RemoveImageResponse { removed })
    }

    /// Removes what nobody uses.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn prune(&self, request: v1::PruneImagesRequest) -> Result<v1::PruneImagesResponse> {
        self.blocking(move |images| images.prune_now(&request)).await
    }

    /// Asks a registry for repositories.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn search(&self, request: v1::SearchRequest) -> Result<v1::SearchResponse> {
        search::search(self, request).await
    }

    /// Asks a registry whether it takes credentials.
    ///
    /// # Errors
    /// If it does not.
    pub async fn check_credentials(
        &self,
        request: v1::CheckCredentialsRequest,
    ) -> Result<v1::CheckCredentialsResponse> {
        search::check_credentials(self, request).await
    }
}
