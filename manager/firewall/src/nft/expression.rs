//! Rules: what is loaded from a packet, what it is compared with, and what follows.

use super::{Family, Writer};

/// The first of the sixteen registers of four bytes (`NFT_REG32_00`).
const FIRST_REGISTER: u32 = 8;

/// Something of a packet that a rule may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    InputInterface,
    /// Its number, which is a quarter of its name.
    InputIndex,
    OutputInterface,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, in one byte.
    NetworkProtocol,
    /// The number of the protocol behind all extension headers.
    TransportProtocol,
    EtherSource,
    /// The address and [`Load::EtherType`] behind it, in one step: looking into this header is slow.
    EtherSourceAndType,
    /// The kernel's idea of what a frame carries. `nft` needs it beside each look into a header
    /// to name the field in its listings.
    FrameProtocol,
    /// What stands in the frame, so 0x8100 for one with a VLAN's tag.
    EtherType,
    /// Hardware type, protocol type, and both lengths.
    ArpHeader,
    ArpSenderMac,
    ArpSenderIp,
    /// The first byte of a packet: 0x45 for IPv4 without options.
    IpVersion,
    /// What [`Load::TransportProtocol`] is with IPv4, for a tenth of its time.
    Ip4Protocol,
    Ip4Source,
    Ip4SourceByte,
    Ip4Destination,
    Ip4DestinationByte,
    Ip6Source,
    Ip6Destination,
    SourcePort,
    DestinationPort,
    IcmpType,
    /// The target address of a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4).
    NeighbourTarget,
    ConntrackState,
    ConntrackStatus,
    /// The routing table's kind of the destination: `RTN_LOCAL` is 2.
    DestinationKind,
}

/// Where in a packet; the numbers of `NFT_PAYLOAD_…_HEADER`.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

enum Source {
    /// `meta`, by its key.
    Meta(u32),
    /// `payload`: base, offset, bytes.
    Payload(u32, u32, u32),
    /// `ct`, by its key.
    Conntrack(u32),
    /// `fib daddr type`.
    Fib,
}

impl Load {
    fn source(self) -> (Source, usize) {
        use Source::{Conntrack, Fib, Meta, Payload};
        let payload = |base, offset, bytes| (Payload(base, offset, bytes), bytes as usize);
        match self {
            Self::InputInterface => (Meta(6), 16),
            Self::InputIndex => (Meta(4), 4),
            Self::OutputInterface => (Meta(7), 16),
            Self::NetworkProtocol => (Meta(15), 1),
            Self::TransportProtocol => (Meta(16), 1),
            Self::FrameProtocol => (Meta(1), 2),
            Self::EtherSource => payload(LINK, 6, 6),
            Self::EtherSourceAndType => payload(LINK, 6, 8),
            Self::EtherType => payload(LINK, 12, 2),
            Self::ArpHeader => payload(NETWORK, 0, 6),
            Self::ArpSenderMac => payload(NETWORK, 8, 6),
            Self::ArpSenderIp => payload(NETWORK, 14, 4),
            Self::IpVersion => payload(NETWORK, 0, 1),
            Self::Ip4Protocol => payload(NETWORK, 9, 1),
            Self::Ip4Source => payload(NETWORK, 12, 4),
            Self::Ip4SourceByte => payload(NETWORK, 12, 1),
            Self::Ip4Destination => payload(NETWORK, 16, 4),
            Self::Ip4DestinationByte => payload(NETWORK, 16, 1),
            Self::Ip6Source => payload(NETWORK, 8, 16),
            Self::Ip6Destination => payload(NETWORK, 24, 16),
            Self::SourcePort => payload(TRANSPORT, 0, 2),
            Self::DestinationPort => payload(TRANSPORT, 2, 2),
            Self::IcmpType => payload(TRANSPORT, 0, 1),
            Self::NeighbourTarget => payload(TRANSPORT, 8, 16),
            Self::ConntrackState => (Conntrack(0), 4),
            Self::ConntrackStatus => (Conntrack(2), 4),
            Self::DestinationKind => (Fib, 4),
        }
    }
}

/// What follows when a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    /// Ends this chain; the next table's still follow.
    Accept,
    Return,
    Goto(&'static str),
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Load(Load, u32),
    Compare {
        equal: bool,
        value: Vec<u8>,
    },
    Mask(u32),
    Lookup {
        set: &'static str,
        inside: bool,
    },
    /// Looks up a map's data, an address and a port, and makes them the destination.
    Translate {
        map: &'static str,
        family: u8,
        port_register: u32,
    },
    /// Writes a value over a field of the transport header, whose checksum is at an offset of it.
    Replace {
        field: Load,
        value: Vec<u8>,
        checksum: u32,
    },
    Masquerade,
    Counter,
    Verdict(Verdict),
}

/// A rule: steps, of which the first that fails ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Shown by `nft list`.
    pub(crate) comment: &'static str,
    pub(crate) steps: Vec<Expression>,
}

impl Rule {
    pub(crate) fn new(comment: &'static str) -> Self {
        Self { comment, steps: Vec::new() }
    }

    pub(crate) fn is(self, what: Load, value: &[u8]) -> Self {
        self.load(&[what]).step(Expression::Compare { equal: true, value: value.to_vec() })
    }

    pub(crate) fn differs(self, what: Load, value: &[u8]) -> Self {
        self.load(&[what]).step(Expression::Compare { equal: false, value: value.to_vec() })
    }

    /// Whether any of these bits is set.
    pub(crate) fn has(self, what: Load, bits: u32) -> Self {
        self.load(&[what])
            .step(Expression::Mask(bits))
            .step(Expression::Compare { equal: false, value: vec![0; 4] })
    }

    /// Whether these, one behind the other, are an element of the set.
    pub(crate) fn within(self, what: &[Load], set: &'static str) -> Self {
        self.load(what).step(Expression::Lookup { set, inside: true })
    }

    pub(crate) fn outside(self, what: &[Load], set: &'static str) -> Self {
        self.load(what).step(Expression::Lookup { set, inside: false })
    }

    /// Counts and drops.
    pub(crate) fn drop(self) -> Self {
        self.step(Expression::Counter).step(Expression::Verdict(Verdict::Drop))
    }

    pub(crate) fn then(self, verdict: Verdict) -> Self {
        self.step(Expression::Verdict(verdict))
    }

    /// The destination that the map has for these; without one the rule does not match.
    pub(crate) fn translate_v4(self, what: &[Load], map: &'static str) -> Self {
        self.load(what).step(Expression::Translate { map, family: Family::IPV4, port_register: 1 })
    }

    pub(crate) fn translate_v6(self, what: &[Load], map: &'static str) -> Self {
        self.load(what).step(Expression::Translate { map, family: Family::IPV6, port_register: 4 })
    }

    /// Another value in a field of the transport header, whose checksum is at an offset of it.
    pub(crate) fn replace(self, field: Load, value: &[u8], checksum: u32) -> Self {
        self.step(Expression::Replace { field, value: value.to_vec(), checksum })
    }

    pub(crate) fn masquerade(self) -> Self {
        self.step(Expression::Masquerade)
    }

    fn step(mut self, step: Expression) -> Self {
        self.steps.push(step);
        self
    }

    fn load(mut self, what: &[Load]) -> Self {
        let mut register = 0;
        for load in what {
            self.steps.push(Expression::Load(*load, register));
            register += u32::try_from(load.source().1.div_ceil(4)).unwrap_or(u32::MAX);
        }
        self
    }
}

impl Expression {
    /// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(super) fn write(&self, writer: &mut Writer) {
        let name = match self {
            Self::Load(load, _) => match load.source().0 {
                Source::Meta(_) => "meta",
                Source::Payload(..) => "payload",
                Source::Conntrack(_) => "ct",
                Source::Fib => "fib",
            },
            Self::Compare { .. } => "cmp",
            Self::Mask(_) => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Translate { map, .. } => {
                // Two expressions of the kernel: the map's data, then what uses it.
                expression(writer, "lookup", |data| {
                    data.put_text(1, map);
                    data.put_u32(2, FIRST_REGISTER);
                    data.put_u32(3, FIRST_REGISTER);
                });
                "nat"
            }
            Self::Replace { value, .. } => {
                // As above: the value into a register, then that into the packet.
                expression(writer, "immediate", |data| {
                    data.put_u32(1, FIRST_REGISTER);
                    data.nest(2, |d| d.put(1, value));
                });
                "payload"
            }
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Verdict(_) => "immediate",
        };
        expression(writer, name, |data| self.write_data(data));
    }

    fn write_data(&self, data: &mut Writer) {
        match self {
            Self::Load(load, register) => {
                let register = FIRST_REGISTER + register;
                match load.source().0 {
                    Source::Meta(key) | Source::Conntrack(key) => {
                        data.put_u32(1, register);
                        data.put_u32(2, key);
                    }
                    Source::Payload(base, offset, bytes) => {
                        data.put_u32(1, register);
                        data.put_u32(2, base);
                        data.put_u32(3, offset);
                        data.put_u32(4, bytes);
                    }
                    Source::Fib => {
                        data.put_u32(1, register);
                        // The kind of address, of the destination.
                        data.put_u32(2, 3);
                        data.put_u32(3, 2);
                    }
                }
            }
            Self::Compare { equal, value } => {
                data.put_u32(1, FIRST_REGISTER);
                data.put_u32(2, u32::from(!equal));
                data.nest(3, |d| d.put(1, value));
            }
            Self::Mask(bits) => {
                data.put_u32(1, FIRST_REGISTER);
                data.put_u32(2, FIRST_REGISTER);
                data.put_u32(3, 4);
                data.nest(4, |d| d.put(1, &bits.to_ne_bytes()));
                data.nest(5, |d| d.put(1, &[0; 4]));
            }
            Self::Lookup { set, inside } => {
                data.put_text(1, set);
                data.put_u32(2, FIRST_REGISTER);
                if !inside {
                    data.put_u32(5, 1);
                }
            }
            Self::Translate { family, port_register, .. } => {
                data.put_u32(1, 1);
                data.put_u32(2, u32::from(*family));
                data.put_u32(3, FIRST_REGISTER);
                data.put_u32(5, FIRST_REGISTER + port_register);
            }
            Self::Replace { field, checksum, .. } => {
                const INTERNET_CHECKSUM: u32 = 1;
                if let Source::Payload(base, offset, bytes) = field.source().0 {
                    data.put_u32(2, base);
                    data.put_u32(3, offset);
                    data.put_u32(4, bytes);
                    data.put_u32(5, FIRST_REGISTER);
                    data.put_u32(6, INTERNET_CHECKSUM);
                    data.put_u32(7, *checksum);
                }
            }
            Self::Masquerade | Self::Counter => {}
            Self::Verdict(verdict) => {
                data.put_u32(1, 0);
                data.nest(2, |d| {
                    d.nest(2, |d| {
                        let (code, chain) = verdict.code();
                        d.put(1, &code.to_be_bytes());
                        if let Some(chain) = chain {
                            d.put_text(2, chain);
                        }
                    });
                });
            }
        }
    }
}

impl Verdict {
    fn code(self) -> (i32, Option<&'static str>) {
        match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        }
    }
}

/// One element of a rule's list of expressions.
fn expression(writer: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    writer.nest(1, |element| {
        element.put_text(1, name);
        element.nest(2, body);
    });
}
