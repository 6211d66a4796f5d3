//! Tables, chains, sets and their elements.

use super::{Rule, Writer};

/// A table's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames that a bridge forwards.
    Bridge,
}

impl Family {
    /// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
    pub(crate) const IPV4: u8 = 2;
    pub(crate) const IPV6: u8 = 10;

    /// `NFPROTO_…`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }
}

/// A table, whole but for its sets' elements.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) sets: &'static [Set],
    pub(crate) chains: Vec<Chain>,
}

/// A chain of rules.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// A chain without a hook is gone to by another.
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Where packets enter a chain. The policy is always to let pass: what shall be dropped is
/// dropped by a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `NF_INET_…`, which `NF_BR_…` equal.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A set, or a map if it has data.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    pub(crate) data: &'static [Field],
    /// Whether its elements are ranges of one field.
    pub(crate) interval: bool,
}

/// A field of a key or of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Interface,
    /// An interface's number.
    Index,
    /// An address; behind it in a key there is room for an ethertype.
    Mac,
    Ipv4,
    Ipv6,
    Protocol,
    Port,
}

impl Field {
    /// Its bytes in a key, which are whole registers.
    fn padded_bytes(self) -> u32 {
        match self {
            Self::Interface | Self::Ipv6 => 16,
            Self::Mac => 8,
            Self::Index | Self::Ipv4 | Self::Protocol | Self::Port => 4,
        }
    }

    /// Its bytes when it stands alone.
    fn bytes(self) -> u32 {
        match self {
            Self::Interface | Self::Ipv6 => 16,
            Self::Mac => 6,
            Self::Index | Self::Ipv4 => 4,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// The number that `nft` knows the type by, for its listings.
    fn nft_type(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Index => 20,
            Self::Interface => 41,
        }
    }
}

/// An element of a set or map, in the encoding of its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) family: Family,
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    /// Of a set of ranges: the first address behind it, unless there is none.
    pub(crate) end: Option<Vec<u8>>,
    /// Of a map.
    pub(crate) data: Option<Vec<u8>>,
}

impl Set {
    fn total(fields: &[Field]) -> (u32, u32) {
        match fields {
            [one] => (one.nft_type(), one.bytes()),
            // `nft` packs the types of a concatenation by six bits.
            many => many.iter().fold((0, 0), |(kind, bytes), field| {
                (kind << 6 | field.nft_type(), bytes + field.padded_bytes())
            }),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer, table: &str, id: u32) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let (key_type, key_bytes) = Self::total(self.key);
        let flags = if self.interval { INTERVAL } else { 0 };
        let flags = flags | if self.data.is_empty() { 0 } else { MAP };
        writer.put_text(1, table);
        writer.put_text(2, self.name);
        writer.put_u32(3, flags);
        writer.put_u32(4, key_type);
        writer.put_u32(5, key_bytes);
        if !self.data.is_empty() {
            let (data_type, data_bytes) = Self::total(self.data);
            writer.put_u32(6, data_type);
            writer.put_u32(7, data_bytes);
        }
        writer.put_u32(10, id);
        if matches!(self.key, [Field::Interface | Field::Index]) {
            // libnftnl's TLV: the key is in host order, or `nft` could not read it back.
            let [a, b, c, d] = 1u32.to_ne_bytes();
            writer.put(13, &[0, 4, a, b, c, d]);
        }
    }
}

impl Chain {
    pub(super) fn write(&self, writer: &mut Writer, table: &str) {
        writer.put_text(1, table);
        writer.put_text(3, self.name);
        if let Some(hook) = self.hook {
            writer.nest(4, |nested| {
                nested.put_u32(1, hook.number);
                nested.put(2, &hook.priority.to_be_bytes());
            });
            // NF_ACCEPT.
            writer.put_u32(5, 1);
            writer.put_text(7, hook.kind);
        }
    }
}

impl Rule {
    pub(super) fn write(&self, writer: &mut Writer, table: &str, chain: &str) {
        writer.put_text(1, table);
        writer.put_text(2, chain);
        writer.nest(4, |list| self.steps.iter().for_each(|step| step.write(list)));
        if !self.comment.is_empty() {
            // libnftnl's TLV of one byte each; a comment is 0.
            let length = u8::try_from(self.comment.len() + 1).unwrap_or(u8::MAX);
            let mut data = vec![0, length];
            data.extend_from_slice(self.comment.as_bytes());
            data.push(0);
            writer.put(7, &data);
        }
    }
}

impl Element {
    /// As members of a list of elements: a range is its start, and its end with a flag.
    pub(super) fn write(&self, list: &mut Writer) {
        list.nest(1, |element| {
            element.nest(1, |key| key.put(1, &self.key));
            if let Some(data) = &self.data {
                element.nest(2, |nested| nested.put(1, data));
            }
        });
        if let Some(end) = &self.end {
            list.nest(1, |element| {
                element.nest(1, |key| key.put(1, end));
                element.put_u32(3, 1);
            });
        }
    }
}
