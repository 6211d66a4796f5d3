//! What nftables has at the moment: the host's own rules, and whether ours are whole.

use std::{fmt, net::IpAddr};

use anyhow::Result;

use crate::{
    netlink::{Socket, nft_kind},
    nft::{Attributes, Family, Received, Table, Writer, message},
    ruleset::Elements,
};

/// The families that judge packets for the host.
const FAMILIES: [u8; 3] = [1, Family::IPV4, Family::IPV6];

/// `NFPROTO_NETDEV`.
const NETDEV: u8 = 5;

/// The verdict `NF_DROP`.
const DROP: u32 = 0;

/// How often a list is asked for that changes meanwhile.
const ATTEMPTS: usize = 8;

/// Where the host's own rules stand in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHook {
    /// Before it is known where to (`NF_INET_PRE_ROUTING`), and as it comes in by an interface
    /// (`NF_NETDEV_INGRESS`, which has the same number).
    Arriving = 0,
    /// To the host itself, a proxy's socket included (`NF_INET_LOCAL_IN`).
    Input = 1,
    /// Through the host, to a container (`NF_INET_FORWARD`).
    Forward = 2,
}

/// A chain that is not ours, and drops what none of its rules takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChain {
    /// `NFPROTO_…`: 1 is both families.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub name: String,
}

impl HostChain {
    /// The chain of `iptables-legacy`, of either family.
    pub(crate) fn of_legacy(at: HostHook) -> Self {
        let name = match at {
            // None of their tables that filters is there.
            HostHook::Arriving => "PREROUTING",
            HostHook::Input => "INPUT",
            HostHook::Forward => "FORWARD",
        };
        Self { family: 1, table: "iptables-legacy".into(), name: name.into() }
    }

    /// Whether packets to such an address pass it.
    #[must_use]
    pub fn sees(&self, to: IpAddr) -> bool {
        match self.family {
            Family::IPV4 => to.is_ipv4(),
            Family::IPV6 => to.is_ipv6(),
            _ => true,
        }
    }
}

/// As `nft list chain` wants it.
impl fmt::Display for HostChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::IPV4 => "ip",
            Family::IPV6 => "ip6",
            NETDEV => "netdev",
            _ => "inet",
        };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

/// The chains of tables that are not `ours` that drop what comes by unless a rule takes it: by
/// their policy, as ufw's do, or by a last rule without a condition, as firewalld's do.
///
/// Rules of the older iptables (`iptables-legacy`) are not tables of nftables: see `legacy`.
pub(crate) fn closed(socket: &mut Socket, ours: &str, at: HostHook) -> Result<Vec<HostChain>> {
    let mut closed = Vec::new();
    let others = (at == HostHook::Arriving).then_some(NETDEV);
    for family in FAMILIES.into_iter().chain(others) {
        let mut chains = Vec::new();
        // A list that was overtaken by a change is asked for again; whoever changes rules all
        // the time is seen as of some moment.
        for _ in 0..ATTEMPTS {
            chains.clear();
            let each = |message: Received<'_>| {
                let chain = Attributes::of_message(message.payload);
                let (Some(table), Some(name)) = (chain.text(1), chain.text(3)) else { return };
                let hook = chain.nested(4).and_then(|hook| hook.u32(1));
                if hook != Some(at as u32) || chain.text(7) != Some("filter") || table == ours {
                    return;
                }
                let chain_of_host =
                    HostChain { family, table: table.to_owned(), name: name.to_owned() };
                chains.push((chain_of_host, chain.u32(5) == Some(DROP)));
            };
            if socket.dump(nft_kind(message::GET_CHAIN), family, |_| {}, each)? {
                break;
            }
        }
        for (chain, by_policy) in chains {
            if by_policy || ends_in_drop(socket, family, &chain.table, &chain.name)? {
                closed.push(chain);
            }
        }
    }
    Ok(closed)
}

fn ends_in_drop(socket: &mut Socket, family: u8, table: &str, chain: &str) -> Result<bool> {
    let mut last = false;
    let body = |writer: &mut Writer| {
        writer.put_text(1, table);
        writer.put_text(2, chain);
    };
    socket.dump(nft_kind(message::GET_RULE), family, body, |message| {
        let rule = Attributes::of_message(message.payload);
        // A kernel that does not know these attributes here answers with all rules.
        if rule.text(1) == Some(table) && rule.text(2) == Some(chain) {
            last = rule.nested(4).is_some_and(drops_everything);
        }
    })?;
    Ok(last)
}

/// Whether a rule has no condition, and drops or refuses.
fn drops_everything(expressions: Attributes<'_>) -> bool {
    let mut drops = false;
    for (_, expression) in expressions {
        let expression = Attributes(expression);
        match expression.text(1) {
            Some("counter" | "log" | "limit") => {}
            Some("reject") => drops = true,
            Some("immediate") => {
                let verdict = expression.nested(2).and_then(|data| data.nested(2));
                let verdict = verdict.and_then(|data| data.nested(2));
                drops = verdict.and_then(|verdict| verdict.u32(1)) == Some(DROP);
            }
            _ => return false,
        }
    }
    drops
}

/// Whether tables of this name have these chains, as many rules and as many elements.
pub(crate) fn is_intact(
    socket: &mut Socket,
    name: &str,
    tables: &[Table],
    elements: &Elements,
) -> Result<bool> {
    for table in tables {
        let family = table.family.number();
        let of_ours = |writer: &mut Writer| writer.put_text(1, name);
        let mut rules = 0;
        let mut chains = 0;
        let is_ours = |payload: &[u8]| Attributes::of_message(payload).text(1) == Some(name);
        socket.dump(
            nft_kind(message::GET_CHAIN),
            family,
            |_| {},
            |m| {
                chains += usize::from(is_ours(m.payload));
            },
        )?;
        socket.dump(nft_kind(message::GET_RULE), family, of_ours, |m| {
            rules += usize::from(is_ours(m.payload));
        })?;
        let expected: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
        if chains != table.chains.len() || rules != expected {
            return Ok(false);
        }
        for set in table.sets {
            let mut count = 0;
            let of_set = |writer: &mut Writer| {
                writer.put_text(1, name);
                writer.put_text(2, set.name);
            };
            socket.dump(nft_kind(message::GET_ELEMENT), family, of_set, |m| {
                let list = Attributes::of_message(m.payload).nested(3);
                count += list.map_or(0, Iterator::count);
            })?;
            let ours = elements.iter().filter(|e| (e.family, e.set) == (table.family, set.name));
            // A range is two elements to the kernel.
            let expected: usize = ours.map(|e| 1 + usize::from(e.end.is_some())).sum();
            if count != expected {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
