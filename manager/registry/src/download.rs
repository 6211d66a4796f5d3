//! A file from anywhere, for `hull import URL`: without credentials, and with the same distrust of
//! redirects as everything here.

use bytes::Bytes;
use http::Method;
use hull_manager_core::{Error, Result};
use reqwest::{Response, Url};

use crate::{
    blob::Pace,
    endpoint::authority_of,
    failure,
    origin::Shown,
    realm,
    remote::{Body, MAX_REDIRECTS, execute, is_redirect},
    repository::Registry,
    settings::Limits,
};

/// A file that is being fetched.
pub struct Download {
    body: Response,
    pace: Pace,
    limits: Limits,
}

impl Registry {
    /// Fetches what a person named by a URL. Proxies and what is known of hosts are as for
    /// registries.
    ///
    /// # Errors
    /// If it is no http or https URL, or can't be had.
    pub async fn download(&self, url: &str) -> Result<Download> {
        let bad = |refused: realm::Refused| {
            Error::invalid(format!("invalid URL: it {}", refused.because()))
        };
        let mut url = url
            .parse()
            .map_err(|_| realm::Refused::NoUrl)
            .and_then(realm::plain_url)
            .map_err(bad)?;
        let limits = self.shared.settings.limits.clone();
        for _ in 0..=MAX_REDIRECTS {
            let what = format!("GET {}", Shown(&url));
            let client = self.shared.client(&self.shared.trust_of(&authority_of(&url))?)?;
            let request = client.request(Method::GET, url.clone());
            let body = execute(request, &Body::Nothing, what.clone(), limits.answer)
                .await
                .map_err(|failure| failure.error)?;
            let status = body.status();
            if status.is_success() {
                return Ok(Download { body, pace: Pace::default(), limits });
            }
            if !is_redirect(status) {
                return Err(failure::of_status(what, status, &[], &[]));
            }
            url = next(&url, &body)
                .ok_or_else(|| Error::denied(format!("{what}: it sends us where we don't go")))?;
        }
        Err(Error::denied(format!("GET {}: it sends us from one place to the next", Shown(&url))))
    }
}

fn next(from: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(http::header::LOCATION)?.to_str().ok()?;
    realm::redirect(from, location).ok()
}

impl Download {
    /// How much it will be, if whoever sends it says so.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// If it is cut, stalls or trickles.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.pace.next(&mut self.body, &self.limits).await
    }
}
