//! Containers are connected and disconnected.

use std::{net::IpAddr, os::fd::AsFd as _, path::Path, sync::Arc};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use nix::net::if_::if_nametoindex;

use crate::{
    Attached, Container, DEFAULT_NETWORK, Inner,
    definition::{Definition, Driver},
    files, list, namespace,
    plan::{self, Step},
    records::{Endpoint, Sandbox},
    sandbox,
};

type Places = [(Endpoint, Arc<Definition>)];

impl Inner {
    pub(crate) fn attach(&self, container: &Container) -> Result<Attached> {
        self.attach_in(container, None)
    }

    /// Connects a container; `given` is the namespace that it has already, and the name of its
    /// first interface there.
    pub(crate) fn attach_in(
        &self,
        container: &Container,
        given: Option<(&Path, &str)>,
    ) -> Result<Attached> {
        let wanted = sandbox::wanted(&container.options, self.settings.default.is_some());
        if wanted.is_empty() && !container.options.left_network {
            return Err(Error::internal(format!("{} is in no network", container.id)));
        }
        self.detach(&container.id)?;
        let first = given.map(|(_, interface)| interface);
        let mut places = self.reserve(container, &wanted, first)?;
        let mut make = || {
            // First, because it is what fails most.
            self.take_ports(&container.id, &container.options, &places)?;
            self.prepare(&places)?;
            let steps = plan::attach(&sandbox::borrow(&places), given.map(|(path, _)| path));
            let (ports, before) = plan::ports_apart(steps);
            self.apply_all(&container.id, &before)?;
            self.add_by_plugins(&container.id, &mut places)?;
            self.expose(&container.id, &places)?;
            self.apply_all(&container.id, &ports)?;
            self.name(&container.id, &places)?;
            self.attached(&container.id, &places)
        };
        match make() {
            Ok(attached) => {
                for (_, network) in &places {
                    self.record("connect", network, &[("container", &container.id)]);
                }
                Ok(attached)
            }
            Err(error) => {
                if let Err(left) = self.detach(&container.id) {
                    tracing::warn!(container = %container.id, error = %left, "not taken away");
                }
                Err(error)
            }
        }
    }

    /// Networks whose interface somebody has removed get it again.
    pub(crate) fn prepare(&self, places: &Places) -> Result<()> {
        for (_, network) in places {
            if !matches!(network.driver, Driver::Plugins(_))
                && self.host.socket.link(network.interface()).map_err(anyhow::Error::new)?.is_none()
            {
                self.establish(network)?;
            }
        }
        Ok(())
    }

    pub(crate) fn apply_all(&self, container: &str, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.host.apply(container, step)?;
        }
        Ok(())
    }

    /// Takes all away that a container has. Idempotent.
    pub(crate) fn detach(&self, container: &str) -> Result<()> {
        let released = self.release(container).and_then(|()| self.delete_rest(container));
        let finished = self.finish(container, &[]);
        self.finishing.end(container);
        finished?;
        released
    }

    /// The quick part: nobody reaches the container any more, its ports and names are free. Its
    /// addresses are not.
    pub(crate) fn release(&self, container: &str) -> Result<()> {
        let endpoints = self.records.of_container(container)?;
        if endpoints.is_empty() {
            // It has left its last network, or has none of ours.
            self.reservations().remove(container);
            if self.names.view(container).is_some() {
                self.wait(self.names.stop(container));
            }
            // It may have a namespace all the same.
            if self.records.sandbox(container)?.is_some() {
                self.records.set_leaving(container)?;
            }
            return Ok(());
        }
        if self.records.is_leaving(container)? {
            return Ok(());
        }
        let linked = self.linked(&endpoints)?;
        let mut failed = self.conceal(&endpoints).err();
        self.reservations().remove(container);
        if self.names.view(container).is_some() {
            self.wait(self.names.stop(container));
        }
        self.unname(&endpoints);
        if let Err(error) = self.delete_by_plugins(container, &endpoints, None) {
            failed = Some(error);
        }
        self.records.set_leaving(container)?;
        self.refresh(&linked)?;
        for endpoint in &endpoints {
            self.record_disconnect(endpoint);
        }
        match failed {
            Some(error) => Err(error.context(format!("disconnect {container}"))),
            None => Ok(()),
        }
    }

    /// The slow part, when nobody waits for it: most interfaces go with their namespaces.
    pub(crate) fn finish_later(&self, container: &str) -> Result<()> {
        // It may have started again meanwhile: that took away what there was.
        let leaves = || self.records.is_leaving(container);
        let going = {
            let _turn = self.turn(container);
            if !leaves()? {
                return Ok(());
            }
            self.delete_rest(container)?;
            self.let_go(container)?
        };
        let gone = self.departures.wait(going);
        let _turn = self.turn(container);
        if leaves()? { self.finish(container, &gone) } else { Ok(()) }
    }

    /// What plugins still have of a container that is leaving. They are not asked for it while a
    /// manager starts.
    fn delete_rest(&self, container: &str) -> Result<()> {
        self.delete_by_plugins(container, &self.records.of_container(container)?, None)
    }

    /// Unpins a container's namespace, and gives the interfaces that should go with it.
    fn let_go(&self, container: &str) -> Result<Vec<String>> {
        // Who is not told of them cannot wait for them.
        if self.watch.get().is_none() {
            return Ok(Vec::new());
        }
        let endpoints = self.records.of_container(container)?;
        let names: Vec<_> = {
            let state = self.state();
            let is_on_bridge = |endpoint: &&Endpoint| {
                let known = state.catalog.by_id(&endpoint.network);
                known.is_some_and(|known| matches!(known.definition.driver, Driver::Bridge(_)))
            };
            endpoints.iter().filter(is_on_bridge).map(Endpoint::host_interface).collect()
        };
        self.remove_slaves(container, &endpoints)?;
        self.departures.expect(&names);
        if let Err(error) = self.host.namespaces.remove(container) {
            for name in &names {
                self.departures.gone(name);
            }
            return Err(error.into());
        }
        Ok(names)
    }

    /// The slow part, tens of milliseconds in the kernel for each interface that is not gone
    /// already. Then the addresses are free, too.
    pub(crate) fn finish(&self, container: &str, gone: &[String]) -> Result<()> {
        let endpoints = self.records.of_container(container)?;
        let mut failed = None;
        for name in endpoints.iter().map(Endpoint::host_interface) {
            // The namespace may live on with a process; the interface must not, because its
            // address will be another's. Nor did it go if one of its name did, which was made again
            // meanwhile. To ask by ioctl takes no lock of the kernel's.
            let is_gone = gone.contains(&name) && if_nametoindex(name.as_str()).is_err();
            if !is_gone && let Err(error) = self.host.socket.remove_link(&name) {
                failed = Some(Error::from(anyhow::Error::new(error)));
            }
        }
        if let Err(error) = self.remove_slaves(container, &endpoints) {
            failed = Some(error);
        }
        if let Err(error) = self.host.namespaces.remove(container) {
            failed = Some(error.into());
        }
        match failed {
            // The rows stay, so that the addresses are nobody else's meanwhile.
            Some(error) => Err(error.context(format!("disconnect {container}"))),
            None => self.records.remove_sandbox(container),
        }
    }

    fn record_disconnect(&self, endpoint: &Endpoint) {
        let network = self.state().catalog.by_id(&endpoint.network).cloned();
        if let Some(known) = network {
            self.record("disconnect", &known.definition, &[("container", &endpoint.container)]);
        }
    }

    /// Interfaces on others have no end on the host: they are removed from inside.
    pub(crate) fn remove_slaves(&self, container: &str, endpoints: &[Endpoint]) -> Result<()> {
        let names: Vec<_> = {
            let state = self.state();
            let is_slave = |endpoint: &&Endpoint| {
                state.catalog.by_id(&endpoint.network).is_some_and(|known| {
                    matches!(known.definition.driver, Driver::Macvlan(_) | Driver::Ipvlan(_))
                })
            };
            let names =
                |endpoint: &Endpoint| [endpoint.interface.clone(), endpoint.host_interface()];
            endpoints.iter().filter(is_slave).flat_map(names).collect()
        };
        if names.is_empty() {
            return Ok(());
        }
        let Some(namespace) = self.host.namespaces.open(container)? else { return Ok(()) };
        namespace::inside(namespace.as_fd(), |socket| {
            for name in &names {
                socket.remove_link(name)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    pub(crate) fn connect(
        &self,
        container: &str,
        options: &v1::EndpointOptions,
    ) -> Result<Attached> {
        sandbox::check_endpoint(options)?;
        self.sandbox(container)?;
        let (endpoint, network) = self.reserve_more(container, options)?;
        let connect = || {
            let mut places = self.places(container)?;
            let sandbox = self.sandbox(container)?;
            self.take_ports(container, &sandbox.options, &places)?;
            self.prepare(&places)?;
            let steps = plan::connect(&[(&endpoint, &*network)], &sandbox::borrow(&places));
            let (ports, before) = plan::ports_apart(steps);
            self.apply_all(container, &before)?;
            let new = places.iter().position(|(place, _)| place.id == endpoint.id);
            if let Some(new) = new {
                self.add_by_plugins(container, &mut places[new..=new])?;
            }
            self.expose(container, &places)?;
            self.apply_all(container, &ports)?;
            self.name(container, &places)?;
            self.attached(container, &places)
        };
        match connect() {
            Ok(attached) => {
                self.record("connect", &network, &[("container", container)]);
                Ok(attached)
            }
            Err(error) => {
                if let Err(left) = self.leave(container, &endpoint) {
                    tracing::warn!(%container, error = %left, "not taken away");
                }
                Err(error)
            }
        }
    }

    pub(crate) fn disconnect(&self, container: &str, network: &str) -> Result<Attached> {
        let places = self.places(container)?;
        let found = {
            let mut state = self.state();
            state.catalog.refresh()?;
            state.catalog.find(network)?.definition
        };
        let name = || self.sandbox(container).map_or_else(|_| container.into(), |s| s.name);
        let place = places.iter().find(|(_, network)| network.id == found.id).ok_or_else(|| {
            Error::denied(format!(
                "container {} is not connected to network {}",
                name(),
                found.name
            ))
        })?;
        self.leave(container, &place.0)?;
        self.record("disconnect", &found, &[("container", container)]);
        self.attached(container, &self.places(container)?)
    }

    /// Takes one endpoint away, and gives the default routes to another one.
    fn leave(&self, container: &str, endpoint: &Endpoint) -> Result<()> {
        let one = std::slice::from_ref(endpoint);
        let linked = self.linked(one)?;
        self.conceal(one)?;
        self.unname(one);
        self.delete_by_plugins(container, one, Some(&endpoint.interface))?;
        self.host.socket.remove_link(&endpoint.host_interface()).map_err(anyhow::Error::new)?;
        self.remove_slaves(container, one)?;
        self.records.remove_endpoint(&endpoint.id)?;
        self.refresh(&linked)?;
        let places = self.places(container)?;
        self.expose(container, &places)?;
        self.name(container, &places)?;
        let routes = plan::routes(&sandbox::borrow(&places));
        Ok(self.host.apply(container, &Step::Inside(Vec::new(), routes))?)
    }

    pub(crate) fn sandbox(&self, container: &str) -> Result<Sandbox> {
        self.records.sandbox(container)?.ok_or_else(|| {
            Error::conflict(format!("container {container} is in no network of its own"))
        })
    }

    pub(crate) fn attached(&self, container: &str, places: &Places) -> Result<Attached> {
        let sandbox = self.sandbox(container)?;
        let own: Vec<IpAddr> = places
            .iter()
            .flat_map(|(endpoint, _)| endpoint.addresses().map(|net| net.addr()))
            .collect();
        let extra = self.extra_addresses(&sandbox.options)?;
        Ok(Attached {
            namespace: self.host.namespaces.path(container),
            hosts: files::hosts(&extra, &own, &sandbox.hostname, &sandbox.options.domainname),
            resolv_conf: self.resolv_conf(&sandbox, places)?,
            endpoints: list::endpoints(&sandbox, places),
            published: self.records.ports(container)?,
        })
    }

    /// The lines of `/etc/hosts` that were asked for.
    pub(crate) fn extra_hosts(&self, options: &v1::ContainerOptions) -> Result<Vec<String>> {
        Ok(files::hosts(&self.extra_addresses(options)?, &[], "", ""))
    }

    fn extra_addresses(&self, options: &v1::ContainerOptions) -> Result<Vec<(String, IpAddr)>> {
        let gateways = self.host_gateways();
        let extra = |text: &String| files::extra_host(text, &gateways).map_err(Error::invalid);
        Ok(options.extra_hosts.iter().map(extra).collect::<Result<Vec<_>>>()?.concat())
    }

    /// What the name host-gateway stands for.
    fn host_gateways(&self) -> Vec<IpAddr> {
        if !self.settings.host_gateway.is_empty() {
            return self.settings.host_gateway.clone();
        }
        let state = self.state();
        let default = state.catalog.by_name(DEFAULT_NETWORK);
        default.map_or_else(Vec::new, |known| {
            known.definition.pools.iter().filter_map(|pool| pool.gateway).collect()
        })
    }

    pub(crate) fn counters(&self, container: &str) -> Result<Vec<v1::InterfaceStats>> {
        let namespace = self.host.namespaces.open(container)?.ok_or_else(|| {
            Error::conflict(format!("container {container} is in no network of its own"))
        })?;
        let links = namespace::inside(namespace.as_fd(), |socket| Ok(socket.links(true)?))?;
        let mut counters: Vec<_> = links
            .into_iter()
            .filter(|link| link.name != "lo")
            .map(|link| v1::InterfaceStats {
                name: link.name,
                received_bytes: link.counters.received_bytes,
                received_packets: link.counters.received_packets,
                received_errors: link.counters.received_errors,
                received_dropped: link.counters.received_dropped,
                sent_bytes: link.counters.sent_bytes,
                sent_packets: link.counters.sent_packets,
                sent_errors: link.counters.sent_errors,
                sent_dropped: link.counters.sent_dropped,
            })
            .collect();
        counters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(counters)
    }
}
