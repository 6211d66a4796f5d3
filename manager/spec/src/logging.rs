//! Log drivers and their options, by docker's names.

use hull_specs_api::v1;

use crate::{
    error::{Result, must, refuse},
    syslog,
};

/// Which options which driver has. What is not here is refused, so that nobody believes in an
/// option that does nothing.
const DRIVERS: [(&str, &[&[&str]]); 5] = [
    ("json-file", &[FILES, ATTRIBUTES, MODE]),
    ("local", &[FILES, MODE]),
    ("none", &[]),
    ("syslog", &[&["syslog-address", "syslog-facility", "syslog-format"], ATTRIBUTES, CACHE, MODE]),
    ("journald", &[ATTRIBUTES, CACHE, MODE]),
];

const FILES: &[&str] = &["max-size", "max-file", "compress"];
const ATTRIBUTES: &[&str] = &["labels", "labels-regex", "env", "env-regex", "tag"];
const MODE: &[&str] = &["mode", "max-buffer-size"];

/// Of the copy that is kept for `logs` where the driver's own log is not read.
const CACHE: &[&str] = &["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

/// The container's driver, or the manager's with its options. Docker, too, takes the manager's
/// options only together with its driver.
pub(crate) fn merge(asked: Option<v1::LogOptions>, default: &v1::LogOptions) -> v1::LogOptions {
    let mut asked = asked.unwrap_or_default();
    if asked.driver.is_empty() || asked.driver == default.driver {
        asked.driver.clone_from(&default.driver);
        for (key, value) in &default.options {
            asked.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    asked
}

/// Checks a driver's name, its options and their values.
///
/// # Errors
/// In docker's words, for the first thing that is wrong.
pub fn check(log: &v1::LogOptions) -> Result<()> {
    let driver = &log.driver;
    let Some((_, known)) = DRIVERS.iter().find(|(name, _)| name == driver) else {
        refuse!("logger: no log driver named '{driver}' is registered");
    };
    for (key, value) in &log.options {
        must!(
            !key.starts_with("syslog-tls-") || driver != "syslog",
            "log opt {key}: {}",
            syslog::NO_TLS
        );
        must!(
            known.iter().any(|list| list.contains(&key.as_str())),
            "unknown log opt '{key}' for {driver} log driver"
        );
        must!(!value.contains(char::is_control), "log opt {key} has a control character");
        check_value(key, value)?;
    }
    let is = |key: &str, value: &str| log.options.get(key).is_some_and(|given| given == value);
    must!(
        is("mode", "non-blocking") || !log.options.contains_key("max-buffer-size"),
        "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
    );
    must!(
        !is("mode", "non-blocking") || matches!(driver.as_str(), "syslog" | "journald"),
        "log opt mode=non-blocking is for syslog and journald: the {driver} log driver waits for \
         nobody but the disk"
    );
    if driver == "json-file" {
        let files = log.options.get("max-file").map_or("1", String::as_str);
        let compress = log.options.get("compress").and_then(|value| parse_bool(value));
        must!(
            files != "1" || compress != Some(true),
            "compress cannot be true when max-file is less than 2 or unset"
        );
        must!(
            files == "1" || log.options.contains_key("max-size"),
            "max-file option requires max-size to be set to a value greater than 0"
        );
    }
    Ok(())
}

fn check_value(key: &str, value: &str) -> Result<()> {
    let good = match key {
        "max-size" | "cache-max-size" | "max-buffer-size" => is_size(value),
        "max-file" | "cache-max-file" => {
            value.parse::<u32>().is_ok_and(|count| (1..=1000).contains(&count))
        }
        "compress" | "cache-compress" | "cache-disabled" => parse_bool(value).is_some(),
        "syslog-address" => return syslog::Address::parse(value).map(drop),
        "syslog-facility" => return syslog::facility(value).map(drop),
        "syslog-format" => {
            let known = ["", "rfc3164", "rfc5424", "rfc5424micro"];
            must!(known.contains(&value), "Invalid syslog format");
            true
        }
        "mode" => {
            let known = ["", "blocking", "non-blocking"];
            must!(known.contains(&value), "logger: logging mode not supported: {value}");
            true
        }
        _ => true,
    };
    must!(good, "invalid value for log opt {key}: {value}");
    Ok(())
}

/// The words that Go's `strconv.ParseBool` takes.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `20m`, `1.5g`, `512KiB`, bytes.
fn is_size(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = lower[digits.len()..].trim();
    let unit_is_known =
        matches!(unit.trim_end_matches('b').trim_end_matches('i'), "" | "k" | "m" | "g" | "t");
    unit_is_known && digits.parse::<f64>().is_ok_and(|size| size.is_finite() && size > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(driver: &str, options: &[(&str, &str)]) -> v1::LogOptions {
        let options = options.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        v1::LogOptions { driver: driver.into(), options }
    }

    #[test]
    fn unknown_drivers_options_and_values_are_refused() {
        for (given, error) in [
            (log("json-file", &[("max-size", "20m"), ("max-file", "3")]), None),
            (
                log("json-file", &[("max-size", "20m"), ("max-file", "3"), ("compress", "true")]),
                None,
            ),
            (log("none", &[]), None),
            (log("syslog", &[("syslog-address", "udp://127.0.0.1:514"), ("tag", "x")]), None),
            (log("fluentd", &[]), Some("logger: no log driver named 'fluentd' is registered")),
            (log("none", &[("tag", "x")]), Some("unknown log opt 'tag' for none log driver")),
            (
                log("json-file", &[("max-size", "big")]),
                Some("invalid value for log opt max-size: big"),
            ),
            (
                log("json-file", &[("max-size", "-1m")]),
                Some("invalid value for log opt max-size: -1m"),
            ),
            (
                log("json-file", &[("max-file", "2")]),
                Some("max-file option requires max-size to be set to a value greater than 0"),
            ),
            (
                log("json-file", &[("compress", "true")]),
                Some("compress cannot be true when max-file is less than 2 or unset"),
            ),
            (log("syslog", &[("syslog-facility", "x")]), Some("invalid syslog facility")),
            (log("syslog", &[("syslog-format", "x")]), Some("Invalid syslog format")),
            (
                log("syslog", &[("syslog-tls-ca-cert", "/x")]),
                Some("log opt syslog-tls-ca-cert: TLS to a syslog is not supported"),
            ),
            (log("syslog", &[("cache-disabled", "true"), ("cache-max-size", "1m")]), None),
            (
                log("syslog", &[("cache-disabled", "x")]),
                Some("invalid value for log opt cache-disabled: x"),
            ),
            (log("syslog", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]), None),
            (
                log("syslog", &[("max-buffer-size", "4m")]),
                Some("logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
            ),
            (log("json-file", &[("mode", "x")]), Some("logger: logging mode not supported: x")),
            (log("json-file", &[("mode", "blocking")]), None),
            (
                log("local", &[("mode", "non-blocking")]),
                Some(
                    "log opt mode=non-blocking is for syslog and journald: the local log driver waits for nobody but the disk",
                ),
            ),
            (log("local", &[("tag", "x")]), Some("unknown log opt 'tag' for local log driver")),
            (log("journald", &[("env-regex", "^A"), ("tag", "x")]), None),
            (log("json-file", &[("tag", "a\nb")]), Some("log opt tag has a control character")),
        ] {
            assert_eq!(check(&given).err().map(|e| e.to_string()).as_deref(), error, "{given:?}");
        }
    }

    #[test]
    fn the_managers_options_belong_to_its_driver() {
        let default = log("json-file", &[("max-size", "20m")]);
        assert_eq!(merge(None, &default), default);
        assert_eq!(merge(Some(log("local", &[])), &default), log("local", &[]));
        assert_eq!(
            merge(Some(log("", &[("max-size", "1m")])), &default),
            log("json-file", &[("max-size", "1m")])
        );
    }
}
