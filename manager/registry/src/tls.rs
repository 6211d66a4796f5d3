//! TLS and the clients that speak it: one for each [`Trust`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, bail};
use hull_manager_core::{Error, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::{hosts::Trust, resolve, settings::Settings};

/// So many clients are kept: each holds idle connections.
const MAX_CLIENTS: usize = 64;

/// Clients by whom they trust.
#[derive(Default)]
pub(crate) struct Clients {
    system: OnceLock<RootCertStore>,
    clients: Mutex<HashMap<Trust, reqwest::Client>>,
}

impl Clients {
    pub(crate) fn of(&self, trust: &Trust, settings: &Settings) -> Result<reqwest::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let client = self
            .build(trust, settings)
            .map_err(|cause| Error::invalid("registry certificates").because(cause))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    fn build(&self, trust: &Trust, settings: &Settings) -> anyhow::Result<reqwest::Client> {
        let proxies = settings.proxies.clone();
        let limits = &settings.limits;
        Ok(reqwest::Client::builder()
            .tls_backend_preconfigured(self.config(trust)?)
            .user_agent(&settings.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(resolve::System)
            .retry(reqwest::retry::never())
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| proxies.of(url)))
            .connect_timeout(trust.connect.unwrap_or(limits.connect))
            .pool_idle_timeout(limits.idle)
            .pool_max_idle_per_host(8)
            .http1_max_headers(100)
            .http2_max_header_list_size(64 << 10)
            .http2_adaptive_window(true)
            .build()?)
    }

    fn config(&self, trust: &Trust) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if trust.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { provider }))
        } else {
            let mut roots = self.system.get_or_init(system_roots).clone();
            for certificate in certificates(&trust.authorities)? {
                roots.add(certificate).context("a certificate authority")?;
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match &trust.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain)?;
                if chain.is_empty() {
                    bail!("the client certificate's file has none");
                }
                let key = PrivateKeyDer::from_pem_slice(&key.0)
                    .context("the client certificate's private key")?;
                builder.with_client_auth_cert(chain, key).context("the client certificate")?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context("a certificate that is not PEM")
}

/// What the system trusts; unreadable certificates are left out, as every other program does.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, errors = found.errors.len(), "certificates of the system");
    roots
}

/// Takes every certificate, but still has the peer show that the key is its own.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
