//! Numbers in headers: octal digits, or GNU's base 256.

use anyhow::Result;

use crate::error::refuse;

/// A numeric field. Octal: spaces, digits, then spaces and NULs to its end; none is 0. Base 256:
/// the first byte's high bit says so, the rest is two's complement, big endian.
pub(super) fn parse(what: &str, field: &[u8]) -> Result<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(what, field),
        _ => octal(what, field),
    }
}

fn octal(what: &str, field: &[u8]) -> Result<i64> {
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let mut value: i64 = 0;
    let mut rest = field.get(start..).unwrap_or_default();
    while let Some((digit @ b'0'..=b'7', after)) = rest.split_first() {
        // The widest field has 12 digits.
        value = value << 3 | i64::from(digit - b'0');
        rest = after;
    }
    if !rest.iter().all(|b| matches!(b, b' ' | 0)) {
        refuse!("the {what} is not a number");
    }
    Ok(value)
}

fn base_256(what: &str, field: &[u8]) -> Result<i64> {
    let (first, rest) = field.split_first().unwrap_or((&0x80, &[]));
    // Bit 6 is the sign; the high bit is the mark.
    let negative = first & 0x40 != 0;
    let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    for byte in rest {
        // 12 bytes are 94 bits.
        value = value << 8 | i128::from(*byte);
    }
    match i64::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => refuse!("the {what} is too large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_others_read_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\0", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-644\0\0\0\0", None),
            (b"644\0 7\0\0", None),
            (b"0x10\0\0\0\0", None),
        ] {
            assert_eq!(parse("size", field).ok(), value, "{field:?}");
        }
    }
}
