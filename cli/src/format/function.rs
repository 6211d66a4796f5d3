//! The functions of templates: Go's, and docker's.

use super::{Value, compare, printf, tree::Operand, value::Zero};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Any,
    Text,
    Int,
    List,
}

/// A function: what it takes, and whether the last of that is taken any number of times.
type Signature = (&'static str, &'static [Kind], bool);

const SIGNATURES: [Signature; 27] = [
    ("and", &[Kind::Any, Kind::Any], true),
    ("call", &[Kind::Any, Kind::Any], true),
    ("eq", &[Kind::Any, Kind::Any], true),
    ("ge", &[Kind::Any, Kind::Any], false),
    ("gt", &[Kind::Any, Kind::Any], false),
    ("html", &[Kind::Any], true),
    ("index", &[Kind::Any, Kind::Any], true),
    ("join", &[Kind::List, Kind::Text], false),
    ("js", &[Kind::Any], true),
    ("json", &[Kind::Any], false),
    ("le", &[Kind::Any, Kind::Any], false),
    ("len", &[Kind::Any], false),
    ("lower", &[Kind::Text], false),
    ("lt", &[Kind::Any, Kind::Any], false),
    ("ne", &[Kind::Any, Kind::Any], false),
    ("not", &[Kind::Any], false),
    ("or", &[Kind::Any, Kind::Any], true),
    ("pad", &[Kind::Text, Kind::Int, Kind::Int], false),
    ("print", &[Kind::Any], true),
    ("printf", &[Kind::Text, Kind::Any], true),
    ("println", &[Kind::Any], true),
    ("slice", &[Kind::Any, Kind::Any], true),
    ("split", &[Kind::Text, Kind::Text], false),
    ("title", &[Kind::Text], false),
    ("truncate", &[Kind::Text, Kind::Int], false),
    ("upper", &[Kind::Text], false),
    ("urlquery", &[Kind::Any], true),
];

fn signature(name: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|(known, ..)| *known == name)
}

/// Whether there is such a function.
pub(super) fn known(name: &str) -> bool {
    signature(name).is_some()
}

/// Whether a function is docker's, for the values of a table: not for its headings.
pub(super) fn is_of_values(name: &str) -> bool {
    matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
}

/// Whether so many arguments are right; else, how many are.
pub(super) fn takes(name: &str, count: usize) -> Result<(), String> {
    let Some((_, kinds, more)) = signature(name) else { return Ok(()) };
    match kinds.len() {
        least if *more && count + 1 >= least => Ok(()),
        least if *more => Err(format!("at least {}", least - 1)),
        exact if exact == count => Ok(()),
        exact => Err(exact.to_string()),
    }
}

/// Whether a value may be the argument at a place; else, what it should be.
pub(super) fn accepts(
    name: &str,
    at: usize,
    value: &Value,
    literal: Option<&Operand>,
) -> Result<(), String> {
    let Some((_, kinds, _)) = signature(name) else { return Ok(()) };
    let Some(kind) = kinds.get(at).or(kinds.last()) else { return Ok(()) };
    let (long, short) = match (kind, value) {
        (Kind::Any, _)
        | (Kind::Text, Value::Text(_))
        | (Kind::Int, Value::Int(_))
        | (Kind::List, Value::List(_) | Value::Nil | Value::Zero(Zero::List)) => return Ok(()),
        (Kind::Text, _) => ("string", "string"),
        (Kind::Int, _) => ("integer", "int"),
        (Kind::List, _) => ("[]string", "[]string"),
    };
    Err(match (literal, value) {
        (Some(operand), _) if *kind != Kind::List => format!("expected {long}; found {operand}"),
        (_, Value::Nil) => format!("invalid value; expected {short}"),
        _ => format!("wrong type for value; expected {short}; got {}", value.type_name()),
    })
}

/// Calls one with as many arguments as it takes. The value of a pipeline is the last of them.
pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let text = |value: String| Ok(Value::Text(value));
    match (name, arguments.as_slice()) {
        ("json", [value]) => text(value.json()),
        ("upper", [value]) => text(value.to_string().to_uppercase()),
        ("lower", [value]) => text(value.to_string().to_lowercase()),
        ("title", [value]) => text(title(&value.to_string())),
        ("html", values) => text(html(&printf::print(values))),
        ("js", values) => text(js(&printf::print(values))),
        ("urlquery", values) => text(query(&printf::print(values))),
        ("print", values) => text(printf::print(values)),
        ("println", values) => text(printf::println(values)),
        ("printf", [Value::Text(format), values @ ..]) => text(printf::printf(format, values)),
        ("len", [value]) => length(value).map(Value::Int),
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("eq", [first, others @ ..]) => compare::equals_any(first, others).map(Value::Bool),
        ("ne", [a, b]) => compare::equals(a, b).map(|equal| Value::Bool(!equal)),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            let less = |a, b| compare::less(a, b);
            Ok(Value::Bool(match name {
                "lt" => less(a, b)?,
                "ge" => !less(a, b)?,
                "le" => less(a, b)? || compare::equals(a, b)?,
                _ => !(less(a, b)? || compare::equals(a, b)?),
            }))
        }
        ("index", [value, keys @ ..]) => index(value, keys),
        ("slice", [value, places @ ..]) => slice(value, places),
        ("call", [Value::Nil, ..]) => Err("call of nil".to_owned()),
        ("call", [value, ..]) => Err(format!("non-function of type {}", value.type_name())),
        ("join", [Value::List(items), Value::Text(by)]) => {
            text(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(by))
        }
        ("join", _) => text(String::new()),
        ("split", [Value::Text(value), Value::Text(by)]) => Ok(Value::List(match by.as_str() {
            "" => value.chars().map(|letter| Value::Text(letter.to_string())).collect(),
            by => value.split(by).map(|part| Value::Text(part.to_owned())).collect(),
        })),
        ("truncate", [Value::Text(value), Value::Int(bytes)]) => {
            let bytes = usize::try_from(*bytes).map_err(|_| "slice bounds out of range")?;
            let end = value.char_indices().map(|(at, letter)| at + letter.len_utf8());
            let end = end.take_while(|end| *end <= bytes).last().unwrap_or(0);
            text(value.get(..end).unwrap_or_default().to_owned())
        }
        ("pad", [Value::Text(value), Value::Int(before), Value::Int(after)]) => {
            let blanks = |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0).min(1000));
            text(match value.as_str() {
                "" => String::new(),
                value => format!("{}{value}{}", blanks(before), blanks(after)),
            })
        }
        _ => Err("wrong kind of arguments".to_owned()),
    }
}

fn length(value: &Value) -> Result<i64, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Object(fields) | Value::Map(fields) | Value::Hidden(fields) => fields.len(),
        Value::Zero(Zero::List | Zero::Map) => 0,
        Value::Zero(Zero::Pointer) => return Err("len of nil pointer".to_owned()),
        Value::Nil => return Err("len of untyped nil".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

/// A place in a list or a text that has so many.
fn place(place: &Value, most: usize) -> Result<usize, String> {
    match place {
        Value::Int(at) => usize::try_from(*at)
            .ok()
            .filter(|at| *at <= most)
            .ok_or_else(|| format!("index out of range: {at}")),
        Value::Nil => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!("cannot index slice/array with type {}", other.type_name())),
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    if *value == Value::Nil {
        return Err("index of untyped nil".to_owned());
    }
    let mut value = value.clone();
    for key in keys {
        let outside = || format!("index out of range: {key}");
        value = match (&value, key) {
            (Value::Text(text), key) => {
                let at = place(key, text.len())?;
                let byte = text.as_bytes().get(at).ok_or_else(outside)?;
                Value::Int(i64::from(*byte))
            }
            (Value::List(items), key) => {
                items.get(place(key, items.len())?).cloned().ok_or_else(outside)?
            }
            (Value::Zero(Zero::List), key) => {
                place(key, 0)?;
                return Err(outside());
            }
            // What a map does not have is its zero value: of maps of text, the empty one.
            (Value::Object(fields) | Value::Map(fields), Value::Text(key)) => {
                value.field(key).cloned().unwrap_or_else(|| zero_of(fields))
            }
            (Value::Zero(Zero::Map), Value::Text(_)) => Value::Text(String::new()),
            (Value::Object(_) | Value::Map(_) | Value::Zero(Zero::Map), key) => {
                return Err(format!("value has type {}; should be string", key.type_name()));
            }
            (Value::Zero(Zero::Pointer), _) => return Err("index of nil pointer".to_owned()),
            (Value::Nil, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

/// What a map gives for a key that it has not, by what it gives for others.
fn zero_of(fields: &[(String, Value)]) -> Value {
    match fields.first() {
        Some((_, Value::Object(_))) => Value::Zero(Zero::Pointer),
        Some((_, Value::List(_) | Value::Nil | Value::Zero(Zero::List))) => Value::Zero(Zero::List),
        _ => Value::Text(String::new()),
    }
}

fn slice(value: &Value, places: &[Value]) -> Result<Value, String> {
    let (length, is_text) = match value {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::Text(text) => (text.len(), true),
        Value::List(items) => (items.len(), false),
        Value::Zero(Zero::List) => (0, false),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    if places.len() > 3 {
        return Err(format!("too many slice indexes: {}", places.len()));
    }
    if places.len() == 3 && is_text {
        return Err("cannot 3-index slice a string".to_owned());
    }
    let mut bounds = [0, length, length];
    for (bound, at) in bounds.iter_mut().zip(places) {
        *bound = place(at, length)?;
    }
    let [from, to, most] = bounds;
    for (low, high) in [(from, to), (to, most)] {
        if low > high {
            return Err(format!("invalid slice index: {low} > {high}"));
        }
    }
    match value {
        Value::Text(text) => {
            let part = text.as_bytes().get(from..to).unwrap_or_default();
            Ok(Value::Text(String::from_utf8_lossy(part).into_owned()))
        }
        Value::List(items) => Ok(Value::List(items.get(from..to).unwrap_or_default().to_vec())),
        _ => Ok(Value::Zero(Zero::List)),
    }
}

/// Go's strings.Title: what follows a letter, a digit, an underscore or an apostrophe is within.
fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|letter| {
            let upper = start && letter.is_alphabetic();
            start = !letter.is_alphanumeric() && letter != '_';
            let letters: Vec<char> =
                if upper { letter.to_uppercase().collect() } else { vec![letter] };
            letters
        })
        .collect()
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('\0', "\u{fffd}")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

fn js(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '\'' | '"' => safe.extend(['\\', letter]),
            '<' | '>' | '&' | '=' => safe.push_str(&format!("\\u{:04X}", letter as u32)),
            letter if letter.is_control() => {
                safe.push_str(&format!("\\u{:04X}", letter as u32));
            }
            letter => safe.push(letter),
        }
    }
    safe
}

fn query(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
