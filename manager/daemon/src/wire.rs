//! The one place that knows every implementation: makes the parts, and puts them behind sockets.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hull_manager_api::Domain;
use hull_manager_containers::{Containers, Runtime};
use hull_manager_content::Content;
use hull_manager_core::{Journal, Store, files, name};
use hull_manager_images::Images;
use hull_manager_networks::Networks;
use hull_manager_registry::Registry;
use hull_manager_snapshots::Snapshotter;
use hull_manager_spec::Defaults;
use hull_manager_volumes::Volumes;
use hull_specs_api::v1;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::{Server, server::Connected};

use crate::{
    config::Config,
    host,
    listen::{self, Socket},
    metrics, networks,
    system::Service,
    tls,
};

/// Where CDI specifications are, as its specification says.
pub(crate) const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Connections of all sockets together, and calls of one connection.
const MAX_CONNECTIONS: usize = 1024;
const MAX_CALLS: u32 = 1024;

/// Between two collections: as old as content without a name has to be.
const COLLECTION: Duration = Duration::from_secs(24 * 3600);

/// A client that does not answer for so long is gone.
const PING: Duration = Duration::from_secs(60);

/// Everything that answers requests.
pub(crate) struct Parts {
    config: RwLock<Arc<Config>>,
    pub(crate) id: String,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    pub(crate) networks: Networks,
    pub(crate) containers: Containers,
    /// True once the stop is asked for.
    pub(crate) closing: watch::Sender<bool>,
}

impl Parts {
    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at snapshots; blocks. Their number, and what is wrong with them.
    pub(crate) fn check_snapshots(
        &self,
        repair: bool,
    ) -> hull_manager_core::Result<(u64, Vec<v1::Finding>)> {
        let findings = self.snapshotter.check(repair)?.into_iter().map(|finding| v1::Finding {
            subject: finding.subject,
            problem: finding.problem,
            repaired: finding.repaired.unwrap_or_default(),
        });
        Ok((self.snapshotter.list()?.len() as u64, findings.collect()))
    }
}

/// The manager.
pub(crate) struct Manager(Arc<Parts>);

/// Ends the answering.
pub(crate) struct Stop(Arc<Parts>);

impl Stop {
    pub(crate) fn cancel(&self) {
        self.0.closing.send_replace(true);
    }
}

impl Manager {
    /// Makes all parts; nothing runs yet.
    ///
    /// # Errors
    /// If one can't be made.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        // ring, because it needs a C compiler and nothing else. Set once a process.
        drop(rustls::crypto::ring::default_provider().install_default());
        let id = identity(&config.data_root.join("engine-id"))?;
        let store = Store::open(&config.data_root.join("meta.db"))?;
        let journal = Journal::open(&store)?;
        let content = Content::open(&config.data_root.join("content"))?;
        let snapshotter = hull_manager_snapshots::open(
            config.storage_driver.as_deref(),
            &config.data_root.join("snapshots"),
            &store,
        )?;
        let images = Images::open(hull_manager_images::Parts {
            store: store.clone(),
            journal: journal.clone(),
            content,
            snapshots: Arc::clone(&snapshotter),
            registry: registry(config)?,
        })?;
        let volumes = Volumes::open(
            &config.data_root.join("volumes"),
            &config.exec_root.join("volumes"),
            &store,
            &journal,
        )?;
        let networks = Networks::open(networks::settings(config, &id), &store, &journal)?;
        let containers = Containers::open(
            container_settings(config),
            hull_manager_containers::Parts {
                store: store.clone(),
                journal: journal.clone(),
                network: Arc::new(networks::Adapter(networks.clone())),
                images: images.clone(),
                snapshots: Arc::clone(&snapshotter),
                volumes: volumes.clone(),
            },
        )?;
        let users = containers.clone();
        images.set_users(Arc::new(move || users.users()));
        Ok(Self(Arc::new(Parts {
            config: RwLock::new(Arc::new(config.clone())),
            id,
            store,
            journal,
            snapshotter,
            images,
            volumes,
            networks,
            containers,
            closing: watch::Sender::new(false),
        })))
    }

    /// Finds what ran on without a manager.
    pub(crate) async fn recover(&self) -> Result<()> {
        self.0.containers.recover().await?;
        // What a killed manager, and transfers that were cut off, have left and nothing names.
        let images = self.0.images.clone();
        tokio::spawn(async move {
            loop {
                if let Err(error) = images.collect().await {
                    tracing::warn!(%error, "content that nothing names is not collected");
                }
                tokio::time::sleep(COLLECTION).await;
            }
        });
        Ok(())
    }

    /// The work of answering, until it is stopped.
    ///
    /// # Errors
    /// If certificates can't be read or the figures' socket can't be bound.
    pub(crate) async fn serve(
        &self,
        sockets: Vec<Socket>,
        config: &Config,
    ) -> Result<(Stop, impl Future<Output = ()> + use<>)> {
        let parts = &self.0;
        let routes = hull_manager_api::routes(Domain {
            images: parts.images.clone(),
            containers: parts.containers.clone(),
            networks: parts.networks.clone(),
            volumes: parts.volumes.clone(),
            system: Service(Arc::clone(parts)),
            closing: parts.closing.subscribe(),
        })
        .await;
        if let Some(place) = &config.metrics {
            let socket = listen::bind_one(place, None)?;
            tokio::spawn(metrics::serve(socket, Arc::new(Service(Arc::clone(parts)))));
        }
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut servers = tokio::task::JoinSet::new();
        for socket in sockets {
            let mut server = Server::builder()
                .max_concurrent_streams(MAX_CALLS)
                .http2_keepalive_interval(Some(PING))
                .http2_keepalive_timeout(Some(PING));
            let mut closing = parts.closing.subscribe();
            let closed = async move {
                // The sender lives as long as the manager.
                drop(closing.wait_for(|closing| *closing).await);
            };
            let places = Arc::clone(&places);
            let routes = routes.clone();
            match socket {
                Socket::Unix(listener) => {
                    let incoming = unix_connections(listener, places, config.group.is_some());
                    let served =
                        server.add_routes(routes).serve_with_incoming_shutdown(incoming, closed);
                    servers.spawn(async move { log_end(served.await) });
                }
                Socket::Tcp(listener) => {
                    if let Some(tls) = &config.tls {
                        server = server.tls_config(tls::server(tls)?)?;
                    }
                    let incoming = tcp_connections(listener, places);
                    let served =
                        server.add_routes(routes).serve_with_incoming_shutdown(incoming, closed);
                    servers.spawn(async move { log_end(served.await) });
                }
            }
        }
        Ok((Stop(Arc::clone(parts)), async move { while servers.join_next().await.is_some() {} }))
    }

    /// Takes what can change while the manager runs; the rest waits for its next start.
    pub(crate) fn reload(&self, fresh: &Config) {
        let mut config = self.0.config.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**config).clone();
        next.log_level = fresh.log_level;
        next.labels = fresh.labels.clone();
        next.registry_mirrors = fresh.registry_mirrors.clone();
        next.insecure_registries = fresh.insecure_registries.clone();
        next.registry_config_dirs = fresh.registry_config_dirs.clone();
        next.shutdown_timeout = fresh.shutdown_timeout;
        next.default_runtime = fresh.default_runtime.clone();
        next.runtimes = fresh.runtimes.clone();
        if let Err(error) = self.0.containers.reload(&container_settings(&next)) {
            tracing::error!("the runtimes stay as they were: {error}");
        }
        match registry(&next) {
            Ok(registry) => self.0.images.set_registry(registry),
            Err(error) => tracing::error!("the registries stay as they were: {error}"),
        }
        if next != *fresh {
            tracing::warn!("some of what changed takes effect when hulld starts again");
        }
        *config = Arc::new(next);
        drop(config);
        self.0.journal.record("daemon", "reload", &self.0.id, &[]);
    }

    /// Ends what waits for containers; they go on.
    pub(crate) async fn shutdown(&self) {
        self.0.containers.shutdown().await;
        if let Err(error) = self.0.networks.settle().await {
            tracing::warn!(%error, "the next start takes the rest away");
        }
    }
}

fn log_end(result: Result<(), tonic::transport::Error>) {
    if let Err(error) = result {
        tracing::error!("a socket is served no more: {:#}", anyhow::Error::new(error));
    }
}

/// Who this manager is, for as long as its data is there.
fn identity(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(id) if name::is_id_prefix(id.trim()) => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("read {}", path.display()));
        }
        _ => {}
    }
    let id = name::random_id()?;
    files::write_atomic(path, id.as_bytes(), 0o600)?;
    Ok(id)
}

fn registry(config: &Config) -> hull_manager_core::Result<Registry> {
    Registry::new(hull_manager_registry::Settings {
        mirrors: config.registry_mirrors.clone(),
        insecure: config.insecure_registries.clone(),
        config_dirs: config.registry_config_dirs.clone(),
        proxies: hull_manager_registry::Proxies::from_environment()?,
        ..Default::default()
    })
}

fn runtimes(config: &Config) -> std::collections::BTreeMap<String, Runtime> {
    config
        .runtimes
        .iter()
        .map(|(name, path)| (name.clone(), Runtime { path: path.clone() }))
        .collect()
}

fn container_settings(config: &Config) -> hull_manager_containers::Settings {
    let runtimes = runtimes(config);
    hull_manager_containers::Settings {
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        shim: config.shim.clone(),
        defaults: Defaults {
            runtimes: runtimes.keys().cloned().collect(),
            log: v1::LogOptions {
                driver: config.log_driver.clone(),
                options: config.log_opts.clone().into_iter().collect(),
            },
            ulimits: config
                .default_ulimits
                .iter()
                .map(|limit| v1::Ulimit {
                    name: limit.name.clone(),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            init: config.init,
            systemd_cgroups: config.systemd_cgroups,
            cgroup_parent: config.cgroup_parent.clone(),
            ..Defaults::new(host::facts(), &config.default_runtime)
        },
        runtimes,
        userns_user: config.userns_auto_user.clone(),
        init_path: config.init_path.is_absolute().then(|| config.init_path.clone()),
        cdi_dirs: CDI_DIRS.map(Into::into).to_vec(),
        shutdown_timeout: config.shutdown_timeout,
        live_restore: true,
    }
}

/// A connection that holds its place among all.
struct Held<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S: Connected> Connected for Held<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connections as they come, each with a place; without one they wait in the kernel's queue.
/// Whoever is neither root nor this manager's own user is sent away even if a mode was changed;
/// where a group has the socket, its mode decides.
fn unix_connections(
    listener: UnixListener,
    places: Arc<Semaphore>,
    group: bool,
) -> impl Stream<Item = io::Result<Held<tokio::net::UnixStream>>> {
    let (sender, queue) = mpsc::channel(1);
    tokio::spawn(async move {
        let own = hull_runtime_sys::process::effective_uid();
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // No descriptor is free; one will be.
                        tracing::warn!("accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = sender.closed() => return,
            };
            let peer = stream.peer_cred().map(|peer| peer.uid());
            if !group && !peer.as_ref().is_ok_and(|uid| *uid == 0 || *uid == own) {
                tracing::warn!(?peer, "a connection of another user is refused");
                continue;
            }
            if sender.send(Ok(Held { stream, _place: place })).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(queue)
}

fn tcp_connections(
    listener: TcpListener,
    places: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Held<tokio::net::TcpStream>>> {
    let (sender, queue) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = sender.closed() => return,
            };
            // A person waits for each key typed.
            drop(stream.set_nodelay(true));
            if sender.send(Ok(Held { stream, _place: place })).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine-id");
        let id = identity(&path).unwrap();
        assert_eq!((id.len(), identity(&path).unwrap()), (64, id));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(identity(&path).unwrap().len(), 64);
    }
}
