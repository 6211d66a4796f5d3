//! `org.systemd.property.NAME` annotations: unit properties that callers may set.
//!
//! A value is text in the notation of `busctl` and GLib (`'text'`, `5`, `uint64 5`, `true`,
//! `['a.service', 'b.service']`). The name must be in a list: annotations can come with an
//! image, and a property can run commands or lift confinement.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::{Property, wire::Value};

const PREFIX: &str = "org.systemd.property.";

/// How a scope is ordered, killed, collected and weighed. Not here: what the runtime itself
/// sets (slice, delegation, devices), what bypasses a limit of the configuration, and what
/// scopes don't have.
const ALLOWED: &[&str] = &[
    "After",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "Before",
    "BindsTo",
    "CPUQuotaPeriodUSec",
    "CPUWeight",
    "CollectMode",
    "Conflicts",
    "DefaultDependencies",
    "Description",
    "FinalKillSignal",
    "IOWeight",
    "KillMode",
    "KillSignal",
    "ManagedOOMMemoryPressure",
    "ManagedOOMMemoryPressureLimit",
    "ManagedOOMPreference",
    "ManagedOOMSwap",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMin",
    "OOMPolicy",
    "PartOf",
    "Requires",
    "RestartKillSignal",
    "RuntimeMaxUSec",
    "SendSIGHUP",
    "SendSIGKILL",
    "StartupCPUWeight",
    "StartupIOWeight",
    "TimeoutStopUSec",
    "Wants",
    "WatchdogSignal",
];

const MAX_ELEMENTS: usize = 256;

/// The properties that `annotations` ask for.
pub(in crate::cgroup) fn properties(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        ensure!(name.len() >= 3, "annotation {key} name incorrect: too short");
        ensure!(
            name.bytes().all(|b| b.is_ascii_alphabetic()),
            "annotation {key} name incorrect: contains non-alphabetic character"
        );
        let value =
            parse(text).with_context(|| format!("annotation {key}={text} value parse error"))?;
        let (name, value) = in_microseconds(name, value)
            .with_context(|| format!("annotation {key}={text} value parse error"))?;
        ensure!(
            ALLOWED.contains(&name.as_str()),
            "annotation {key}: the property {name} can't be set by an annotation"
        );
        properties.push(Property { name, value });
    }
    Ok(properties)
}

/// systemd's documentation says `TimeoutStopSec`, its interface `TimeoutStopUSec`.
fn in_microseconds(name: &str, value: Value) -> Result<(String, Value)> {
    const PER_SECOND: u64 = 1_000_000;
    let Some(stem) =
        name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()))
    else {
        return Ok((name.to_owned(), value));
    };
    let whole = match value {
        Value::Byte(v) => Some(u64::from(v)),
        Value::Uint16(v) => Some(v.into()),
        Value::Uint32(v) => Some(v.into()),
        Value::Uint64(v) => Some(v),
        Value::Int16(v) => v.try_into().ok(),
        Value::Int32(v) => v.try_into().ok(),
        Value::Int64(v) => v.try_into().ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Value::Double(v) if v >= 0.0 => {
            return Ok((format!("{stem}USec"), Value::Uint64((v * 1e6) as u64)));
        }
        _ => bail!("not a number"),
    };
    let microseconds = whole.and_then(|v| v.checked_mul(PER_SECOND)).context("out of range")?;
    Ok((format!("{stem}USec"), Value::Uint64(microseconds)))
}

fn parse(text: &str) -> Result<Value> {
    let text = text.trim();
    let (kind, rest) = match text.split_once(char::is_whitespace) {
        Some((word, rest)) if word.starts_with('@') => (word[1..].to_owned(), rest.trim()),
        Some((word, rest)) if code_of(word).is_some() => {
            (code_of(word).unwrap_or_default().to_owned(), rest.trim())
        }
        _ => (String::new(), text),
    };
    parse_as(rest, &kind)
}

/// The types that may be named before a value.
fn code_of(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        _ => return None,
    })
}

/// The value of `text`; an empty `kind` leaves the type to the notation.
fn parse_as(text: &str, kind: &str) -> Result<Value> {
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        ensure!(kind.is_empty() || kind.starts_with('a'), "a list isn't of type {kind:?}");
        let element = kind.strip_prefix('a').unwrap_or_default();
        let values = elements(list)?
            .into_iter()
            .map(|t| parse_as(t, element))
            .collect::<Result<Vec<_>>>()?;
        let signature = match values.first() {
            Some(first) => first.signature(),
            None => {
                ensure!(!element.is_empty(), "an empty list needs its type, such as @as []");
                element.to_owned()
            }
        };
        ensure!(signature.len() == 1, "lists of {signature:?} are not supported");
        ensure!(
            values.iter().all(|v| v.signature() == signature),
            "the elements of a list differ in type"
        );
        return Ok(Value::Array(signature, values));
    }
    let number = "not a number of that type";
    Ok(match kind {
        "b" | "" if matches!(text, "true" | "false") => Value::Bool(text == "true"),
        "s" => Value::String(quoted(text)?),
        "o" => Value::ObjectPath(quoted(text)?),
        "" if text.starts_with(['\'', '"']) => Value::String(quoted(text)?),
        "" if text.contains(['.', 'e']) => Value::Double(text.parse().context(number)?),
        "" | "i" => Value::Int32(text.parse().context(number)?),
        "y" => Value::Byte(text.parse().context(number)?),
        "n" => Value::Int16(text.parse().context(number)?),
        "q" => Value::Uint16(text.parse().context(number)?),
        "u" => Value::Uint32(text.parse().context(number)?),
        "x" => Value::Int64(text.parse().context(number)?),
        "t" => Value::Uint64(text.parse().context(number)?),
        "d" => Value::Double(text.parse().context(number)?),
        other => bail!("values of type {other:?} are not supported"),
    })
}

fn quoted(text: &str) -> Result<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"')).context("not in quotes")?;
    let mut out = String::new();
    let mut rest = text[1..].chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                _ => bail!("an unknown escape in quotes"),
            },
            c if c == quote => {
                ensure!(rest.as_str().is_empty(), "text after the closing quote");
                ensure!(!out.contains('\0'), "a NUL in quotes");
                return Ok(out);
            }
            c => out.push(c),
        }
    }
    bail!("the closing quote is missing")
}

/// The parts of a list's text: commas inside quotes don't separate.
fn elements(text: &str) -> Result<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut quote, mut escaped) = (0, None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (',', None) => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() || !parts.is_empty() {
        parts.push(last);
    }
    ensure!(parts.len() <= MAX_ELEMENTS, "a list of more than {MAX_ELEMENTS} elements");
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<Property> {
        let annotations = BTreeMap::from([
            (format!("{PREFIX}{name}"), text.to_owned()),
            ("org.example.other".to_owned(), "x".to_owned()),
        ]);
        Ok(properties(&annotations)?.remove(0))
    }

    #[test]
    fn values_of_callers_are_understood() {
        for (name, text, property, value) in [
            (
                "CollectMode",
                "'inactive-or-failed'",
                "CollectMode",
                Value::String("inactive-or-failed".into()),
            ),
            ("TimeoutStopUSec", "uint64 10000000", "TimeoutStopUSec", Value::Uint64(10_000_000)),
            ("TimeoutStopSec", "123", "TimeoutStopUSec", Value::Uint64(123_000_000)),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::Uint64(1_500_000)),
            ("KillSignal", "15", "KillSignal", Value::Int32(15)),
            ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
            (
                "After",
                "['a.service', \"b,c.service\"]",
                "After",
                Value::Array(
                    "s".into(),
                    vec![Value::String("a.service".into()), Value::String("b,c.service".into())],
                ),
            ),
            ("Before", "@as []", "Before", Value::Array("s".into(), vec![])),
            ("CPUWeight", "@t 7", "CPUWeight", Value::Uint64(7)),
        ] {
            let got = one(name, text).expect(text);
            assert_eq!((got.name.as_str(), &got.value), (property, &value), "{text}");
        }
    }

    #[test]
    fn names_outside_the_list_are_refused() {
        for name in
            ["Delegate", "Slice", "DevicePolicy", "DeviceAllow", "PIDs", "ExecStop", "MemoryMax"]
        {
            let error = one(name, "true").expect_err(name);
            assert!(error.to_string().contains("can't be set by an annotation"), "{error}");
        }
        for name in ["ab", "Kill_Mode", "Kill.Mode", ""] {
            assert!(one(name, "true").expect_err(name).to_string().contains("name incorrect"));
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        for text in [
            "",
            "'open",
            "'a' b",
            "uint64 x",
            "uint64 -1",
            "['a', 5]",
            "[]",
            "[['a']]",
            "{'a': 1}",
            "@a{sv} {}",
            "99999999999",
            "'\\x'",
            "true false",
            "byte 256",
        ] {
            assert!(one("CollectMode", text).is_err(), "{text}");
        }
        assert!(one("TimeoutStopSec", "'5'").is_err());
        assert!(one("TimeoutStopSec", "-1").is_err());
        assert!(one("TimeoutStopSec", "uint64 18446744073709551615").is_err());
    }
}
