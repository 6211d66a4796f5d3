//! Files with holes.

use anyhow::Result;

use super::{number, pax};
use crate::error::refuse;

/// A piece of a file that is not a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// The map must be in order, inside the file, and account for every stored byte.
pub(super) fn check(map: &[Extent], real_size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for extent in map {
        let Some(next) = extent.offset.checked_add(extent.length) else {
            refuse!("a sparse file's map is out of range");
        };
        if extent.offset < end || next > real_size {
            refuse!("a sparse file's map is out of order, or leaves the file");
        }
        end = next;
        sum += extent.length;
    }
    if sum != stored {
        refuse!("a sparse file's map has {sum} bytes, the archive {stored}");
    }
    Ok(())
}

/// Version 0.1: `offset,length,offset,length`.
pub(super) fn list(value: &[u8]) -> Result<Vec<Extent>> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let mut map = Vec::new();
    let mut numbers = value.split(|b| *b == b',').map(pax::decimal);
    while let Some(offset) = numbers.next() {
        let (Some(offset), Some(Some(length))) = (offset, numbers.next()) else {
            refuse!("a sparse file's map is malformed");
        };
        map.push(Extent { offset, length });
    }
    Ok(map)
}

/// GNU's oldest format: 24 bytes an extent; the first empty one ends the list.
pub(super) fn old(fields: &[u8], map: &mut Vec<Extent>) -> Result<()> {
    for field in fields.chunks_exact(24) {
        let (offset, length) = field.split_at(12);
        if offset.first() == Some(&0) || length.first() == Some(&0) {
            return Ok(());
        }
        let number = |field| Ok(u64::try_from(number::parse("offset", field)?).ok());
        let number = |field| -> Result<Option<u64>> { number(field) };
        let (Some(offset), Some(length)) = (number(offset)?, number(length)?) else {
            refuse!("a sparse file's map is out of range");
        };
        map.push(Extent { offset, length });
    }
    Ok(())
}

/// Version 1.0: the map stands before the data, as decimal numbers in lines, filled up to a
/// block. Takes blocks until it is whole.
#[derive(Default)]
pub(super) struct MapReader {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl MapReader {
    /// The map, if it ends in this block.
    pub(super) fn feed(&mut self, block: &[u8]) -> Result<Option<Vec<Extent>>> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 19 {
                    refuse!("a sparse file's map is malformed");
                }
                continue;
            }
            let Some(number) = pax::decimal(&self.digits) else {
                refuse!("a sparse file's map is malformed");
            };
            self.digits.clear();
            self.numbers.push(number);
            let count = self.numbers.first().copied().unwrap_or(0);
            if self.numbers.len() as u64 == count.saturating_mul(2).saturating_add(1) {
                let extents = self.numbers[1..].chunks_exact(2);
                return Ok(Some(
                    extents.map(|pair| Extent { offset: pair[0], length: pair[1] }).collect(),
                ));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn a_map_must_add_up() {
        assert!(check(&[extent(0, 4), extent(8, 2), extent(16, 0)], 16, 6).is_ok());
        for (map, size, stored) in [
            (&[extent(8, 2), extent(0, 4)][..], 16, 6),
            (&[extent(0, 4), extent(2, 4)], 16, 8),
            (&[extent(12, 8)], 16, 8),
            (&[extent(u64::MAX, 8)], 16, 8),
            (&[extent(0, 4)], 16, 5),
        ] {
            assert!(check(map, size, stored).is_err(), "{map:?}");
        }
    }

    #[test]
    fn maps_of_all_forms_are_read() {
        assert_eq!(list(b"1,2,30,4").unwrap(), [extent(1, 2), extent(30, 4)]);
        assert!(list(b"1,2,3").is_err());
        assert!(list(b"1,,3,4").is_err());
        let mut reader = MapReader::default();
        assert_eq!(reader.feed(b"2\n1\n").unwrap(), None);
        let map = reader.feed(b"2\n30\n4\n\0\0").unwrap();
        assert_eq!(map, Some(vec![extent(1, 2), extent(30, 4)]));
        assert!(MapReader::default().feed(&[b'1'; 40]).is_err());
        assert_eq!(MapReader::default().feed(b"0\n").unwrap(), Some(vec![]));
    }
}
