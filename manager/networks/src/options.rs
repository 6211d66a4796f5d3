//! From what a user asks of a new network to its definition. Pure, but for random bits.

use std::{collections::BTreeMap, net::IpAddr};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use ipnet::IpNet;

use crate::{
    definition::{Bridge, Definition, Driver, Parent, check_interface},
    ipam::{self, Pool},
    link::Slave,
    parent,
    settings::Settings,
};

const BRIDGE: &str = "com.docker.network.bridge.";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";

/// The longest part before an interface's number: it has 15 bytes in all.
const MAX_PREFIX: usize = 13;

/// The smallest MTU that IPv4 (RFC 791) and IPv6 (RFC 8200, 5) allow.
const MIN_MTU: [u32; 2] = [68, 1280];
const MAX_MTU: u32 = 65535;

/// What the host has that a new network must know.
pub(crate) struct Host<'a> {
    /// Subnets of other networks.
    pub(crate) networks: &'a [IpNet],
    /// Subnets that the host has routes to.
    pub(crate) routes: &'a [IpNet],
    /// The kernel has IPv6.
    pub(crate) ipv6: bool,
    /// Random bits for a local subnet of IPv6.
    pub(crate) random: [u8; 7],
}

fn flag(key: &str, text: &str) -> Result<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("option {key}: {text:?} is neither true nor false"))),
    }
}

fn mtu(key: &str, text: &str, ipv6: bool) -> Result<Option<u32>> {
    let min = MIN_MTU[usize::from(ipv6)];
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(value) if (min..=MAX_MTU).contains(&value) => Ok(Some(value)),
        _ => Err(Error::invalid(format!("option {key}: {text:?} is not in {min} to {MAX_MTU}"))),
    }
}

/// The kernel's number of a mode of a macvlan or ipvlan.
pub(crate) fn slave(driver: &str, mode: &str) -> Result<Slave> {
    Ok(match (driver, mode) {
        ("macvlan", "private") => Slave::Macvlan(1),
        ("macvlan", "vepa") => Slave::Macvlan(2),
        ("macvlan", "bridge") => Slave::Macvlan(4),
        ("macvlan", "passthru") => Slave::Macvlan(8),
        ("ipvlan", "l2") => Slave::Ipvlan(0),
        ("ipvlan", "l3") => Slave::Ipvlan(1),
        ("ipvlan", "l3s") => Slave::Ipvlan(2),
        _ => return Err(Error::invalid(format!("{driver} has no mode {mode:?}"))),
    })
}

/// What interfaces are called in a network's containers, before their number.
pub(crate) fn interface_prefix(network: &Definition) -> &str {
    let asked = network.options.get(PREFIX).filter(|prefix| !prefix.is_empty());
    asked.map_or("eth", String::as_str)
}

/// The driver with its options; `id` is the network's.
pub(crate) fn driver(
    request: &v1::CreateNetworkRequest,
    id: &str,
    settings: &Settings,
    ipv6: bool,
) -> Result<Driver> {
    let mut options: BTreeMap<&str, &str> =
        request.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    if let Some(text) = options.remove(PREFIX)
        && !text.is_empty()
        && (text.len() > MAX_PREFIX || check_interface(format!("{text}0")).is_err())
    {
        return Err(Error::invalid(format!(
            "option container_iface_prefix: {text:?} is not the beginning of an interface's name, of up to {MAX_PREFIX} bytes"
        )));
    }
    let driver = match request.driver.as_str() {
        "" | "bridge" | "default" => {
            bridge(&mut options, id, settings, ipv6).map(Driver::Bridge)?
        }
        kind @ ("macvlan" | "ipvlan") => {
            let parent = parent(kind, &mut options, id, settings, ipv6)?;
            if kind == "macvlan" { Driver::Macvlan(parent) } else { Driver::Ipvlan(parent) }
        }
        "host" | "null" | "none" => {
            let kind = if request.driver == "host" { "host" } else { "null" };
            return Err(Error::denied(format!(
                "only one instance of \"{kind}\" network is allowed"
            )));
        }
        other => {
            return Err(Error::not_found(format!(
                "could not find plugin {} in v1 plugin registry: plugin not found",
                other.escape_debug()
            )));
        }
    };
    match options.first_key_value() {
        None => Ok(driver),
        Some((key, _)) => Err(Error::invalid(format!(
            "the driver {} has no option {}",
            driver.name(),
            key.escape_debug()
        ))),
    }
}

fn bridge(
    options: &mut BTreeMap<&str, &str>,
    id: &str,
    settings: &Settings,
    ipv6: bool,
) -> Result<Bridge> {
    let mut bridge = Bridge {
        interface: format!("hl-{}", id.get(..12).unwrap_or(id)),
        owned: true,
        masquerade: settings.ip_masq,
        icc: true,
        mtu: settings.mtu,
        bind: None,
    };
    options.retain(|_, value| !value.is_empty());
    if let Some(name) = options.remove(&*format!("{BRIDGE}name")) {
        bridge.interface = check_interface(name.into())?;
    }
    if let Some(text) = options.remove(&*format!("{BRIDGE}enable_ip_masquerade")) {
        bridge.masquerade = flag("enable_ip_masquerade", text)?;
    }
    if let Some(text) = options.remove(&*format!("{BRIDGE}enable_icc")) {
        bridge.icc = flag("enable_icc", text)?;
    }
    if let Some(text) = options.remove(&*format!("{BRIDGE}host_binding_ipv4")) {
        bridge.bind = Some(text.parse().map_err(|_| {
            Error::invalid(format!("option host_binding_ipv4: {text:?} is no address"))
        })?);
    }
    if let Some(text) = options.remove(MTU) {
        bridge.mtu = mtu(MTU, text, ipv6)?;
    }
    Ok(bridge)
}

fn parent(
    kind: &str,
    options: &mut BTreeMap<&str, &str>,
    id: &str,
    settings: &Settings,
    ipv6: bool,
) -> Result<Parent> {
    let interface = match options.remove("parent").unwrap_or_default() {
        "" => parent::alone(id),
        given => check_interface(given.into())?,
    };
    let mode = options.remove(&*format!("{kind}_mode")).unwrap_or(if kind == "macvlan" {
        "bridge"
    } else {
        "l2"
    });
    slave(kind, mode)?;
    let mtu = options.remove(MTU).map(|text| mtu(MTU, text, ipv6)).transpose()?.flatten();
    Ok(Parent { interface, mode: mode.into(), mtu: mtu.or(settings.mtu), owned: false })
}

/// The subnets: those that were asked for, and where a family has none, one that is free.
pub(crate) fn pools(
    request: &v1::CreateNetworkRequest,
    settings: &Settings,
    host: &Host<'_>,
) -> Result<Vec<Pool>> {
    let ipam = request.ipam.clone().unwrap_or_default();
    match ipam.driver.as_str() {
        "" | "default" => {}
        other => return Err(Error::unimplemented(format!("there is no IPAM driver {other:?}"))),
    }
    if let Some(key) = ipam.options.keys().next() {
        return Err(Error::invalid(format!(
            "the default IPAM driver has no option {}",
            key.escape_debug()
        )));
    }
    let is_bridge = matches!(request.driver.as_str(), "" | "bridge" | "default");
    let leads_out = request.options.get("parent").is_some_and(|parent| !parent.is_empty());
    let gateway = is_bridge || leads_out && !is_l3(request);
    let mut taken = host.networks.to_vec();
    let mut pools = Vec::new();
    for asked in &ipam.pools {
        if asked.subnet.is_empty() {
            if *asked != v1::IpamPool::default() {
                return Err(Error::invalid(
                    "a gateway, range or auxiliary address needs a subnet".to_owned(),
                ));
            }
            continue;
        }
        let pool = Pool::parse(asked, gateway)?;
        ipam::check_overlap(&pool.subnet, &taken)?;
        taken.push(pool.subnet);
        pools.push(pool);
    }
    let has = |ipv4: bool| pools.iter().any(|pool: &Pool| pool.is_ipv4() == ipv4);
    let wanted4 = request.ipv4.unwrap_or(true);
    // A subnet of IPv6 that was given is a wish for it. The wire that a macvlan or ipvlan is on has
    // its own routers: no subnet that nobody there knows.
    let wanted6 = request.ipv6.unwrap_or(is_bridge && settings.ipv6 && host.ipv6 || has(false));
    if wanted6 && !host.ipv6 {
        return Err(Error::conflict("the kernel has no IPv6".to_owned()));
    }
    for (wanted, ipv4, name) in [(wanted4, true, "IPv4"), (wanted6, false, "IPv6")] {
        if has(ipv4) && !wanted {
            return Err(Error::invalid(format!("a subnet of {name}, which the network has not")));
        }
    }
    if !wanted4 && !wanted6 {
        return Err(Error::invalid("a network needs IPv4 or IPv6".to_owned()));
    }
    let (missing4, missing6) = (wanted4 && !has(true), wanted6 && !has(false));
    taken.extend(host.routes);
    if missing4 {
        pools.push(Pool::new(free_subnet(settings, true, &taken, host)?, gateway));
    }
    if missing6 {
        pools.push(Pool::new(free_subnet(settings, false, &taken, host)?, gateway));
    }
    Ok(pools)
}

fn is_l3(request: &v1::CreateNetworkRequest) -> bool {
    request.driver == "ipvlan"
        && request.options.get("ipvlan_mode").is_some_and(|mode| mode != "l2")
}

/// A subnet that nobody has.
pub(crate) fn free_subnet(
    settings: &Settings,
    ipv4: bool,
    taken: &[IpNet],
    host: &Host<'_>,
) -> Result<IpNet> {
    let sources = settings.sources(ipv4);
    if sources.is_empty() && !ipv4 {
        return Ok(ipam::unique_local(host.random));
    }
    ipam::choose_subnet(&sources, ipv4, taken).ok_or_else(|| {
        let mut text = "all predefined address pools have been fully subnetted".to_owned();
        let of_source = |net: &&IpNet| {
            sources.iter().any(|source| source.base.contains(*net) || net.contains(&source.base))
        };
        let routes = host.routes.iter().filter(|net| !host.networks.contains(net));
        let routes: Vec<_> = routes.filter(of_source).map(IpNet::to_string).take(8).collect();
        if !routes.is_empty() {
            text.push_str(&format!(
                ": the host has routes to {}; name a subnet (--subnet; settings of hulld: bip, default-address-pools)",
                routes.join(", ")
            ));
        }
        Error::exhausted(text)
    })
}

/// An address of a setting or option.
pub(crate) fn address(what: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("invalid {what}: {}", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("/d".into(), "/n".into())
    }

    fn request(driver: &str, options: &[(&str, &str)]) -> v1::CreateNetworkRequest {
        v1::CreateNetworkRequest {
            name: "n1".into(),
            driver: driver.into(),
            options: options.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            ..Default::default()
        }
    }

    fn subnets(request: &v1::CreateNetworkRequest, host: &Host<'_>) -> Result<Vec<String>> {
        Ok(pools(request, &settings(), host)?.iter().map(|pool| pool.subnet.to_string()).collect())
    }

    const HOST: Host<'_> = Host { networks: &[], routes: &[], ipv6: true, random: [1; 7] };

    #[test]
    fn a_bridge_has_what_its_options_say() {
        let id = "0123456789abcdef".repeat(4);
        let Driver::Bridge(bridge) = driver(&request("", &[]), &id, &settings(), true).unwrap()
        else {
            panic!("no bridge")
        };
        assert_eq!(bridge.interface, "hl-0123456789ab");
        assert!(bridge.owned && bridge.masquerade && bridge.icc && bridge.mtu.is_none());
        let options = [
            ("com.docker.network.bridge.name", "br7"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "0"),
            ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
            ("com.docker.network.driver.mtu", "1400"),
        ];
        let made = driver(&request("bridge", &options), &id, &settings(), true).unwrap();
        let wanted = Bridge {
            interface: "br7".into(),
            owned: true,
            masquerade: false,
            icc: false,
            mtu: Some(1400),
            bind: Some("127.0.0.1".parse().unwrap()),
        };
        assert_eq!(made, Driver::Bridge(wanted));
    }

    #[test]
    fn what_a_driver_does_not_have_is_refused() {
        for (kind, options, says) in [
            ("bridge", &[("x", "y")][..], "no option x"),
            ("bridge", &[("com.docker.network.bridge.name", "a/b")], "invalid interface name"),
            ("bridge", &[("com.docker.network.bridge.enable_icc", "maybe")], "neither"),
            ("bridge", &[("com.docker.network.driver.mtu", "600")], "1280"),
            ("bridge", &[(PREFIX, "a/b")], "beginning of an interface's name"),
            ("macvlan", &[(PREFIX, "fourteen-bytes")], "beginning of an interface's name"),
            ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "l2")], "no mode"),
            ("ipvlan", &[("parent", "eth0"), ("macvlan_mode", "bridge")], "no option"),
            ("host", &[], "only one instance"),
            ("overlay", &[], "plugin not found"),
        ] {
            let error = driver(&request(kind, options), "0123456789ab", &settings(), true);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(says), "{kind} {options:?}: {error}");
        }
    }

    #[test]
    fn subnets_that_nobody_asked_for_are_free_ones() {
        let ours = ["172.17.0.0/16".parse().unwrap()];
        let routes = ["172.18.0.0/16".parse().unwrap()];
        let host = Host { networks: &ours, routes: &routes, ..HOST };
        assert_eq!(
            subnets(&request("", &[]), &host).unwrap(),
            ["172.19.0.0/16", "fd01:101:101:101::/64"]
        );
        let no_ipv6 = Host { ipv6: false, ..HOST };
        assert_eq!(subnets(&request("", &[]), &no_ipv6).unwrap(), ["172.17.0.0/16"]);
        let mut only6 = request("", &[]);
        only6.ipv4 = Some(false);
        assert_eq!(subnets(&only6, &HOST).unwrap(), ["fd01:101:101:101::/64"]);
    }

    #[test]
    fn who_is_on_a_wire_has_no_ipv6_unless_it_was_asked_for() {
        for driver in ["macvlan", "ipvlan"] {
            let mut request = request(driver, &[("parent", "eth0")]);
            assert_eq!(subnets(&request, &HOST).unwrap(), ["172.17.0.0/16"], "{driver}");
            request.ipv6 = Some(true);
            assert_eq!(subnets(&request, &HOST).unwrap().len(), 2, "{driver}");
        }
    }

    #[test]
    fn where_no_subnet_is_free_the_routes_in_its_way_are_named() {
        let routes = ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"].map(|t| t.parse().unwrap());
        let host = Host { routes: &routes, ..HOST };
        let error = subnets(&request("", &[]), &host).unwrap_err().to_string();
        assert!(error.contains("routes to 172.16.0.0/12, 192.168.0.0/16;"), "{error}");
    }

    #[test]
    fn subnets_that_were_asked_for_may_not_be_another_networks() {
        let ours = ["10.1.0.0/16".parse().unwrap()];
        let routes = ["10.2.0.0/16".parse().unwrap()];
        let host = Host { networks: &ours, routes: &routes, ..HOST };
        let with = |subnets: &[&str], ipv6: Option<bool>| {
            let mut request = request("", &[]);
            let pool =
                |subnet: &&str| v1::IpamPool { subnet: (*subnet).into(), ..Default::default() };
            request.ipv6 = ipv6;
            request.ipam =
                Some(v1::Ipam { pools: subnets.iter().map(pool).collect(), ..Default::default() });
            request
        };
        // The host's own routes are the user's business.
        assert_eq!(subnets(&with(&["10.2.0.0/24"], Some(false)), &host).unwrap(), ["10.2.0.0/24"]);
        for (request, says) in [
            (with(&["10.1.5.0/24"], None), "Pool overlaps"),
            (with(&["10.3.0.0/24", "10.3.0.0/25"], None), "Pool overlaps"),
            (with(&["fd00::/64"], Some(false)), "which the network has not"),
        ] {
            let error = subnets(&request, &host).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
