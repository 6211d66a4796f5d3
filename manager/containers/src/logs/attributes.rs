//! The labels and variables that entries carry: `labels`, `labels-regex`, `env`, `env-regex`.

use std::collections::{BTreeMap, HashMap};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use regex_lite::Regex;

/// Which labels and variables are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    labels: Names,
    env: Names,
}

#[derive(Debug, Default)]
struct Names {
    list: Vec<String>,
    pattern: Option<Regex>,
}

impl Wanted {
    /// Reads the four options.
    pub(super) fn parse(given: &HashMap<String, String>) -> Result<Self> {
        Ok(Self {
            labels: Names::parse(given, "labels", "labels-regex")?,
            env: Names::parse(given, "env", "env-regex")?,
        })
    }

    /// Those that the container has. A variable goes before a label of its name, as with docker.
    pub(super) fn of(&self, options: &v1::ContainerOptions) -> BTreeMap<String, String> {
        let labels = options.labels.iter().filter(|(key, _)| self.labels.has(key));
        let mut found: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        let env = options.env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.filter(|(key, _)| self.env.has(key));
        found.extend(env.map(|(key, value)| (key.to_owned(), value.to_owned())));
        // A key is parted from its value by this on the way to the shim.
        found.retain(|key, _| !key.is_empty() && !key.contains('='));
        found
    }
}

impl Names {
    fn parse(given: &HashMap<String, String>, list: &str, pattern: &str) -> Result<Self> {
        let text = |key: &str| given.get(key).map(String::as_str).filter(|text| !text.is_empty());
        let compile = |text: &str| {
            Regex::new(text).map_err(|error| Error::invalid(format!("log opt {pattern}: {error}")))
        };
        Ok(Self {
            list: text(list).into_iter().flat_map(|text| text.split(',')).map(Into::into).collect(),
            pattern: text(pattern).map(compile).transpose()?,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.list.iter().any(|listed| listed == name)
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }
}

/// A key as a field of journald's: capital letters, digits and `_`, which is not first. None if
/// nothing is left.
pub(super) fn field(key: &str) -> Option<String> {
    let part = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = key.chars().map(part).collect();
    // journald takes no longer one.
    let name = name.trim_start_matches('_');
    Some(name.chars().take(64).collect()).filter(|name: &String| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(given: &[(&str, &str)]) -> String {
        let given = given.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let labels = [("a", "1"), ("xx", "2\n"), ("yx", "3"), ("V", "label"), ("k=v", "4")];
        let options = v1::ContainerOptions {
            labels: labels.map(|(k, v)| (k.into(), v.into())).into(),
            env: ["V=0", "V=5=6", "WW=7", "none"].map(Into::into).into(),
            ..Default::default()
        };
        let list = Wanted::parse(&given).unwrap().of(&options);
        list.iter().map(|(k, v)| format!("{k}={v:?} ")).collect()
    }

    #[test]
    fn they_are_chosen_by_name_and_by_pattern() {
        assert_eq!(found(&[]), "");
        assert_eq!(found(&[("labels", "a,b"), ("labels-regex", "^x")]), "a=\"1\" xx=\"2\\n\" ");
        assert_eq!(
            found(&[("env", "V"), ("env-regex", "W"), ("labels", "V")]),
            "V=\"5=6\" WW=\"7\" "
        );
        assert_eq!(found(&[("labels-regex", ".*"), ("env", "")]), {
            "V=\"label\" a=\"1\" xx=\"2\\n\" yx=\"3\" "
        });
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        let given = [("env-regex".to_owned(), "(".to_owned())].into();
        let error = Wanted::parse(&given).unwrap_err().to_string();
        assert!(error.starts_with("log opt env-regex: "), "{error}");
    }

    #[test]
    fn fields_are_journalds() {
        for (key, expected) in
            [("com.example/a-b", Some("COM_EXAMPLE_A_B")), ("__x1", Some("X1")), ("ä", None)]
        {
            assert_eq!(field(key).as_deref(), expected);
        }
    }
}
