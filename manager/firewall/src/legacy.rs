//! The host's rules by the older iptables (`iptables-legacy`), which are no tables of nftables.
//!
//! The kernel tells of them by socket options, and tells nobody when they change: who wants to
//! know looks again.

use std::fs;

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::host::HostHook;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// Bytes of a table's name (`XT_TABLE_MAXNAMELEN`), of `ipt_getinfo`, and of `ipt_get_entries`
/// before its entries.
const NAME: usize = 32;
const INFO: usize = 84;
const ENTRIES: usize = 40;

/// `NF_INET_NUMHOOKS`.
const HOOKS: usize = 5;

/// A target's bytes before its own data (`xt_entry_target`), of which the name begins at 2.
const TARGET: usize = 32;

/// How a verdict says `NF_DROP`.
const DROP: i32 = -1;

/// No table is larger, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// How often a table is asked for that changes meanwhile.
const ATTEMPTS: usize = 8;

/// One family's form of rules.
struct Form {
    names: &'static str,
    family: AddressFamily,
    level: i32,
    /// Bytes of an entry's addresses and interfaces (`ipt_ip`), behind which are 4 of no meaning
    /// and the offsets of target and next entry; and of all of it (`ipt_entry`).
    addresses: usize,
    entry: usize,
}

const FORMS: [Form; 2] = [
    Form {
        names: "/proc/thread-self/net/ip_tables_names",
        family: AddressFamily::Inet,
        level: 0,
        addresses: 84,
        entry: 112,
    },
    Form {
        names: "/proc/thread-self/net/ip6_tables_names",
        family: AddressFamily::Inet6,
        level: 41,
        addresses: 136,
        entry: 168,
    },
];

/// Whether such a rule or policy drops what comes by at `hook` unless another takes it, in the
/// network namespace of the calling thread.
pub(crate) fn is_closed(hook: HostHook) -> Result<bool> {
    for form in &FORMS {
        // Asking for a table would make it.
        let names = fs::read_to_string(form.names).unwrap_or_default();
        if names.lines().any(|name| name == "filter")
            && form.is_closed(hook as usize).context("look at the rules of iptables-legacy")?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Form {
    fn is_closed(&self, hook: usize) -> Result<bool> {
        // Any socket of the family is asked.
        let socket = socket(self.family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .context("open a socket")?;
        for _ in 0..ATTEMPTS {
            let mut info = [0; INFO];
            info[..6].copy_from_slice(b"filter");
            sys::socket::option(&socket, self.level, GET_INFO, &mut info)?;
            let size = u32_at(&info, INFO - 4).unwrap_or_default() as usize;
            if size > MAX_BYTES {
                bail!("a table of {size} bytes");
            }
            let mut entries = vec![0; ENTRIES + size];
            entries[..NAME].copy_from_slice(&info[..NAME]);
            entries[NAME..NAME + 4].copy_from_slice(&info[INFO - 4..]);
            match sys::socket::option(&socket, self.level, GET_ENTRIES, &mut entries) {
                // It has another size by now.
                Err(error) if error.errno() == Errno::EAGAIN as i32 => {}
                result => {
                    result?;
                    return Ok(self.drops(hook, &info, &entries[ENTRIES..]).unwrap_or_default());
                }
            }
        }
        Ok(false)
    }

    /// Whether the chain's policy drops, or its last rule does without a condition. None: it is
    /// no table.
    fn drops(&self, hook: usize, info: &[u8], entries: &[u8]) -> Option<bool> {
        let offsets = NAME + 4;
        let begin = u32_at(info, offsets + hook * 4)? as usize;
        let policy = u32_at(info, offsets + (HOOKS + hook) * 4)? as usize;
        if self.verdict(entries, policy)? == Some(DROP) {
            return Some(true);
        }
        let (mut at, mut last) = (begin, false);
        while at < policy {
            let addresses = entries.get(at..at + self.addresses)?;
            let unconditional = addresses.iter().all(|byte| *byte == 0)
                && self.target(entries, at)? == at + self.entry;
            last = unconditional && self.refuses(entries, at)?;
            let next = u16_at(entries, at + self.addresses + 6)? as usize;
            at += (next > 0).then_some(next)?;
        }
        Some(last)
    }

    /// Where a rule's target begins.
    fn target(&self, entries: &[u8], at: usize) -> Option<usize> {
        Some(at + usize::from(u16_at(entries, at + self.addresses + 4)?))
    }

    /// What a rule says without a module; none: it has one, or jumps.
    fn verdict(&self, entries: &[u8], at: usize) -> Option<Option<i32>> {
        let target = self.target(entries, at)?;
        let is_standard = *entries.get(target + 2)? == 0;
        let verdict = u32_at(entries, target + TARGET)?.cast_signed();
        Some((is_standard && verdict < 0).then_some(verdict))
    }

    fn refuses(&self, entries: &[u8], at: usize) -> Option<bool> {
        let target = self.target(entries, at)?;
        let rejects = entries.get(target + 2..target + 9)? == b"REJECT\0";
        Some(rejects || self.verdict(entries, at)? == Some(DROP))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
