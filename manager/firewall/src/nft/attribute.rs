//! Netlink messages and their attributes: written in place, read as slices.

/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// The bits of a type that are its number (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// The sizes of `nlmsghdr`, `nfgenmsg` and `nlattr`.
const HEADER_BYTES: usize = 16;
const FAMILY_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;

/// Messages, one behind the other, each with a header, the header of netfilter and attributes.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// One message. `family` and `resource` are the fields of `nfgenmsg`.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: i32,
        sequence: u32,
        (family, resource): (u8, u16),
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&u16::try_from(flags).unwrap_or(0).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// An attribute with these bytes.
    pub(crate) fn put(&mut self, number: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A number in network order, as nearly all of netfilter's are.
    pub(crate) fn put_u32(&mut self, number: u16, value: u32) {
        self.put(number, &value.to_be_bytes());
    }

    /// A string with its NUL.
    pub(crate) fn put_text(&mut self, number: u16, value: &str) {
        let mut text = value.as_bytes().to_vec();
        text.push(0);
        self.put(number, &text);
    }

    /// An attribute that holds what `body` writes: at most 64 KiB, which is the callers' to see to.
    pub(crate) fn nest(&mut self, number: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(number | NESTED).to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a flag to the header of a message whose flags are at this place.
    pub(super) fn acknowledge(&mut self, flags_at: usize, flag: i32) {
        if let Some(byte) = self.bytes.get_mut(flags_at..flags_at + 2) {
            let flags = u16::from_ne_bytes([byte[0], byte[1]]) | u16::try_from(flag).unwrap_or(0);
            byte.copy_from_slice(&flags.to_ne_bytes());
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The attributes in a slice, which is what the kernel sent: a broken one ends the walk.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes of a message of netfilter, of which `payload` is all after `nlmsghdr`.
    pub(crate) fn of_message(payload: &'a [u8]) -> Self {
        Self(payload.get(FAMILY_BYTES..).unwrap_or_default())
    }

    /// The value of the first one with this number.
    pub(crate) fn get(self, number: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == number).map(|(_, value)| value)
    }

    pub(crate) fn nested(self, number: u16) -> Option<Self> {
        self.get(number).map(Attributes)
    }

    pub(crate) fn u32(self, number: u16) -> Option<u32> {
        self.get(number)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A string, with or without its NUL.
    pub(crate) fn text(self, number: u16) -> Option<&'a str> {
        let bytes = self.get(number)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let number = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.0.get(ATTRIBUTE_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    }
}

/// One message that was received.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port of the socket whose request this follows from; 0 is the kernel.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in one datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let message = Received {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(8)?,
            port: word(12)?,
            payload: datagram.get(HEADER_BYTES..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(0x0a03, 0x405, 7, (1, 0), |m| {
            m.put_text(1, "hull");
            m.nest(4, |m| {
                m.put_u32(1, 3);
                m.put(2, &[1, 2, 3]);
            });
        });
        writer.message(0x0a06, 1, 8, (7, 10), |_| {});
        assert_eq!(writer.len() % 4, 0);
        let all: Vec<_> = messages(&writer.bytes).collect();
        assert_eq!((all[0].kind, all[0].flags, all[0].sequence), (0x0a03, 0x405, 7));
        assert_eq!((all[1].kind, all[1].payload), (0x0a06, &[7, 0, 0, 10][..]));
        let attributes = Attributes::of_message(all[0].payload);
        assert_eq!(attributes.text(1), Some("hull"));
        let nested = attributes.nested(4).unwrap();
        assert_eq!((nested.u32(1), nested.get(2)), (Some(3), Some(&[1, 2, 3][..])));
        assert_eq!(attributes.get(9), None);
    }

    #[test]
    fn a_broken_message_ends_the_walk() {
        for bytes in [&[][..], &[1, 0], &[255, 255, 0, 0], &[2, 0, 0, 0], &[8, 0, 1, 0, 1]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
    }
}
