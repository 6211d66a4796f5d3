//! The way to the manager: a unix socket, or TCP with or without TLS.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use http::Uri;
use hull_specs_api::v1::{
    containers_client::ContainersClient, images_client::ImagesClient,
    networks_client::NetworksClient, system_client::SystemClient, volumes_client::VolumesClient,
};
use hyper_util::rt::TokioIo;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::args::global::GlobalArgs;

const DEFAULT_HOST: &str = "unix:///run/hull/hull.sock";
/// The most bytes of one message. Chunks are smaller; lists of many containers are not.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// A stream may be this far ahead of its reader, so that bulk data does not wait for each
/// window's update.
const WINDOW_BYTES: u32 = 1 << 20;

/// Where the manager is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    /// A socket's path.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Understands `--host`. Docker's default port is 2375, with TLS 2376.
pub(crate) fn host(text: &str, tls: bool) -> Result<Host> {
    let invalid = || anyhow!("unable to parse docker host `{text}`");
    if let Some(path) = text.strip_prefix("unix://") {
        if !path.starts_with('/') {
            return Err(invalid());
        }
        return Ok(Host::Unix(path.into()));
    }
    let address = text.strip_prefix("tcp://").ok_or_else(invalid)?.trim_end_matches('/');
    if address.is_empty() || address.contains('/') {
        return Err(invalid());
    }
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if tls { 2376 } else { 2375 };
    Ok(Host::Tcp(if has_port { address.to_owned() } else { format!("{address}:{port}") }))
}

/// The manager, and where the client's own files are.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    channel: Channel,
    /// With docker's `config.json`.
    pub(crate) config_dir: PathBuf,
    pub(crate) host: String,
}

macro_rules! client {
    ($name:ident, $client:ident) => {
        pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        }
    };
}

impl Manager {
    /// Connects at the first call.
    pub(crate) fn new(args: &GlobalArgs) -> Result<Self> {
        let text = match &args.host {
            Some(host) => host.clone(),
            None => std::env::var("HULL_HOST")
                .ok()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| DEFAULT_HOST.to_owned()),
        };
        let config_dir = config_dir(args)?;
        let tls = args.tls || args.tlsverify;
        let channel = match host(&text, tls)? {
            Host::Unix(path) => unix(path)?,
            Host::Tcp(address) => {
                tcp(&address, tls.then(|| tls_config(args, &config_dir)).transpose()?)?
            }
        };
        Ok(Self { channel, config_dir, host: text })
    }

    client!(containers, ContainersClient);
    client!(images, ImagesClient);
    client!(networks, NetworksClient);
    client!(volumes, VolumesClient);
    client!(system, SystemClient);
}

fn endpoint(uri: String) -> Result<Endpoint> {
    let uri: Uri = uri.parse().context("the host is not an address")?;
    Ok(Endpoint::from(uri)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))?)
}

fn unix(path: PathBuf) -> Result<Channel> {
    // The name is never looked up.
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(endpoint("http://hull".to_owned())?.connect_with_connector_lazy(connector))
}

fn tcp(address: &str, tls: Option<ClientTlsConfig>) -> Result<Channel> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = endpoint(format!("{scheme}://{address}"))?.tcp_nodelay(true);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).context("TLS")?;
    }
    Ok(endpoint.connect_lazy())
}

fn tls_config(args: &GlobalArgs, config_dir: &Path) -> Result<ClientTlsConfig> {
    if !args.tlsverify {
        bail!("--tls without --tlsverify would trust anybody: use --tlsverify");
    }
    let read = |given: &Option<PathBuf>, name: &str| {
        let path = given.clone().unwrap_or_else(|| config_dir.join(name));
        std::fs::read(&path).with_context(|| format!("open {}", path.display()))
    };
    let ca = read(&args.tlscacert, "ca.pem")?;
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let has_key =
        args.tlscert.is_some() || args.tlskey.is_some() || config_dir.join("cert.pem").exists();
    if has_key {
        let (cert, key) = (read(&args.tlscert, "cert.pem")?, read(&args.tlskey, "key.pem")?);
        config = config.identity(Identity::from_pem(cert, key));
    }
    Ok(config)
}

fn config_dir(args: &GlobalArgs) -> Result<PathBuf> {
    if let Some(directory) = &args.config {
        return Ok(directory.clone());
    }
    if let Some(directory) = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(directory.into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    Ok(home.map_or_else(|| PathBuf::from("/"), PathBuf::from).join(".docker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host("unix:///x", false).unwrap(), Host::Unix("/x".into()));
        for (text, tls, address) in [
            ("tcp://a:1", false, "a:1"),
            ("tcp://a", false, "a:2375"),
            ("tcp://a", true, "a:2376"),
            ("tcp://[::1]:5/", false, "[::1]:5"),
        ] {
            assert_eq!(host(text, tls).unwrap(), Host::Tcp(address.into()));
        }
        for bad in ["foo", "", "unix://", "unix://x", "tcp://", "tcp://a/b", "http://a"] {
            let words = format!("unable to parse docker host `{bad}`");
            assert_eq!(host(bad, false).unwrap_err().to_string(), words);
        }
    }
}
