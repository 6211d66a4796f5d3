//! The two things that callers hold.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::BoxFuture;
use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_image::Reference;
use reqwest::Url;
use tokio::sync::OnceCell;

use crate::{
    endpoint::Endpoint, hosts::Capabilities, origin::Shown, remote::Remote, secret::Credentials,
    settings::Settings, shared::Shared,
};

/// All registries, as the operator wants them reached. Clones share connections.
#[derive(Clone)]
pub struct Registry {
    pub(crate) shared: Arc<Shared>,
}

impl Registry {
    /// Understands the settings; nobody is asked yet.
    ///
    /// # Errors
    /// If a mirror is not a URL or an insecure registry neither a name nor a range.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { shared: Arc::new(Shared::new(settings)?) })
    }

    /// A conversation about the repository that `reference` names, for one caller. The
    /// credentials are for the reference's registry; mirrors don't get them.
    ///
    /// # Errors
    /// If what the operator wrote about the registry can't be read.
    pub fn repository(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Repository> {
        self.conversation(reference.domain(), reference.clone(), credentials)
    }

    pub(crate) fn conversation(
        &self,
        domain: &str,
        reference: Reference,
        credentials: &Credentials,
    ) -> Result<Repository> {
        let places = self.shared.endpoints(domain)?;
        let places = places
            .into_iter()
            .map(|endpoint| Place {
                endpoint,
                remote: OnceCell::new(),
                broken: AtomicBool::new(false),
            })
            .collect();
        Ok(Repository {
            talk: Arc::new(Conversation {
                shared: Arc::clone(&self.shared),
                reference,
                credentials: credentials.clone(),
                places,
            }),
        })
    }
}

/// A conversation about one repository. Clones share it: they are for many blobs at once.
#[derive(Clone)]
pub struct Repository {
    pub(crate) talk: Arc<Conversation>,
}

pub(crate) struct Conversation {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reference: Reference,
    credentials: Credentials,
    places: Vec<Place>,
}

struct Place {
    endpoint: Endpoint,
    remote: OnceCell<Remote>,
    /// It did not answer; another one is asked from now on.
    broken: AtomicBool,
}

impl Repository {
    /// What it is about.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.talk.reference
    }
}

impl Conversation {
    pub(crate) fn path(&self) -> &str {
        self.reference.path()
    }

    /// Asks one place after the other until one has it. The error is the last one's, which is
    /// the registry itself.
    pub(crate) async fn first<'a, T>(
        &'a self,
        can: fn(&Capabilities) -> bool,
        ask: impl Fn(&'a Remote) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut last = None;
        for place in self.usable(can) {
            match self.ask(place, &ask).await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tracing::debug!(place = %place.endpoint.base, %error, "the next place is asked");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    /// A place serves what it should not; whether there is another one to ask for content.
    pub(crate) fn distrust(&self, base: &Url) -> bool {
        for place in &self.places {
            if place.remote.get().is_some_and(|remote| remote.base == *base) {
                tracing::warn!(place = %Shown(base), "it serves something else than it was asked for");
                place.broken.store(true, Ordering::Relaxed);
            }
        }
        let able = |place: &&Place| place.endpoint.can.pull;
        self.places.iter().filter(able).any(|place| !place.broken.load(Ordering::Relaxed))
    }

    /// Asks the first place for it only: changes are made in one.
    pub(crate) async fn only(&self, can: fn(&Capabilities) -> bool) -> Result<&Remote> {
        let place = self.places.iter().find(|place| can(&place.endpoint.can));
        self.remote(place.ok_or_else(|| self.nobody())?).await
    }

    /// The registry itself, for what is about the credentials.
    pub(crate) async fn registry(&self) -> Result<&Remote> {
        let place = self.places.iter().rfind(|place| place.endpoint.credentials);
        self.remote(place.ok_or_else(|| self.nobody())?).await
    }

    fn usable(&self, can: fn(&Capabilities) -> bool) -> impl Iterator<Item = &Place> {
        let able = move |place: &&Place| can(&place.endpoint.can);
        let whole = move |place: &&Place| able(place) && !place.broken.load(Ordering::Relaxed);
        // Where all are broken, all are asked again.
        let any = self.places.iter().any(|place| whole(&place));
        self.places.iter().filter(able).filter(move |place| !any || whole(place))
    }

    async fn ask<'a, T>(
        &'a self,
        place: &'a Place,
        ask: impl Fn(&'a Remote) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let result = match self.remote(place).await {
            Ok(remote) => ask(remote).await,
            Err(error) => Err(error),
        };
        result.inspect_err(|error| {
            if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) {
                place.broken.store(true, Ordering::Relaxed);
            }
        })
    }

    async fn remote<'a>(&'a self, place: &'a Place) -> Result<&'a Remote> {
        let is_last = self.places.last().is_some_and(|last| std::ptr::eq(last, place));
        let endpoint = place.endpoint.clone();
        place
            .remote
            .get_or_try_init(|| Remote::connect(&self.shared, endpoint, &self.credentials, is_last))
            .await
    }

    fn nobody(&self) -> Error {
        Error::conflict(format!(
            "no host in the configuration of registry {} may do that",
            self.reference.domain()
        ))
    }
}
