//! What the packet filter shall say: plain data, without a word of nftables.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use anyhow::{Context, Result, bail};

/// The longest name of an interface (`IFNAMSIZ` less its NUL).
pub const MAX_INTERFACE_BYTES: usize = 15;

/// The desired state, whole. [`Rules::check`] says what is wrong with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By name of their bridge.
    pub networks: BTreeMap<String, Network>,
    /// By name of their interface on the host.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// A bridge of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The bridge's interface.
    pub bridge: String,
    /// Its number; what is not of that number (0: of any) is found by its name, which is slower.
    pub index: u32,
    /// The addresses of its containers. What comes from elsewhere with one of them is dropped.
    pub subnets: Vec<Subnet>,
    /// Whether what leaves the host from these subnets gets the host's address.
    pub masquerade: bool,
    /// Whether nothing is forwarded from it or to it, published ports included.
    pub internal: bool,
    /// Whether its containers reach each other (`icc`).
    pub inter_container: bool,
}

/// One container's interface on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The end of the veth pair that is a port of the bridge.
    pub interface: String,
    /// Its number; what is not of that number (0: of any) is found by its name, which is slower.
    pub index: u32,
    /// The bridge of its network.
    pub bridge: String,
    /// Its hardware address, and the only one that it may send from.
    pub mac: Mac,
    /// Its addresses, and the only ones that it may send from. Without an IPv6 address it cannot
    /// send IPv6; with one, also from the link-local address made of its hardware address.
    pub addresses: Vec<IpAddr>,
    /// Whether it may send from other addresses too: a container that is a router, or that
    /// moves addresses about.
    pub may_spoof: bool,
    /// Who may reach it although its network's containers do not reach each other (`--link`).
    pub links: Vec<Link>,
    /// Its published ports.
    pub ports: Vec<Port>,
}

/// A way through `inter_container = false`, to the endpoint that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The address that may come.
    pub from: std::net::Ipv4Addr,
    /// The protocol of the port.
    pub protocol: Protocol,
    /// The port of the endpoint.
    pub port: u16,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// Where on the host: `0.0.0.0` is each IPv4 address of it, `::` each IPv6 address.
    pub host_address: IpAddr,
    /// The port there.
    pub host_port: u16,
    /// The container's address. One of the other family is reached through a proxy only.
    pub container_address: IpAddr,
    /// The container's port.
    pub container_port: u16,
    /// By address translation, or by a proxy only.
    pub publish: Publish,
}

/// How a port is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// By translation in the kernel, which keeps the client's address. From the host's
    /// loopback by a proxy.
    #[default]
    Nat,
    /// By a proxy for everybody: for hosts that must not forward.
    Proxy,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// An address range `address/prefix`, whose host part is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Rules {
    /// Whether there is a network whose containers do not reach each other.
    pub(crate) fn isolates(&self) -> bool {
        self.networks.values().any(|network| !network.inter_container)
    }

    /// Refuses what could not be expressed, or would mean something else: names that are no
    /// interface's, endpoints of unknown networks, two ports at one place.
    ///
    /// # Errors
    /// A sentence that names the first such thing.
    pub fn check(&self) -> Result<()> {
        for (name, network) in &self.networks {
            network.check()?;
            if *name != network.bridge {
                bail!("network {name:?} is filed under another name than {:?}", network.bridge);
            }
        }
        self.check_subnets()?;
        let mut taken = std::collections::BTreeSet::new();
        for (name, endpoint) in &self.endpoints {
            endpoint.check()?;
            if *name != endpoint.interface {
                bail!(
                    "endpoint {name:?} is filed under another name than {:?}",
                    endpoint.interface
                );
            }
            if !self.networks.contains_key(&endpoint.bridge) {
                bail!("endpoint {name} is on the bridge {}, which is not ours", endpoint.bridge);
            }
            for port in &endpoint.ports {
                if !taken.insert((port.protocol, port.host_address, port.host_port)) {
                    bail!("port {port} is published twice");
                }
            }
        }
        Ok(())
    }
}

impl Rules {
    /// Whose a packet is must have one answer.
    pub(crate) fn check_subnets(&self) -> Result<()> {
        let all = self
            .networks
            .values()
            .flat_map(|network| network.subnets.iter().map(|subnet| (*subnet, &network.bridge)));
        let mut all: Vec<_> = all.collect();
        all.sort();
        // Ranges of prefixes are nested or apart, so what overlaps stands side by side.
        for pair in all.windows(2) {
            if let [(first, one), (second, other)] = pair
                && second.address() <= first.last()
                && first.address().is_ipv4() == second.address().is_ipv4()
            {
                bail!("subnet {second} of {other} overlaps with {first} of {one}");
            }
        }
        Ok(())
    }
}

impl Network {
    pub(crate) fn check(&self) -> Result<()> {
        check_interface(&self.bridge)
    }
}

impl Endpoint {
    pub(crate) fn check(&self) -> Result<()> {
        check_interface(&self.interface)?;
        check_interface(&self.bridge)?;
        for port in &self.ports {
            if port.host_port == 0 || port.container_port == 0 {
                bail!("port {port} has the number 0");
            }
        }
        Ok(())
    }
}

impl Port {
    /// Whether the kernel can translate: not for a port that asks for a proxy, and not from one
    /// family of addresses to the other.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.publish == Publish::Nat
            && self.host_address.is_ipv4() == self.container_address.is_ipv4()
    }
}

/// `host address:port/protocol`, as docker's words have it.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = std::net::SocketAddr::new(self.host_address, self.host_port);
        write!(f, "{socket}/{}", self.protocol)
    }
}

impl Protocol {
    /// The number in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => bail!("invalid protocol {text:?}: must be tcp, udp or sctp"),
        }
    }
}

impl Mac {
    /// The link-local address that the kernel makes of it (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0xfe, 0x80]);
        bytes[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        bytes.into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || format!("invalid hardware address {text:?}");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).with_context(refuse)?;
            *byte = u8::from_str_radix(part, 16).with_context(refuse)?;
        }
        if parts.next().is_some() {
            bail!(refuse());
        }
        Ok(Self(bytes))
    }
}

impl Subnet {
    /// The range that `address` is in; its host part is cut off.
    ///
    /// # Errors
    /// When the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
            _ => bail!("invalid subnet {address}/{prefix}: the prefix is longer than the address"),
        };
        Ok(Self { address, prefix })
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) | host).into())
            }
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || format!("invalid subnet {text:?}");
        let (address, prefix) = text.split_once('/').with_context(refuse)?;
        let address = address.parse().with_context(refuse)?;
        Self::new(address, prefix.parse().with_context(refuse)?)
    }
}

fn check_interface(name: &str) -> Result<()> {
    // What dev_valid_name() of the kernel takes, less what would be a pattern to nft.
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:*\"".contains(&byte);
    let fits = (1..=MAX_INTERFACE_BYTES).contains(&name.len());
    if !fits || !name.bytes().all(plain) || matches!(name, "." | "..") {
        bail!("invalid interface name {name:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_cut_at_its_prefix() {
        for (text, first, last) in [
            ("172.17.0.1/16", "172.17.0.0", "172.17.255.255"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("1.2.3.4/0", "0.0.0.0", "255.255.255.255"),
            ("fd00:1::5/64", "fd00:1::", "fd00:1::ffff:ffff:ffff:ffff"),
            ("::1/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!(subnet.address().to_string(), first, "{text}");
            assert_eq!(subnet.last().to_string(), last, "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_networks_have_no_address_in_common() {
        let clash = |subnets: &[&str]| {
            let networks = subnets.iter().enumerate().map(|(number, subnet)| {
                let bridge = format!("br{number}");
                let subnets = vec![subnet.parse().unwrap()];
                let (masquerade, internal, inter_container) = (true, false, true);
                let network = Network {
                    bridge: bridge.clone(),
                    index: 0,
                    subnets,
                    masquerade,
                    internal,
                    inter_container,
                };
                (bridge, network)
            });
            Rules { networks: networks.collect(), ..Rules::default() }.check().is_err()
        };
        assert!(clash(&["10.0.0.0/8", "10.0.0.0/8"]));
        assert!(clash(&["10.1.0.0/16", "10.2.0.0/16", "10.0.0.0/8"]));
        assert!(clash(&["fd00::/8", "10.0.0.0/8", "fdff:1::/64"]));
        assert!(!clash(&["10.0.0.0/16", "10.1.0.0/16", "::/1", "fd00::/8", "9.0.0.0/8"]));
    }

    #[test]
    fn a_hardware_address_is_six_bytes() {
        let mac: Mac = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!(mac.link_local().to_string(), "fe80::42:acff:fe11:2");
        for text in
            ["02:42:ac:11:00", "02:42:ac:11:00:02:03", "0:42:ac:11:00:02", "+2:42:ac:11:00:02"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_are_no_interface_are_refused() {
        for name in ["", ".", "..", "a b", "a/b", "eth*", "sixteen-letters-", "a:1", "a\"b", "é"] {
            assert!(check_interface(name).is_err(), "{name}");
        }
        check_interface("br-0123456789ab").unwrap();
    }
}
