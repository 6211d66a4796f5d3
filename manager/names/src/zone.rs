//! What the members of one network are called. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// The longest name that a question can hold, as text (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest part of one.
const MAX_LABEL: usize = 63;

/// One who can be found on a network: a container's endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// What `remove` takes: the container's id.
    pub id: String,
    /// What it is called: its name first, which is the one that reverse questions are answered
    /// with; then aliases, short id, host name. Whatever no question can hold (a part of more
    /// than 63 bytes) is left out. Letters' case does not count.
    pub names: Vec<String>,
    /// Its addresses on this network, of both families.
    pub addresses: Vec<IpAddr>,
}

/// The names of one network. Adding and removing a member costs what its own names cost.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    name: Vec<u8>,
    members: HashMap<String, Arc<Member>>,
    by_name: HashMap<Vec<u8>, Vec<Arc<Member>>>,
    by_address: HashMap<IpAddr, Arc<Member>>,
}

impl Zone {
    /// The empty zone of the network called `network`, whose members are also found as
    /// `NAME.network`.
    #[must_use]
    pub fn new(network: &str) -> Self {
        Self { name: lower(network), ..Self::default() }
    }

    /// Changes the network's name.
    pub fn rename(&mut self, network: &str) {
        self.name = lower(network);
    }

    /// The network's name, in small letters.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Adds a member, in place of one with the same id.
    pub fn insert(&mut self, member: Member) {
        self.remove(&member.id);
        let member = Arc::new(member);
        for name in names(&member) {
            self.by_name.entry(name).or_default().push(Arc::clone(&member));
        }
        for address in &member.addresses {
            self.by_address.insert(*address, Arc::clone(&member));
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member; false: there was none.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(member) = self.members.remove(id) else { return false };
        for name in names(&member) {
            if let Some(called) = self.by_name.get_mut(&name) {
                called.retain(|other| other.id != id);
                if called.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        for address in &member.addresses {
            if self.by_address.get(address).is_some_and(|other| other.id == id) {
                self.by_address.remove(address);
            }
        }
        true
    }

    /// All who are called `name`, given in small letters, in the order of their coming.
    #[must_use]
    pub fn called(&self, name: &[u8]) -> &[Arc<Member>] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Who has an address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Option<&Member> {
        self.by_address.get(&address).map(Arc::as_ref)
    }

    /// The ids of all members.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }
}

/// A name as it is compared.
pub(crate) fn lower(name: &str) -> Vec<u8> {
    name.trim_end_matches('.').to_ascii_lowercase().into_bytes()
}

/// The names of a member that a question can hold, each once.
fn names(member: &Member) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        member.names.iter().map(|name| lower(name)).filter(|name| askable(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn askable(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.split(|byte| *byte == b'.').all(|part| (1..=MAX_LABEL).contains(&part.len()))
}

/// The address that a reverse question is about: `4.3.2.1.in-addr.arpa` (RFC 1035, section 3.5),
/// and the 32 nibbles of `ip6.arpa` (RFC 3596, section 2.5).
pub(crate) fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(v4) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = v4.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            // `01` and `+1` are not what anybody is called.
            *octet = part.parse().ok().filter(|value: &u8| value.to_string() == part)?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let v6 = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0;
    let mut parts = v6.split('.');
    for nibble in 0..32 {
        let part = parts.next().filter(|part| part.len() == 1)?;
        bits |= u128::from(part.chars().next()?.to_digit(16)?) << (4 * nibble);
    }
    parts.next().is_none().then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, names: &[&str], addresses: &[&str]) -> Member {
        Member {
            id: id.into(),
            names: names.iter().map(|name| (*name).into()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn ids<'a>(zone: &'a Zone, name: &str) -> Vec<&'a str> {
        zone.called(name.as_bytes()).iter().map(|member| member.id.as_str()).collect()
    }

    #[test]
    fn a_name_finds_all_who_have_it_and_nobody_who_left() {
        let mut zone = Zone::new("Net");
        zone.insert(member("a", &["Web", "all", "all"], &["10.0.0.2", "fd00::2"]));
        zone.insert(member("b", &["db", "ALL"], &["10.0.0.3"]));
        assert_eq!((zone.name(), ids(&zone, "web")), (&b"net"[..], vec!["a"]));
        assert_eq!(ids(&zone, "all"), ["a", "b"]);
        assert_eq!(zone.at("fd00::2".parse().unwrap()).unwrap().names[0], "Web");
        assert!(zone.remove("a") && !zone.remove("a"));
        assert_eq!((ids(&zone, "all"), ids(&zone, "web")), (vec!["b"], vec![]));
        assert!(zone.at("10.0.0.2".parse().unwrap()).is_none());
    }

    #[test]
    fn a_member_that_comes_again_replaces_what_it_was() {
        let mut zone = Zone::new("net");
        zone.insert(member("a", &["old"], &["10.0.0.2"]));
        zone.insert(member("a", &["new"], &["10.0.0.9"]));
        assert_eq!((ids(&zone, "old"), ids(&zone, "new")), (vec![], vec!["a"]));
        assert!(zone.at("10.0.0.2".parse().unwrap()).is_none());
        assert_eq!(zone.ids().count(), 1);
    }

    #[test]
    fn an_address_that_was_given_on_stays_with_its_new_owner() {
        let mut zone = Zone::new("net");
        zone.insert(member("a", &["a"], &["10.0.0.2"]));
        zone.insert(member("b", &["b"], &["10.0.0.2"]));
        zone.remove("a");
        assert_eq!(zone.at("10.0.0.2".parse().unwrap()).unwrap().id, "b");
    }

    #[test]
    fn what_no_question_can_hold_is_left_out() {
        let mut zone = Zone::new("net");
        let long = "x".repeat(64);
        zone.insert(member("a", &[&long, "", "a..b", ".", "ok"], &[]));
        assert_eq!(zone.by_name.keys().collect::<Vec<_>>(), [&b"ok".to_vec()]);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        for (name, address) in [
            ("2.1.0.10.in-addr.arpa", Some("10.0.1.2")),
            (v6, Some("fd00::1")),
            ("1.0.10.in-addr.arpa", None),
            ("1.2.1.0.10.in-addr.arpa", None),
            ("02.1.0.10.in-addr.arpa", None),
            ("+2.1.0.10.in-addr.arpa", None),
            ("256.1.0.10.in-addr.arpa", None),
            (&v6[2..], None),
            (&v6.replace("d.f", "dd.f"), None),
            ("in-addr.arpa", None),
            ("web", None),
        ] {
            let expected: Option<IpAddr> = address.map(|text| text.parse().unwrap());
            assert_eq!(reverse_address(name.as_bytes()), expected, "{name}");
        }
    }
}
