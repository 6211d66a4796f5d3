//! What somebody takes away from our interfaces is put back, or said in the log.

use std::{fmt, net::IpAddr, sync::Arc};

use hull_manager_core::Result;
use ipnet::IpNet;

use crate::{
    Inner,
    catalog::Known,
    definition::{Definition, Driver},
    link::Link,
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

    fn networks_where(&self, is_meant: impl Fn(&Definition) -> bool) -> Vec<Arc<Definition>> {
        let state = self.state();
        let definition = |known: &Known| Arc::clone(&known.definition);
        state.catalog.all().map(definition).filter(|network| is_meant(network)).collect()
    }

    fn heal_network(&self, network: &Arc<Definition>) -> Result<bool> {
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
