//! The subnets of `network create`, with the ranges, gateways and addresses that belong to each.

use std::net::IpAddr;

use hull_specs_api::v1;

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prefix {
    address: u128,
    length: u32,
    is_v6: bool,
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = address.parse::<IpAddr>().ok()?;
        let length = length.parse::<u32>().ok()?;
        (length <= bits(address)).then(|| Self::new(address, length))
    }

    /// Of a single address.
    fn of(address: IpAddr) -> Self {
        Self::new(address, bits(address))
    }

    fn new(address: IpAddr, length: u32) -> Self {
        // IPv4 is left-aligned too, so that one comparison serves both.
        let whole = match address {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => ip.into(),
        };
        Self { address: whole, length, is_v6: address.is_ipv6() }
    }

    fn agrees(self, other: Self, length: u32) -> bool {
        let differ = self.address ^ other.address;
        self.is_v6 == other.is_v6 && differ.leading_zeros() >= length
    }

    fn contains(self, other: Self) -> bool {
        self.length <= other.length && self.agrees(other, self.length)
    }

    fn overlaps(self, other: Self) -> bool {
        self.agrees(other, self.length.min(other.length))
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Puts each range, gateway and auxiliary address to its subnet.
pub(crate) fn pools(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    aux: &[(String, String)],
) -> Result<Vec<v1::IpamPool>, String> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    let mut pools: Vec<(Prefix, v1::IpamPool)> = Vec::new();
    for text in subnets {
        let subnet = Prefix::parse(text).ok_or_else(|| format!("invalid CIDR address: {text}"))?;
        if pools.iter().any(|(other, _)| other.overlaps(subnet)) {
            return Err("multiple overlapping subnet configuration is not supported".to_owned());
        }
        pools.push((subnet, v1::IpamPool { subnet: text.clone(), ..Default::default() }));
    }
    for text in ranges {
        let range = Prefix::parse(text).ok_or_else(|| format!("invalid CIDR address: {text}"))?;
        let pool = find(&mut pools, range)
            .ok_or_else(|| format!("no matching subnet for range {text}"))?;
        if !pool.ip_range.is_empty() {
            return Err(format!(
                "cannot configure multiple ranges ({text}, {}) on the same subnet ({})",
                pool.ip_range, pool.subnet
            ));
        }
        pool.ip_range.clone_from(text);
    }
    for text in gateways {
        let pool = address(text)
            .and_then(|gateway| find(&mut pools, gateway))
            .ok_or_else(|| format!("no matching subnet for gateway {text}"))?;
        if !pool.gateway.is_empty() {
            return Err(format!(
                "cannot configure multiple gateways ({text}, {}) for the same subnet ({})",
                pool.gateway, pool.subnet
            ));
        }
        pool.gateway.clone_from(text);
    }
    for (name, text) in aux {
        let pool = address(text)
            .and_then(|address| find(&mut pools, address))
            .ok_or_else(|| format!("no matching subnet for aux-address {text}"))?;
        pool.aux_addresses.insert(name.clone(), text.clone());
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

fn address(text: &str) -> Option<Prefix> {
    text.parse().ok().map(Prefix::of)
}

fn find(pools: &mut [(Prefix, v1::IpamPool)], part: Prefix) -> Option<&mut v1::IpamPool> {
    pools.iter_mut().find(|(subnet, _)| subnet.contains(part)).map(|(_, pool)| pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn each_belongs_to_its_subnet() {
        let aux = [("dns".to_owned(), "fd00::53".to_owned())];
        let found = pools(
            &owned(&["10.0.0.0/16", "fd00::/64"]),
            &owned(&["fd00::1:0/112"]),
            &owned(&["10.0.5.1", "fd00::1"]),
            &aux,
        )
        .unwrap();
        assert_eq!((found[0].gateway.as_str(), found[0].ip_range.as_str()), ("10.0.5.1", ""));
        assert_eq!(
            (found[1].gateway.as_str(), found[1].ip_range.as_str()),
            ("fd00::1", "fd00::1:0/112")
        );
        assert_eq!(found[1].aux_addresses["dns"], "fd00::53");
        assert!(pools(&[], &[], &[], &[]).unwrap().is_empty());
        // A long prefix of the other family is in none of them.
        assert!(pools(&owned(&["0.0.0.0/0"]), &[], &owned(&["::1"]), &[]).is_err());
    }

    #[test]
    fn what_does_not_belong_is_refused_in_dockers_words() {
        let one = ["10.0.0.0/16"];
        for (subnets, ranges, gateways, aux, words) in [
            (
                &[][..],
                &["10.0.0.0/24"][..],
                &[][..],
                "",
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (&one, &["10.1.0.0/24"], &[], "", "no matching subnet for range 10.1.0.0/24"),
            (&one, &[], &["10.1.0.1"], "", "no matching subnet for gateway 10.1.0.1"),
            (&one, &[], &["x"], "", "no matching subnet for gateway x"),
            (&one, &[], &[], "10.1.0.1", "no matching subnet for aux-address 10.1.0.1"),
            (&["x"], &[], &[], "", "invalid CIDR address: x"),
            (&["10.0.0.0/33"], &[], &[], "", "invalid CIDR address: 10.0.0.0/33"),
            (
                &["10.0.0.0/8", "10.1.0.0/16"],
                &[],
                &[],
                "",
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                &["10.0.0.0/16", "10.1.0.0/16"],
                &[],
                &["10.0.0.1", "10.0.0.2"],
                "",
                "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/16)",
            ),
            (
                &["10.0.0.0/16", "10.1.0.0/16"],
                &["10.0.1.0/24", "10.0.2.0/24"],
                &[],
                "",
                "cannot configure multiple ranges (10.0.2.0/24, 10.0.1.0/24) on the same subnet (10.0.0.0/16)",
            ),
        ] {
            let aux: Vec<_> = [aux]
                .iter()
                .filter(|aux| !aux.is_empty())
                .map(|&aux| ("a".to_owned(), aux.to_owned()))
                .collect();
            let found = pools(&owned(subnets), &owned(ranges), &owned(gateways), &aux);
            assert_eq!(found.unwrap_err(), words);
        }
    }
}
