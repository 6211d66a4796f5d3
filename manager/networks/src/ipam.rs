//! Which addresses a network has, and which one comes next. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use ipnet::{IpNet, Ipv6Net};

/// The addresses of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// With its own number of bits set to zero behind the prefix.
    pub(crate) subnet: IpNet,
    /// The first and the last one that may be chosen.
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    /// None: the network has none in this family.
    pub(crate) gateway: Option<IpAddr>,
    /// Never given out, by a name for people.
    pub(crate) auxiliary: BTreeMap<String, IpAddr>,
}

/// The name that docker has for an auxiliary address that is the way out of a bridge's containers,
/// by whether it is IPv4.
fn route_key(ipv4: bool) -> &'static str {
    if ipv4 { "DefaultGatewayIPv4" } else { "DefaultGatewayIPv6" }
}

/// Where subnets of new networks are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSource {
    /// The addresses.
    pub base: IpNet,
    /// The prefix length of each subnet.
    pub size: u8,
}

/// An address as a number; those of one family are in their order.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// The first and the last address for hosts. A subnet of two or one has all of its own.
fn hosts(subnet: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    let like = subnet.addr();
    match (last - first, like.is_ipv4()) {
        (0 | 1, _) => (address(first, like), address(last, like)),
        (_, true) => (address(first + 1, like), address(last - 1, like)),
        // IPv6 has no broadcast, but the first one is that of any router (RFC 4291, 2.6.1).
        (_, false) => (address(first + 1, like), address(last, like)),
    }
}

fn parse<T: FromStr>(what: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::invalid(format!("invalid {what}: \"{}\"", text.escape_debug())))
}

/// A subnet as a user writes it; bits behind the prefix are an error, because nobody knows what
/// was meant.
pub(crate) fn parse_subnet(text: &str) -> Result<IpNet> {
    let subnet: IpNet = parse("subnet", text)?;
    if subnet.trunc() != subnet {
        return Err(Error::invalid(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        )));
    }
    if subnet.prefix_len() == 0 {
        return Err(Error::invalid(format!("invalid subnet {subnet}: everything is in it")));
    }
    Ok(subnet)
}

impl Pool {
    /// All of a subnet, with its first address as the gateway if `gateway`.
    pub(crate) fn new(subnet: IpNet, gateway: bool) -> Self {
        let (first, last) = hosts(subnet);
        let gateway = (gateway && first != last).then_some(first);
        Self { subnet, first, last, gateway, auxiliary: BTreeMap::new() }
    }

    /// What a user asked for; where that does not name a gateway it has the first address if
    /// `gateway`.
    pub(crate) fn parse(asked: &v1::IpamPool, gateway: bool) -> Result<Self> {
        let subnet = parse_subnet(&asked.subnet)?;
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(Error::invalid(format!(
                "invalid subnet {subnet}: it has no addresses for a gateway and a container"
            )));
        }
        if subnet.addr().is_multicast() {
            return Err(Error::invalid(format!("invalid subnet {subnet}: it is of multicast")));
        }
        let mut pool = Self::new(subnet, gateway);
        if !asked.ip_range.is_empty() {
            let range: IpNet = parse("IP range", &asked.ip_range)?;
            if !subnet.contains(&range) {
                return Err(Error::invalid(format!(
                    "no matching subnet for range {range}: it is not in {subnet}"
                )));
            }
            // The ends of the range are usable unless they are the subnet's.
            let (first, last) = hosts(subnet);
            pool.first = address(number(range.network()).max(number(first)), first);
            pool.last = address(number(range.broadcast()).min(number(last)), last);
            // Docker's default: a network's gateway is the range's first address.
            if pool.gateway.is_some() {
                pool.gateway = Some(pool.first);
            }
        }
        let in_subnet = |what: &str, text: &str| {
            let address: IpAddr = parse(what, text)?;
            match subnet.contains(&address) {
                true => Ok(address),
                false => Err(Error::invalid(format!(
                    "no matching subnet for {what} {address}: it is not in {subnet}"
                ))),
            }
        };
        if !asked.gateway.is_empty() {
            let gateway = in_subnet("gateway", &asked.gateway)?;
            pool.check_host(gateway)?;
            pool.gateway = Some(gateway);
        }
        for (name, text) in &asked.aux_addresses {
            let address = in_subnet("aux-address", text)?;
            if Some(address) == pool.gateway {
                return Err(Error::invalid(format!(
                    "aux-address {name}: {address} is the gateway's"
                )));
            }
            pool.auxiliary.insert(name.clone(), address);
        }
        Ok(pool)
    }

    /// The pool as a user reads it.
    pub(crate) fn to_message(&self) -> v1::IpamPool {
        let whole = Self::new(self.subnet, false);
        let range = match (whole.first, whole.last) == (self.first, self.last) {
            true => String::new(),
            false => self.range().map(|range| range.to_string()).unwrap_or_default(),
        };
        v1::IpamPool {
            subnet: self.subnet.to_string(),
            ip_range: range,
            gateway: self.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            aux_addresses: self
                .auxiliary
                .iter()
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        }
    }

    /// The smallest range in prefix form that has all that may be chosen.
    fn range(&self) -> Option<IpNet> {
        let mut range = IpNet::new(self.first, self.first_bits()).ok()?;
        while !range.contains(&self.last) {
            range = range.supernet()?;
        }
        Some(range.trunc())
    }

    fn first_bits(&self) -> u8 {
        if self.first.is_ipv4() { 32 } else { 128 }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.subnet.addr().is_ipv4()
    }

    /// An address of this subnet with the subnet's prefix length.
    pub(crate) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).unwrap_or(self.subnet)
    }

    fn is_reserved(&self, address: IpAddr) -> bool {
        Some(address) == self.gateway || self.auxiliary.values().any(|other| *other == address)
    }

    /// The next free address behind `after`, from the start again at the end: an address that
    /// was given back rests as long as possible. `used` is asked as seldom as can be: once, where
    /// nobody is in the way.
    pub(crate) fn choose(
        &self,
        mut used: impl FnMut(IpAddr) -> Result<bool>,
        after: Option<IpAddr>,
    ) -> Result<Option<IpAddr>> {
        let (first, last) = (number(self.first), number(self.last));
        let start = after
            .map(number)
            .filter(|after| (first..last).contains(after))
            .map_or(first, |after| after + 1);
        for candidate in (start..=last).chain(first..start) {
            let candidate = address(candidate, self.first);
            if !self.is_reserved(candidate) && !used(candidate)? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    fn check_host(&self, address: IpAddr) -> Result<()> {
        let (first, last) = hosts(self.subnet);
        let inside = self.subnet.contains(&address)
            && (number(first)..=number(last)).contains(&number(address));
        match inside {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{address} is not an address for a host in {}",
                self.subnet
            ))),
        }
    }

    /// Keeps addresses for the bridge that has them.
    pub(crate) fn reserve(&mut self, present: &[IpNet]) {
        for address in present.iter().map(IpNet::addr) {
            if self.subnet.contains(&address) && Some(address) != self.gateway {
                self.auxiliary.insert(format!("bridge-{address}"), address);
            }
        }
    }

    /// The way out of a bridge's containers: the bridge, or another one that was named.
    pub(crate) fn route(&self) -> Option<IpAddr> {
        self.auxiliary.get(route_key(self.is_ipv4())).copied().or(self.gateway)
    }

    /// Makes an address the way out, in place of the bridge's, which keeps its own.
    pub(crate) fn set_route(&mut self, address: IpAddr) -> Result<()> {
        self.check_host(address).map_err(|error| error.context("default-gateway"))?;
        if Some(address) != self.gateway {
            self.auxiliary.insert(route_key(self.is_ipv4()).into(), address);
        }
        Ok(())
    }

    /// Whether a container may ask for this one.
    pub(crate) fn check_static(
        &self,
        wanted: IpAddr,
        mut used: impl FnMut(IpAddr) -> Result<bool>,
    ) -> Result<()> {
        self.check_host(wanted)?;
        if self.is_reserved(wanted) || used(wanted)? {
            return Err(Error::conflict(format!("Address already in use: {wanted}")));
        }
        Ok(())
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Refuses a subnet that another network has a part of.
pub(crate) fn check_overlap(subnet: &IpNet, taken: &[IpNet]) -> Result<()> {
    match taken.iter().find(|other| overlap(subnet, other)) {
        None => Ok(()),
        Some(other) => Err(Error::conflict(format!(
            "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other}"
        ))),
    }
}

/// The first subnet of the sources, in their order, that overlaps with nothing taken.
pub(crate) fn choose_subnet(
    sources: &[SubnetSource],
    ipv4: bool,
    taken: &[IpNet],
) -> Option<IpNet> {
    sources.iter().filter(|source| source.base.addr().is_ipv4() == ipv4).find_map(|source| {
        let mut next = IpNet::new(source.base.network(), source.size).ok()?;
        let bits = u32::from(next.max_prefix_len() - source.size);
        loop {
            if !source.base.contains(&next) {
                return None;
            }
            let Some(blocker) = taken.iter().find(|other| overlap(&next, other)) else {
                return Some(next);
            };
            // Behind whatever is in the way, which may be much larger.
            let end = number(blocker.broadcast()).max(number(next.broadcast()));
            let start =
                (end.checked_add(1)?).checked_next_multiple_of(1_u128.checked_shl(bits)?)?;
            if start > number(source.base.broadcast()) {
                return None;
            }
            next = IpNet::new(address(start, next.addr()), source.size).ok()?;
        }
    })
}

/// A local subnet of IPv6 (RFC 4193, 3.2) out of 56 random bits.
pub(crate) fn unique_local(random: [u8; 7]) -> IpNet {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

#[cfg(test)]
mod tests;
