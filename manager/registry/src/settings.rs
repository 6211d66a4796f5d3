//! What the operator and the manager decide about registries.

use std::{path::PathBuf, time::Duration};

use crate::proxy::Proxies;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mirrors of Docker Hub (`registry-mirrors`): URLs, asked in this order before it.
    pub mirrors: Vec<String>,
    /// Registries that may be spoken to over http or with a certificate nobody vouches for
    /// (`insecure-registries`): `host`, `host:port`, or a range of addresses. A range is about
    /// addresses in references; names are not looked up for it, since whoever answers DNS
    /// would decide then.
    pub insecure: Vec<String>,
    /// Directories of `HOST/hosts.toml` (containerd's) or `HOST/{*.crt,*.cert,*.key}`
    /// (Docker's certs.d); the first that has a directory for the registry counts.
    pub config_dirs: Vec<PathBuf>,
    /// Hosts that may issue tokens for registries of other sites.
    pub token_hosts: Vec<String>,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Which proxies to use; see [`Proxies::from_environment`].
    pub proxies: Proxies,
    /// How long, how often, how much.
    pub limits: Limits,
}

impl Default for Settings {
    /// No mirrors, nothing insecure, no directories, no proxies.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            config_dirs: Vec::new(),
            token_hosts: Vec::new(),
            user_agent: concat!("hull/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            limits: Limits::default(),
        }
    }
}

/// Bounds on time and repetition.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// In which some byte must come.
    pub idle: Duration,
    /// For the answer to a request for a manifest, token or list, and for all of its body.
    pub document: Duration,
    /// For the answer to any other request: a registry may fetch a blob from elsewhere first, or
    /// read all that it was sent.
    pub answer: Duration,
    /// In which at least [`Limits::trickle_bytes`] of a blob must come.
    pub trickle: Duration,
    /// See [`Limits::trickle`].
    pub trickle_bytes: u64,
    /// How many failures in a row are borne before giving up.
    pub retries: u32,
    /// The longest wait after the first failure; doubled after each.
    pub backoff: Duration,
    /// The longest wait of all; also of what a registry may ask for by `Retry-After`.
    pub backoff_max: Duration,
    /// Blobs larger than this are uploaded in pieces of this size.
    pub upload_chunk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            document: Duration::from_secs(15),
            answer: Duration::from_secs(90),
            trickle: Duration::from_secs(60),
            trickle_bytes: 16 << 10,
            retries: 5,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            upload_chunk_bytes: 128 << 20,
        }
    }
}
