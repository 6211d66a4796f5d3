//! `hull login`: whether a registry takes credentials.

use http::Method;
use hull_manager_core::{Error, Result};
use hull_specs_image::reference::DEFAULT_DOMAIN;

use crate::{
    remote::Call,
    repository::Registry,
    secret::{Credentials, Secret},
    token::Scope,
};

impl Registry {
    /// Asks a registry (`host[:port]`, `docker.io`) whether it takes these credentials. Gives what
    /// the registry wants to be shown in place of the password from now on, if it does.
    ///
    /// # Errors
    /// Denied, unavailable.
    pub async fn check_credentials(
        &self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<Option<Secret>> {
        let registry = match registry.trim_end_matches('/') {
            "" | "index.docker.io" | "registry-1.docker.io" | "https://index.docker.io/v1" => {
                DEFAULT_DOMAIN
            }
            other => other,
        };
        let repository = self.about(registry, credentials)?;
        let talk = &*repository.talk;
        let remote = talk.registry().await?;
        let call = Call::new(Method::GET, remote.base.clone(), Scope::Nothing);
        remote
            .send(&talk.shared, &call)
            .await
            .map_err(|error: Error| error.context(format!("login attempt to {registry} failed")))?;
        if !matches!(credentials, Credentials::Password { .. }) {
            return Ok(None);
        }
        remote.auth.login(&talk.shared).await.map_err(|failure| failure.error)
    }
}
