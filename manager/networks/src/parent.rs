//! Interfaces of the host's that macvlans and ipvlans are on. Those that were there are only used;
//! one that was not is made, where its name says how, and goes with the last network that is on it.

use anyhow::{Context as _, Result};
use hull_manager_core::Error;
use hull_runtime_sys as sys;

use crate::{
    definition::{Definition, Driver, Parent},
    host::Host,
    link::{Base, Link},
    sysctl,
};

/// What an interface is to be that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// One network of another one's wire (IEEE 802.1Q).
    Vlan { base: &'a str, id: u16 },
    /// A wire that ends at once: who is on it reaches only others there.
    Alone,
}

/// The name of the wire of a network that names none; as docker's.
pub(crate) fn alone(network: &str) -> String {
    format!("dm-{}", network.get(..12).unwrap_or(network))
}

fn is_alone(name: &str) -> bool {
    name.strip_prefix("dm-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What the name of an interface that is not there says that it is to be.
fn wanted(name: &str) -> Result<Wanted<'_>, Error> {
    if is_alone(name) {
        return Ok(Wanted::Alone);
    }
    let Some((base, number)) = name.rsplit_once('.') else {
        return Err(missing(name));
    };
    let id = number.parse::<u16>().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
    match id {
        Some(id) if (1..=4094).contains(&id) && !base.is_empty() => Ok(Wanted::Vlan { base, id }),
        _ => Err(missing(name)
            .context(format!("{name:?} is not the name of a VLAN (as eth0.10, from 1 to 4094)"))),
    }
}

/// Refuses a parent that another network has in a way that leaves no room: an interface is of
/// macvlans or of ipvlans, all ipvlans on it have one mode, and passthru is for one alone.
pub(crate) fn check_sharing(new: &Driver, other: &Definition) -> Result<(), Error> {
    let (new, theirs, room) = match (new, &other.driver) {
        (Driver::Macvlan(a), Driver::Macvlan(b)) => {
            (a, b, a.mode != "passthru" && b.mode != "passthru")
        }
        (Driver::Ipvlan(a), Driver::Ipvlan(b)) => (a, b, a.mode == b.mode),
        (Driver::Macvlan(a), Driver::Ipvlan(b)) | (Driver::Ipvlan(a), Driver::Macvlan(b)) => {
            (a, b, false)
        }
        _ => return Ok(()),
    };
    match room || new.interface != theirs.interface {
        true => Ok(()),
        false => Err(Error::conflict(format!(
            "network {} is already using parent interface {}",
            other.name, new.interface
        ))),
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("the interface {name} is not there"))
}

impl Host {
    /// Decides whether the parent of a new network is ours to make and to remove.
    ///
    /// # Errors
    /// If nothing can be on it.
    pub(crate) fn claim_parent(&self, driver: &mut Driver) -> Result<(), Error> {
        let kind = driver.name().to_owned();
        let (Driver::Macvlan(parent) | Driver::Ipvlan(parent)) = driver else { return Ok(()) };
        let find = |name: &str| self.socket.link(name).map_err(anyhow::Error::new);
        let loopback =
            || Error::invalid(format!("loopback interface is not a valid {kind} parent link"));
        let name = &parent.interface;
        parent.owned = match find(name)? {
            Some(link) if link.loopback => return Err(loopback()),
            Some(link) => self.is_own_parent(&link),
            None => match wanted(name)? {
                Wanted::Alone => true,
                Wanted::Vlan { base, .. } => match find(base)? {
                    Some(link) if link.loopback => return Err(loopback()),
                    Some(_) => true,
                    None => return Err(missing(base)),
                },
            },
        };
        Ok(())
    }

    /// A bridge of ours is marked, too, but is another network's.
    fn is_own_parent(&self, link: &Link) -> bool {
        link.kind != "bridge" && self.is_marked(link)
    }

    /// Makes a network's parent that is ours, if it is not there.
    pub(crate) fn ensure_parent(&self, network: &Definition, parent: &Parent) -> Result<()> {
        let name = &parent.interface;
        if !parent.owned {
            return Ok(());
        }
        let link = match self.socket.link(name)? {
            Some(link) if self.is_own_parent(&link) => link,
            // Somebody has made it meanwhile: it is his.
            Some(_) => return Ok(()),
            None => self.make_parent(network, name)?,
        };
        // The host is nobody there.
        sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        Ok(self.socket.set_up(link.index)?)
    }

    /// Under its name it has our mark from the first moment on: whatever is killed, it is known
    /// whose it is.
    fn make_parent(&self, network: &Definition, name: &str) -> Result<Link> {
        let unfinished = format!("hp-{}", network.id.get(..12).unwrap_or(&network.id));
        self.socket.remove_link(&unfinished)?;
        match wanted(name)? {
            Wanted::Vlan { base, id } => {
                let base = self.socket.link(base)?.ok_or_else(|| missing(base))?;
                self.socket
                    .add_base(&unfinished, Base::Vlan { on: base.index, id })
                    .map_err(|error| lacking(error, "VLANs (8021q)"))?;
            }
            Wanted::Alone => {
                // What an ifb is given by those on it, it drops, as a dummy does.
                let made = self.socket.add_base(&unfinished, Base::Dummy);
                made.or_else(|error| match error.errno() {
                    libc::EOPNOTSUPP => self.socket.add_base(&unfinished, Base::Ifb),
                    _ => Err(error),
                })
                .map_err(|error| lacking(error, "interfaces that lead nowhere (dummy, ifb)"))?;
            }
        }
        let made = self.socket.link(&unfinished)?.context("it has gone again")?;
        self.mark(&made)?;
        self.socket.rename(made.index, name)?;
        Ok(made)
    }

    /// Removes a network's parent if it is ours. Idempotent.
    pub(crate) fn remove_parent(&self, parent: &Parent) -> Result<()> {
        let link = self.socket.link(&parent.interface)?;
        if parent.owned && link.is_some_and(|link| self.is_own_parent(&link)) {
            self.socket.remove_link(&parent.interface)?;
        }
        Ok(())
    }
}

/// The kernel's refusal of a kind of interface that it does not have.
fn lacking(error: sys::Error, what: &str) -> anyhow::Error {
    match error.errno() {
        libc::EOPNOTSUPP => Error::conflict(format!("this kernel has no {what}")).into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_is_to_be_made() {
        let vlan = |base, id| Wanted::Vlan { base, id };
        for (name, expected) in [
            ("eth0.50", vlan("eth0", 50)),
            ("eth0.1", vlan("eth0", 1)),
            ("bond0.10.4094", vlan("bond0.10", 4094)),
            ("dm-0123456789ab", Wanted::Alone),
            ("dm-0.5", vlan("dm-0", 5)),
        ] {
            assert_eq!(wanted(name).unwrap(), expected, "{name}");
        }
        for (name, says) in [
            ("eth0", "the interface eth0 is not there"),
            ("dm-012345678", "is not there"),
            ("eth0.0", "not the name of a VLAN"),
            ("eth0.4095", "not the name of a VLAN"),
            ("eth0.70000", "not the name of a VLAN"),
            ("eth0.+5", "not the name of a VLAN"),
            ("eth0.", "not the name of a VLAN"),
            (".5", "not the name of a VLAN"),
            ("eth0.x", "not the name of a VLAN"),
        ] {
            let error = wanted(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert!(is_alone(&alone(&"0123456789abcdef".repeat(4))));
    }

    #[test]
    fn a_parent_is_shared_where_the_kernel_shares_it() {
        let driver = |kind: &str, interface: &str, mode: &str| {
            let parent =
                Parent { interface: interface.into(), mode: mode.into(), mtu: None, owned: false };
            if kind == "macvlan" { Driver::Macvlan(parent) } else { Driver::Ipvlan(parent) }
        };
        for (a, b, shared) in [
            (("macvlan", "eth0", "bridge"), ("macvlan", "eth0", "vepa"), true),
            (("macvlan", "eth0", "bridge"), ("macvlan", "eth0", "passthru"), false),
            (("macvlan", "eth0", "passthru"), ("macvlan", "eth0", "bridge"), false),
            (("macvlan", "eth0", "passthru"), ("macvlan", "eth1", "passthru"), true),
            (("macvlan", "eth0", "bridge"), ("ipvlan", "eth0", "l2"), false),
            (("ipvlan", "eth0", "l2"), ("macvlan", "eth0.5", "bridge"), true),
            (("ipvlan", "eth0", "l2"), ("ipvlan", "eth0", "l2"), true),
            (("ipvlan", "eth0", "l2"), ("ipvlan", "eth0", "l3"), false),
        ] {
            let other = Definition {
                id: String::new(),
                name: "n1".into(),
                created: std::time::SystemTime::UNIX_EPOCH,
                labels: Default::default(),
                options: Default::default(),
                internal: false,
                attachable: false,
                config_from: String::new(),
                driver: driver(b.0, b.1, b.2),
                pools: Vec::new(),
            };
            let checked = check_sharing(&driver(a.0, a.1, a.2), &other);
            assert_eq!(checked.is_ok(), shared, "{a:?} {b:?}");
            if let Err(error) = checked {
                assert_eq!(error.message(), "network n1 is already using parent interface eth0");
            }
        }
    }
}
