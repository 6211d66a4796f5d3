//! What all conversations with registries have in common.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use hull_manager_core::{Error, Result};
use reqwest::Url;

use crate::{
    endpoint::{self, Endpoint, Insecure},
    hosts::{self, Trust},
    origin::{Origin, Shown},
    settings::Settings,
    tls::Clients,
};

/// Settings that were understood, clients, and what was learned.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    mirrors: Vec<Url>,
    insecure: Insecure,
    clients: Clients,
    /// Hosts that have spoken TLS: to them we don't speak plainly any more.
    spoke_tls: Mutex<HashSet<String>>,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let mirrors = settings
            .mirrors
            .iter()
            .map(|mirror| {
                hosts::base(mirror, false).map_err(|cause| {
                    Error::invalid(format!("registry-mirrors: {:?}", shown(mirror))).because(cause)
                })
            })
            .collect::<Result<_>>()?;
        let insecure = Insecure::parse(&settings.insecure)?;
        Ok(Self {
            settings,
            mirrors,
            insecure,
            clients: Clients::default(),
            spoke_tls: Mutex::default(),
        })
    }

    /// The places for a registry. Files are read anew each time: what the operator changes counts
    /// from the next pull on.
    pub(crate) fn endpoints(&self, domain: &str) -> Result<Vec<Endpoint>> {
        let config = hosts::load(&self.settings.config_dirs, domain, true)?;
        endpoint::plan(domain, &self.mirrors, &self.insecure, config, &|authority| {
            self.trust_of(authority)
        })
    }

    pub(crate) fn client(&self, trust: &Trust) -> Result<reqwest::Client> {
        self.clients.of(trust, &self.settings)
    }

    /// What is known about any host.
    pub(crate) fn trust_of(&self, authority: &str) -> Result<Trust> {
        let config = hosts::load(&self.settings.config_dirs, authority, false)?;
        let mut trust = config
            .map(|config| config.server.map_or(config.trust, |server| server.trust))
            .unwrap_or_default();
        trust.skip_verify |= self.insecure.contains(authority);
        Ok(trust)
    }

    pub(crate) fn remember_tls(&self, origin: &Origin) {
        let mut known = self.spoke_tls.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(origin.authority());
    }

    pub(crate) fn has_spoken_tls(&self, origin: &Origin) -> bool {
        let known = self.spoke_tls.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&origin.authority())
    }
}

/// A mirror's URL may hold a password.
fn shown(mirror: &str) -> String {
    mirror.parse().map_or_else(|_| "[not a URL]".to_owned(), |url: Url| Shown(&url).to_string())
}
