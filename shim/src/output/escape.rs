//! JSON strings as dockerd's json-file driver escapes them: `\n`, `\r`, `\"` and `\\` by
//! letter, every other control character, `<`, `>`, `&`, U+2028 and U+2029 by number, and each
//! byte that is not UTF-8 as `\ufffd`.

const HEX: &[u8; 16] = b"0123456789abcdef";
const ONES: u64 = u64::MAX / 0xff;
const HIGHS: u64 = ONES << 7;

/// Appends `text`, escaped, without the quotes.
pub(super) fn push_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while !text.is_empty() {
        let plain = plain_len(text);
        out.extend_from_slice(&text[..plain]);
        text = &text[plain..];
        let Some(&byte) = text.first() else { return };
        if byte.is_ascii() {
            push_ascii(out, byte);
            text = &text[1..];
        } else {
            // A character of several bytes has no ASCII byte in it, so that such a run can be
            // judged alone.
            let run = text.iter().position(u8::is_ascii).unwrap_or(text.len());
            push_run(out, &text[..run]);
            text = &text[run..];
        }
    }
}

/// How many bytes at the start stand for themselves.
fn plain_len(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at * 8 + (special.trailing_zeros() / 8) as usize;
        }
    }
    let is_special =
        |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\' | b'<' | b'>' | b'&' | 0x80..);
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The high bit of each byte of `word` that needs escaping. Above the lowest such byte there
/// may be false ones: a borrow goes upwards only.
fn special_bytes(word: u64) -> u64 {
    // The well-known test for a zero byte.
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & HIGHS;
    let equal = |byte: u8| u64::from(byte) * ONES;
    let control = word.wrapping_sub(equal(0x20)) & !word & HIGHS;
    // `<` and `>` differ in one bit only, and so do `"` and `&`.
    let angle = zero((word | equal(0x02)) ^ equal(b'>'));
    let quote = zero((word | equal(0x04)) ^ equal(b'&'));
    let backslash = zero(word ^ equal(b'\\'));
    control | angle | quote | backslash | (word & HIGHS)
}

fn push_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

/// Appends a run of bytes that are not ASCII.
fn push_run(out: &mut Vec<u8>, run: &[u8]) {
    for chunk in run.utf8_chunks() {
        let valid = chunk.valid();
        let mut from = 0;
        for (at, separator) in valid.match_indices(['\u{2028}', '\u{2029}']) {
            out.extend_from_slice(&valid.as_bytes()[from..at]);
            out.extend_from_slice(if separator == "\u{2028}" { b"\\u2028" } else { b"\\u2029" });
            from = at + separator.len();
        }
        out.extend_from_slice(&valid.as_bytes()[from..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_escaped(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_byte_is_escaped_as_dockerd_does() {
        for (text, expected) in [
            (&b"plain"[..], "plain"),
            (b"\n\r\"\\", r#"\n\r\"\\"#),
            (b"\t\x08\x0c\x00\x1f\x7f", "\\u0009\\u0008\\u000c\\u0000\\u001f\x7f"),
            (b"<a>&</a>", r"\u003ca\u003e\u0026\u003c/a\u003e"),
            ("grün \u{1f600}".as_bytes(), "grün \u{1f600}"),
            ("a\u{2028}b\u{2029}\u{2027}".as_bytes(), "a\\u2028b\\u2029\u{2027}"),
            (b"\xff\xfe", r"\ufffd\ufffd"),
            // A cut character is one mark for each byte, not one for the character.
            (b"\xe2\x82x", r"\ufffd\ufffdx"),
            // A surrogate.
            (b"\xed\xa0\x80", r"\ufffd\ufffd\ufffd"),
            ("\u{fffd}".as_bytes(), "\u{fffd}"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn every_byte_is_found_at_every_place_of_a_word() {
        for byte in 0..=u8::MAX {
            let alone = escaped(&[byte]);
            for at in 0..17 {
                let mut text = [b'x'; 17];
                text[at] = byte;
                let expected = format!("{}{alone}{}", "x".repeat(at), "x".repeat(16 - at));
                assert_eq!(escaped(&text), expected, "byte {byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn every_pair_of_neighbours_is_escaped_as_if_alone() {
        for first in 0..0x80 {
            for second in 0..0x80 {
                let expected = escaped(&[first]) + &escaped(&[second]) + "xxxxxx";
                let text = [first, second, b'x', b'x', b'x', b'x', b'x', b'x'];
                assert_eq!(escaped(&text), expected);
            }
        }
    }
}
