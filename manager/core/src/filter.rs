//! Filters of lists, as docker's `--filter KEY=VALUE`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hull_specs_api::v1;
use regex::bytes::{Regex, RegexBuilder};

use crate::error::{Error, Result};

/// The filters of one request: each key with its values.
#[derive(Clone, Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Takes filters whose keys are all among `known`.
    ///
    /// # Errors
    /// For a key that is not, in docker's words.
    pub fn parse(filters: &[v1::Filter], known: &[&str]) -> Result<Self> {
        let mut parsed = BTreeMap::<String, Vec<String>>::new();
        for filter in filters {
            if !known.contains(&filter.key.as_str()) {
                return Err(Error::invalid(format!("invalid filter '{}'", filter.key)));
            }
            parsed.entry(filter.key.clone()).or_default().extend(filter.values.iter().cloned());
        }
        Ok(Self(parsed))
    }

    /// The values of a key; none if it was not given.
    #[must_use]
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key was given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether the key was not given, or one of its values passes.
    pub fn any(&self, key: &str, passes: impl FnMut(&String) -> bool) -> bool {
        !self.has(key) || self.values(key).iter().any(passes)
    }

    /// Whether the labels have every `label` (KEY or KEY=VALUE) and no `label!`.
    #[must_use]
    pub fn labels<'a>(&self, get: impl Fn(&str) -> Option<&'a String>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => get(key).is_some_and(|actual| actual == value),
            None => get(wanted).is_some(),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }

    /// What `name` wants.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn names(&self) -> Result<Names> {
        let pattern = |text: &String| {
            RegexBuilder::new(text).unicode(false).build().map_err(|_| {
                Error::invalid(format!("invalid filter 'name={}'", text.escape_default()))
            })
        };
        self.values("name").iter().map(pattern).collect::<Result<_>>().map(Names)
    }

    /// A key that is true or false; `default` where it was not given.
    ///
    /// # Errors
    /// If its value is neither.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.values(key) {
            [] => Ok(default),
            values => values.iter().try_fold(default, |_, value| match value.as_str() {
                "true" | "1" | "True" | "TRUE" | "t" => Ok(true),
                "false" | "0" | "False" | "FALSE" | "f" => Ok(false),
                other => Err(Error::invalid(format!("invalid filter '{key}={other}'"))),
            }),
        }
    }
}

/// The patterns of `name`: docker takes regular expressions that match somewhere in a name. Names
/// have no other characters than ASCII's.
#[derive(Clone, Debug)]
pub struct Names(Vec<Regex>);

impl Names {
    /// Whether no name is wanted, or this one is.
    #[must_use]
    pub fn have(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(name.as_bytes()))
    }
}

/// A point in time as filters have it: so long ago (`10m`, `1h30m`), RFC 3339, or seconds of Unix.
///
/// # Errors
/// If it is none of these.
pub fn moment(text: &str) -> Result<SystemTime> {
    let invalid = || Error::invalid(format!("invalid filter 'until={text}'"));
    if let Some(time) = hull_specs_oci::time::parse_rfc3339(text) {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
        return UNIX_EPOCH.checked_add(since).ok_or_else(invalid);
    }
    let ago = duration(text).ok_or_else(invalid)?;
    SystemTime::now().checked_sub(ago).ok_or_else(invalid)
}

/// Go's way to write a duration.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Result<Filters> {
        let given: Vec<_> = pairs
            .iter()
            .map(|(key, value)| v1::Filter { key: (*key).into(), values: vec![(*value).into()] })
            .collect();
        Filters::parse(&given, &["label", "label!", "dangling", "name"])
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        assert_eq!(filters(&[("x", "y")]).unwrap_err().message(), "invalid filter 'x'");
        assert!(filters(&[("dangling", "maybe")]).unwrap().flag("dangling", false).is_err());
        assert!(filters(&[("dangling", "1")]).unwrap().flag("dangling", false).unwrap());
    }

    #[test]
    fn names_are_patterns() {
        for (patterns, name, is) in [
            (&[][..], "web", true),
            (&[("name", "e")], "web", true),
            (&[("name", "^we?b$")], "web", true),
            (&[("name", "^e")], "web", false),
            (&[("name", "x"), ("name", "b$")], "web", true),
        ] {
            assert_eq!(filters(patterns).unwrap().names().unwrap().have(name), is, "{patterns:?}");
        }
        for bad in ["[", "(", "a{2,1}", "*"] {
            let error = filters(&[("name", bad)]).unwrap().names().unwrap_err();
            assert_eq!(error.message(), format!("invalid filter 'name={bad}'"));
        }
    }

    #[test]
    fn labels_must_all_hold() {
        let labels: BTreeMap<String, String> =
            [("a".into(), "1".into()), ("b".into(), String::new())].into();
        for (pairs, holds) in [
            (&[][..], true),
            (&[("label", "a")], true),
            (&[("label", "a=1"), ("label", "b")], true),
            (&[("label", "a=2")], false),
            (&[("label", "a"), ("label", "c")], false),
            (&[("label!", "a")], false),
            (&[("label!", "c")], true),
        ] {
            assert_eq!(filters(pairs).unwrap().labels(|key| labels.get(key)), holds, "{pairs:?}");
        }
    }

    #[test]
    fn moments_are_ago_or_dates() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s20ms"), Some(Duration::from_millis(1520)));
        let ago = SystemTime::now().duration_since(moment("10s").unwrap()).unwrap();
        assert!((9..=60).contains(&ago.as_secs()), "{ago:?}");
        assert_eq!(moment("12.5").unwrap(), UNIX_EPOCH + Duration::from_millis(12_500));
        assert!(moment("2026-11-21T13:00:00Z").is_ok());
        for bad in ["", "x", "5y", "h", "-5", "1e400"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
