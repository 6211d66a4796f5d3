//! Extended headers: records of `LENGTH KEY=VALUE\n` (POSIX.1-2001, pax).

use anyhow::Result;

use super::{
    Time,
    sparse::{self, Extent},
};
use crate::error::{Shown, refuse};

/// What extended headers say of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// The inner nothing takes a global header's value back.
    pub(super) uid: Option<Option<i64>>,
    pub(super) gid: Option<Option<i64>>,
    pub(super) modified: Option<Option<Time>>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// GNU's keys for sparse files, of all versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) map: Option<Vec<Extent>>,
    /// Version 0.0: the extents come one by one, and the last has no length yet.
    pub(super) listed: Vec<Extent>,
    pub(super) pending_offset: Option<u64>,
}

impl Sparse {
    pub(super) fn is_used(&self) -> bool {
        *self != Self::default()
    }
}

impl Extended {
    /// Reads a header's records. `global` ones are for all entries that follow.
    pub(super) fn parse(content: &[u8], global: bool) -> Result<Self> {
        let mut extended = Self::default();
        let mut rest = content;
        while !rest.is_empty() {
            let (key, value, after) = record(rest)?;
            rest = after;
            if global && is_of_one_entry(key) {
                refuse!("a global header gives every entry the same {}", Shown(key));
            }
            extended.set(key, value)?;
        }
        if extended.sparse.pending_offset.is_some() {
            refuse!("an extent of a sparse file has no length");
        }
        Ok(extended)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let sparse = &mut self.sparse;
        match key {
            b"path" => once(key, &mut self.path, name(key, value)?)?,
            b"linkpath" => once(key, &mut self.link, name(key, value)?)?,
            b"size" => once(key, &mut self.size, number(key, value)?)?,
            b"uid" => once(key, &mut self.uid, id(key, value)?)?,
            b"gid" => once(key, &mut self.gid, id(key, value)?)?,
            b"mtime" => once(key, &mut self.modified, time(value)?)?,
            b"GNU.sparse.major" => once(key, &mut sparse.major, number(key, value)?)?,
            b"GNU.sparse.minor" => once(key, &mut sparse.minor, number(key, value)?)?,
            b"GNU.sparse.name" => once(key, &mut sparse.name, name(key, value)?)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                once(key, &mut sparse.real_size, number(key, value)?)?;
            }
            b"GNU.sparse.numblocks" => once(key, &mut sparse.count, number(key, value)?)?,
            b"GNU.sparse.map" => once(key, &mut sparse.map, sparse::list(value)?)?,
            b"GNU.sparse.offset" => {
                once(key, &mut sparse.pending_offset, number(key, value)?)?;
            }
            b"GNU.sparse.numbytes" => {
                let Some(offset) = sparse.pending_offset.take() else {
                    refuse!("an extent of a sparse file has no offset");
                };
                sparse.listed.push(Extent { offset, length: number(key, value)? });
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                refuse!("{} is not known", Shown(key));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.attributes.iter().any(|(other, _)| other == name) {
                        refuse!("the attribute {} is given twice", Shown(name));
                    }
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// These values where there are any, those of the global headers before elsewhere.
    pub(super) fn over(self, global: &Self) -> Self {
        Self {
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            modified: self.modified.or(global.modified),
            ..self
        }
    }
}

/// The keys that mean something for one entry alone.
fn is_of_one_entry(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size")
        || key.starts_with(b"GNU.sparse.")
        || key.starts_with(b"SCHILY.xattr.")
}

/// The first record's key and value, and what comes after it.
fn record(content: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    const BAD: &str = "an extended header is malformed";
    let Some(space) = content.iter().take(12).position(|b| *b == b' ') else { refuse!("{BAD}") };
    let (digits, _) = content.split_at(space);
    let canonical = matches!(digits.first(), Some(b'1'..=b'9'));
    let length = decimal(digits).and_then(|length| usize::try_from(length).ok());
    let (Some(length), true) = (length, canonical) else { refuse!("{BAD}") };
    let Some((record, rest)) = content.split_at_checked(length) else { refuse!("{BAD}") };
    let Some((b'\n', body)) = record.get(space + 1..).and_then(<[u8]>::split_last) else {
        refuse!("{BAD}")
    };
    let Some(equals) = body.iter().position(|b| *b == b'=') else { refuse!("{BAD}") };
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        refuse!("{BAD}");
    }
    Ok((key, value, rest))
}

fn once<T: PartialEq>(key: &[u8], place: &mut Option<T>, value: T) -> Result<()> {
    if place.is_some() {
        refuse!("an extended header gives {} twice", Shown(key));
    }
    *place = Some(value);
    Ok(())
}

fn name(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    if value.is_empty() || value.contains(&0) {
        refuse!("{} is empty or contains NUL", Shown(key));
    }
    Ok(value.to_vec())
}

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

fn number(key: &[u8], value: &[u8]) -> Result<u64> {
    match decimal(value) {
        Some(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => refuse!("{} is not a number", Shown(key)),
    }
}

fn id(key: &[u8], value: &[u8]) -> Result<Option<i64>> {
    if value.is_empty() {
        return Ok(None);
    }
    Ok(i64::try_from(number(key, value)?).ok())
}

/// Seconds with a fraction, of which nanoseconds are kept.
fn time(value: &[u8]) -> Result<Option<Time>> {
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b""[..]),
    };
    let seconds = decimal(whole).and_then(|seconds| i64::try_from(seconds).ok());
    let (Some(seconds), true) = (seconds, fraction.iter().all(u8::is_ascii_digit)) else {
        refuse!("a time is not a number");
    };
    let nanoseconds = (0..9).fold(0, |value, place| {
        value * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Ok(Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content: &str) -> Option<Extended> {
        Extended::parse(content.as_bytes(), false).ok()
    }

    #[test]
    fn records_are_read_strictly() {
        let read = parse("11 path=ab\n13 mtime=1.5\n").unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"ab"[..]));
        assert_eq!(read.modified, Some(Some(Time { seconds: 1, nanoseconds: 500_000_000 })));
        assert!(parse("30 SCHILY.xattr.user.a=b\n=c\nd\n").is_some(), "a value may hold anything");
        for bad in [
            "11 path=ab",
            "12 path=ab\n",
            "10 path=ab\n",
            "012 path=ab\n",
            "+11 path=a\n",
            "11 path=ab\n\0",
            "4 \n\n\n",
            "5 =a\n",
            "8 path=\n",
            "11 path=ab\n11 path=cd\n",
            "11 size=-1\n",
            "12 size=0x1\n",
            "13 mtime=1e5\n",
            "99999999999999999999 a=b\n",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn times_before_1970_go_down() {
        let read = time(b"-1.25").unwrap();
        assert_eq!(read, Some(Time { seconds: -2, nanoseconds: 750_000_000 }));
    }

    #[test]
    fn what_is_of_one_entry_is_not_global() {
        assert!(Extended::parse(b"11 path=ab\n", true).is_err());
        assert!(Extended::parse(b"15 comment=abcd\n", true).is_err(), "a wrong length");
        assert!(Extended::parse(b"16 comment=abcd\n", true).is_ok());
        assert!(Extended::parse(b"9 uid=10\n", true).is_ok());
    }
}
