//! All zones, and what a container may see of them. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::zone::{Member, Zone, lower, reverse_address};

/// A name that only one container knows another by (`--link`, `network connect --link`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The network's id.
    pub network: String,
    /// The name that is asked for.
    pub alias: String,
    /// The name on that network that it stands for. It need not be there yet.
    pub target: String,
}

/// Where questions go that no network answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// Nowhere: the container is on internal networks only (R19).
    #[default]
    Never,
    /// To the resolvers of the host's `resolv.conf`, as it is at that time.
    Host,
    /// To these, in this order (`--dns`); asked from the manager's network namespace.
    Servers(Vec<SocketAddr>),
}

/// What a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The ids of its networks; the first that knows a name answers.
    pub networks: Vec<String>,
    /// Its own names for others.
    pub links: Vec<Link>,
    /// Whom else to ask.
    pub forward: Forward,
}

/// What a network knows of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Addresses of the family that was asked for; none: the name is known, but has none of it.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Name(String),
    /// The name is known; of this type of record it has nothing.
    Known,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    V4,
    V6,
    Name,
    Other,
}

/// All zones by the id of their network.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    zones: HashMap<String, Zone>,
}

impl Directory {
    pub(crate) fn zone(&mut self, network: &str) -> Option<&mut Zone> {
        self.zones.get_mut(network)
    }

    /// Makes a network known by `name`; its members stay.
    pub(crate) fn name(&mut self, network: &str, name: &str) {
        match self.zones.get_mut(network) {
            Some(zone) => zone.rename(name),
            None => drop(self.zones.insert(network.to_owned(), Zone::new(name))),
        }
    }

    pub(crate) fn forget(&mut self, network: &str) {
        self.zones.remove(network);
    }

    /// Answers a question for who sees `view`; `name` is in small letters.
    pub(crate) fn find(&self, view: &View, name: &[u8], wanted: Wanted) -> Option<Found> {
        if wanted == Wanted::Name
            && let Some(address) = reverse_address(name)
        {
            return self.name_of(view, address).map(Found::Name);
        }
        let mut found = None;
        for called in self.candidates(view, name) {
            let addresses: Vec<IpAddr> = called
                .iter()
                .flat_map(|member| &member.addresses)
                .filter(|address| match wanted {
                    Wanted::V4 => address.is_ipv4(),
                    Wanted::V6 => address.is_ipv6(),
                    Wanted::Name | Wanted::Other => false,
                })
                .copied()
                .collect();
            if !addresses.is_empty() {
                return Some(Found::Addresses(addresses));
            }
            if !called.is_empty() {
                found = Some(Found::Known);
            }
        }
        found
    }

    /// Who may be meant, most likely first: the whole name on each network, then `NAME.NETWORK`.
    fn candidates<'a>(
        &'a self,
        view: &'a View,
        name: &'a [u8],
    ) -> impl Iterator<Item = &'a [Arc<Member>]> {
        let zones =
            || view.networks.iter().filter_map(|id| self.zones.get(id).map(|zone| (id, zone)));
        let whole = zones().map(move |(id, zone)| called(view, id, zone, name));
        let qualified = zones().filter_map(move |(id, zone)| {
            let name = name.strip_suffix(zone.name())?.strip_suffix(b".")?;
            Some(called(view, id, zone, name))
        });
        whole.chain(qualified)
    }

    fn name_of(&self, view: &View, address: IpAddr) -> Option<String> {
        view.networks.iter().find_map(|id| {
            let zone = self.zones.get(id)?;
            let name = zone.at(address)?.names.first()?;
            Some(format!("{name}.{}", String::from_utf8_lossy(zone.name())))
        })
    }
}

/// Who is called `name` on one network by who sees `view`: its own links come first.
fn called<'a>(view: &View, id: &str, zone: &'a Zone, name: &[u8]) -> &'a [Arc<Member>] {
    let mut links = view.links.iter().filter(|link| link.network == id);
    match links.find(|link| link.alias.as_bytes().eq_ignore_ascii_case(name)) {
        Some(link) => zone.called(&lower(&link.target)),
        None => zone.called(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for (id, network, members) in [
            ("1", "front", &[("a", "web", "10.1.0.2 fd01::2"), ("b", "both", "10.1.0.3")][..]),
            ("2", "back", &[("c", "db", "10.2.0.2"), ("d", "both", "10.2.0.3 fd02::3")][..]),
        ] {
            directory.name(id, network);
            for (member, name, addresses) in members {
                directory.zone(id).unwrap().insert(Member {
                    id: (*member).into(),
                    names: vec![(*name).into()],
                    addresses: addresses.split(' ').map(|text| text.parse().unwrap()).collect(),
                });
            }
        }
        directory
    }

    #[test]
    fn a_container_sees_its_own_networks_in_their_order() {
        let directory = directory();
        for (networks, name, wanted, expected) in [
            ("1", "web", Wanted::V4, "10.1.0.2"),
            ("1", "web", Wanted::V6, "fd01::2"),
            ("1", "web.front", Wanted::V4, "10.1.0.2"),
            ("1", "web.back", Wanted::V4, "-"),
            ("1", "web", Wanted::Other, "known"),
            ("1", "db", Wanted::V4, "-"),
            ("1", "db.back", Wanted::V4, "-"),
            ("2", "db", Wanted::V6, "known"),
            ("2", "web", Wanted::V4, "-"),
            ("12", "both", Wanted::V4, "10.1.0.3"),
            ("21", "both", Wanted::V4, "10.2.0.3"),
            // The first network knows the name, but only the second has such an address.
            ("12", "both", Wanted::V6, "fd02::3"),
            ("12", "both.back", Wanted::V4, "10.2.0.3"),
            ("12", "front", Wanted::V4, "-"),
            ("12", "", Wanted::V4, "-"),
            ("3", "web", Wanted::V4, "-"),
            ("12", "2.0.2.10.in-addr.arpa", Wanted::Name, "db.back"),
            ("1", "2.0.2.10.in-addr.arpa", Wanted::Name, "-"),
            ("1", "2.0.2.10.in-addr.arpa", Wanted::V4, "-"),
            ("1", "web", Wanted::Name, "known"),
        ] {
            let view =
                View { networks: networks.chars().map(String::from).collect(), ..View::default() };
            let found = match directory.find(&view, name.as_bytes(), wanted) {
                None => "-".to_owned(),
                Some(Found::Known) => "known".to_owned(),
                Some(Found::Name(name)) => name,
                Some(Found::Addresses(addresses)) => {
                    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(found, expected, "{networks} {name} {wanted:?}");
        }
    }

    #[test]
    fn a_link_is_seen_by_its_container_only_and_waits_for_its_target() {
        let mut directory = directory();
        let link = Link { network: "1".into(), alias: "DB".into(), target: "late".into() };
        let linked = View { networks: vec!["1".into()], links: vec![link], ..View::default() };
        let plain = View { networks: vec!["1".into()], ..View::default() };
        assert_eq!(directory.find(&linked, b"db", Wanted::V4), None);
        directory.zone("1").unwrap().insert(Member {
            id: "e".into(),
            names: vec!["late".into()],
            addresses: vec!["10.1.0.9".parse().unwrap()],
        });
        let found = Some(Found::Addresses(vec!["10.1.0.9".parse().unwrap()]));
        assert_eq!(directory.find(&linked, b"db", Wanted::V4), found);
        assert_eq!(directory.find(&linked, b"db.front", Wanted::V4), found);
        assert_eq!(directory.find(&plain, b"db", Wanted::V4), None);
    }

    #[test]
    fn a_renamed_network_keeps_its_members_and_a_forgotten_one_answers_nothing() {
        let mut directory = directory();
        directory.name("2", "rear");
        let view = View { networks: vec!["2".into()], ..View::default() };
        assert!(directory.find(&view, b"db.rear", Wanted::V4).is_some());
        assert!(directory.find(&view, b"db.back", Wanted::V4).is_none());
        directory.forget("1");
        let view = View { networks: vec!["1".into()], ..View::default() };
        assert_eq!(directory.find(&view, b"web", Wanted::V4), None);
    }
}
