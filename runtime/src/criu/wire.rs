//! The wire format of protocol buffers (protobuf.dev, "Encoding"): what CRIU's messages are
//! made of. A message is a row of fields; a field is a key and a value; a key is the field's
//! number and one of four forms.
//!
//! What comes in is read in place and bounded by its own length: nothing is allocated from
//! a length that a message declares. Unknown fields are passed over, as the format asks:
//! later versions of CRIU add some.

use anyhow::{Context, Result, bail, ensure};

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An unsigned number, or an enumeration's value.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    /// A signed number: negative ones as 64 bits.
    pub(super) fn signed(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value).cast_unsigned());
    }

    pub(super) fn flag(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.length_delimited(field, value.as_bytes());
    }

    pub(super) fn message(&mut self, field: u32, value: &Self) {
        self.length_delimited(field, &value.0);
    }

    fn length_delimited(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// The value of a field that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A form that none of CRIU's messages uses.
    Other,
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64> {
        match self {
            Self::Number(value) => Ok(value),
            _ => bail!("a field is no number"),
        }
    }

    /// A signed number of 32 bits, which is written as 64.
    pub(super) fn signed(self) -> Result<i32> {
        i32::try_from(self.number()?.cast_signed()).context("a number is too large")
    }

    pub(super) fn flag(self) -> Result<bool> {
        Ok(self.number()? != 0)
    }

    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => bail!("a field is no message and no text"),
        }
    }

    pub(super) fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).context("a text is not UTF-8")
    }
}

/// The fields of a message, in order.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0);
        let field = field.context("a field has an impossible number")?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            FIXED_64 => self.take(8).map(|_| Value::Other)?,
            FIXED_32 => self.take(4).map(|_| Value::Other)?,
            form => bail!("a field has the unknown form {form}"),
        };
        Ok(Some((field, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(length).context("a field is longer than its message")?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.take(1)?[0];
            // The tenth byte has room for one bit.
            ensure!(shift < 63 || shift == 63 && byte <= 1, "a number is longer than 64 bits");
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_as_the_format_s_documentation_has_them() {
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        assert_eq!(message.bytes(), b"\x08\x96\x01\x12\x07testing");
        let mut message = Message::default();
        message.signed(1, -1);
        assert_eq!(message.bytes(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "x");
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.signed(49, i32::MIN);
        message.flag(3, true);
        message.message(200, &inner);
        let mut fields = Fields::of(message.bytes());
        assert_eq!(fields.next().unwrap(), Some((1, Value::Number(u64::MAX))));
        let (field, value) = fields.next().unwrap().unwrap();
        assert_eq!((field, value.signed().unwrap()), (49, i32::MIN));
        let (field, value) = fields.next().unwrap().unwrap();
        assert_eq!((field, value.flag().unwrap()), (3, true));
        let (field, value) = fields.next().unwrap().unwrap();
        assert_eq!(field, 200);
        let (field, value) = Fields::of(value.bytes().unwrap()).next().unwrap().unwrap();
        assert_eq!((field, value.text().unwrap()), (1, "x"));
        assert_eq!(fields.next().unwrap(), None);
    }

    #[test]
    fn what_is_broken_is_an_error() {
        for bytes in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x00\x01",
            b"\x0b",
            b"\x12\x05ab",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0d\x01\x02",
            b"\x09\x01\x02",
        ] {
            assert!(Fields::of(bytes).next().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn no_row_of_bytes_is_read_forever() {
        // A fixed generator: what fails once fails again.
        let mut seed: u64 = 7;
        for _ in 0..20_000 {
            let mut bytes = [0; 24];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            let mut fields = Fields::of(&bytes);
            let mut count = 0;
            while let Ok(Some(_)) = fields.next() {
                count += 1;
                assert!(count <= bytes.len());
            }
        }
    }
}
