//! The origin that a conversation is with.

use hull_manager_core::Result;
use reqwest::{Client, Url};

use crate::{endpoint::authority_of, hosts::Trust, origin::Origin, shared::Shared};

/// Where credentials may go, and how the place is trusted.
pub(crate) struct Home {
    pub(crate) origin: Origin,
    pub(crate) client: Client,
    pub(crate) trust: Trust,
}

impl Home {
    /// Whether a URL leads here.
    pub(crate) fn is_at(&self, url: &Url) -> bool {
        Origin::of(url).as_ref() == Some(&self.origin)
    }

    /// A client for what the registry named. Trust is not inherited: another host must be known
    /// to everybody, or the operator wrote about it too. Another port of the same host may be
    /// vouched for by the same authorities.
    pub(crate) fn client_to(&self, shared: &Shared, url: &Url) -> Result<Client> {
        if self.is_at(url) {
            return Ok(self.client.clone());
        }
        let mut trust = shared.trust_of(&authority_of(url))?;
        if url.host_str() == Some(self.origin.host()) {
            trust.authorities.extend_from_slice(&self.trust.authorities);
        }
        shared.client(&trust)
    }
}
