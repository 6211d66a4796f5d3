//! What somebody takes away from our interfaces is put back, or said in the log.

use std::{fmt, net::IpAddr, os::fd::AsFd as _, sync::Arc};

use hull_manager_core::{Error, Result};
use ipnet::IpNet;

use crate::{
    Attached, Inner,
    catalog::Known,
    definition::{Definition, Driver},
    link::Link,
    namespace,
    plan::{self, Interface, Step},
    sandbox,
};

/// What may not be as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// An interface is gone, or does nothing any more: it is down, or out of its bridge.
    Link(String),
    /// An address of the host's is gone.
    Address(IpAddr),
    /// Nobody knows: there was more than the buffer held.
    Anything,
}

/// What the interface of a network's has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Everything,
    Activity,
    Addresses(Vec<IpNet>),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("it was removed"),
            Self::Activity => f.write_str("it was set down"),
            Self::Addresses(lost) => {
                let lost: Vec<_> = lost.iter().map(IpNet::to_string).collect();
                write!(f, "it has lost {}", lost.join(" and "))
            }
        }
    }
}

/// What an interface lacks that should have these addresses.
pub(crate) fn loss(link: Option<&Link>, present: &[IpNet], wanted: &[IpNet]) -> Option<Loss> {
    let Some(link) = link else { return Some(Loss::Everything) };
    if !link.up {
        return Some(Loss::Activity);
    }
    let lost: Vec<_> = wanted.iter().filter(|net| !present.contains(net)).copied().collect();
    (!lost.is_empty()).then_some(Loss::Addresses(lost))
}

/// Whether a network's interface is ours to put right.
fn is_owned(network: &Definition) -> bool {
    match &network.driver {
        Driver::Bridge(bridge) => bridge.owned,
        Driver::Macvlan(parent) | Driver::Ipvlan(parent) => parent.owned,
        Driver::Configuration(_) | Driver::Plugins(_) => false,
    }
}

impl Inner {
    /// Puts right what a finding means; whether there was something.
    pub(crate) fn heal(&self, finding: &Finding) -> Result<bool> {
        let networks = match finding {
            Finding::Link(name) => {
                let endpoint = name.strip_prefix("hv").unwrap_or_default();
                if !endpoint.is_empty()
                    && let Some(container) = self.records.container_of(endpoint)?
                {
                    // Mostly the end of a container: then its row is gone when it is our turn.
                    return self.heal_container(&container, Some(endpoint));
                }
                self.networks_where(|network| network.interface() == name)
            }
            Finding::Address(address) => self.networks_where(|network| {
                network.pools.iter().any(|pool| pool.gateway == Some(*address))
            }),
            Finding::Anything => self.networks_where(|_| true),
        };
        let mut healed = false;
        for network in networks {
            healed |= self.heal_network(&network)?;
        }
        if *finding == Finding::Anything {
            for sandbox in self.records.sandboxes()? {
                healed |= self.heal_container(&sandbox.container, None)?;
            }
        }
        Ok(healed)
    }

    /// What a container has that runs. Interfaces that somebody has removed are made again.
    pub(crate) fn check(&self, container: &str) -> Result<Attached> {
        let places = self.places(container)?;
        if self.host.namespaces.open(container)?.is_none() {
            return Err(Error::conflict(format!(
                "the network namespace of {container} is gone: it must be started again"
            )));
        }
        self.prepare(&places)?;
        let mut missing = Vec::new();
        for (endpoint, network) in &places {
            let Some(interface) = Interface::of((endpoint, network)) else { continue };
            if !self.is_connected(container, &interface)? {
                // A half is worth nothing.
                self.host.socket.remove_link(&interface.host_name).map_err(anyhow::Error::new)?;
                self.remove_slaves(container, std::slice::from_ref(endpoint))?;
                missing.push((endpoint, &**network));
            }
        }
        let mut again = Vec::new();
        if !missing.is_empty() {
            tracing::warn!(%container, interfaces = missing.len(), "interfaces are made again");
            again = plan::connect(&missing, &sandbox::borrow(&places));
        }
        let (ports, before) = plan::ports_apart(again);
        self.apply_all(container, &before)?;
        self.check_by_plugins(container, &places);
        self.expose(container, &places)?;
        self.apply_all(container, &ports)?;
        self.name(container, &places)?;
        self.attached(container, &places)
    }

    /// Whether an interface is there, in the container or as the host's end; and where it is a
    /// bridge's, this end is a port of it now, as it should be.
    fn is_connected(&self, container: &str, interface: &Interface) -> Result<bool> {
        match &interface.on {
            plan::On::Bridge { bridge, .. } => self.is_port(bridge, interface),
            plan::On::Parent { parent, .. } => self.is_slave(container, parent, interface),
        }
    }

    /// Whatever it is called: a container may give its interface another name.
    fn is_slave(&self, container: &str, parent: &str, interface: &Interface) -> Result<bool> {
        let Some(namespace) = self.host.namespaces.open(container)? else { return Ok(true) };
        let links = namespace::inside(namespace.as_fd(), |socket| Ok(socket.links(false)?))?;
        let is_it = |link: &Link| link.name == interface.name || link.mac == Some(interface.mac);
        if links.iter().any(is_it) {
            return Ok(true);
        }
        // Without that it cannot be made again; somebody else's is somebody else's business.
        let back = self.host.socket.link(parent).map_err(anyhow::Error::new)?.is_some();
        if !back {
            tracing::warn!(%container, parent, "not connected: the interface that it was on is gone");
        }
        Ok(!back)
    }

    fn is_port(&self, bridge: &str, interface: &Interface) -> Result<bool> {
        let find = |name: &str| -> Result<_> {
            Ok(self.host.socket.link(name).map_err(anyhow::Error::new)?)
        };
        let (Some(port), Some(bridge)) = (find(&interface.host_name)?, find(bridge)?) else {
            return Ok(false);
        };
        if port.master != Some(bridge.index) || !port.up {
            tracing::warn!(port = %port.name, "a port of a bridge was changed by somebody: put right");
        }
        if port.master != Some(bridge.index) {
            self.host.socket.set_master(port.index, bridge.index).map_err(anyhow::Error::new)?;
        }
        self.host.apply(&interface.host_name, &Step::Port(interface.clone()))?;
        Ok(true)
    }

    fn networks_where(&self, is_meant: impl Fn(&Definition) -> bool) -> Vec<Arc<Definition>> {
        let state = self.state();
        let definition = |known: &Known| Arc::clone(&known.definition);
        state.catalog.all().map(definition).filter(|network| is_meant(network)).collect()
    }

    fn heal_network(&self, network: &Arc<Definition>) -> Result<bool> {
        // Nobody removes it meanwhile, and finds it again.
        let changing = self.changing();
        if self.state().catalog.by_id(&network.id).is_none() {
            return Ok(false);
        }
        let Some(loss) = self.host.loss(network)? else { return Ok(false) };
        let interface = network.interface();
        if !is_owned(network) {
            tracing::warn!(
                network = %network.name, interface, %loss,
                "somebody else's interface, which its containers are on: it is not hull's to put right"
            );
            return Ok(false);
        }
        tracing::warn!(network = %network.name, interface, %loss, "somebody changed it: put right");
        self.establish(network)?;
        drop(changing);
        if loss == Loss::Everything {
            for endpoint in self.records.members(&network.id)? {
                self.heal_container(&endpoint.container, None)?;
            }
        }
        Ok(true)
    }

    /// Unless it is about to be gone; or has not this endpoint any more, where one is meant.
    fn heal_container(&self, container: &str, endpoint: Option<&str>) -> Result<bool> {
        let _turn = self.turn(container);
        let is_there = match endpoint {
            Some(endpoint) => self.records.container_of(endpoint)?.as_deref() == Some(container),
            None => self.records.sandbox(container)?.is_some(),
        };
        if !is_there || self.records.is_leaving(container)? {
            return Ok(false);
        }
        self.check(container)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_lost_what_it_should_have() {
        let link = |up| Link {
            index: 1,
            name: "b".into(),
            up,
            loopback: false,
            kind: "bridge".into(),
            alias: String::new(),
            mtu: 1500,
            mac: None,
            master: None,
            counters: Default::default(),
        };
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let wanted = nets(&["10.0.0.1/24", "fd00::1/64"]);
        let link_local = nets(&["fe80::1/64"]);
        let whole = [&wanted[..], &link_local].concat();
        for (link, present, expected) in [
            (None, &[][..], Some("it was removed")),
            (Some(link(false)), &whole, Some("it was set down")),
            (Some(link(true)), &whole, None),
            (Some(link(true)), &wanted[..1], Some("it has lost fd00::1/64")),
            (Some(link(true)), &link_local, Some("it has lost 10.0.0.1/24 and fd00::1/64")),
        ] {
            let said = loss(link.as_ref(), present, &wanted).map(|loss| loss.to_string());
            assert_eq!(said.as_deref(), expected);
        }
    }
}
