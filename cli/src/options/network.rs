//! `--network` and the options of a container's place in a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_specs_api::v1;

use super::csv;

/// One `--network`: a name or a mode, or fields by name: `name=web,alias=a,ip=10.0.0.5`.
pub(crate) fn parse(text: &str) -> Result<v1::EndpointOptions, String> {
    let mut endpoint = v1::EndpointOptions::default();
    if !text.contains('=') {
        text.clone_into(&mut endpoint.network);
        return Ok(endpoint);
    }
    for field in csv::fields(text)? {
        let invalid = || format!("invalid field {field}");
        let (key, value) = field.split_once('=').ok_or_else(invalid)?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut endpoint.network),
            "alias" => endpoint.aliases.push(value.to_owned()),
            "ip" => endpoint.ipv4_address = ipv4(value)?,
            "ip6" => endpoint.ipv6_address = ipv6(value)?,
            "mac-address" => endpoint.mac_address = mac_address(value)?,
            "link-local-ip" => endpoint.link_local_addresses.push(address(value)?),
            "driver-opt" => {
                let (key, value) = driver_option(value)?;
                endpoint.driver_options.insert(key, value);
            }
            "gw-priority" => {
                endpoint.gateway_priority =
                    value.parse().map_err(|_| format!("invalid gw-priority: {value}"))?;
            }
            "" => return Err(invalid()),
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if endpoint.network.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(endpoint)
}

/// A driver's option of an endpoint.
pub(crate) fn driver_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("invalid key value pair format in driver options".to_owned()),
    }
}

/// The options that hold for the first network.
#[derive(Debug, Default)]
pub(crate) struct First<'a> {
    pub(crate) aliases: &'a [String],
    pub(crate) links: &'a [String],
    pub(crate) ip: Option<&'a str>,
    pub(crate) ip6: Option<&'a str>,
    pub(crate) link_local_ips: &'a [String],
    pub(crate) mac_address: Option<&'a str>,
}

/// The mode, and the endpoints of which something is said.
pub(crate) fn lower(
    networks: &[v1::EndpointOptions],
    first: &First<'_>,
) -> Result<(String, Vec<v1::EndpointOptions>), String> {
    let mut endpoints = networks.to_vec();
    if endpoints.is_empty() {
        endpoints.push(v1::EndpointOptions { network: "default".to_owned(), ..Default::default() });
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let name = &endpoint.network;
        if name.is_empty() {
            return Err("no name set for network".to_owned());
        }
        if name == "container:" {
            return Err("invalid container format container:<name|id>".to_owned());
        }
        if endpoints.len() > 1 && !user_defined(name) {
            return Err(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                    .to_owned(),
            );
        }
        if endpoints.iter().take(at).any(|other| other.network == *name) {
            return Err(format!("network {name:?} is specified multiple times"));
        }
    }
    if let Some(endpoint) = endpoints.first_mut() {
        merge(endpoint, first)?;
    }
    let aliased = |of: &v1::EndpointOptions| !of.aliases.is_empty() && !user_defined(&of.network);
    if endpoints.iter().any(aliased) {
        return Err(
            "network-scoped aliases are only supported for user-defined networks".to_owned()
        );
    }
    let mode = endpoints.first().map(|endpoint| endpoint.network.clone()).unwrap_or_default();
    let plain = v1::EndpointOptions { network: mode.clone(), ..Default::default() };
    endpoints.retain(|endpoint| *endpoint != plain);
    let mode = if mode == "default" { String::new() } else { mode };
    Ok((mode, endpoints))
}

fn merge(endpoint: &mut v1::EndpointOptions, first: &First<'_>) -> Result<(), String> {
    let both = |option: &str, what: &str| {
        Err(format!("conflicting options: cannot specify both --{option} and per-network {what}"))
    };
    if !first.aliases.is_empty() {
        if !endpoint.aliases.is_empty() {
            return both("network-alias", "alias");
        }
        endpoint.aliases = first.aliases.to_vec();
    }
    endpoint.links.extend_from_slice(first.links);
    if let Some(ip) = first.ip {
        if !endpoint.ipv4_address.is_empty() {
            return both("ip", "IPv4 address");
        }
        endpoint.ipv4_address = ipv4(ip)?;
    }
    if let Some(ip) = first.ip6 {
        if !endpoint.ipv6_address.is_empty() {
            return both("ip6", "IPv6 address");
        }
        endpoint.ipv6_address = ipv6(ip)?;
    }
    if !first.link_local_ips.is_empty() {
        if !endpoint.link_local_addresses.is_empty() {
            return both("link-local-ip", "link-local IP addresses");
        }
        endpoint.link_local_addresses =
            first.link_local_ips.iter().map(|ip| address(ip)).collect::<Result<_, _>>()?;
    }
    if let Some(mac) = first.mac_address {
        if !endpoint.mac_address.is_empty() {
            return both("mac-address", "MAC address");
        }
        endpoint.mac_address = mac_address(mac)?;
    }
    Ok(())
}

/// Whether a name is that of a network of the user's.
fn user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

pub(crate) fn ipv4(text: &str) -> Result<String, String> {
    let address = text.parse::<Ipv4Addr>();
    address.map(|ip| ip.to_string()).map_err(|_| format!("invalid IPv4 address: {text}"))
}

pub(crate) fn ipv6(text: &str) -> Result<String, String> {
    let address = text.parse::<Ipv6Addr>();
    address.map(|ip| ip.to_string()).map_err(|_| format!("invalid IPv6 address: {text}"))
}

pub(crate) fn address(text: &str) -> Result<String, String> {
    let address = text.parse::<IpAddr>();
    address.map(|ip| ip.to_string()).map_err(|_| format!("invalid IP address: {text}"))
}

/// Six bytes, with colons or dashes, as Go reads them.
fn mac_address(text: &str) -> Result<String, String> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let bytes: Vec<_> = text.split(separator).collect();
    let good = |byte: &&str| byte.len() == 2 && byte.bytes().all(|c| c.is_ascii_hexdigit());
    if bytes.len() != 6 || !bytes.iter().all(good) {
        return Err(format!("{text} is not a valid mac address"));
    }
    Ok(bytes.join(":").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(
        networks: &[&str],
        first: &First<'_>,
    ) -> Result<(String, Vec<v1::EndpointOptions>), String> {
        let networks: Vec<_> = networks.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        lower(&networks, first)
    }

    #[test]
    fn fields_by_name() {
        let found = parse(
            "name=foo,alias=a,alias=b,ip=1.2.3.4,ip6=FD00::1,mac-address=02-42-AC-11-00-02,driver-opt=a=b,link-local-ip=169.254.1.1,gw-priority=-5",
        );
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found.unwrap(),
            v1::EndpointOptions {
                network: "foo".into(),
                aliases: words(&["a", "b"]),
                ipv4_address: "1.2.3.4".into(),
                ipv6_address: "fd00::1".into(),
                mac_address: "02:42:ac:11:00:02".into(),
                driver_options: [("a".to_owned(), "b".to_owned())].into(),
                link_local_addresses: words(&["169.254.1.1"]),
                gateway_priority: -5,
                ..Default::default()
            }
        );
        for (text, words) in [
            ("name=foo,foo=bar", "invalid field key foo"),
            ("alias=a", "network name/id is not specified"),
            ("name=foo,alias", "invalid field alias"),
            ("name=foo,driver-opt=a", "invalid key value pair format in driver options"),
            ("name=foo,gw-priority=x", "invalid gw-priority: x"),
            ("name=foo,ip=x", "invalid IPv4 address: x"),
            ("name=foo,mac-address=02:42:ac:11:00", "02:42:ac:11:00 is not a valid mac address"),
        ] {
            assert_eq!(parse(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn the_first_network_is_the_mode() {
        let none = First::default();
        for (networks, mode, others) in [
            (&[][..], "", 0),
            (&["default"], "", 0),
            (&["bridge"], "bridge", 0),
            (&["none"], "none", 0),
            (&["container:x"], "container:x", 0),
            (&["foo", "bar"], "foo", 1),
            (&["name=foo,alias=a", "bar"], "foo", 2),
        ] {
            let (found, endpoints) = lowered(networks, &none).unwrap();
            assert_eq!((found.as_str(), endpoints.len()), (mode, others), "{networks:?}");
        }
        let names = ["a".to_owned(), "b".to_owned()];
        let first = First {
            aliases: &names[..1],
            links: &names[1..],
            ip: Some("1.2.3.4"),
            mac_address: Some("02:42:ac:11:00:02"),
            ..First::default()
        };
        let (mode, endpoints) = lowered(&["foo", "bar"], &first).unwrap();
        assert_eq!((mode.as_str(), endpoints.len()), ("foo", 2));
        assert_eq!(endpoints[0].aliases, ["a"]);
        assert_eq!(endpoints[0].links, ["b"]);
        assert_eq!(endpoints[0].ipv4_address, "1.2.3.4");
        let first = First { links: &names[..1], ..First::default() };
        let (mode, endpoints) = lowered(&[], &first).unwrap();
        assert_eq!((mode.as_str(), endpoints[0].network.as_str()), ("", "default"));
    }

    /// Seen with docker 28.
    #[test]
    fn what_contradicts_is_told_in_dockers_words() {
        let names = ["a".to_owned()];
        let both = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
        let aliased = "network-scoped aliases are only supported for user-defined networks";
        let none = First::default();
        let alias = First { aliases: &names, ..First::default() };
        let ip = First { ip: Some("1.2.3.5"), ..First::default() };
        let mac = First { mac_address: Some("x"), ..First::default() };
        for (networks, first, words) in [
            (&["foo", "foo"][..], &none, "network \"foo\" is specified multiple times"),
            (&["foo", "host"], &none, both),
            (&["none", "foo"], &none, both),
            (&["default", "foo"], &none, both),
            (&["container:x", "foo"], &none, both),
            (&[""], &none, "no name set for network"),
            (&["container:"], &none, "invalid container format container:<name|id>"),
            (&[], &alias, aliased),
            (&["bridge"], &alias, aliased),
            (&["host"], &alias, aliased),
            (
                &["name=foo,alias=x"],
                &alias,
                "conflicting options: cannot specify both --network-alias and per-network alias",
            ),
            (
                &["name=foo,ip=1.2.3.4"],
                &ip,
                "conflicting options: cannot specify both --ip and per-network IPv4 address",
            ),
            (&["foo"], &mac, "x is not a valid mac address"),
        ] {
            assert_eq!(lowered(networks, first).unwrap_err(), words, "{networks:?}");
        }
    }
}
