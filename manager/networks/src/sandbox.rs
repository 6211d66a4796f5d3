//! Which networks a container is in, and with which addresses: decided here, then written down.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use hull_manager_core::{Error, ErrorKind, Result, name::random_id};
use hull_specs_api::v1;
use ipnet::IpNet;

use crate::{
    Container, DEFAULT_NETWORK, Inner, State,
    definition::{Definition, Driver},
    endpoint, files,
    mac::Mac,
    options::address,
    plan::Place,
    records::{self, Endpoint, Sandbox},
};

/// What a network mode asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode<'a> {
    Default,
    None,
    Host,
    /// Another container's.
    Container,
    Named(&'a str),
}

impl<'a> Mode<'a> {
    fn parse(text: &'a str) -> Self {
        match text {
            "" | "default" => Self::Default,
            "none" => Self::None,
            "host" => Self::Host,
            _ if text.starts_with("container:") => Self::Container,
            _ => Self::Named(text),
        }
    }
}

/// The endpoints that a container asks for, in the order of its interfaces. None: it is without
/// networks, or in another's.
pub(crate) fn wanted(
    options: &v1::ContainerOptions,
    has_default: bool,
) -> Vec<v1::EndpointOptions> {
    let first = match Mode::parse(&options.network_mode) {
        Mode::Default if has_default => DEFAULT_NETWORK,
        Mode::Named(name) => name,
        Mode::Default | Mode::None | Mode::Host | Mode::Container => return Vec::new(),
    };
    if options.left_network {
        return options.networks.clone();
    }
    let is_first = |endpoint: &v1::EndpointOptions| {
        endpoint.network == first || first == DEFAULT_NETWORK && endpoint.network == "default"
    };
    let mut named: Vec<v1::EndpointOptions> = options.networks.clone();
    let mut wanted = match named.iter().position(is_first) {
        Some(at) => vec![named.remove(at)],
        None => vec![v1::EndpointOptions::default()],
    };
    wanted[0].network = first.into();
    wanted.append(&mut named);
    wanted
}

/// Refuses what no start could do.
pub(crate) fn check(options: &v1::ContainerOptions) -> Result<()> {
    let mode = Mode::parse(&options.network_mode);
    let modes = ["none", "host"];
    for endpoint in &options.networks {
        let name = endpoint.network.as_str();
        if matches!(mode, Mode::Container) {
            return Err(Error::invalid(
                "conflicting options: a container in another's network has no networks of its own"
                    .to_owned(),
            ));
        }
        if (modes.contains(&name) || modes.contains(&&*options.network_mode))
            && name != options.network_mode
        {
            return Err(Error::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) or host mode"
                    .to_owned(),
            ));
        }
        check_endpoint(endpoint)?;
    }
    if !options.publish.is_empty() && matches!(mode, Mode::Container) {
        return Err(Error::invalid(
            "conflicting options: port publishing and the container type network mode".to_owned(),
        ));
    }
    for text in &options.extra_hosts {
        // The gateway is known at the start only.
        let some = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];
        files::extra_host(text, &some).map_err(Error::invalid)?;
    }
    for server in &options.dns {
        address("DNS server", server)?;
    }
    for word in options.dns_search.iter().chain(&options.dns_options) {
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(format!(
                "invalid word for resolv.conf: \"{}\"",
                word.escape_debug()
            )));
        }
    }
    Ok(())
}

pub(crate) fn check_endpoint(endpoint: &v1::EndpointOptions) -> Result<()> {
    let name = endpoint.network.as_str();
    let is_default = matches!(name, DEFAULT_NETWORK | "default");
    let has_addresses = !matches!(name, DEFAULT_NETWORK | "default" | "host" | "none");
    let wrong = |what: &str| {
        Error::invalid(format!(
            "invalid config for network {}: invalid endpoint settings: {what}",
            name.escape_debug()
        ))
    };
    for (text, ipv4) in [(&endpoint.ipv4_address, true), (&endpoint.ipv6_address, false)] {
        if text.is_empty() {
            continue;
        }
        if !has_addresses {
            return Err(wrong(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if address("address", text)?.is_ipv4() != ipv4 {
            return Err(wrong(&format!("invalid IPv{} address: {text}", if ipv4 { 4 } else { 6 })));
        }
    }
    if is_default && !endpoint.aliases.is_empty() {
        return Err(wrong("network-scoped aliases are only supported for user-defined networks"));
    }
    for text in &endpoint.link_local_addresses {
        let is_link_local = match address("link-local address", text)? {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if !is_link_local {
            return Err(Error::invalid(format!("invalid link local IP address: {text}")));
        }
    }
    endpoint::Options::of(endpoint)?;
    if !endpoint.mac_address.is_empty() {
        endpoint.mac_address.parse::<Mac>()?;
    }
    Ok(())
}

/// Of a container's options, those that are needed again while it runs.
fn kept(options: &v1::ContainerOptions) -> v1::ContainerOptions {
    v1::ContainerOptions {
        domainname: options.domainname.clone(),
        network_mode: options.network_mode.clone(),
        publish: options.publish.clone(),
        publish_all: options.publish_all,
        expose: options.expose.clone(),
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        dns_options: options.dns_options.clone(),
        extra_hosts: options.extra_hosts.clone(),
        ..Default::default()
    }
}

/// An address that a container has asked for.
fn fixed(
    network: &Definition,
    text: &str,
    ipv4: bool,
    used: impl Fn(IpNet) -> Result<bool>,
) -> Result<IpNet> {
    let wanted = address("address", text)?;
    let pool = network.pool_of(wanted).filter(|pool| pool.is_ipv4() == ipv4).ok_or_else(|| {
        Error::invalid(format!(
            "invalid config for network {}: invalid endpoint settings: no configured subnet or ip-range contain the IP address {wanted}",
            network.name
        ))
    })?;
    pool.check_static(wanted, |address| used(pool.with_prefix(address)))?;
    Ok(pool.with_prefix(wanted))
}

/// Refuses addresses that the network can never give, whoever has them now.
pub(crate) fn check_addresses(network: &Definition, endpoint: &v1::EndpointOptions) -> Result<()> {
    // Of others their plugins know.
    if matches!(network.driver, Driver::Bridge(_) | Driver::Macvlan(_) | Driver::Ipvlan(_)) {
        for (text, ipv4) in [(&endpoint.ipv4_address, true), (&endpoint.ipv6_address, false)] {
            if !text.is_empty() {
                fixed(network, text, ipv4, |_| Ok(false))?;
            }
        }
    }
    Ok(())
}

/// Chooses the addresses of one new endpoint.
fn choose(
    network: &Definition,
    options: &v1::EndpointOptions,
    used: impl Fn(IpNet) -> Result<bool>,
    last: &HashMap<(String, bool), IpAddr>,
    ipv4: bool,
) -> Result<Option<IpNet>> {
    let text = if ipv4 { &options.ipv4_address } else { &options.ipv6_address };
    if !text.is_empty() {
        return fixed(network, text, ipv4, used).map(Some);
    }
    let mut pools = network.pools(ipv4).peekable();
    if pools.peek().is_none() {
        return Ok(None);
    }
    let after = last.get(&(network.id.clone(), ipv4)).copied();
    for pool in pools {
        let chosen = pool.choose(|address| used(pool.with_prefix(address)), after)?;
        if let Some(address) = chosen {
            return Ok(Some(pool.with_prefix(address)));
        }
    }
    Err(Error::exhausted(format!(
        "no available IPv{} addresses on this network's address pools: {} ({})",
        if ipv4 { 4 } else { 6 },
        network.name,
        network.id
    )))
}

impl Inner {
    /// Writes down a container that is about to start, with an endpoint in each of its networks;
    /// `first` is the name of the first interface, if somebody has given it one.
    pub(crate) fn reserve(
        &self,
        container: &Container,
        wanted: &[v1::EndpointOptions],
        first: Option<&str>,
    ) -> Result<Vec<(Endpoint, Arc<Definition>)>> {
        self.once_more(|| self.reserve_once(container, wanted, first))
    }

    /// What fails for want of an address is tried again when those are back that are on their
    /// way.
    fn once_more<T>(&self, reserve: impl Fn() -> Result<T>) -> Result<T> {
        let missing = [ErrorKind::FailedPrecondition, ErrorKind::ResourceExhausted];
        match reserve() {
            Err(error) if missing.contains(&error.kind()) && self.finishing.wait() => reserve(),
            result => result,
        }
    }

    fn reserve_once(
        &self,
        container: &Container,
        wanted: &[v1::EndpointOptions],
        mut first: Option<&str>,
    ) -> Result<Vec<(Endpoint, Arc<Definition>)>> {
        let sandbox = Sandbox {
            container: container.id.clone(),
            name: container.name.clone(),
            hostname: container.hostname.clone(),
            options: kept(&container.options),
        };
        let mut state = self.state();
        state.catalog.refresh()?;
        let mut places = Vec::new();
        for options in wanted {
            let network = state.catalog.find(&options.network)?.definition;
            places.push((network, options.clone()));
        }
        let reserved = self.records.write(|t| {
            records::add_sandbox(t, &sandbox)?;
            let mut reserved: Vec<(Endpoint, _)> = Vec::new();
            for (network, options) in places {
                let taken: Vec<_> = reserved.iter().map(|(place, _)| &*place.interface).collect();
                let interface = match first.take() {
                    Some(name) => name.to_owned(),
                    None => endpoint::interface(&network, &options, &taken)?,
                };
                let endpoint =
                    self.reserve_one(t, &state, &container.id, interface, &network, options)?;
                reserved.push((endpoint, network));
            }
            Ok(reserved)
        })?;
        remember(&mut state, &reserved);
        Ok(reserved)
    }

    /// Writes down one more endpoint of a container that runs.
    pub(crate) fn reserve_more(
        &self,
        container: &str,
        options: &v1::EndpointOptions,
    ) -> Result<(Endpoint, Arc<Definition>)> {
        self.once_more(|| self.reserve_more_once(container, options))
    }

    fn reserve_more_once(
        &self,
        container: &str,
        options: &v1::EndpointOptions,
    ) -> Result<(Endpoint, Arc<Definition>)> {
        let mut state = self.state();
        state.catalog.refresh()?;
        let network = state.catalog.find(&options.network)?.definition;
        let present = self.records.of_container(container)?;
        if present.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(Error::denied(format!(
                "endpoint with name {} already exists in network {}",
                self.records.sandbox(container)?.map(|s| s.name).unwrap_or_default(),
                network.name
            )));
        }
        let taken: Vec<_> = present.iter().map(|endpoint| &*endpoint.interface).collect();
        let interface = endpoint::interface(&network, options, &taken)?;
        let reserved = self.records.write(|t| {
            let endpoint = self.reserve_one(
                t,
                &state,
                container,
                interface.clone(),
                &network,
                options.clone(),
            )?;
            Ok(vec![(endpoint, network)])
        })?;
        remember(&mut state, &reserved);
        reserved.into_iter().next().ok_or_else(|| Error::internal("one was reserved"))
    }

    fn reserve_one(
        &self,
        t: &rusqlite::Transaction<'_>,
        state: &State,
        container: &str,
        interface: String,
        network: &Definition,
        options: v1::EndpointOptions,
    ) -> Result<Endpoint> {
        let used = |net| records::is_used(t, &network.id, net);
        let choose = |ipv4| choose(network, &options, used, &state.last, ipv4);
        let (ipv4, ipv6) = match network.driver {
            Driver::Configuration(_) => {
                return Err(Error::denied(
                    "cannot create endpoint on configuration-only network".to_owned(),
                ));
            }
            Driver::Plugins(_) if !options.link_local_addresses.is_empty() => {
                return Err(Error::invalid(format!(
                    "network {} is done by plugins, which take no link-local addresses",
                    network.name
                )));
            }
            Driver::Plugins(_) if !endpoint::Options::of(&options)?.sysctls.is_empty() => {
                return Err(Error::invalid(format!(
                    "network {} is done by plugins: its sysctls are those of its list (tuning)",
                    network.name
                )));
            }
            // Their plugins say.
            Driver::Plugins(_) => (None, None),
            _ => (choose(true)?, choose(false)?),
        };
        let id = random_id()?;
        let mac = match (options.mac_address.as_str(), ipv4.or(ipv6)) {
            ("", Some(net)) => Mac::of(net.addr()),
            ("", None) => Mac::random(&id),
            (text, _) => self.free_mac(network, text.parse()?)?,
        };
        let endpoint = Endpoint {
            id,
            container: container.into(),
            network: network.id.clone(),
            interface,
            mac,
            ipv4,
            ipv6,
            gateways: Vec::new(),
            options,
        };
        records::add_endpoint(t, &endpoint)?;
        Ok(endpoint)
    }

    /// A hardware address that was asked for, unless it is the bridge's own.
    fn free_mac(&self, network: &Definition, mac: Mac) -> Result<Mac> {
        if !matches!(network.driver, Driver::Bridge(_)) {
            return Ok(mac);
        }
        let bridge = self.host.socket.link(network.interface()).map_err(anyhow::Error::new)?;
        match bridge.and_then(|link| link.mac) == Some(mac) {
            true => Err(Error::invalid(format!(
                "MAC address {mac} is that of the bridge of network {}",
                network.name
            ))),
            false => Ok(mac),
        }
    }

    /// A container's endpoints with their networks.
    pub(crate) fn places(&self, container: &str) -> Result<Vec<(Endpoint, Arc<Definition>)>> {
        let endpoints = self.records.of_container(container)?;
        let state = self.state();
        endpoints
            .into_iter()
            .map(|endpoint| {
                let network = state.catalog.by_id(&endpoint.network).ok_or_else(|| {
                    Error::not_found(format!("network {} not found", endpoint.network))
                })?;
                Ok((endpoint, Arc::clone(&network.definition)))
            })
            .collect()
    }
}

fn remember(state: &mut State, reserved: &[(Endpoint, Arc<Definition>)]) {
    for (endpoint, network) in reserved {
        for net in endpoint.addresses() {
            state.last.insert((network.id.clone(), net.addr().is_ipv4()), net.addr());
        }
    }
}

/// Borrows places.
pub(crate) fn borrow(places: &[(Endpoint, Arc<Definition>)]) -> Vec<Place<'_>> {
    places.iter().map(|(endpoint, network)| (endpoint, &**network)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: &str, networks: &[&str]) -> v1::ContainerOptions {
        let endpoint = |name: &&str| v1::EndpointOptions {
            network: (*name).into(),
            gateway_priority: 1,
            ..Default::default()
        };
        v1::ContainerOptions {
            network_mode: mode.into(),
            networks: networks.iter().map(endpoint).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_container_is_in_the_network_of_its_mode_first() {
        for (mode, networks, has_default, expected) in [
            ("", &[][..], true, &["bridge 0"][..]),
            ("default", &[], false, &[]),
            ("none", &[], true, &[]),
            ("host", &[], true, &[]),
            ("container:a", &[], true, &[]),
            ("bridge", &["default"], true, &["bridge 1"]),
            ("a", &["b", "a"], true, &["a 1", "b 1"]),
            ("a", &["b", "c"], true, &["a 0", "b 1", "c 1"]),
        ] {
            let names: Vec<_> = wanted(&options(mode, networks), has_default)
                .iter()
                .map(|e| format!("{} {}", e.network, e.gateway_priority))
                .collect();
            assert_eq!(names, expected, "{mode} {networks:?}");
        }
    }

    #[test]
    fn what_no_start_could_do_is_refused() {
        let mut cases = vec![
            (options("none", &["a"]), "private (none)"),
            (options("a", &["none"]), "private (none)"),
            (options("container:x", &["a"]), "another's network"),
        ];
        let mut endpoint = |network: &str, change: fn(&mut v1::EndpointOptions), says| {
            let mut options = options(network, &[network]);
            change(&mut options.networks[0]);
            cases.push((options, says));
        };
        endpoint("bridge", |e| e.ipv4_address = "172.17.0.9".into(), "user defined networks only");
        endpoint("host", |e| e.ipv4_address = "1.2.3.4".into(), "user defined networks only");
        endpoint("none", |e| e.ipv6_address = "fd00::1".into(), "user defined networks only");
        endpoint("bridge", |e| e.aliases = vec!["x".into()], "user-defined networks");
        endpoint("a", |e| e.ipv4_address = "fd00::1".into(), "invalid IPv4 address");
        endpoint("a", |e| e.ipv6_address = "x".into(), "invalid address");
        endpoint("a", |e| e.mac_address = "01:02:03:04:05:06".into(), "invalid MAC address");
        endpoint("a", |e| e.link_local_addresses = vec!["x".into()], "link-local");
        endpoint(
            "a",
            |e| e.driver_options = [("x".to_owned(), "y".to_owned())].into(),
            "an endpoint has no driver option x",
        );
        for address in ["10.1.1.1", "fd00::1"] {
            let mut options = options("a", &["a"]);
            options.networks[0].link_local_addresses = vec![address.into()];
            cases.push((options, "invalid link local IP address"));
        }
        let mut bad = options("a", &[]);
        bad.dns_search = vec!["a\nnameserver 1.1.1.1".into()];
        cases.push((bad, "invalid word"));
        for (options, says) in cases {
            let error = check(&options).unwrap_err().to_string();
            assert!(error.contains(says), "{options:?}: {error}");
        }
        check(&options("a", &["a", "b"])).unwrap();
        check(&options("none", &["none"])).unwrap();
    }
}
