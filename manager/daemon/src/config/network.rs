//! What is said of networks, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::settings::{Pool, Settings};

/// The longest name of an interface (IFNAMSIZ without its zero).
const MAX_INTERFACE: usize = 15;
/// Between these is an MTU: RFC 791's smallest, and the largest packet.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// The settings of networks; names as dockerd's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Network {
    /// The default network; none with `bridge` "none".
    pub(crate) default: Option<DefaultNetwork>,
    pub(crate) pools: Vec<(IpNet, u8)>,
    pub(crate) ipv6: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) ip_forward: bool,
    pub(crate) ip_masq: bool,
    pub(crate) iptables: bool,
    pub(crate) userland_proxy: bool,
    /// Where ports are published that name no address.
    pub(crate) bind: Option<IpAddr>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) host_gateway: Vec<IpAddr>,
}

/// The network that containers are in which name none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DefaultNetwork {
    /// Empty: ours.
    pub(crate) bridge: String,
    pub(crate) bip: Option<Ipv4Net>,
    pub(crate) bip6: Option<Ipv6Net>,
    pub(crate) fixed_cidr: Option<Ipv4Net>,
    pub(crate) fixed_cidr_v6: Option<Ipv6Net>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) gateway_v6: Option<Ipv6Addr>,
    pub(crate) icc: bool,
}

/// One value of a key.
fn value<T: std::str::FromStr>(key: &str, text: Option<&String>, what: &str) -> Result<Option<T>> {
    let parse =
        |text: &String| text.parse().ok().with_context(|| format!("{key}: {text:?} is not {what}"));
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

fn values<T: std::str::FromStr>(
    key: &str,
    texts: Option<&Vec<String>>,
    what: &str,
) -> Result<Vec<T>> {
    let texts = texts.into_iter().flatten();
    let found: Result<Vec<Option<T>>> = texts.map(|text| value(key, Some(text), what)).collect();
    Ok(found?.into_iter().flatten().collect())
}

fn words(key: &str, texts: Option<&Vec<String>>) -> Result<Vec<String>> {
    let texts = texts.cloned().unwrap_or_default();
    for text in &texts {
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(good, "{key}: {text:?} is not a word for resolv.conf");
    }
    Ok(texts)
}

impl Network {
    /// Checks what was given.
    ///
    /// # Errors
    /// One sentence with the name of what is wrong.
    pub(super) fn new(given: &Settings) -> Result<Self> {
        let mtu = given.mtu.filter(|mtu| *mtu != 0);
        if let Some(mtu) = mtu {
            ensure!(MTU.contains(&mtu), "mtu: {mtu} is not between 68 and 65535");
        }
        let mut pools = Vec::new();
        for pool in given.default_address_pools.iter().flatten() {
            pools.push(address_pool(pool)?);
        }
        let bind = value::<IpAddr>("ip", given.ip.as_ref(), "an IP address")?;
        Ok(Self {
            default: default(given)?,
            pools,
            ipv6: given.ipv6.unwrap_or(true),
            mtu,
            ip_forward: given.ip_forward.unwrap_or(true),
            ip_masq: given.ip_masq.unwrap_or(true),
            iptables: given.iptables.unwrap_or(true),
            userland_proxy: given.userland_proxy.unwrap_or(true),
            bind: bind.filter(|bind| !bind.is_unspecified()),
            dns: values("dns", given.dns.as_ref(), "an IP address")?,
            dns_search: words("dns-search", given.dns_search.as_ref())?,
            dns_options: words("dns-opts", given.dns_opts.as_ref())?,
            host_gateway: values(
                "host-gateway-ips",
                given.host_gateway_ips.as_ref(),
                "an IP address",
            )?,
        })
    }
}

fn default(given: &Settings) -> Result<Option<DefaultNetwork>> {
    let bridge = given.bridge.clone().unwrap_or_default();
    let address = "ADDRESS/PREFIX";
    let default = DefaultNetwork {
        bip: value("bip", given.bip.as_ref(), address)?,
        bip6: value("bip6", given.bip6.as_ref(), address)?,
        fixed_cidr: value("fixed-cidr", given.fixed_cidr.as_ref(), address)?,
        fixed_cidr_v6: value("fixed-cidr-v6", given.fixed_cidr_v6.as_ref(), address)?,
        gateway: value("default-gateway", given.default_gateway.as_ref(), "an IPv4 address")?,
        gateway_v6: value(
            "default-gateway-v6",
            given.default_gateway_v6.as_ref(),
            "an IPv6 address",
        )?,
        icc: given.icc.unwrap_or(true),
        bridge,
    };
    if default.bridge == "none" {
        let blank = DefaultNetwork { bridge: "none".into(), ..blank() };
        ensure!(
            default == blank,
            "bridge: there is none, so bip, fixed-cidr, default-gateway and icc say nothing"
        );
        return Ok(None);
    }
    let name = &default.bridge;
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    ensure!(
        name.len() <= MAX_INTERFACE
            && name.chars().all(good)
            && !matches!(name.as_str(), "." | ".."),
        "bridge: {name:?} is not the name of an interface"
    );
    ensure!(
        name.is_empty() || default.bip.is_none() && default.bip6.is_none(),
        "You specified -b & --bip, mutually exclusive options. Please specify only one"
    );
    if let (Some(bip), Some(gateway)) = (default.bip, default.gateway) {
        ensure!(
            bip.contains(&gateway),
            "default-gateway: {gateway} is not in the network of bip, {bip}"
        );
    }
    if let Some(bip) = default.bip {
        ensure!(
            bip.addr() != bip.network() || bip.prefix_len() >= 31,
            "bip: {bip} is a network: the bridge needs an address in it"
        );
    }
    if let (Some(bip), Some(range)) = (default.bip, default.fixed_cidr) {
        ensure!(bip.contains(&range), "fixed-cidr: {range} is not in the network of bip, {bip}");
    }
    Ok(Some(default))
}

/// As if nothing was said.
fn blank() -> DefaultNetwork {
    DefaultNetwork {
        bridge: String::new(),
        bip: None,
        bip6: None,
        fixed_cidr: None,
        fixed_cidr_v6: None,
        gateway: None,
        gateway_v6: None,
        icc: true,
    }
}

fn address_pool(pool: &Pool) -> Result<(IpNet, u8)> {
    let base: IpNet = value("default-address-pools", Some(&pool.base), "ADDRESS/PREFIX")?
        .context("default-address-pools: base is missing")?;
    let size = u8::try_from(pool.size).ok().filter(|size| *size <= base.max_prefix_len());
    let size = size.with_context(|| {
        format!("default-address-pools: size {} is not a prefix length of {base}", pool.size)
    })?;
    ensure!(
        size >= base.prefix_len(),
        "default-address-pools: size {size} is larger than the pool {base}"
    );
    Ok((base.trunc(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Result<Network> {
        Network::new(&Settings::parse(json).unwrap())
    }

    #[test]
    fn nothing_said_is_dockers_default_with_ipv6() {
        let network = network("{}").unwrap();
        assert_eq!(network.default, Some(blank()));
        assert!(network.ipv6 && network.ip_forward && network.ip_masq && network.iptables);
        assert_eq!((network.mtu, network.bind), (None, None));
    }

    #[test]
    fn keys_are_dockerds() {
        let all = network(
            r#"{"bip":"10.1.0.1/24","fixed-cidr":"10.1.0.128/25","fixed-cidr-v6":"fd01::/64","ipv6":false,
                "mtu":1400,"default-gateway":"10.1.0.2","dns":["1.1.1.1"],"dns-search":["a.b"],
                "dns-opts":["ndots:1"],"default-address-pools":[{"base":"10.9.0.0/16","size":24}],
                "icc":false,"ip":"127.0.0.1","ip-forward":false,"ip-masq":false,"iptables":false,
                "userland-proxy":false,"host-gateway-ips":["10.1.0.9"]}"#,
        )
        .unwrap();
        let default = all.default.unwrap();
        assert_eq!(default.bip.unwrap().to_string(), "10.1.0.1/24");
        assert_eq!(default.fixed_cidr_v6.unwrap().to_string(), "fd01::/64");
        assert!(!default.icc && !all.ipv6 && !all.iptables && !all.userland_proxy);
        assert_eq!(all.pools, [("10.9.0.0/16".parse().unwrap(), 24)]);
        assert_eq!((all.mtu, all.bind), (Some(1400), Some(Ipv4Addr::LOCALHOST.into())));
        assert_eq!(network(r#"{"bridge":"none"}"#).unwrap().default, None);
        assert_eq!(network(r#"{"bridge":"br0"}"#).unwrap().default.unwrap().bridge, "br0");
        assert_eq!(network(r#"{"ip":"0.0.0.0"}"#).unwrap().bind, None);
    }

    #[test]
    fn the_culprit_is_named() {
        for (json, words) in [
            (r#"{"bip":"x"}"#, &["bip", "x"][..]),
            (r#"{"bip":"10.1.0.0/24"}"#, &["bip", "address in it"]),
            (r#"{"bip":"10.1.0.1/24","bridge":"br0"}"#, &["-b & --bip"]),
            (r#"{"bip":"10.1.0.1/24","fixed-cidr":"10.2.0.0/24"}"#, &["fixed-cidr", "10.2.0.0/24"]),
            (r#"{"bip":"10.1.0.1/24","default-gateway":"10.2.0.1"}"#, &["default-gateway"]),
            (r#"{"bridge":"none","icc":false}"#, &["bridge", "icc"]),
            (r#"{"bridge":"a/b"}"#, &["bridge", "a/b"]),
            (r#"{"bridge":"0123456789abcdef"}"#, &["bridge"]),
            (r#"{"fixed-cidr-v6":"10.0.0.0/8"}"#, &["fixed-cidr-v6"]),
            (r#"{"mtu":67}"#, &["mtu", "67"]),
            (r#"{"dns":["x"]}"#, &["dns", "x"]),
            (r#"{"dns-search":["a b"]}"#, &["dns-search", "a b"]),
            (r#"{"ip":"x"}"#, &["ip", "x"]),
            (r#"{"default-gateway-v6":"1.2.3.4"}"#, &["default-gateway-v6"]),
            (
                r#"{"default-address-pools":[{"base":"x","size":24}]}"#,
                &["default-address-pools", "x"],
            ),
            (r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":7}]}"#, &["size 7"]),
            (r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":33}]}"#, &["size 33"]),
        ] {
            let error = format!("{:#}", network(json).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{json}: {error}");
        }
    }
}
