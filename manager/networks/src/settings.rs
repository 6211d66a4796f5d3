//! What the operator decides.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use hull_manager_firewall as firewall;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ipam::SubnetSource;

/// The manager's settings of networks; names as dockerd's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where definitions are: `NAME.conflist`.
    pub definitions: PathBuf,
    /// Where namespaces are pinned; not on a disk.
    pub namespaces: PathBuf,
    /// The default network, called bridge; none: there is none.
    pub default: Option<DefaultNetwork>,
    /// Where subnets are taken from; of a family without one: the usual ones.
    pub pools: Vec<SubnetSource>,
    /// Networks have IPv6 unless they say otherwise.
    pub ipv6: bool,
    /// The MTU of all bridges; none: the uplink's.
    pub mtu: Option<u32>,
    /// Turn on forwarding in the kernel.
    pub ip_forward: bool,
    /// Containers have the host's address outside, unless their network says otherwise.
    pub ip_masq: bool,
    /// Where ports are published that name no address.
    pub bind: Option<IpAddr>,
    /// Name servers of containers, in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains, in place of the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub dns_options: Vec<String>,
    /// The host's resolvers.
    pub resolv_conf: PathBuf,
    /// Firewall rules are made. If not, not one.
    pub iptables: bool,
    /// The host's loopback reaches published ports by a proxy, not by translation.
    pub userland_proxy: bool,
    /// The name of our tables of nftables, so that several managers can be on one host.
    pub table: String,
    /// Containers find each other by name: the name service answers them.
    pub names: bool,
    /// Whether the host's ports are held by sockets, as long as the process lives.
    pub hold_ports: bool,
    /// How plugins are executed.
    pub cni: hull_manager_cni::Settings,
    /// What the name host-gateway stands for; empty: the default network's gateways.
    pub host_gateway: Vec<IpAddr>,
}

/// The default network.
#[derive(Clone, Debug)]
pub struct DefaultNetwork {
    /// Its bridge.
    pub bridge: String,
    /// The bridge's address and its subnet.
    pub bip: Option<Ipv4Net>,
    /// The same for IPv6.
    pub bip6: Option<Ipv6Net>,
    /// The part of the subnet that containers have addresses of.
    pub fixed_cidr: Option<Ipv4Net>,
    /// The same for IPv6; without `bip6` it is the subnet, too.
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// The gateway, if it is not the bridge.
    pub gateway: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Containers reach each other.
    pub icc: bool,
}

/// The bridge of the default network where nobody says otherwise.
pub const DEFAULT_BRIDGE: &str = "hull0";

impl Default for DefaultNetwork {
    fn default() -> Self {
        Self {
            bridge: DEFAULT_BRIDGE.into(),
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            gateway: None,
            gateway_v6: None,
            icc: true,
        }
    }
}

impl Settings {
    /// Everything as nobody said otherwise, with definitions and namespaces in two directories.
    #[must_use]
    pub fn new(definitions: PathBuf, namespaces: PathBuf) -> Self {
        let cni = hull_manager_cni::Settings::new(definitions.join(".attachments"));
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            iptables: true,
            userland_proxy: true,
            table: "hull".into(),
            names: true,
            hold_ports: true,
            cni,
            definitions,
            namespaces,
            default: Some(DefaultNetwork::default()),
            pools: Vec::new(),
            ipv6: true,
            mtu: None,
            ip_forward: true,
            ip_masq: true,
            bind: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            host_gateway: Vec::new(),
        }
    }

    pub(crate) fn firewall(&self) -> firewall::Settings {
        firewall::Settings {
            table: self.table.clone(),
            enabled: self.iptables,
            loopback: match self.userland_proxy {
                true => firewall::Loopback::Proxy,
                false => firewall::Loopback::Translate,
            },
            hold_ports: self.hold_ports,
        }
    }

    /// The sources of subnets of a family: the operator's, or docker's.
    pub(crate) fn sources(&self, ipv4: bool) -> Vec<SubnetSource> {
        let own: Vec<_> = self
            .pools
            .iter()
            .filter(|source| source.base.addr().is_ipv4() == ipv4)
            .cloned()
            .collect();
        if !own.is_empty() || !ipv4 {
            return own;
        }
        let source = |a, b, prefix, size| SubnetSource {
            base: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)),
            size,
        };
        let mut sources: Vec<_> = (17..=31).map(|second| source(172, second, 16, 16)).collect();
        sources.push(source(192, 168, 16, 20));
        sources
    }
}
