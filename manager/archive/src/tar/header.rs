//! The 512 bytes before each entry.

use anyhow::Result;

use super::number;
use crate::error::refuse;

/// Everything in an archive comes in blocks of this size.
pub(super) const BLOCK: usize = 512;

/// A block that is a header: its checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// Who defined the fields after the first 257 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Nobody: they are unused.
    V7,
    Ustar,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self> {
        let header = Self(block);
        let stored = number::parse("checksum", header.field(148, 8))?;
        let sum = |byte: fn(u8) -> i64| {
            let spaces = 8 * i64::from(b' ');
            let (before, after) = (header.field(0, 148), header.field(156, 356));
            before.iter().chain(after).map(|b| byte(*b)).sum::<i64>() + spaces
        };
        // Some old archivers summed signed characters.
        if stored != sum(i64::from) && stored != sum(|b| i64::from(b.cast_signed())) {
            refuse!("a header has a wrong checksum: this is no tar archive, or it is damaged");
        }
        Ok(header)
    }

    fn field(&self, at: usize, length: usize) -> &'a [u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// A text field: up to its first NUL.
    fn text(&self, at: usize, length: usize) -> &'a [u8] {
        let field = self.field(at, length);
        field.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn format(&self) -> Format {
        match self.field(257, 8) {
            b"ustar\x0000" if self.field(508, 4) == b"tar\0" => Format::Star,
            b"ustar\x0000" => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn name(&self) -> Result<Vec<u8>> {
        let name = self.text(0, 100);
        let prefix = match self.format() {
            Format::Ustar => self.text(345, 155),
            Format::Star => self.text(345, 131),
            Format::Gnu => b"",
            // Some readers take it for a prefix all the same.
            Format::V7 if self.field(345, 155).iter().any(|b| *b != 0) => {
                refuse!("a header of the oldest format has a prefix, which it does not know");
            }
            Format::V7 => b"",
        };
        if prefix.is_empty() {
            return Ok(name.to_vec());
        }
        Ok([prefix, b"/", name].concat())
    }

    pub(super) fn mode(&self) -> Result<u32> {
        let mode = number::parse("mode", self.field(100, 8))?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<i64> {
        number::parse("user id", self.field(108, 8))
    }

    pub(super) fn gid(&self) -> Result<i64> {
        number::parse("group id", self.field(116, 8))
    }

    pub(super) fn size(&self) -> Result<u64> {
        match u64::try_from(number::parse("size", self.field(124, 12))?) {
            Ok(size) => Ok(size),
            Err(_) => refuse!("a size is negative"),
        }
    }

    pub(super) fn modified_seconds(&self) -> Result<i64> {
        number::parse("time", self.field(136, 12))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn link(&self) -> &'a [u8] {
        self.text(157, 100)
    }

    /// Major and minor number; the oldest format has none.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        if self.format() == Format::V7 {
            refuse!("a device of the oldest format has no number");
        }
        let part = |at| -> Result<u32> {
            match u32::try_from(number::parse("device number", self.field(at, 8))?) {
                Ok(number) => Ok(number),
                Err(_) => refuse!("a device number is out of range"),
            }
        };
        Ok((part(329)?, part(337)?))
    }

    /// Of GNU's oldest sparse format: the first extents, whether blocks of more follow, and the
    /// size with holes.
    pub(super) fn gnu_sparse(&self) -> Result<(&'a [u8], bool, u64)> {
        if self.format() != Format::Gnu {
            refuse!("a sparse file of GNU's is in a header that is not GNU's");
        }
        let size = number::parse("size", self.field(483, 12))?;
        match u64::try_from(size) {
            Ok(size) => Ok((self.field(386, 96), self.field(482, 1) != [0], size)),
            Err(_) => refuse!("a size is negative"),
        }
    }
}
