//! Mutual TLS for requests over TCP.

use anyhow::{Context as _, Result};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::config::Tls;

/// The server's side: its certificate, and the authority that clients' must be signed by.
///
/// # Errors
/// If a file can't be read.
pub(crate) fn server(tls: &Tls) -> Result<ServerTlsConfig> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("read {}", path.display()))
    };
    let identity = Identity::from_pem(read(&tls.cert)?, read(&tls.key)?);
    let authority = Certificate::from_pem(read(&tls.ca)?);
    Ok(ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(authority)
        .client_auth_optional(false))
}
