//! Words of a Dockerfile instruction: quotes, backslashes and variables, as a shell has them.

use hull_manager_core::{Error, Result};

/// Splits at white space outside quotes; quotes and backslashes stay.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            // A backslash means nothing within single quotes.
            (None | Some('"'), '\\') => {
                word.push(c);
                word.extend(characters.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and backslashes away and puts the values of variables in.
pub(crate) fn expand(word: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut quote = None;
    let mut characters = word.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '\\') => out.extend(characters.next()),
            // Within double quotes it escapes only what would mean something there.
            (Some('"'), '\\') => match characters.next() {
                Some(next @ ('"' | '$' | '\\')) => out.push(next),
                next => {
                    out.push('\\');
                    out.extend(next);
                }
            },
            (None | Some('"'), '$') => {
                out.push_str(&variable(&mut characters, word, get)?);
            }
            _ => out.push(c),
        }
    }
    match quote {
        Some(_) => Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote: {word}"
        ))),
        None => Ok(out),
    }
}

/// After `$`: `NAME`, `{NAME}`, `{NAME:-word}`, `{NAME:+word}`.
fn variable(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &str,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let braces = characters.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = characters.next_if(is_name) {
        name.push(c);
    }
    if !braces {
        return Ok(if name.is_empty() { "$".into() } else { get(&name).unwrap_or_default() });
    }
    let mut rest = String::new();
    let mut depth = 1;
    for c in characters.by_ref() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        rest.push(c);
    }
    let value = get(&name).filter(|value| !value.is_empty());
    let bad =
        || Error::invalid(format!("syntax error: missing '}}' or unsupported modifier: {word}"));
    if depth != 0 || name.is_empty() {
        return Err(bad());
    }
    match (rest.get(..2), rest.get(2..)) {
        _ if rest.is_empty() => Ok(get(&name).unwrap_or_default()),
        (Some(":-"), Some(other)) => value.map_or_else(|| expand(other, get), Ok),
        (Some(":+"), Some(other)) => {
            value.map_or_else(|| Ok(String::new()), |_| expand(other, get))
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str) -> Option<String> {
        match name {
            "A" => Some("a b".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn words_end_at_white_space_outside_quotes() {
        for (text, words) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (r#"a="b c" d"#, &[r#"a="b c""#, "d"]),
            (r"a\ b c", &[r"a\ b", "c"]),
            (r"'a\' b", &[r"'a\'", "b"]),
            ("", &[]),
        ] {
            assert_eq!(split(text), words, "{text}");
        }
    }

    #[test]
    fn variables_and_quotes_are_expanded() {
        for (word, expanded) in [
            ("$A", "a b"),
            ("${A}x", "a bx"),
            ("'$A'", "$A"),
            (r#""$A""#, "a b"),
            (r"\$A", "$A"),
            (r#""\$A\n""#, r"$A\n"),
            ("$NONE-", "-"),
            ("${NONE:-$A}", "a b"),
            ("${EMPTY:-x}", "x"),
            ("${A:+y}", "y"),
            ("${NONE:+y}", ""),
            ("5$", "5$"),
        ] {
            assert_eq!(expand(word, &get).unwrap(), expanded, "{word}");
        }
        for bad in ["'a", "${A", "${}", "${A:?x}", "${A/b/c}"] {
            assert!(expand(bad, &get).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_text_panics() {
        // All words of up to five of the characters that mean something.
        let alphabet = ['\'', '"', '\\', '$', '{', '}', ':', '-', 'A', ' '];
        for number in 0..100_000_usize {
            let mut rest = number;
            let mut word = String::new();
            while rest > 0 {
                word.push(alphabet[rest % 10]);
                rest /= 10;
            }
            let _ = expand(&word, &get);
            split(&word);
        }
    }
}
