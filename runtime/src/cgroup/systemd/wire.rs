//! D-Bus messages: writing the few that are sent, reading what comes back. Pure.
//!
//! Only the machine's own byte order is spoken, as between any two programs of one host.
//! Reading never trusts a length: each is checked against the bytes that are there, nesting
//! is bounded, and a message is bounded by `MAX_BYTES` before it is read.

use anyhow::{Context, Result, bail, ensure};

/// More than any reply or signal of systemd's manager; the protocol allows 128 MiB.
pub(super) const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: u32 = 16;

pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

const VERSION: u8 = 1;
const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
/// What must be read before a message's length is known.
pub(super) const PREFIX_BYTES: usize = 16;

/// A value of the D-Bus type system, as far as systemd's properties use it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cgroup) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
    ObjectPath(String),
    Signature(String),
    /// The signature of the elements, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::String(_) => "s".into(),
            Self::ObjectPath(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => {
                format!("({})", fields.iter().map(Value::signature).collect::<String>())
            }
            Self::Variant(_) => "v".into(),
        }
    }

    /// Strings, object paths and signatures as text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::ObjectPath(text) | Self::Signature(text) => Some(text),
            Self::Variant(value) => value.as_text(),
            _ => None,
        }
    }
}

/// The alignment of values whose signature begins with `code`.
fn alignment(code: u8) -> usize {
    match code {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

/// A message, sent or received.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) serial: u32,
    pub(super) reply_to: u32,
    pub(super) destination: String,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<Value>,
}

impl Message {
    /// The message as bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Writer::default();
        for value in &self.body {
            body.value(value);
        }
        let signature: String = self.body.iter().map(Value::signature).collect();
        let text = |value: &String| Value::String(value.clone());
        let mut fields = Vec::new();
        for (code, value, present) in [
            (1, Value::ObjectPath(self.path.clone()), !self.path.is_empty()),
            (2, text(&self.interface), !self.interface.is_empty()),
            (3, text(&self.member), !self.member.is_empty()),
            (4, text(&self.error), !self.error.is_empty()),
            (5, Value::Uint32(self.reply_to), self.reply_to != 0),
            (6, text(&self.destination), !self.destination.is_empty()),
            (8, Value::Signature(signature.clone()), !signature.is_empty()),
        ] {
            if present {
                fields
                    .push(Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]));
            }
        }
        let mut whole = Writer { bytes: vec![ENDIAN, self.kind, 0, VERSION] };
        whole.value(&Value::Uint32(u32::try_from(body.bytes.len())?));
        whole.value(&Value::Uint32(self.serial));
        whole.value(&Value::Array("(yv)".into(), fields));
        whole.align(8);
        whole.bytes.append(&mut body.bytes);
        ensure!(whole.bytes.len() <= MAX_BYTES, "a D-Bus message is too long");
        Ok(whole.bytes)
    }

    /// How long the message is that begins with `prefix`.
    pub(super) fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize> {
        ensure!(prefix[0] == ENDIAN, "a D-Bus message has another byte order");
        ensure!(prefix[3] == VERSION, "a D-Bus message has the version {}", prefix[3]);
        let word = |at: usize| {
            u32::from_ne_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
        };
        let fields = (word(12) as usize).next_multiple_of(8);
        let length = PREFIX_BYTES.saturating_add(fields).saturating_add(word(4) as usize);
        ensure!(length <= MAX_BYTES, "a D-Bus message of {length} bytes is too long");
        Ok(length)
    }

    /// Reads a whole message. The body is read as far as its types are ours: a signal of no
    /// interest to us may hold anything.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let prefix = bytes.first_chunk().context("a D-Bus message is cut off")?;
        ensure!(Self::length(prefix)? == bytes.len(), "a D-Bus message is cut off");
        let mut reader = Reader { bytes, at: 4 };
        let Value::Uint32(body_bytes) = reader.value(b"u", 0)? else { bail!("no length") };
        let Value::Uint32(serial) = reader.value(b"u", 0)? else { bail!("no serial") };
        let mut message = Self { kind: bytes[1], serial, ..Self::default() };
        let mut signature = String::new();
        let Value::Array(_, fields) = reader.value(b"a(yv)", 0)? else { bail!("no fields") };
        for field in fields {
            let Value::Struct(mut field) = field else { continue };
            let (Some(Value::Variant(value)), Some(Value::Byte(code))) = (field.pop(), field.pop())
            else {
                continue;
            };
            let text = || value.as_text().unwrap_or_default().to_owned();
            match (code, value.as_ref()) {
                (1, _) => message.path = text(),
                (2, _) => message.interface = text(),
                (3, _) => message.member = text(),
                (4, _) => message.error = text(),
                (5, Value::Uint32(serial)) => message.reply_to = *serial,
                (6, _) => message.destination = text(),
                (8, _) => signature = text(),
                _ => {}
            }
        }
        reader.align(8)?;
        ensure!(
            bytes.len() - reader.at == body_bytes as usize,
            "a D-Bus message's lengths disagree"
        );
        let mut body = Reader { bytes: &bytes[reader.at..], at: 0 };
        let mut rest = signature.as_bytes();
        while !rest.is_empty() {
            let first = complete_type(rest, 0)?;
            message.body.push(body.value(first, 0)?);
            rest = &rest[first.len()..];
        }
        Ok(message)
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.bytes.extend(bytes);
    }

    fn length(&mut self, length: usize) {
        // Longer than u32 is longer than MAX_BYTES, which encode refuses.
        self.put(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(v) => self.put([*v]),
            Value::Bool(v) => self.put(u32::from(*v).to_ne_bytes()),
            Value::Int16(v) => self.put(v.to_ne_bytes()),
            Value::Uint16(v) => self.put(v.to_ne_bytes()),
            Value::Int32(v) => self.put(v.to_ne_bytes()),
            Value::Uint32(v) => self.put(v.to_ne_bytes()),
            Value::Int64(v) => self.put(v.to_ne_bytes()),
            Value::Uint64(v) => self.put(v.to_ne_bytes()),
            Value::Double(v) => self.put(v.to_ne_bytes()),
            Value::String(text) | Value::ObjectPath(text) => {
                self.length(text.len());
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Signature(text) => {
                self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Array(element, values) => {
                self.length(0);
                let length_at = self.bytes.len() - 4;
                self.align(alignment(element.as_bytes().first().copied().unwrap_or(b'y')));
                let start = self.bytes.len();
                for value in values {
                    self.value(value);
                }
                let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
                self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                for field in fields {
                    self.value(field);
                }
            }
            Value::Variant(value) => {
                self.value(&Value::Signature(value.signature()));
                self.value(value);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Result<()> {
        self.at = self.at.next_multiple_of(to);
        ensure!(self.at <= self.bytes.len(), "a D-Bus message is cut off");
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.context("a D-Bus message is cut off")?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = std::str::from_utf8(self.take(length)?).context("a D-Bus text isn't UTF-8")?;
        ensure!(self.take(1)? == [0], "a D-Bus text isn't terminated");
        Ok(text.to_owned())
    }

    /// The value of one complete type.
    fn value(&mut self, signature: &[u8], depth: u32) -> Result<Value> {
        ensure!(depth < MAX_DEPTH, "a D-Bus message is nested too deep");
        Ok(match signature {
            b"y" => Value::Byte(self.number::<1>()?[0]),
            b"b" => Value::Bool(u32::from_ne_bytes(self.number()?) != 0),
            b"n" => Value::Int16(i16::from_ne_bytes(self.number()?)),
            b"q" => Value::Uint16(u16::from_ne_bytes(self.number()?)),
            b"i" => Value::Int32(i32::from_ne_bytes(self.number()?)),
            b"u" => Value::Uint32(u32::from_ne_bytes(self.number()?)),
            b"x" => Value::Int64(i64::from_ne_bytes(self.number()?)),
            b"t" => Value::Uint64(u64::from_ne_bytes(self.number()?)),
            b"d" => Value::Double(f64::from_ne_bytes(self.number()?)),
            b"s" | b"o" => {
                let length = u32::from_ne_bytes(self.number()?) as usize;
                let text = self.text(length)?;
                if signature == b"s" { Value::String(text) } else { Value::ObjectPath(text) }
            }
            b"g" => {
                let length = usize::from(self.number::<1>()?[0]);
                Value::Signature(self.text(length)?)
            }
            b"v" => {
                let Value::Signature(inner) = self.value(b"g", depth)? else {
                    bail!("no signature")
                };
                let whole = complete_type(inner.as_bytes(), 0)?;
                ensure!(whole.len() == inner.len(), "a D-Bus variant holds several values");
                Value::Variant(Box::new(self.value(whole, depth + 1)?))
            }
            [b'a', element @ ..] => {
                let length = u32::from_ne_bytes(self.number()?) as usize;
                self.align(alignment(element.first().copied().unwrap_or(b'y')))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.context("a D-Bus array is cut off")?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth + 1)?);
                }
                ensure!(self.at == end, "a D-Bus array's length is wrong");
                Value::Array(String::from_utf8_lossy(element).into_owned(), values)
            }
            // A dictionary's entry reads like a structure.
            [b'(' | b'{', fields @ .., b')' | b'}'] => {
                self.align(8)?;
                let (mut values, mut rest) = (Vec::new(), fields);
                while !rest.is_empty() {
                    let first = complete_type(rest, 0)?;
                    values.push(self.value(first, depth + 1)?);
                    rest = &rest[first.len()..];
                }
                Value::Struct(values)
            }
            // A descriptor's index; ours never come with descriptors.
            b"h" => Value::Uint32(u32::from_ne_bytes(self.number()?)),
            other => bail!("a D-Bus message has the type {:?}", String::from_utf8_lossy(other)),
        })
    }
}

/// The first complete type of a signature.
pub(super) fn complete_type(signature: &[u8], depth: u32) -> Result<&[u8]> {
    ensure!(depth < MAX_DEPTH, "a D-Bus signature is nested too deep");
    let close = match signature.first() {
        Some(b'a') => {
            let element = complete_type(&signature[1..], depth + 1)?;
            return Ok(&signature[..=element.len()]);
        }
        Some(b'(') => b')',
        Some(b'{') => b'}',
        Some(_) => return Ok(&signature[..1]),
        None => bail!("a D-Bus signature is cut off"),
    };
    let mut at = 1;
    while signature.get(at).is_some_and(|code| *code != close) {
        at += complete_type(&signature[at..], depth + 1)?.len();
    }
    // An empty structure would make an array of it endless.
    ensure!(at > 1 && at < signature.len(), "a D-Bus signature is malformed");
    Ok(&signature[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let property = |name: &str, value| {
            Value::Struct(vec![Value::String(name.into()), Value::Variant(Box::new(value))])
        };
        Message {
            kind: CALL,
            serial: 7,
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "StartTransientUnit".into(),
            destination: "org.freedesktop.systemd1".into(),
            body: vec![
                Value::String("x.scope".into()),
                Value::Array(
                    "(sv)".into(),
                    vec![
                        property("PIDs", Value::Array("u".into(), vec![Value::Uint32(42)])),
                        property("Delegate", Value::Bool(true)),
                        property("MemoryMax", Value::Uint64(u64::MAX)),
                        property("Empty", Value::Array("(ss)".into(), vec![])),
                        property("Bits", Value::Array("y".into(), vec![Value::Byte(3)])),
                    ],
                ),
                Value::Array("(sa(sv))".into(), vec![]),
            ],
            ..Message::default()
        }
    }

    #[test]
    fn a_message_survives_the_wire() {
        let bytes = message().encode().expect("encodes");
        assert_eq!(
            Message::length(bytes.first_chunk().expect("long")).expect("valid"),
            bytes.len()
        );
        assert_eq!(Message::decode(&bytes).expect("decodes"), message());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_are_the_specifications() {
        let hello = Message {
            kind: CALL,
            serial: 1,
            path: "/a".into(),
            member: "M".into(),
            body: vec![Value::Byte(5), Value::Uint32(6)],
            ..Message::default()
        };
        let expected: Vec<u8> = [
            b"l\x01\x00\x01\x08\x00\x00\x00\x01\x00\x00\x00\x26\x00\x00\x00".as_slice(),
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x02yu\x00",
            b"\x05\x00\x00\x00\x06\x00\x00\x00",
        ]
        .concat();
        let mut expected = expected;
        // The fields end unaligned at 16 + 0x28; the body starts at the next multiple of 8.
        expected[12] = 0x28;
        assert_eq!(hello.encode().expect("encodes"), expected);
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics() {
        let bytes = message().encode().expect("encodes");
        for end in 0..bytes.len() {
            assert!(Message::decode(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, b'a', b'(', b'v'] {
                let mut changed = bytes.clone();
                changed[at] = value;
                // Valid or not: it ends, within bounds.
                let _ = Message::decode(&changed);
            }
        }
    }

    #[test]
    fn huge_lengths_are_refused_before_anything_is_read() {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[0] = ENDIAN;
        prefix[3] = VERSION;
        prefix[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        prefix[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(Message::length(&prefix).is_err());
    }

    #[test]
    fn signatures_are_split_into_complete_types() {
        for (signature, first) in
            [("su", "s"), ("a(sv)u", "a(sv)"), ("(s(iu)a{sv})x", "(s(iu)a{sv})"), ("aas", "aas")]
        {
            assert_eq!(complete_type(signature.as_bytes(), 0).expect(signature), first.as_bytes());
        }
        for bad in ["", "a", "(", "(s", "()", &"a".repeat(40), &"(".repeat(40)] {
            assert!(complete_type(bad.as_bytes(), 0).is_err(), "{bad}");
        }
    }
}
