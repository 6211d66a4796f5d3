//! The functions of templates: Go's, and docker's.

use super::{Value, value::Zero};

const NAMES: [&str; 25] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
    "html", "urlquery",
];

/// Whether there is such a function.
pub(crate) fn known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls one. The value of a pipeline is the last argument.
pub(crate) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let wrong = || format!("wrong number or kind of args for {name}");
    let text = |value: String| Ok(Value::Text(value));
    match (name, arguments.as_slice()) {
        ("json", [value]) => text(value.json()),
        ("upper", [value]) => text(value.to_string().to_uppercase()),
        ("lower", [value]) => text(value.to_string().to_lowercase()),
        ("title", [value]) => text(title(&value.to_string())),
        ("html", [value]) => text(html(&value.to_string())),
        ("urlquery", [value]) => text(query(&value.to_string())),
        ("len", [value]) => {
            let length = match value {
                Value::Text(text) => text.len(),
                Value::List(items) => items.len(),
                Value::Object(fields) | Value::Hidden(fields) => fields.len(),
                Value::Zero(Zero::List | Zero::Map) => 0,
                other => return Err(format!("error calling len: len of type {other}")),
            };
            Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
        }
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("and", [.., last]) => {
            Ok(arguments.iter().find(|value| !value.truth()).unwrap_or(last).clone())
        }
        ("or", [.., last]) => {
            Ok(arguments.iter().find(|value| value.truth()).unwrap_or(last).clone())
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            Ok(Value::Bool(others.iter().any(|other| other == first)))
        }
        ("ne", [a, b]) => Ok(Value::Bool(a != b)),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            let order = compare(a, b).ok_or("incompatible types for comparison")?;
            Ok(Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        ("index", [value, keys @ ..]) => index(value, keys),
        ("join", [Value::List(items), Value::Text(by)]) => {
            text(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(by))
        }
        ("join", [Value::Nil | Value::Zero(Zero::List), _]) => text(String::new()),
        ("split", [value, Value::Text(by)]) => Ok(Value::List(
            value.to_string().split(by.as_str()).map(|part| Value::Text(part.to_owned())).collect(),
        )),
        ("truncate", [value, Value::Int(letters)]) => {
            let letters = usize::try_from(*letters).map_err(|_| wrong())?;
            text(value.to_string().chars().take(letters).collect())
        }
        ("pad", [value, Value::Int(before), Value::Int(after)]) => {
            let blanks = |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0).min(1000));
            let value = value.to_string();
            text(if value.is_empty() {
                value
            } else {
                format!("{}{value}{}", blanks(before), blanks(after))
            })
        }
        ("slice", [value, Value::Int(from), rest @ ..]) => slice(value, *from, rest.first()),
        ("print", values) => text(values.iter().map(ToString::to_string).collect()),
        ("println", values) => {
            let words: Vec<_> = values.iter().map(ToString::to_string).collect();
            text(format!("{}\n", words.join(" ")))
        }
        ("printf", [Value::Text(format), values @ ..]) => text(printf(format, values)),
        _ => Err(wrong()),
    }
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(|| format!("error calling index: index out of range: {at}"))?,
            // What a map does not have is its zero value: of maps of text, the empty one.
            (Value::Object(_) | Value::Hidden(_), Value::Text(key)) => {
                value.field(key).cloned().unwrap_or_else(|| Value::Text(String::new()))
            }
            (Value::Zero(Zero::Map), Value::Text(_)) => Value::Text(String::new()),
            (Value::Nil, _) => return Err("error calling index: index of untyped nil".to_owned()),
            _ => return Err(format!("error calling index: can't index item with {key}")),
        };
    }
    Ok(value)
}

fn slice(value: &Value, from: i64, to: Option<&Value>) -> Result<Value, String> {
    let range = |length: usize| {
        let to = match to {
            Some(Value::Int(to)) => usize::try_from(*to).ok(),
            None => Some(length),
            Some(_) => None,
        };
        let from = usize::try_from(from).ok();
        from.zip(to)
            .filter(|(from, to)| from <= to && *to <= length)
            .ok_or("error calling slice: index out of range")
    };
    match value {
        Value::Text(text) => {
            let (from, to) = range(text.len())?;
            let part = text.get(from..to).ok_or("error calling slice: not at a letter")?;
            Ok(Value::Text(part.to_owned()))
        }
        Value::List(items) => {
            let (from, to) = range(items.len())?;
            Ok(Value::List(items[from..to].to_vec()))
        }
        other => Err(format!("error calling slice: can't slice {other}")),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|letter| {
            let upper = start && letter.is_alphabetic();
            start = !letter.is_alphanumeric() && letter != '_' && letter != '\'';
            let letters: Vec<char> =
                if upper { letter.to_uppercase().collect() } else { vec![letter] };
            letters
        })
        .collect()
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
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

/// `%s %v %d %q %t %x %f %%`, with `-`, `0`, a width and a precision.
fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut spec = String::new();
        while let Some(next) =
            letters.peek().filter(|c| c.is_ascii_digit() || "-+.# ".contains(**c))
        {
            spec.push(*next);
            letters.next();
        }
        let Some(verb) = letters.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let (width, precision) = spec.split_once('.').unwrap_or((&spec, ""));
        let digits = width.trim_start_matches(['-', '+', '#', ' ']);
        let precision: Option<usize> = precision.parse().ok();
        let text = match (verb, value) {
            ('q', value) => super::text::quote(&value.to_string()),
            ('x', Value::Int(value)) => format!("{value:x}"),
            ('f', Value::Float(value)) => format!("{value:.*}", precision.unwrap_or(6)),
            ('s' | 'v', value) => match precision {
                Some(letters) => value.to_string().chars().take(letters).collect(),
                None => value.to_string(),
            },
            (_, value) => value.to_string(),
        };
        let blanks =
            digits.parse::<usize>().unwrap_or(0).min(1000).saturating_sub(text.chars().count());
        let fill =
            if digits.starts_with('0') && matches!(value, Value::Int(_)) { "0" } else { " " };
        if width.starts_with('-') {
            out.push_str(&text);
            out.push_str(&" ".repeat(blanks));
        } else {
            out.push_str(&fill.repeat(blanks));
            out.push_str(&text);
        }
    }
    out
}
