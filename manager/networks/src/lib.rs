//! Networks: what containers reach each other and the world through.
//!
//! Definitions are files (`definition`, `catalog`); who has which address is in the store
//! (`records`); all else is looked up in the kernel. Each operation decides by a pure function
//! (`options`, `ipam`, `plan`, `files`) and then does little (`host`, by netlink).
//!
//! Rows come before what they name and go after it. So a manager that is killed anywhere leaves
//! rows, and [`Networks::recover`] takes away what they name with the same `detach` that ends
//! every container's connection.
#![forbid(unsafe_code)]

mod attach;
mod audit;
mod catalog;
mod configuration;
mod create;
mod definition;
mod endpoint;
mod exposure;
mod files;
mod finishing;
mod healing;
mod host;
mod ipam;
mod link;
mod list;
mod mac;
mod namespace;
mod naming;
mod netlink;
mod options;
mod parent;
mod plan;
pub mod plugin;
mod plugins;
mod ports;
mod records;
mod recover;
mod sandbox;
mod settings;
mod sysctl;
mod watch;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use hull_manager_cni::Cni;
use hull_manager_core::{Error, Journal, Result, Store, files::private_directory};
use hull_manager_firewall::{self as firewall, Firewall, Ports, Reservation};
use hull_manager_names::Names;
use hull_specs_api::v1;

use crate::{
    catalog::Catalog,
    finishing::{Departures, Finishing},
    host::Host,
    namespace::Namespaces,
    records::Records,
    watch::Watch,
};
pub use crate::{
    ipam::SubnetSource,
    settings::{DEFAULT_BRIDGE, DefaultNetwork, Settings},
};

/// The name of the default network.
pub const DEFAULT_NETWORK: &str = "bridge";

/// How many containers something can be done for at once.
const TURNS: usize = 1024;

/// What a network must know of a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// What it asked for.
    pub options: v1::ContainerOptions,
}

/// What a connected container has.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Where its process runs.
    pub namespace: PathBuf,
    /// Lines of `/etc/hosts`, behind those of the loopback.
    pub hosts: Vec<String>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Its places, in the order of its interfaces.
    pub endpoints: Vec<v1::Endpoint>,
    /// Its published ports.
    pub published: Vec<v1::PublishedPort>,
}

/// All networks; clones share them.
#[derive(Clone)]
pub struct Networks(Arc<Inner>);

struct Inner {
    settings: Settings,
    records: Records,
    journal: Journal,
    host: Host,
    firewall: Firewall,
    ports: Ports,
    /// The host's ports that containers have.
    reservations: Mutex<HashMap<String, Reservation>>,
    names: Names,
    cni: Cni,
    /// For what is asynchronous below: names, plugins.
    runtime: tokio::runtime::Handle,
    /// Held while networks come and go; taken before `state`.
    changing: Mutex<()>,
    /// Held while something is done for a container, by its id: taken before the others.
    turns: [Mutex<()>; TURNS],
    finishing: Finishing,
    departures: Departures,
    watch: OnceLock<(Watch, firewall::Watch)>,
    state: Mutex<State>,
}

/// What changes, besides the rows.
struct State {
    catalog: Catalog,
    /// The address that was given out last, by network and whether it is IPv4.
    last: HashMap<(String, bool), IpAddr>,
}

impl Networks {
    /// Reads the definitions, and makes the directories and tables; touches no interface. To be
    /// called from within a runtime that stays, from a thread that may block; the calling thread's network namespace is the host's from now on.
    ///
    /// # Errors
    /// If a directory, the store or the kernel refuses.
    pub fn open(settings: Settings, store: &Store, journal: &Journal) -> Result<Self> {
        private_directory(&settings.namespaces, 0o700)?;
        let catalog = Catalog::open(&settings.definitions)?;
        let inner = Inner {
            records: Records::open(store)?,
            journal: journal.clone(),
            host: Host::new(Namespaces::new(settings.namespaces.clone()), &settings)?,
            firewall: Firewall::open(settings.firewall())?,
            ports: Ports::new(&settings.firewall()),
            reservations: Mutex::default(),
            names: Names::start(hull_manager_names::Settings {
                resolv_conf: settings.resolv_conf.clone(),
            })?,
            cni: Cni::open(settings.cni.clone())?,
            runtime: tokio::runtime::Handle::try_current()
                .map_err(|cause| Error::internal("networks").because(cause))?,
            changing: Mutex::new(()),
            turns: std::array::from_fn(|_| Mutex::new(())),
            finishing: Finishing::default(),
            departures: Departures::default(),
            watch: OnceLock::new(),
            state: Mutex::new(State { catalog, last: HashMap::new() }),
            settings,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Puts everything in the state that the rows and definitions say: after the start, before
    /// any other call. `live` are the ids of containers that run; what others had goes.
    ///
    /// # Errors
    /// If the default network can't be made. What concerns one container or another network is
    /// reported in the log, so that one broken thing does not stop the rest.
    pub async fn recover(&self, live: &[String]) -> Result<()> {
        let live = live.to_vec();
        let weak = Arc::downgrade(&self.0);
        self.blocking(move |inner| {
            inner.recover(&live)?;
            if inner.watch.get().is_none() {
                drop(inner.watch.set((Watch::start(weak)?, inner.firewall.watch()?)));
            }
            Ok(())
        })
        .await?;
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.collect() {
                tracing::warn!(%error, "what plugins have is not collected");
            }
        });
        Ok(())
    }

    /// Makes a network.
    ///
    /// # Errors
    /// In docker's words: a name or subnet that is taken, an option that nobody knows.
    pub async fn create(
        &self,
        request: v1::CreateNetworkRequest,
    ) -> Result<v1::CreateNetworkResponse> {
        self.blocking(move |inner| inner.create(&request)).await
    }

    /// Those that pass the filters, by name.
    ///
    /// # Errors
    /// If a filter is none.
    pub async fn list(&self, request: v1::ListNetworksRequest) -> Result<v1::ListNetworksResponse> {
        self.blocking(move |inner| inner.list(&request)).await
    }

    /// One network, with its members.
    ///
    /// # Errors
    /// If there is none, or the text means several.
    pub async fn inspect(&self, request: v1::InspectNetworkRequest) -> Result<v1::Network> {
        self.blocking(move |inner| {
            let mut network = inner.inspect(&request.network)?;
            if request.traffic {
                inner.count(&mut network)?;
            }
            Ok(network)
        })
        .await
    }

    /// Who reaches what, port by port, and why.
    ///
    /// # Errors
    /// If there is no such network.
    pub async fn audit(
        &self,
        request: v1::AuditNetworksRequest,
    ) -> Result<v1::AuditNetworksResponse> {
        self.blocking(move |inner| inner.audit(&request)).await
    }

    /// Removes a network that nobody is in.
    ///
    /// # Errors
    /// If there is none, it is in use, or is one that is always there.
    pub async fn remove(
        &self,
        request: v1::RemoveNetworkRequest,
    ) -> Result<v1::RemoveNetworkResponse> {
        self.blocking(move |inner| inner.remove(&request)).await
    }

    /// Removes the networks that nobody is in.
    ///
    /// # Errors
    /// If a filter is none, or the kernel refuses.
    pub async fn prune(
        &self,
        request: v1::PruneNetworksRequest,
    ) -> Result<v1::PruneNetworksResponse> {
        self.blocking(move |inner| inner.prune(&request)).await
    }

    /// Refuses at creation what no start could do.
    ///
    /// # Errors
    /// One sentence, in docker's words where docker has some.
    pub fn accept(&self, options: &v1::ContainerOptions) -> Result<()> {
        sandbox::check(options)?;
        let state = self.0.state();
        for endpoint in &options.networks {
            // One that is made later is looked at then.
            if let Ok(known) = state.catalog.find(&endpoint.network) {
                sandbox::check_addresses(&known.definition, endpoint)?;
            }
        }
        Ok(())
    }

    /// The networks' names that a container is connected to at its start, in their order; none:
    /// it has no namespace of ours.
    #[must_use]
    pub fn wanted(&self, options: &v1::ContainerOptions) -> Vec<String> {
        sandbox::wanted(options, self.0.settings.default.is_some())
            .into_iter()
            .map(|endpoint| endpoint.network)
            .collect()
    }

    /// The lines of `/etc/hosts` behind those of the loopback, and `/etc/resolv.conf`, of a
    /// container without a network of ours; `is_host`: in the host's namespace.
    ///
    /// # Errors
    /// If an option makes no sense, or the host's own file can't be read.
    pub fn unconnected(
        &self,
        options: &v1::ContainerOptions,
        is_host: bool,
    ) -> Result<(Vec<String>, String)> {
        Ok((self.0.extra_hosts(options)?, self.0.plain_resolv_conf(options, is_host)?))
    }

    /// Connects a container that is about to start: a namespace of its own with an interface in
    /// each of its networks. What an interrupted start has left is replaced.
    ///
    /// # Errors
    /// If a network is not there, has no address left, or the kernel refuses; then nothing is
    /// left.
    pub async fn attach(&self, container: Container) -> Result<Attached> {
        self.blocking(move |inner| {
            let _turn = inner.turn(&container.id);
            inner.attach(&container)
        })
        .await
    }

    /// What a container has that outlived the manager; what is missing on the host is made
    /// again. It has its name, also if its manager was killed while it gave it another one.
    ///
    /// # Errors
    /// If it has no namespace any more.
    pub async fn check(&self, id: &str, name: &str) -> Result<Attached> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.blocking(move |inner| {
            let _turn = inner.turn(&id);
            inner.records.rename(&id, &name)?;
            inner.check(&id)
        })
        .await
    }

    /// Takes away all that a container has. Idempotent. When it returns, nobody reaches the
    /// container, and its ports are free; the kernel takes its interfaces away in its own time,
    /// and until then its addresses are nobody else's.
    ///
    /// # Errors
    /// What could not be taken away; everything else is.
    pub async fn detach(&self, id: &str) -> Result<()> {
        let container = id.to_owned();
        self.blocking(move |inner| {
            let _turn = inner.turn(&container);
            inner.release(&container)
        })
        .await?;
        let (inner, container) = (Arc::clone(&self.0), id.to_owned());
        inner.finishing.begin(id);
        tokio::task::spawn_blocking(move || {
            let finished = inner.finish_later(&container);
            inner.finishing.end(&container);
            if let Err(error) = finished {
                tracing::warn!(%container, %error, "not taken away");
            }
        });
        Ok(())
    }

    /// Before the end: what is being taken away is taken away whole.
    ///
    /// # Errors
    /// If the work was given up.
    pub async fn settle(&self) -> Result<()> {
        self.blocking(|inner| {
            inner.finishing.wait();
            Ok(())
        })
        .await
    }

    /// Connects a running container to a further network.
    ///
    /// # Errors
    /// As `attach`; or it is in this network already.
    pub async fn connect(&self, id: &str, options: v1::EndpointOptions) -> Result<Attached> {
        let id = id.to_owned();
        self.blocking(move |inner| {
            let _turn = inner.turn(&id);
            inner.connect(&id, &options)
        })
        .await
    }

    /// Disconnects a running container from a network.
    ///
    /// # Errors
    /// If it is not in it.
    pub async fn disconnect(&self, id: &str, network: &str) -> Result<Attached> {
        let (id, network) = (id.to_owned(), network.to_owned());
        self.blocking(move |inner| {
            let _turn = inner.turn(&id);
            inner.disconnect(&id, &network)
        })
        .await
    }

    /// A container has another name, by which others find it at once.
    ///
    /// # Errors
    /// If the store or the kernel refuses.
    pub async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.blocking(move |inner| {
            let _turn = inner.turn(&id);
            inner.rename(&id, &name)
        })
        .await
    }

    /// What went through the interfaces of a running container, by name.
    ///
    /// # Errors
    /// If it has no namespace of ours.
    pub async fn counters(&self, id: &str) -> Result<Vec<v1::InterfaceStats>> {
        let id = id.to_owned();
        self.blocking(move |inner| inner.counters(&id)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|cause| Error::internal("networks").because(cause))?
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing else is done for a container: its owner does one thing after the
    /// other, but interfaces that somebody removes are made again at any time.
    fn turn(&self, container: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        container.hash(&mut hasher);
        let index = usize::try_from(hasher.finish()).unwrap_or_default() % TURNS;
        self.turns[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
