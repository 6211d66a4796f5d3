//! Log drivers, as `hull-log:` URIs of the shim, which does the writing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;

/// What a log is kept in where it is not kept: enough for `why`.
const NONE_BYTES: &str = "64k";

/// Where a container's log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) id: &'a str,
    /// The container's own directory.
    pub(crate) directory: &'a Path,
    pub(crate) bundle: &'a Path,
    pub(crate) attach: &'a Path,
}

fn driver(options: &v1::ContainerOptions) -> (&str, &std::collections::HashMap<String, String>) {
    static NO_OPTIONS: std::sync::LazyLock<std::collections::HashMap<String, String>> =
        std::sync::LazyLock::new(Default::default);
    match &options.log {
        Some(log) => (&log.driver, &log.options),
        None => ("json-file", &NO_OPTIONS),
    }
}

/// The file of a log that can be read back.
pub(crate) fn file(options: &v1::ContainerOptions, place: &Place<'_>) -> Option<PathBuf> {
    match driver(options).0 {
        "json-file" | "" => Some(place.directory.join(format!("{}-json.log", place.id))),
        "local" => Some(place.directory.join("local-logs").join("container.log")),
        _ => None,
    }
}

/// Refuses at creation what no shim can do.
pub(crate) fn accept(options: &v1::ContainerOptions) -> Result<()> {
    let (name, given) = driver(options);
    let refuse = |what: &str| Err(Error::unimplemented(format!("{what} is not supported yet")));
    match name {
        "" | "json-file" | "local" | "none" => {}
        other => return refuse(&format!("log driver {other}")),
    }
    for key in ["labels-regex", "env-regex", "tag"] {
        if given.contains_key(key) {
            return refuse(&format!("log opt {key}"));
        }
    }
    Ok(())
}

/// The URI for the shim.
pub(crate) fn uri(options: &v1::ContainerOptions, place: &Place<'_>) -> String {
    let (name, given) = driver(options);
    let get = |key: &str, default: &str| given.get(key).cloned().unwrap_or_else(|| default.into());
    let log = file(options, place).unwrap_or_else(|| place.bundle.join("output"));
    let mut query: Vec<(&str, String)> =
        vec![("attach", place.attach.to_string_lossy().into_owned())];
    match name {
        "none" => query.push(("max-size", NONE_BYTES.to_owned())),
        _ => {
            let files = if name == "local" { "5" } else { "3" };
            let compress = if name == "local" { "true" } else { "false" };
            query.push(("max-size", get("max-size", "20m")));
            query.push(("max-file", get("max-file", files)));
            // A single file has nothing to compress.
            let single = query.last().is_some_and(|(_, count)| count == "1");
            query.push((
                "compress",
                if single { "false".into() } else { get("compress", compress) },
            ));
        }
    }
    for (key, value) in labels(options, given) {
        query.push(("label", format!("{key}={value}")));
    }
    let query: Vec<String> =
        query.into_iter().map(|(key, value)| format!("{key}={}", encode(&value))).collect();
    format!("hull-log://{}?{}", encode_path(&log), query.join("&"))
}

/// The labels and variables that each entry is to carry.
fn labels(
    options: &v1::ContainerOptions,
    given: &std::collections::HashMap<String, String>,
) -> BTreeMap<String, String> {
    let wanted = |key: &str| given.get(key).map(String::as_str).unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for name in wanted("labels").split(',').filter(|name| !name.is_empty()) {
        if let Some(value) = options.labels.get(name) {
            found.insert(name.to_owned(), value.clone());
        }
    }
    for name in wanted("env").split(',').filter(|name| !name.is_empty()) {
        let value = options.env.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then(|| value.to_owned())
        });
        found.extend(value.map(|value| (name.to_owned(), value)));
    }
    // Controls have no place in a URI, and no use in a log.
    found.retain(|key, value| !key.contains('=') && !value.contains(char::is_control));
    found
}

fn encode_path(path: &Path) -> String {
    path.to_string_lossy().split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// Everything but what a URI says nothing with.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02x}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(driver: &str, given: &[(&str, &str)]) -> v1::ContainerOptions {
        let options = given.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        v1::ContainerOptions {
            log: Some(v1::LogOptions { driver: driver.into(), options }),
            labels: [("a".to_owned(), "x&y".to_owned())].into(),
            env: vec!["V=1".into(), "V=2".into()],
            ..Default::default()
        }
    }

    fn place() -> Place<'static> {
        Place {
            id: "c1",
            directory: Path::new("/d d"),
            bundle: Path::new("/b"),
            attach: Path::new("/s/a"),
        }
    }

    #[test]
    fn each_driver_is_a_uri() {
        for (driver, given, uri) in [
            (
                "json-file",
                &[][..],
                "/d%20d/c1-json.log?attach=%2fs%2fa&max-size=20m&max-file=3&compress=false",
            ),
            (
                "json-file",
                &[("max-file", "1"), ("compress", "true"), ("max-size", "1k")],
                "/d%20d/c1-json.log?attach=%2fs%2fa&max-size=1k&max-file=1&compress=false",
            ),
            (
                "json-file",
                &[("labels", "a,b"), ("env", "V")],
                "/d%20d/c1-json.log?attach=%2fs%2fa&max-size=20m&max-file=3&compress=false\
                 &label=V%3d2&label=a%3dx%26y",
            ),
            (
                "local",
                &[],
                "/d%20d/local-logs/container.log?attach=%2fs%2fa&max-size=20m&max-file=5&compress=true",
            ),
            ("none", &[], "/b/output?attach=%2fs%2fa&max-size=64k"),
        ] {
            assert_eq!(super::uri(&options(driver, given), &place()), format!("hull-log://{uri}"));
        }
    }

    #[test]
    fn what_the_shim_cannot_write_is_refused() {
        for (driver, given, good) in [
            ("json-file", &[][..], true),
            ("none", &[], true),
            ("syslog", &[], false),
            ("json-file", &[("tag", "x")], false),
        ] {
            assert_eq!(accept(&options(driver, given)).is_ok(), good, "{driver} {given:?}");
        }
    }
}
