//! Log drivers and their options, by docker's names.

use hull_specs_api::v1;

use crate::error::{Result, must, refuse};

/// Which options which driver has. What is not here is refused, so that nobody believes in an
/// option that does nothing.
const DRIVERS: [(&str, &[&str]); 5] = [
    (
        "json-file",
        &["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
    ),
    ("local", &["max-size", "max-file", "compress"]),
    ("none", &[]),
    ("syslog", &["syslog-address", "syslog-facility", "syslog-format", "tag"]),
    ("journald", &["tag", "labels", "env"]),
];

const FACILITIES: [&str; 20] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

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

pub(crate) fn check(log: &v1::LogOptions) -> Result<()> {
    let driver = &log.driver;
    let Some((_, known)) = DRIVERS.iter().find(|(name, _)| name == driver) else {
        refuse!("logger: no log driver named '{driver}' is registered");
    };
    for (key, value) in &log.options {
        must!(known.contains(&key.as_str()), "unknown log opt '{key}' for {driver} log driver");
        must!(!value.contains(char::is_control), "log opt {key} has a control character");
        let good = match key.as_str() {
            "max-size" => is_size(value),
            "max-file" => value.parse::<u32>().is_ok_and(|count| (1..=1000).contains(&count)),
            "compress" => matches!(value.as_str(), "true" | "false"),
            "syslog-facility" => {
                FACILITIES.contains(&value.as_str())
                    || value.parse::<u32>().is_ok_and(|facility| facility < 24)
            }
            "syslog-format" => {
                matches!(value.as_str(), "" | "rfc3164" | "rfc5424" | "rfc5424micro")
            }
            "syslog-address" => ["unix://", "unixgram://", "udp://", "tcp://"]
                .iter()
                .any(|scheme| value.starts_with(scheme)),
            _ => true,
        };
        must!(good, "invalid value for log opt {key}: {value}");
    }
    if driver == "json-file" {
        let files = log.options.get("max-file").map_or("1", String::as_str);
        let compress = log.options.get("compress").is_some_and(|value| value == "true");
        must!(
            files != "1" || !compress,
            "compress cannot be true when max-file is less than 2 or unset"
        );
        must!(
            files == "1" || log.options.contains_key("max-size"),
            "max-file option requires max-size to be set to a value greater than 0"
        );
    }
    Ok(())
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
            (
                log("syslog", &[("syslog-facility", "x")]),
                Some("invalid value for log opt syslog-facility: x"),
            ),
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
