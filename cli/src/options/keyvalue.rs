//! `KEY=VALUE`: labels, sysctls, driver options, filters.

use std::collections::HashMap;

use hull_specs_api::v1;

/// A label: a key, and perhaps a value.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok((key.trim_start().to_owned(), value.to_owned()))
}

/// A key with a value; what has none is refused.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("invalid argument {text:?} (expected name=value)")),
    }
}

/// A key, and a value that may be empty or missing.
pub(crate) fn loose(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid argument {text:?}: empty name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A filter of a list.
pub(crate) fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Filters as one message a key, in the order in which the keys were first said.
pub(crate) fn filters(pairs: &[(String, String)]) -> Vec<v1::Filter> {
    let mut filters: Vec<v1::Filter> = Vec::new();
    for (key, value) in pairs {
        match filters.iter_mut().find(|filter| filter.key == *key) {
            Some(filter) => filter.values.push(value.clone()),
            None => filters.push(v1::Filter { key: key.clone(), values: vec![value.clone()] }),
        }
    }
    filters
}

/// As a map; a later pair replaces.
pub(crate) fn map(pairs: &[(String, String)]) -> HashMap<String, String> {
    pairs.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let owned = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("a"), owned("a", ""));
        assert_eq!(label("a=b=c"), owned("a", "b=c"));
        assert_eq!(label("="), Err("invalid label '=': empty name".to_owned()));
        assert_eq!(filter("Label=A"), owned("label", "A"));
        assert_eq!(filter("x"), Err("bad format of filter (expected name=value)".to_owned()));
        assert_eq!(pair("net.x=1"), owned("net.x", "1"));
        assert!(pair("x").is_err() && pair("=x").is_err() && loose("=").is_err());
        assert_eq!(loose("x"), owned("x", ""));
    }

    #[test]
    fn filters_are_grouped() {
        let pairs: Vec<_> =
            ["label=a", "name=n", "label=b"].iter().map(|text| filter(text).unwrap()).collect();
        let grouped = filters(&pairs);
        assert_eq!(grouped.len(), 2);
        assert_eq!(grouped[0].values, ["a", "b"]);
    }
}
