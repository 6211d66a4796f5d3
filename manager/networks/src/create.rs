//! Networks come and go.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::Read as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hull_manager_core::{
    Error, ErrorKind, Result,
    error::IoContext as _,
    filter::{self, Filters},
    name::{check_name, random_id},
};
use hull_specs_api::v1;
use ipnet::IpNet;

use crate::{
    DEFAULT_NETWORK, Inner,
    catalog::{self, Known},
    configuration::{configuration, configured},
    definition::{Bridge, Definition, Driver, check_interface},
    exposure::network_rule,
    host::Host,
    ipam::{self, Pool},
    options, parent,
    settings::DefaultNetwork,
};

/// Names that are no user's.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];

impl Inner {
    pub(crate) fn create(
        &self,
        request: &v1::CreateNetworkRequest,
    ) -> Result<v1::CreateNetworkResponse> {
        check_name("network", &request.name)?;
        if PREDEFINED.contains(&request.name.as_str()) {
            return Err(Error::denied(format!(
                "operation is not permitted on predefined {} network",
                request.name
            )));
        }
        let _changing = self.changing();
        let (request, taken) = {
            let mut state = self.state();
            state.catalog.refresh()?;
            if state.catalog.by_name(&request.name).is_some() {
                return Err(Error::already_exists(format!(
                    "network with name {} already exists",
                    request.name
                )));
            }
            let request = match request.config_from.is_empty() || request.config_only {
                true => Cow::Borrowed(request),
                false => Cow::Owned(configured(request, &state.catalog)?),
            };
            (request, subnets(state.catalog.all()))
        };
        let request = &*request;
        if request.config_only {
            let definition = self.state().catalog.put(configuration(request)?)?;
            self.record("create", &definition, &[]);
            return Ok(v1::CreateNetworkResponse {
                id: definition.id.clone(),
                warnings: Vec::new(),
            });
        }
        let id = random_id()?;
        let routes = self.host.routed(None)?;
        let host = options::Host {
            networks: &taken,
            routes: &routes,
            ipv6: Host::has_ipv6(),
            random: random()?,
        };
        let mut pools = options::pools(request, &self.settings, &host)?;
        let ipv6 = pools.iter().any(|pool| !pool.is_ipv4());
        let mut driver = options::driver(request, &id, &self.settings, ipv6)?;
        self.claim(&mut driver, &mut pools)?;
        let definition = Definition {
            id,
            name: request.name.clone(),
            created: now(),
            labels: request.labels.clone().into_iter().collect(),
            options: request.options.clone().into_iter().collect(),
            internal: request.internal,
            attachable: request.attachable,
            config_from: request.config_from.clone(),
            driver,
            pools,
        };
        let definition = self.state().catalog.put(definition)?;
        let made = self.establish(&definition).and_then(|()| match network_rule(&definition) {
            Some(rule) => Ok(self.firewall.put_network(rule)?),
            None => Ok(()),
        });
        if let Err(error) = made {
            if let Ok(known) = self.known(&definition.name) {
                self.erase(&known)?;
            }
            return Err(error);
        }
        self.record("create", &definition, &[]);
        Ok(v1::CreateNetworkResponse { id: definition.id.clone(), warnings: Vec::new() })
    }

    /// Whether the interface that a new network is to be on can be its. Addresses that a bridge has
    /// are nobody else's.
    fn claim(&self, driver: &mut Driver, pools: &mut [Pool]) -> Result<()> {
        match driver {
            Driver::Bridge(bridge) => {
                if let Some(other) = self
                    .state()
                    .catalog
                    .all()
                    .find(|k| k.definition.interface() == bridge.interface)
                {
                    return Err(Error::conflict(format!(
                        "bridge name {} is that of network {}",
                        bridge.interface, other.definition.name
                    )));
                }
                // A bridge that somebody else has made stays his.
                let link = self.host.bridge(&bridge.interface)?;
                bridge.owned = link.is_none();
                if let Some(link) = link {
                    let present = self.host.socket.addresses(link.index);
                    let present = present.map_err(anyhow::Error::new)?;
                    pools.iter_mut().for_each(|pool| pool.reserve(&present));
                }
                Ok(())
            }
            Driver::Macvlan(_) | Driver::Ipvlan(_) => {
                for known in self.state().catalog.all() {
                    parent::check_sharing(driver, &known.definition)?;
                }
                self.host.claim_parent(driver)
            }
            Driver::Configuration(_) | Driver::Plugins(_) => Ok(()),
        }
    }

    /// Makes what a network has on the host.
    pub(crate) fn establish(&self, network: &Definition) -> Result<()> {
        self.host.ensure(network)?;
        if matches!(network.driver, Driver::Bridge(_))
            && self.settings.ip_forward
            && !network.internal
        {
            self.host.forward(network.pools(false).next().is_some())?;
        }
        Ok(())
    }

    /// Takes away what a network has on the host and shares with none that is known.
    pub(crate) fn unmake(&self, network: &Definition) -> Result<()> {
        let shares =
            |other: &Definition| other.id != network.id && other.interface() == network.interface();
        if self.state().catalog.all().any(|known| shares(&known.definition)) {
            return Ok(());
        }
        Ok(self.host.remove(network)?)
    }

    /// Takes a network and its interface away.
    fn erase(&self, known: &Known) -> Result<()> {
        let aside = self.state().catalog.set_aside(known)?;
        if let Some(rule) = network_rule(&known.definition) {
            self.firewall.remove_network(&rule.bridge)?;
        }
        self.unmake(&known.definition)?;
        catalog::forget(&aside)
    }

    fn known(&self, text: &str) -> Result<Known> {
        let mut state = self.state();
        state.catalog.refresh()?;
        state.catalog.find(text)
    }

    pub(crate) fn remove(
        &self,
        request: &v1::RemoveNetworkRequest,
    ) -> Result<v1::RemoveNetworkResponse> {
        let name = &request.network;
        let _changing = self.changing();
        if let Some(built_in) = crate::list::built_in(name) {
            return Err(predefined(&built_in.name));
        }
        let known = match self.known(name) {
            Err(error) if request.force && error.kind() == ErrorKind::NotFound => {
                return Ok(v1::RemoveNetworkResponse {});
            }
            known => known?,
        };
        self.remove_known(&known)?;
        Ok(v1::RemoveNetworkResponse {})
    }

    fn remove_known(&self, known: &Known) -> Result<()> {
        let network = &known.definition;
        if network.name == DEFAULT_NETWORK {
            return Err(predefined(&network.name));
        }
        if self.is_copied(network) {
            return Err(Error::denied(format!(
                "error while removing network: configuration network \"{}\" is in use",
                network.name
            )));
        }
        self.finishing.wait();
        let aside = {
            // Who connects takes this lock, too: from here on nobody finds it.
            let mut state = self.state();
            let members = self.records.of_network(&network.id)?;
            if !members.is_empty() {
                let members: Vec<_> = members
                    .iter()
                    .map(|endpoint| {
                        let name = match self.records.sandbox(&endpoint.container) {
                            Ok(Some(sandbox)) => sandbox.name,
                            _ => endpoint.container.clone(),
                        };
                        format!("name:\"{name}\" id:\"{}\"", endpoint.id.get(..12).unwrap_or(""))
                    })
                    .collect();
                return Err(Error::denied(format!(
                    "error while removing network: network {} id {} has active endpoints ({})",
                    network.name,
                    network.id,
                    members.join(", ")
                )));
            }
            state.catalog.set_aside(known)?
        };
        self.names.forget_network(&network.id);
        if let Some(rule) = network_rule(network) {
            self.firewall.remove_network(&rule.bridge)?;
        }
        self.unmake(network)?;
        catalog::forget(&aside)?;
        self.record("destroy", network, &[]);
        Ok(())
    }

    pub(crate) fn prune(
        &self,
        request: &v1::PruneNetworksRequest,
    ) -> Result<v1::PruneNetworksResponse> {
        let filters = Filters::parse(&request.filters, &["label", "label!", "until"])?;
        let until = filters.values("until").first().map(|text| filter::moment(text)).transpose()?;
        let _changing = self.changing();
        let all: Vec<_> = {
            let mut state = self.state();
            state.catalog.refresh()?;
            state.catalog.all().cloned().collect()
        };
        let mut response = v1::PruneNetworksResponse::default();
        for known in all {
            let network = &known.definition;
            let meant = network.name != DEFAULT_NETWORK
                // A user's file is his, and nobody is ever in a configuration.
                && !matches!(network.driver, Driver::Plugins(_) | Driver::Configuration(_))
                && until.is_none_or(|until| network.created < until)
                && filters.labels(|key| network.labels.get(key));
            if !meant || !self.records.members(&network.id)?.is_empty() {
                continue;
            }
            match self.remove_known(&known) {
                // Somebody was connected to it meanwhile.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                result => {
                    result?;
                    response.removed.push(network.name.clone());
                }
            }
        }
        self.journal.record("network", "prune", "", &[("reclaimed", "0")]);
        Ok(response)
    }

    /// Makes the default network what the settings say, unless somebody is in it.
    pub(crate) fn ensure_default(&self) -> Result<()> {
        let _changing = self.changing();
        let old = self.state().catalog.by_name(DEFAULT_NETWORK).cloned();
        let in_use = match &old {
            Some(old) => !self.records.of_network(&old.definition.id)?.is_empty(),
            None => false,
        };
        match (&self.settings.default, old) {
            (_, Some(old)) if in_use => self.establish(&old.definition),
            (None, Some(old)) => self.erase(&old),
            (None, None) => Ok(()),
            (Some(wanted), old) => {
                let definition = self.default_network(wanted, old.as_ref())?;
                let same = old.as_ref().is_some_and(|old| *old.definition == definition);
                if let Some(old) = old.filter(|_| !same) {
                    // Its bridge may have another name or other addresses.
                    self.host.remove(&old.definition)?;
                }
                let definition = match same {
                    true => Arc::new(definition),
                    false => self.state().catalog.put(definition)?,
                };
                self.establish(&definition)
            }
        }
    }

    fn default_network(&self, wanted: &DefaultNetwork, old: Option<&Known>) -> Result<Definition> {
        let old = old.map(|known| &*known.definition);
        let interface = check_interface(wanted.bridge.clone())?;
        // Made by us, unless it was there before.
        let before = match old.map(|old| &old.driver) {
            Some(Driver::Bridge(bridge)) if bridge.interface == interface => Some(bridge.owned),
            _ => None,
        };
        let link = self.host.bridge(&interface)?;
        let owned = before.unwrap_or(link.is_none());
        let theirs = match &link {
            Some(link) if !owned => {
                self.host.socket.addresses(link.index).map_err(anyhow::Error::new)?
            }
            _ => Vec::new(),
        };
        let taken: Vec<IpNet> = {
            let state = self.state();
            subnets(state.catalog.all().filter(|known| known.definition.name != DEFAULT_NETWORK))
        };
        // The bridge of an earlier run is in nobody's way.
        let own_index = link.as_ref().map(|link| link.index);
        let mut blocked = taken.clone();
        blocked.extend(self.host.routed(own_index)?);
        let host = options::Host {
            networks: &taken,
            routes: &blocked,
            ipv6: Host::has_ipv6(),
            random: random()?,
        };
        let mut pools = Vec::new();
        for ipv4 in [true, false] {
            let is_wanted = ipv4 || self.settings.ipv6 && host.ipv6;
            if !is_wanted {
                continue;
            }
            // The subnet of somebody else's bridge stays with that.
            let before = old
                .filter(|old| matches!(&old.driver, Driver::Bridge(bridge) if bridge.owned))
                .and_then(|old| old.pools(ipv4).next());
            let first =
                theirs.iter().find(|net| net.addr().is_ipv4() == ipv4 && !is_link_local(net));
            let mut pool = match (first, owned) {
                (None, false) if !ipv4 => continue,
                (None, false) => {
                    return Err(Error::conflict(format!(
                        "the bridge {interface} is there, but has no address"
                    )));
                }
                (first, _) => {
                    let asked = asked(wanted, ipv4, first);
                    match (asked.subnet.is_empty(), before) {
                        (false, _) => Pool::parse(&asked, true)?,
                        // The subnet that it had, as long as nobody says otherwise.
                        (true, Some(before)) => Pool::new(before.subnet, true),
                        (true, None) => Pool::new(
                            options::free_subnet(&self.settings, ipv4, &blocked, &host)?,
                            true,
                        ),
                    }
                }
            };
            ipam::check_overlap(&pool.subnet, &taken)?;
            let route = match ipv4 {
                true => wanted.gateway.map(IpAddr::V4),
                false => wanted.gateway_v6.map(IpAddr::V6),
            };
            pool.reserve(&theirs);
            if let Some(route) = route {
                pool.set_route(route)?;
            }
            pools.push(pool);
        }
        Ok(Definition {
            id: old.map_or_else(random_id, |old| Ok(old.id.clone()))?,
            name: DEFAULT_NETWORK.into(),
            created: old.map_or_else(now, |old| old.created),
            labels: Default::default(),
            options: self.default_options(wanted, &interface),
            internal: false,
            attachable: false,
            config_from: String::new(),
            driver: Driver::Bridge(Bridge {
                interface,
                owned,
                masquerade: self.settings.ip_masq,
                icc: wanted.icc,
                mtu: self.settings.mtu,
                bind: None,
            }),
            pools,
        })
    }

    /// What the default network has, in docker's words.
    fn default_options(
        &self,
        wanted: &DefaultNetwork,
        interface: &str,
    ) -> BTreeMap<String, String> {
        let settings = &self.settings;
        let bind = settings.bind.filter(IpAddr::is_ipv4).map(|address| address.to_string());
        [
            ("bridge.default_bridge", Some("true".to_owned())),
            ("bridge.enable_icc", Some(wanted.icc.to_string())),
            ("bridge.enable_ip_masquerade", Some(settings.ip_masq.to_string())),
            ("bridge.host_binding_ipv4", bind),
            ("bridge.name", Some(interface.to_owned())),
            ("driver.mtu", settings.mtu.map(|mtu| mtu.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((format!("com.docker.network.{key}"), value?)))
        .collect()
    }

    pub(crate) fn record(&self, action: &str, network: &Definition, more: &[(&str, &str)]) {
        let mut attributes = vec![("name", network.name.as_str()), ("type", network.driver.name())];
        attributes.extend(more);
        self.journal.record("network", action, &network.id, &attributes);
    }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// What the operator asks of the default network's subnet in a family; `theirs` is the address
/// of a bridge that is not ours.
fn asked(wanted: &DefaultNetwork, ipv4: bool, theirs: Option<&IpNet>) -> v1::IpamPool {
    let (bip, fixed) = match ipv4 {
        true => (wanted.bip.map(IpNet::V4), wanted.fixed_cidr.map(IpNet::V4)),
        false => (wanted.bip6.map(IpNet::V6), wanted.fixed_cidr_v6.map(IpNet::V6)),
    };
    let own = theirs.copied().or(bip);
    let subnet = own.or(fixed).map(|net| net.trunc());
    let range = fixed.filter(|fixed| Some(fixed.trunc()) != subnet);
    let text = |net: Option<IpNet>| net.map(|net| net.to_string()).unwrap_or_default();
    v1::IpamPool {
        subnet: text(subnet),
        ip_range: text(range),
        gateway: own.map(|own| own.addr().to_string()).unwrap_or_default(),
        ..Default::default()
    }
}

fn subnets<'a>(networks: impl Iterator<Item = &'a Known>) -> Vec<IpNet> {
    networks
        .filter(|known| !matches!(known.definition.driver, Driver::Configuration(_)))
        .flat_map(|known| known.definition.pools.iter().map(|pool| pool.subnet))
        .collect()
}

fn predefined(name: &str) -> Error {
    Error::denied(format!("{name} is a pre-defined network and cannot be removed"))
}

fn random() -> Result<[u8; 7]> {
    let mut bytes = [0; 7];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .about("/dev/urandom")?;
    Ok(bytes)
}

/// The time in whole seconds, as definitions keep it.
pub(crate) fn now() -> SystemTime {
    let seconds =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
