//! The seam to networks: what a container's network namespace is, and what its files say.

use std::path::PathBuf;

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
    pub joined: Option<&'a std::path::Path>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where its process runs.
    pub namespace: Namespace,
    /// Lines for `/etc/hosts` after those of the loopback; none: the host's own file.
    pub hosts: Option<Vec<String>>,
}

/// Networks, in CNI's verbs. Called by the container's owner: never twice at once for one id.
pub trait Network: Send + Sync {
    /// Refuses at creation what can't be attached.
    ///
    /// # Errors
    /// One sentence.
    fn accept(&self, options: &v1::ContainerOptions) -> Result<()>;

    /// Before the first process is made. Idempotent: what an interrupted start has left is used
    /// or replaced.
    fn attach<'a>(&'a self, container: Attachment<'a>) -> BoxFuture<'a, Result<Attached>>;

    /// Whether what `attach` made is there, for a container that outlived the manager.
    fn check<'a>(&'a self, container: Attachment<'a>) -> BoxFuture<'a, Result<()>>;

    /// After the end. Idempotent.
    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// No network of our own: none, the host's, or another container's.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNetworks;

/// What a network mode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    None,
    Host,
    Container(&'a str),
    /// A network by name.
    Named(&'a str),
}

impl<'a> Mode<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        match text {
            // Without networks there is nothing that a container could be in by default.
            "" | "default" | "none" => Self::None,
            "host" => Self::Host,
            _ => text.strip_prefix("container:").map_or(Self::Named(text), Self::Container),
        }
    }
}

impl Network for NoNetworks {
    fn accept(&self, options: &v1::ContainerOptions) -> Result<()> {
        match Mode::parse(&options.network_mode) {
            Mode::Named(name) => Err(hull_manager_core::Error::unimplemented(format!(
                "network {name}: this version connects containers only to none, host or container:NAME"
            ))),
            _ => Ok(()),
        }
    }

    fn attach<'a>(&'a self, container: Attachment<'a>) -> BoxFuture<'a, Result<Attached>> {
        Box::pin(async move {
            self.accept(container.options)?;
            let namespace = match (Mode::parse(&container.options.network_mode), container.joined) {
                (Mode::Host, _) => Namespace::Host,
                (_, Some(path)) => Namespace::Path(path.to_owned()),
                _ => Namespace::New,
            };
            let hosts = if namespace == Namespace::Host { None } else { Some(Vec::new()) };
            Ok(Attached { namespace, hosts })
        })
    }

    fn check<'a>(&'a self, _: Attachment<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn detach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_that_we_have_are_accepted() {
        for (mode, accepted) in [
            ("", true),
            ("none", true),
            ("host", true),
            ("container:a", true),
            ("bridge", false),
            ("mynet", false),
        ] {
            let options = v1::ContainerOptions { network_mode: mode.into(), ..Default::default() };
            assert_eq!(NoNetworks.accept(&options).is_ok(), accepted, "{mode}");
        }
    }
}
