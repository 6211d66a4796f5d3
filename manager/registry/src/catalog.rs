//! Lists: the tags of a repository, the repositories of a registry, and search.

use futures_util::FutureExt as _;
use http::{Method, header};
use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_image::{Reference, reference::DEFAULT_DOMAIN};
use reqwest::Url;
use serde::Deserialize;

use crate::{
    link,
    origin::Shown,
    realm,
    remote::{Call, Remote},
    repository::{Conversation, Registry, Repository},
    secret::Credentials,
    token::Scope,
};

/// The most bytes of a page.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// The most pages of a list.
const MAX_PAGES: usize = 1000;

/// The most names of a list.
const MAX_NAMES: usize = 1_000_000;

/// Names that are asked for at once.
const PAGE: &str = "1000";

/// Where Docker Hub is searched.
const SEARCH_HUB: &str = "index.docker.io";

/// The most results of a search, docker's bound.
const MAX_RESULTS: usize = 100;

/// A repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `busybox`, `host/name`.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Docker's own.
    pub official: bool,
}

impl Repository {
    /// All tags, as the registry lists them.
    ///
    /// # Errors
    /// Not found, denied, unavailable, or a list without end.
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let talk = &*self.talk;
        let path = format!("{}/tags/list", talk.path());
        let path = path.as_str();
        talk.first(
            |can| can.resolve,
            |remote| {
                let scope = Scope::Pull(talk.path().to_owned());
                let read: fn(Page) -> _ = |page| page.tags.unwrap_or_default();
                talk.list(remote, path, scope, MAX_NAMES, read).boxed()
            },
        )
        .await
    }
}

impl Registry {
    /// The repositories of a registry, at most `limit` of them.
    ///
    /// # Errors
    /// Denied, unavailable, or the registry has no such list (Docker Hub has none).
    pub async fn catalog(
        &self,
        registry: &str,
        credentials: &Credentials,
        limit: usize,
    ) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            repositories: Option<Vec<String>>,
        }
        let repository = self.about(registry, credentials)?;
        let talk = &*repository.talk;
        let remote = talk.registry().await?;
        let read: fn(Page) -> _ = |page| page.repositories.unwrap_or_default();
        let limit = limit.min(MAX_NAMES);
        let mut names = talk.list(remote, "_catalog", Scope::Catalog, limit, read).await?;
        names.truncate(limit);
        Ok(names)
    }

    /// Repositories whose name contains a text: `term` is the text, for Docker Hub, or
    /// `host/text`. A registry without a search of its own is asked for its catalogue.
    ///
    /// # Errors
    /// Denied, unavailable, or the registry has neither.
    pub async fn search(
        &self,
        term: &str,
        limit: usize,
        credentials: &Credentials,
    ) -> Result<Vec<Found>> {
        let limit = if limit == 0 { 25 } else { limit };
        if limit > MAX_RESULTS {
            return Err(Error::invalid(format!(
                "invalid limit {limit}: it should be in the range of [1, {MAX_RESULTS}]"
            )));
        }
        let (registry, text) = match term.split_once('/') {
            Some((host, text)) if host.contains(['.', ':']) || host == "localhost" => (host, text),
            _ => (DEFAULT_DOMAIN, term),
        };
        if registry == DEFAULT_DOMAIN || registry == SEARCH_HUB {
            let text = text.strip_prefix("library/").unwrap_or(text);
            // The search is another host than the registry: credentials are not for it.
            return self.search_at(SEARCH_HUB, text, limit, &Credentials::Anonymous).await;
        }
        match self.search_at(registry, text, limit, credentials).await {
            Ok(found) => {
                let with_host =
                    |found: Found| Found { name: format!("{registry}/{}", found.name), ..found };
                Ok(found.into_iter().map(with_host).collect())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) =>
            {
                let text = text.to_lowercase();
                let names = self.catalog(registry, credentials, MAX_NAMES).await?;
                Ok(names
                    .into_iter()
                    .filter(|name| name.contains(&text))
                    .take(limit)
                    .map(|name| Found {
                        name: format!("{registry}/{name}"),
                        description: String::new(),
                        stars: 0,
                        official: false,
                    })
                    .collect())
            }
            Err(error) => Err(error),
        }
    }

    async fn search_at(
        &self,
        registry: &str,
        text: &str,
        limit: usize,
        credentials: &Credentials,
    ) -> Result<Vec<Found>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            results: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            name: String,
            #[serde(default)]
            description: Option<String>,
            #[serde(default)]
            star_count: u64,
            #[serde(default)]
            is_official: bool,
        }
        let repository = self.about(registry, credentials)?;
        let talk = &*repository.talk;
        let remote = talk.registry().await?;
        let mut url = remote.url("../v1/search")?;
        url.query_pairs_mut().append_pair("q", text).append_pair("n", &limit.to_string());
        let call =
            Call::new(Method::GET, url, Scope::Nothing).header(header::ACCEPT, "application/json");
        let answer: Answer = talk.page(remote, &call).await?.1;
        Ok(answer
            .results
            .into_iter()
            .take(limit)
            .map(|item| Found {
                name: item.name,
                description: item.description.unwrap_or_default(),
                stars: item.star_count,
                official: item.is_official,
            })
            .collect())
    }

    /// A conversation about the registry as a whole.
    pub(crate) fn about(&self, registry: &str, credentials: &Credentials) -> Result<Repository> {
        // Also sees that the host is one.
        let reference: Reference = format!("{registry}/none").parse().map_err(|cause| {
            Error::invalid(format!("registry {registry:?}")).because(anyhow::Error::new(cause))
        })?;
        self.conversation(registry, reference, credentials)
    }
}

impl Conversation {
    /// Reads a list from page to page.
    async fn list<P: for<'de> Deserialize<'de>>(
        &self,
        remote: &Remote,
        path: &str,
        scope: Scope,
        limit: usize,
        read: fn(P) -> Vec<String>,
    ) -> Result<Vec<String>> {
        let mut url = remote.url(path)?;
        url.query_pairs_mut().append_pair("n", PAGE);
        let mut names = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone(), scope.clone());
            let (next, page) = self.page::<P>(remote, &call).await?;
            names.extend(read(page));
            match next {
                Some(next) if names.len() < limit => url = next,
                _ if names.len() > MAX_NAMES => break,
                _ => return Ok(names),
            }
        }
        Err(Error::exhausted(format!("{} lists names without end", Shown(&url))))
    }

    /// One page, and where the next one is: at the same origin.
    async fn page<P: for<'de> Deserialize<'de>>(
        &self,
        remote: &Remote,
        call: &Call,
    ) -> Result<(Option<Url>, P)> {
        let answer = remote.read(&self.shared, call, MAX_PAGE_BYTES).await?;
        let next = match link::next(&answer.headers) {
            None => None,
            Some(target) => {
                let next = realm::redirect(&answer.url, target).ok();
                let next = next.filter(|next| next.origin() == answer.url.origin());
                Some(next.ok_or_else(|| {
                    Error::denied(format!("{} has its next page elsewhere", Shown(&call.url)))
                })?)
            }
        };
        let page = serde_json::from_slice(&answer.body).map_err(|cause| {
            Error::unavailable(format!("{} is not the list it should be", Shown(&call.url)))
                .because(cause)
        })?;
        Ok((next, page))
    }
}
