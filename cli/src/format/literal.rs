//! Literals: Go's strings, characters and numbers.

use super::Value;

/// What a string between quotation marks says; nothing if it is none.
pub(crate) fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => escape(&mut letters, '"', &mut bytes)?,
            '"' => return None,
            letter => put(letter, &mut bytes),
        }
    }
    // `\xff` can make what is no text; Go would write the byte.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number of `'a'`.
pub(crate) fn character(quoted: &str) -> Option<i64> {
    let inner = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut letters = inner.chars();
    let number = match letters.next()? {
        '\\' => {
            let mut code = letters.clone();
            if let Some((digits, radix)) = numeric(&mut code) {
                letters = code;
                u32::from_str_radix(&digits, radix).ok()?
            } else {
                let mut bytes = Vec::new();
                escape(&mut letters, '\'', &mut bytes)?;
                u32::from(*bytes.first()?)
            }
        }
        letter => letter as u32,
    };
    letters.next().is_none().then_some(i64::from(number))
}

fn put(letter: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The digits after `\x`, `\u`, `\U` or a backslash alone, and their base.
fn numeric(letters: &mut std::str::Chars<'_>) -> Option<(String, u32)> {
    let (count, radix, first) = match letters.next()? {
        'x' => (2, 16, None),
        'u' => (4, 16, None),
        'U' => (8, 16, None),
        digit @ '0'..='7' => (2, 8, Some(digit)),
        _ => return None,
    };
    let mut digits: String = first.into_iter().collect();
    for _ in 0..count {
        digits.push(letters.next().filter(|digit| digit.is_digit(radix))?);
    }
    Some((digits, radix))
}

fn escape(letters: &mut std::str::Chars<'_>, mark: char, bytes: &mut Vec<u8>) -> Option<()> {
    let first = letters.as_str().chars().next()?;
    let byte = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        letter if letter == mark => u8::try_from(letter).ok()?,
        kind => {
            let (digits, radix) = numeric(letters)?;
            let number = u32::from_str_radix(&digits, radix).ok()?;
            match kind {
                'u' | 'U' => put(char::from_u32(number)?, bytes),
                _ => bytes.push(u8::try_from(number).ok()?),
            }
            return Some(());
        }
    };
    letters.next();
    bytes.push(byte);
    Some(())
}

/// A number.
pub(crate) fn number(text: &str) -> Result<Value, String> {
    let illegal = || format!("illegal number syntax: {text:?}");
    if text.ends_with('i') {
        return Err(format!("complex numbers are not supported: {text:?}"));
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let separated = digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__")
        || digits.contains("_.")
        || digits.contains("._");
    if separated {
        return Err(illegal());
    }
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let octal =
        lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|d| d.is_ascii_digit());
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..).unwrap_or_default()),
        Some("0b") => (2, lower.get(2..).unwrap_or_default()),
        Some("0o") => (8, lower.get(2..).unwrap_or_default()),
        _ if octal => (8, lower.get(1..).unwrap_or_default()),
        _ => (10, lower.as_str()),
    };
    if !body.is_empty() && body.chars().all(|digit| digit.is_digit(radix)) {
        let number = i128::from_str_radix(body, radix).ok().map(|number| number * sign);
        return number
            .and_then(|number| i64::try_from(number).ok())
            .map(Value::Int)
            .ok_or_else(|| format!("integer overflow: {text:?}"));
    }
    match lower.parse::<f64>() {
        Ok(number) if radix == 10 && number.is_finite() => {
            #[expect(clippy::cast_precision_loss, reason = "it is 1 or -1")]
            let sign = sign as f64;
            Ok(Value::Float(number * sign))
        }
        _ => Err(illegal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_characters_are_those_of_go() {
        for (quoted, text) in [
            (r#""a\n\t\"\\""#, Some("a\n\t\"\\")),
            (r#""\x41\u00e9\101\a\U0001f600""#, Some("A\u{e9}A\u{7}\u{1f600}")),
            (r#""\x4""#, None),
            (r#""\q""#, None),
            (r#""\'""#, None),
            (r#""\xff""#, Some("\u{fffd}")),
            ("\"", None),
        ] {
            assert_eq!(unquote(quoted).as_deref(), text, "{quoted}");
        }
        for (quoted, number) in [
            ("'a'", Some(97)),
            ("'\\n'", Some(10)),
            ("'\u{e9}'", Some(233)),
            ("'\\''", Some(39)),
            ("'\\x41'", Some(65)),
            ("'ab'", None),
            ("''", None),
        ] {
            assert_eq!(character(quoted), number, "{quoted}");
        }
    }

    #[test]
    fn numbers_are_those_of_go() {
        for (text, value) in [
            ("-5", Value::Int(-5)),
            ("+5", Value::Int(5)),
            ("1_000", Value::Int(1000)),
            ("0x1F", Value::Int(31)),
            ("0b11", Value::Int(3)),
            ("0o17", Value::Int(15)),
            ("017", Value::Int(15)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            (".1", Value::Float(0.1)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
        ] {
            assert_eq!(number(text).as_ref(), Ok(&value), "{text}");
        }
        for (text, why) in [
            ("99999999999999999999", "integer overflow: \"99999999999999999999\""),
            ("1e400", "illegal number syntax: \"1e400\""),
            ("1__0", "illegal number syntax: \"1__0\""),
            ("0x", "illegal number syntax: \"0x\""),
            ("1i", "complex numbers are not supported: \"1i\""),
        ] {
            assert_eq!(number(text).unwrap_err(), why);
        }
    }
}
