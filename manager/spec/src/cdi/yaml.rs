//! YAML as the JSON that it says.
//!
//! Documents come from vendors' installers and are read with the manager's rights (R14). So an
//! alias, by which a page can say gigabytes, and a tag, by which text can ask to be something
//! else, are refused; so is what nests deeper than any document about devices does. Numbers are
//! read as Go reads them, in which CDI's own library is written: `0660` is octal.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// The deepest place of a CDI document is six levels down.
const MAX_DEPTH: usize = 32;

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

/// The one document that `text` has.
///
/// # Errors
/// What is wrong, with its line where it is not well-formed.
pub(super) fn to_json(text: &str) -> Result<Value, String> {
    let mut events = Parser::new_from_str(text);
    let mut found = None;
    loop {
        match next(&mut events)? {
            Event::StreamEnd => return found.ok_or_else(|| "it is empty".to_owned()),
            Event::DocumentStart(_) if found.is_some() => {
                return Err("it has more than one document".to_owned());
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => found = Some(value(event, &mut events, 0)?),
        }
    }
}

fn next<'a>(events: &mut Events<'a>) -> Result<Event<'a>, String> {
    match events.next_event() {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it ends too early".to_owned()),
    }
}

fn value<'a>(event: Event<'a>, events: &mut Events<'a>, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
    }
    match event {
        Event::Scalar(text, style, 0, None) => Ok(scalar(&text, style)),
        Event::SequenceStart(0, None) => {
            let mut list = Vec::new();
            loop {
                match next(events)? {
                    Event::SequenceEnd => return Ok(Value::Array(list)),
                    event => list.push(value(event, events, depth + 1)?),
                }
            }
        }
        Event::MappingStart(0, None) => {
            let mut map = Map::new();
            loop {
                let key = match next(events)? {
                    Event::MappingEnd => return Ok(Value::Object(map)),
                    Event::Scalar(key, _, 0, None) => key.into_owned(),
                    _ => return Err("a key is not a plain text".to_owned()),
                };
                let event = next(events)?;
                let value = value(event, events, depth + 1)?;
                if map.contains_key(&key) {
                    return Err(format!("it has the key {key:?} twice"));
                }
                map.insert(key, value);
            }
        }
        Event::Alias(_) => Err("it has an alias, which is not supported".to_owned()),
        Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
            Err("it has an anchor or a tag, which is not supported".to_owned())
        }
        _ => Err("a value is missing".to_owned()),
    }
}

/// What is quoted is text; of the others, what looks like something else is that.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::from(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::from(number);
    }
    let is_float = text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let float = text.parse().ok().filter(|_| is_float).and_then(Number::from_f64);
    float.map_or_else(|| Value::from(text), Value::Number)
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).filter(|rest| !rest.is_empty()).map(|rest| (rest, radix))
    };
    let (digits, radix) = radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0", 8))
        .unwrap_or((digits, 10));
    // The parser of numbers would take a sign of its own.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    Some(sign * i64::from_str_radix(digits, radix).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_go_reads() {
        let text = "a: 1\nb: [x, '1', \"2\", 0660, 0o17, 0x1F, -3, 08, 1.5, 1.2.3, .5]\n\
            c: {d: ~, e: true, f: no}\ng:\n- h: |\n    two\n    lines\n- # nothing\n";
        let expected = serde_json::json!({
            "a": 1, "b": ["x", "1", "2", 432, 15, 31, -3, 8.0, 1.5, "1.2.3", ".5"],
            "c": {"d": null, "e": true, "f": "no"}, "g": [{"h": "two\nlines\n"}, null]
        });
        assert_eq!(to_json(text).unwrap(), expected);
        assert_eq!(to_json("---\n{\"a\": [1]}\n...\n").unwrap(), serde_json::json!({"a": [1]}));
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        let bomb = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)
        });
        let deep = ["[".repeat(40), "]".repeat(40)].concat();
        let deepest = "[".repeat(100_000);
        for (text, words) in [
            (bomb.as_str(), "anchor"),
            ("a: *b", "anchor"),
            (deep.as_str(), "nests deeper"),
            (deepest.as_str(), "recursion limit"),
            ("!!binary aGk=", "tag"),
            ("a: 1\na: 2", "the key \"a\" twice"),
            ("? [a]\n: b", "key"),
            ("a: b: c", "line"),
            ("", "empty"),
            ("a\n---\nb", "more than one document"),
        ] {
            let error = to_json(text).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
