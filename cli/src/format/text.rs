//! Text for people's terminals and tables.

use std::fmt::Write as _;

/// The same without what a terminal would act on: control characters and the marks that turn
/// the direction of text are written as escapes. Line ends and tabs stay, which tables need.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if letter == '\n' || letter == '\t' || !(letter.is_control() || turns) {
            safe.push(letter);
        } else if (letter as u32) < 0x80 {
            let _ = write!(safe, "\\x{:02x}", letter as u32);
        } else {
            let _ = write!(safe, "\\u{:04x}", letter as u32);
        }
    }
    safe
}

/// The first letters, and an ellipsis in place of the rest.
pub(crate) fn ellipsis(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(letters.saturating_sub(1)).collect();
    short.push('\u{2026}');
    short
}

/// Go's strconv.Quote: double quotes, and escapes for what is not printable.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            other => quoted.push_str(&escape(&other.to_string())),
        }
    }
    quoted.push('"');
    quoted
}

/// The 12 digits of an id that people see.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_commands() {
        assert_eq!(
            escape("a\u{1b}[31mb\u{9b}c\u{202e}d\r\te\u{e9}"),
            "a\\x1b[31mb\\u009bc\\u202ed\\x0d\te\u{e9}"
        );
        assert_eq!(quote("a\"\n\u{1b}"), "\"a\\\"\\n\\x1b\"");
    }

    #[test]
    fn shortened() {
        assert_eq!(
            ellipsis("sh -c 'echo out; echo err >&2; exit 3'", 20),
            "sh -c 'echo out; ec\u{2026}"
        );
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(short_id("sha256:0826b1a22be6e736"), "0826b1a22be6");
        assert_eq!(short_id("abc"), "abc");
    }
}
