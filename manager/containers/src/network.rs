//! The seam to networks: what a container's network namespace is, and what its files say.

use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use hull_manager_core::Result;
use hull_specs_api::v1;

/// What a network must know of a container.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The host name that it has.
    pub hostname: &'a str,
    /// What it asked for.
    pub options: &'a v1::ContainerOptions,
    /// Of a container in another's network: that one's namespace.
    pub joined: Option<&'a Path>,
}

/// The network namespace that a container runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// A new one that the runtime makes.
    New,
    /// The host's.
    Host,
    /// One that is there.
    Path(PathBuf),
}

/// What an attached container is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Where its process runs.
    pub namespace: Namespace,
    /// Lines for `/etc/hosts` after those of the loopback; in the host's namespace after the
    /// host's own.
    pub hosts: Vec<String>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Its places in networks, in the order of its interfaces.
    pub endpoints: Vec<v1::Endpoint>,
    /// Its published ports.
    pub published: Vec<v1::PublishedPort>,
}

impl Attached {
    /// The file that its namespace is bound to, if networks made it.
    pub(crate) fn namespace_path(&self) -> Option<&Path> {
        match &self.namespace {
            // Another container's namespace has no endpoints of this one.
            Namespace::Path(path) if !self.endpoints.is_empty() => Some(path),
            _ => None,
        }
    }
}

/// Networks, in CNI's verbs. Called by the container's owner: never twice at once for one id.
pub trait Network: Send + Sync {
    /// Refuses at creation what can't be attached.
    ///
    /// # Errors
    /// One sentence.
    fn accept(&self, options: &v1::ContainerOptions) -> Result<()>;

    /// Once, before all else but `accept`: takes away what containers had that do not live.
    fn recover<'a>(&'a self, live: &'a [String]) -> BoxFuture<'a, Result<()>>;

    /// Before the first process is made. Idempotent: what an interrupted start has left is used
    /// or replaced.
    fn attach<'a>(&'a self, container: Attachment<'a>) -> BoxFuture<'a, Result<Attached>>;

    /// What `attach` gave to a container that outlived the manager, or anew what is missing of it.
    fn check<'a>(&'a self, container: Attachment<'a>) -> BoxFuture<'a, Result<Attached>>;

    /// After the end. Idempotent.
    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The container has another name, by which others find it from now on.
    fn rename<'a>(&'a self, id: &'a str, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The name of a network that is called by its id or its name.
    fn name_of<'a>(&'a self, network: &'a str) -> BoxFuture<'a, Result<String>>;

    /// Connects a running container to one more network: what it has then.
    fn connect<'a>(
        &'a self,
        id: &'a str,
        endpoint: &'a v1::EndpointOptions,
    ) -> BoxFuture<'a, Result<Attached>>;

    /// Disconnects a running container from a network: what it has then.
    fn disconnect<'a>(&'a self, id: &'a str, network: &'a str) -> BoxFuture<'a, Result<Attached>>;
}
