//! rtnetlink(7): messages, and a socket that speaks them in the namespace it was opened in.
//!
//! A dozen kinds of message are all that is needed, and new kernels add attributes that must not
//! disturb: what is not known is skipped. The library for it is 50,000 lines.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use hull_runtime_sys as sys;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Only if it is not there.
pub(crate) const CREATE: u16 = 0x600;
/// In place of what is there.
pub(crate) const REPLACE: u16 = 0x500;

/// The size of nlmsghdr, in bytes.
const HEADER: usize = 16;

/// A dump's messages come in buffers of at most this size.
const BUFFER_BYTES: usize = 65536;

/// The most that one answer may hold, in bytes: some 30,000 links.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// A message's body: a header of its kind, then attributes.
#[derive(Clone, Debug)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    /// ifinfomsg.
    pub(crate) fn link(index: u32, flags: u32, change: u32) -> Self {
        Self::of_family(0, index, flags, change)
    }

    /// ifinfomsg of an address family.
    pub(crate) fn of_family(family: u8, index: u32, flags: u32, change: u32) -> Self {
        let mut bytes = vec![family, 0, 0, 0];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(change.to_ne_bytes());
        Self(bytes)
    }

    /// ifaddrmsg.
    pub(crate) fn address(family: u8, prefix: u8, index: u32) -> Self {
        let mut bytes = vec![family, prefix, 0, 0];
        bytes.extend(index.to_ne_bytes());
        Self(bytes)
    }

    /// ndmsg of a bridge's port: an entry that the bridge does not forget by itself.
    pub(crate) fn switched(port: u32) -> Self {
        const STATIC: u16 = libc::NUD_NOARP;
        const OF_THE_BRIDGE: u8 = libc::NTF_MASTER;
        let mut bytes = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
        bytes.extend(port.to_ne_bytes());
        bytes.extend(STATIC.to_ne_bytes());
        bytes.extend([OF_THE_BRIDGE, 0]);
        Self(bytes)
    }

    /// rtmsg of a unicast route of the main table.
    pub(crate) fn route(family: u8, prefix: u8, scope: u8) -> Self {
        Self(vec![
            family,
            prefix,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            scope,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ])
    }

    /// An attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn with_u8(self, kind: u16, value: u8) -> Self {
        self.with(kind, &[value])
    }

    pub(crate) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// A NUL-terminated text.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn with_address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.with(kind, &address.octets()),
            IpAddr::V6(address) => self.with(kind, &address.octets()),
        }
    }

    /// Attributes within one.
    pub(crate) fn with_nested(self, kind: u16, inner: Self) -> Self {
        self.with(kind, &inner.0)
    }

    /// No header: what is nested begins with attributes.
    pub(crate) fn nested() -> Self {
        Self(Vec::new())
    }
}

/// The attributes of a tail, as (kind, value); ends at the first malformed one.
pub(crate) fn attributes(mut tail: &[u8]) -> impl Iterator<Item = (u16, &[u8])> + Clone {
    std::iter::from_fn(move || {
        let head = tail.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = tail.get(4..length)?;
        tail = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

pub(crate) fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        16 => value.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

/// The messages of a datagram, as (kind, body); ends at the first malformed one.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// What the kernel answered: the bodies of its messages.
pub(crate) type Answers = Vec<Vec<u8>>;

/// A route netlink socket. Clones are not needed: requests take turns.
#[derive(Debug)]
pub(crate) struct Socket(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Of the calling thread's namespace; it stays there.
    pub(crate) fn open() -> sys::Result<Self> {
        let fd = sys::netlink::route_socket()?;
        Ok(Self(Mutex::new(Inner { fd, sequence: 0, buffer: vec![0; BUFFER_BYTES] })))
    }

    /// Asks for a change, and waits until it is made.
    pub(crate) fn change(&self, kind: u16, flags: u16, body: &Body) -> sys::Result<()> {
        self.request(kind, flags | NLM_F_ACK, body).map(drop)
    }

    /// Asks for one thing.
    pub(crate) fn get(&self, kind: u16, body: &Body) -> sys::Result<Answers> {
        self.request(kind, NLM_F_ACK, body)
    }

    /// Asks for all.
    pub(crate) fn dump(&self, kind: u16, body: &Body) -> sys::Result<Answers> {
        self.request(kind, NLM_F_DUMP, body)
    }

    fn request(&self, kind: u16, flags: u16, body: &Body) -> sys::Result<Answers> {
        // A panic of another thread leaves at most answers that are told apart by their number.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).request(kind, flags, body)
    }
}

impl Inner {
    fn request(&mut self, kind: u16, flags: u16, body: &Body) -> sys::Result<Answers> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.0.len()).unwrap_or(u32::MAX);
        let mut packet = length.to_ne_bytes().to_vec();
        packet.extend(kind.to_ne_bytes());
        packet.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        packet.extend(self.sequence.to_ne_bytes());
        packet.extend([0; 4]);
        packet.extend(&body.0);
        sys::fd::write_all(&self.fd, &packet)?;

        let mut answers = Vec::new();
        let mut total = 0;
        loop {
            let n = sys::fd::read(&self.fd, &mut self.buffer)?;
            total += n;
            if n == 0 || total > MAX_REPLY_BYTES {
                return Err(sys::Error::new("rtnetlink", libc::EMSGSIZE));
            }
            let mut rest = &self.buffer[..n];
            while let Some(head) = rest.first_chunk::<HEADER>() {
                let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let kind = u16::from_ne_bytes([head[4], head[5]]);
                let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
                let Some(body) = rest.get(HEADER..length) else {
                    return Err(sys::Error::new("rtnetlink", libc::EBADMSG));
                };
                if sequence == self.sequence {
                    match kind {
                        NLMSG_DONE => return Ok(answers),
                        NLMSG_ERROR => {
                            let errno = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                            return match errno {
                                0 => Ok(answers),
                                _ => Err(sys::Error::new("rtnetlink", -errno)),
                            };
                        }
                        _ => answers.push(body.to_vec()),
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A datagram of one message, as the kernel's.
#[cfg(test)]
pub(crate) fn message(kind: u16, body: &Body) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.0.len()).unwrap();
    let mut datagram = length.to_ne_bytes().to_vec();
    datagram.extend(kind.to_ne_bytes());
    datagram.extend([0; 10]);
    datagram.extend(&body.0);
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let body = Body::nested().with_text(3, "eth0").with_u8(9, 7).with_u32(4, 1500);
        assert_eq!(body.0.len(), 12 + 8 + 8);
        let read: Vec<_> = attributes(&body.0).collect();
        assert_eq!(read[0], (3, &b"eth0\0"[..]));
        assert_eq!(read[1], (9, &[7][..]));
        assert_eq!(u32_of(read[2].1), Some(1500));
        assert_eq!(text_of(read[0].1), "eth0");
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        for bytes in [&[9, 0, 1, 0, 1][..], &[0, 0, 1, 0], &[3, 0, 1, 0], &[1, 2]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(address_of(&[1, 2, 3]), None);
        assert_eq!(address_of(&[10, 0, 0, 1]), Some("10.0.0.1".parse().unwrap()));
    }
}
