//! Go's fmt: `Sprint`, `Sprintln` and `Sprintf`, for the values of templates.

use super::{
    Value,
    text::quote,
    value::{Zero, float},
};

/// The most blanks or digits that a width or a precision asks for.
const MAX_WIDTH: usize = 10_000;

/// A blank between two of which neither is a text.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut was_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !out.is_empty() && !is_text && !was_text {
            out.push(' ');
        }
        was_text = is_text;
        out.push_str(&value.to_string());
    }
    out
}

/// A blank between all.
pub(super) fn println(values: &[Value]) -> String {
    let words: Vec<_> = values.iter().map(ToString::to_string).collect();
    format!("{}\n", words.join(" "))
}

/// What stands between `%` and its letter.
#[derive(Clone, Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    blank: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Arguments, in turn or by number.
struct Arguments<'a> {
    values: &'a [Value],
    next: usize,
    /// One was asked for by its number: then none is too much.
    by_number: bool,
}

impl Arguments<'_> {
    fn take(&mut self) -> Option<Value> {
        let value = self.values.get(self.next).cloned();
        self.next += 1;
        value
    }
}

/// Verbs of Go's fmt, with flags, width, precision, `*` and `[n]`.
pub(super) fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = Arguments { values, next: 0, by_number: false };
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('%') {
        out.push_str(text);
        rest = after;
        match spec(&mut rest, &mut arguments) {
            Ok(spec) => {
                let Some(verb) = rest.chars().next() else {
                    out.push_str("%!(NOVERB)");
                    break;
                };
                rest = rest.get(verb.len_utf8()..).unwrap_or_default();
                match verb {
                    '%' => out.push('%'),
                    verb => match arguments.take() {
                        Some(value) => out.push_str(&one(verb, &spec, &value)),
                        None => out.push_str(&format!("%!{verb}(MISSING)")),
                    },
                }
            }
            Err(why) => {
                // Go names the verb, which takes no argument then.
                let verb = rest.chars().next();
                rest = rest.get(verb.map_or(0, char::len_utf8)..).unwrap_or_default();
                out.extend(verb.map(|verb| format!("%!{verb}({why})")));
            }
        }
    }
    out.push_str(rest);
    let left = values.get(arguments.next..).unwrap_or_default();
    if !left.is_empty() && !arguments.by_number {
        let shown = left.iter().map(|value| match value {
            Value::Nil => "<nil>".to_owned(),
            value => format!("{}={value}", value.type_name()),
        });
        out.push_str(&format!("%!(EXTRA {})", shown.collect::<Vec<_>>().join(", ")));
    }
    out
}

fn spec(rest: &mut &str, arguments: &mut Arguments<'_>) -> Result<Spec, &'static str> {
    let mut spec = Spec::default();
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            ' ' => spec.blank = true,
            '0' => spec.zero = true,
            _ => break,
        }
        *rest = rest.get(1..).unwrap_or_default();
    }
    by_number(rest, arguments)?;
    match number(rest, arguments)? {
        Some(width) if width < 0 => {
            spec.minus = true;
            spec.width = usize::try_from(-width).ok();
        }
        width => spec.width = width.and_then(|width| usize::try_from(width).ok()),
    }
    if let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        by_number(rest, arguments)?;
        let digits = number(rest, arguments)?.unwrap_or(0);
        spec.precision = usize::try_from(digits).ok();
    }
    by_number(rest, arguments)?;
    Ok(spec)
}

/// `[2]`.
fn by_number(rest: &mut &str, arguments: &mut Arguments<'_>) -> Result<(), &'static str> {
    let Some(inner) = rest.strip_prefix('[') else { return Ok(()) };
    let (number, after) = inner.split_once(']').ok_or("BADINDEX")?;
    *rest = after;
    arguments.by_number = true;
    match number.parse::<usize>() {
        Ok(number) if (1..=arguments.values.len()).contains(&number) => {
            arguments.next = number - 1;
            Ok(())
        }
        _ => Err("BADINDEX"),
    }
}

/// Digits, or `*` and the next argument.
fn number(rest: &mut &str, arguments: &mut Arguments<'_>) -> Result<Option<i64>, &'static str> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return match arguments.take() {
            Some(Value::Int(number)) if number.unsigned_abs() <= MAX_WIDTH as u64 => {
                Ok(Some(number))
            }
            _ => Err("BADWIDTH"),
        };
    }
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at_checked(end).unwrap_or(("", rest));
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    let number = digits.parse().unwrap_or(usize::MAX).min(MAX_WIDTH);
    Ok(i64::try_from(number).ok())
}

fn one(verb: char, spec: &Spec, value: &Value) -> String {
    if verb == 'T' {
        let name = if *value == Value::Nil { "<nil>" } else { value.type_name() };
        return padded(name.to_owned(), &Spec { zero: false, ..spec.clone() });
    }
    match value {
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| one(verb, spec, item)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(fields) | Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(key, value)| {
                    let key = one(verb, spec, &Value::Text(key.clone()));
                    format!("{key}:{}", one(verb, spec, value))
                })
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Omitted(value) => one(verb, spec, value),
        value => scalar(verb, spec, value).map_or_else(
            || match value {
                Value::Nil => format!("%!{verb}(<nil>)"),
                value => format!("%!{verb}({}={value})", value.type_name()),
            },
            |text| padded(text, &fill(verb, spec, value)),
        ),
    }
}

/// Zeros are put before numbers only.
fn fill(verb: char, spec: &Spec, value: &Value) -> Spec {
    let is_number = matches!(value, Value::Int(_) | Value::Float(_)) && verb != 'c';
    let precise = matches!(value, Value::Int(_)) && spec.precision.is_some();
    Spec { zero: spec.zero && is_number && !precise && !spec.minus, ..spec.clone() }
}

fn padded(text: String, spec: &Spec) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if spec.minus {
        return text + &" ".repeat(missing);
    }
    if !spec.zero {
        return " ".repeat(missing) + &text;
    }
    match text.strip_prefix(['-', '+']) {
        Some(digits) => {
            let sign = if text.starts_with('-') { '-' } else { '+' };
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        None => "0".repeat(missing) + &text,
    }
}

/// A value by a verb that it has; nothing for others.
fn scalar(verb: char, spec: &Spec, value: &Value) -> Option<String> {
    match (value, verb) {
        (Value::Text(text), 's' | 'v' | 'q' | 'x' | 'X') => Some(of_text(verb, spec, text)),
        (Value::Bool(value), 't' | 'v') => Some(value.to_string()),
        (Value::Int(value), verb) => of_int(verb, spec, *value),
        (Value::Float(value), verb) => of_float(verb, spec, *value),
        (Value::Nil, 'v') => Some("<nil>".to_owned()),
        (Value::Zero(Zero::List), 'v' | 's' | 'q' | 'd') => Some("[]".to_owned()),
        (Value::Zero(Zero::Map), 'v' | 's' | 'q' | 'd') => Some("map[]".to_owned()),
        (Value::Zero(Zero::Pointer), 'v') => Some("<nil>".to_owned()),
        _ => None,
    }
}

fn of_text(verb: char, spec: &Spec, text: &str) -> String {
    let most = spec.precision.unwrap_or(usize::MAX);
    match verb {
        'x' | 'X' => {
            let bytes = text.bytes().take(most).map(|byte| match verb {
                'x' => format!("{byte:02x}"),
                _ => format!("{byte:02X}"),
            });
            bytes.collect::<Vec<_>>().join(if spec.blank { " " } else { "" })
        }
        verb => {
            let text: String = text.chars().take(most).collect();
            if verb == 'q' || (verb == 'v' && spec.sharp) { quote(&text) } else { text }
        }
    }
}

fn of_int(verb: char, spec: &Spec, value: i64) -> Option<String> {
    let (digits, prefix) = match verb {
        'd' | 'v' => (value.unsigned_abs().to_string(), ""),
        'x' => (format!("{:x}", value.unsigned_abs()), "0x"),
        'X' => (format!("{:X}", value.unsigned_abs()), "0X"),
        'o' => (format!("{:o}", value.unsigned_abs()), "0"),
        'O' => (format!("0o{:o}", value.unsigned_abs()), ""),
        'b' => (format!("{:b}", value.unsigned_abs()), "0b"),
        'c' | 'q' => {
            let letter = u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return Some(if verb == 'q' { format!("'{letter}'") } else { letter.to_string() });
        }
        'U' => return Some(format!("U+{value:04X}")),
        _ => return None,
    };
    let zeros = "0".repeat(spec.precision.unwrap_or(0).saturating_sub(digits.len()));
    let prefix = if spec.sharp { prefix } else { "" };
    Some(format!("{}{prefix}{zeros}{digits}", sign(value < 0, spec)))
}

fn sign(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.plus, spec.blank) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}

fn of_float(verb: char, spec: &Spec, value: f64) -> Option<String> {
    let digits = spec.precision.unwrap_or(6);
    let number = value.abs();
    let text = match verb {
        'f' | 'F' => format!("{number:.digits$}"),
        'e' | 'E' => {
            let text = format!("{number:.digits$e}");
            let (mantissa, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            let sign = if exponent < 0 { '-' } else { '+' };
            let text = format!("{mantissa}e{sign}{:02}", exponent.abs());
            if verb == 'E' { text.to_uppercase() } else { text }
        }
        'g' | 'G' | 'v' => float(number),
        _ => return None,
    };
    Some(format!("{}{text}", sign(value.is_sign_negative(), spec)))
}
