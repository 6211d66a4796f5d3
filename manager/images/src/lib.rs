//! Images: pull, push, load, save, import, commit, tag, remove.
//!
//! An image is a row in the store that names a configuration and a manifest in the content store
//! and, by the chain ids of its layers, snapshots. Its id is the digest of the configuration, as
//! in Docker's own image store. A reference is a row that names an image. Rows come last and go
//! first: what has no row is not there, and is collected.
#![forbid(unsafe_code)]

use std::sync::Arc;

use futures_util::Stream;
use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use hull_specs_image::{ContainerConfig, Digest, ImageConfig};
use tokio::sync::mpsc::Sender;

/// The images of this manager; clones share them.
#[derive(Clone)]
pub struct Images {}

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

/// What to make an image of.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The image the container was made from; none for an empty one.
    pub parent: Option<Digest>,
    /// The container's snapshot.
    pub snapshot: String,
    /// The container's id.
    pub container: String,
    /// How it runs, as an image says it; `changes` go on top.
    pub config: ContainerConfig,
    /// As in `CommitRequest`.
    pub reference: String,
    /// As in `CommitRequest`.
    pub author: String,
    /// As in `CommitRequest`.
    pub message: String,
    /// As in `CommitRequest`.
    pub changes: Vec<String>,
}

fn later<T>(what: &str) -> Result<T> {
    Err(Error::unimplemented(format!("{what} is not built yet")))
}

/// One method per RPC of `hull.v1.Images`. Streams of answers go to a channel; a caller that goes
/// away drops the future, and with it the work. In a stream of requests an error stands for a
/// client that went away before it had sent everything.
impl Images {
    /// Whom to ask who uses images. Until it is set nobody does.
    pub fn set_users(&self, _users: Users) {}

    /// The image that a reference, an id or a unique prefix of an id names, for `platform` (empty:
    /// whichever it is for).
    ///
    /// # Errors
    /// `No such image: …`, also if it is there for other platforms only.
    pub fn resolve(&self, _name: &str, _platform: &str) -> Result<Image> {
        later("resolve")
    }

    /// Fetches an image; ends with `pulled`.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn pull(&self, _: v1::PullRequest, _: Sender<v1::PullResponse>) -> Result<()> {
        later("pull")
    }

    /// Sends an image; ends with `pushed`.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn push(&self, _: v1::PushRequest, _: Sender<v1::PushResponse>) -> Result<()> {
        later("push")
    }

    /// Takes an archive.
    ///
    /// # Errors
    /// If it is none, or not what its digests say.
    pub async fn load(
        &self,
        _: impl Stream<Item = Result<v1::LoadRequest>> + Send + Unpin,
        _: Sender<v1::LoadResponse>,
    ) -> Result<()> {
        later("load")
    }

    /// Writes an archive.
    ///
    /// # Errors
    /// If an image is not there.
    pub async fn save(&self, _: v1::SaveRequest, _: Sender<v1::SaveResponse>) -> Result<()> {
        later("save")
    }

    /// Makes an image of a root file system's tar.
    ///
    /// # Errors
    /// If it is none, or a change is not understood.
    pub async fn import(
        &self,
        _: impl Stream<Item = Result<v1::ImportRequest>> + Send + Unpin,
        _: Sender<v1::ImportResponse>,
    ) -> Result<()> {
        later("import")
    }

    /// Makes an image of a container; its id.
    ///
    /// # Errors
    /// If a change is not understood.
    pub async fn commit(&self, _: Commit, _progress: Sender<v1::Progress>) -> Result<Digest> {
        later("commit")
    }

    /// The list.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn list(&self, _: v1::ListImagesRequest) -> Result<v1::ListImagesResponse> {
        later("list")
    }

    /// All about one.
    ///
    /// # Errors
    /// `No such image: …`.
    pub async fn inspect(&self, _: v1::InspectImageRequest) -> Result<v1::InspectImageResponse> {
        later("inspect")
    }

    /// How it was made.
    ///
    /// # Errors
    /// `No such image: …`.
    pub async fn history(&self, _: v1::ImageHistoryRequest) -> Result<v1::ImageHistoryResponse> {
        later("history")
    }

    /// Gives it a further reference.
    ///
    /// # Errors
    /// `No such image: …`, `invalid reference format…`.
    pub async fn tag(&self, _: v1::TagImageRequest) -> Result<v1::TagImageResponse> {
        later("tag")
    }

    /// Takes a reference away, and the image with its last.
    ///
    /// # Errors
    /// `No such image: …`, `conflict: unable to …`.
    pub async fn remove(&self, _: v1::RemoveImageRequest) -> Result<v1::RemoveImageResponse> {
        later("remove")
    }

    /// Removes what nobody uses.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn prune(&self, _: v1::PruneImagesRequest) -> Result<v1::PruneImagesResponse> {
        later("prune")
    }

    /// Asks a registry for repositories.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn search(&self, _: v1::SearchRequest) -> Result<v1::SearchResponse> {
        later("search")
    }

    /// Asks a registry whether it takes credentials.
    ///
    /// # Errors
    /// If it does not.
    pub async fn check_credentials(
        &self,
        _: v1::CheckCredentialsRequest,
    ) -> Result<v1::CheckCredentialsResponse> {
        later("check credentials")
    }
}
