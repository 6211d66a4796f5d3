//! Log drivers, as `hull-log:` URIs of the shim, which does the writing.
//!
//! | driver | file in the container's directory | form |
//! | --- | --- | --- |
//! | json-file | `ID-json.log` | docker's |
//! | local | `local.log` | a line each: time, stream, `F` or `P` (goes on), the text's bytes |
//! | syslog, journald | `container-cached.log`, a copy for `logs` | as local |
//! | none, and without a copy | none: the bundle has the last bytes, for `why` | |

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_manager_spec::{
    parse_bool,
    syslog::{self, Address},
};
use hull_specs_api::v1;

use super::{
    attributes::{self, Wanted},
    tag::{self, Tag},
};
use crate::record::Record;

/// What a log is kept in where it is not kept: enough for `why`.
const NONE_BYTES: &str = "64k";

/// journald's socket.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where a container's log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// The container's own directory.
    pub(crate) directory: &'a Path,
    pub(crate) bundle: &'a Path,
    pub(crate) attach: &'a Path,
}

type Given = HashMap<String, String>;

fn driver(options: &v1::ContainerOptions) -> (&str, &Given) {
    static NO_OPTIONS: LazyLock<Given> = LazyLock::new(Default::default);
    match &options.log {
        Some(log) if !log.driver.is_empty() => (&log.driver, &log.options),
        Some(log) => ("json-file", &log.options),
        None => ("json-file", &NO_OPTIONS),
    }
}

/// The file of a log that can be read back.
pub(crate) fn file(record: &Record, directory: &Path) -> Option<PathBuf> {
    let (name, given) = driver(&record.effective);
    let uncached = given.get("cache-disabled").and_then(|value| parse_bool(value)) == Some(true);
    match name {
        "json-file" => Some(directory.join(format!("{}-json.log", record.id()))),
        "local" => Some(directory.join("local.log")),
        "syslog" | "journald" if !uncached => Some(directory.join("container-cached.log")),
        _ => None,
    }
}

/// Whether the file's form is one that is promised.
pub(crate) fn is_public(record: &Record) -> bool {
    driver(&record.effective).0 == "json-file"
}

/// Whether a driver with options could be a container's, whatever there is on the host.
///
/// # Errors
/// For the first thing that is wrong.
pub fn check(log: &v1::LogOptions) -> Result<()> {
    hull_manager_spec::check_log(log).map_err(Error::invalid)?;
    texts(&log.options)
}

fn texts(given: &Given) -> Result<()> {
    Wanted::parse(given)?;
    Tag::parse(given.get("tag").map(String::as_str).unwrap_or_default())?;
    Ok(())
}

/// Refuses at creation what could never be written.
pub(crate) fn accept(options: &v1::ContainerOptions) -> Result<()> {
    let (_, given) = driver(options);
    texts(given)?;
    if let Address::Unix(path) | Address::Unixgram(path) = address(given)? {
        let found = std::fs::metadata(&path);
        found.map_err(|_| Error::invalid(format!("stat {path}: no such file or directory")))?;
    }
    Ok(())
}

fn address(given: &Given) -> Result<Address> {
    let text = given.get("syslog-address").map(String::as_str).unwrap_or_default();
    Address::parse(text).map_err(Error::invalid)
}

/// Where a syslog is, as the shim takes it: it knows no names of hosts. For other drivers none.
pub(crate) async fn receiver(options: &v1::ContainerOptions) -> Result<Option<String>> {
    let (name, given) = driver(options);
    if name != "syslog" {
        return Ok(None);
    }
    Ok(Some(match address(given)? {
        Address::Local => "local".to_owned(),
        Address::Unixgram(path) => format!("unixgram://{path}"),
        Address::Unix(path) => format!("unix://{path}"),
        Address::Udp(host, port) => format!("udp://{}", resolve(&host, port).await?),
        Address::Tcp(host, port) => format!("tcp://{}", resolve(&host, port).await?),
    }))
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let what = || format!("failed to initialize logging driver: lookup {host}");
    let mut found = tokio::net::lookup_host((host, port)).await.about(what())?;
    found.next().ok_or_else(|| Error::not_found(format!("{}: no such host", what())))
}

/// The URI for the shim. `receiver`: what the function of this name gave.
pub(crate) fn uri(record: &Record, place: &Place<'_>, receiver: Option<&str>) -> Result<String> {
    let options = &record.effective;
    let (name, given) = driver(options);
    let kept = file(record, place.directory);
    let attach = place.attach.to_string_lossy().into_owned();
    let mut query = Query(format!(
        "hull-log://{}?attach={}",
        encode_path(kept.as_deref().unwrap_or(&place.bundle.join("output"))),
        encode(&attach)
    ));
    match name {
        _ if kept.is_none() => query.push("max-size", NONE_BYTES),
        "json-file" => query.files(given, "", ("3", false)),
        "local" => {
            query.push("format", "local");
            query.files(given, "", ("5", true));
        }
        _ => {
            query.push("format", "local");
            query.files(given, "cache-", ("5", true));
        }
    }
    let attributes = Wanted::parse(given)?.of(options);
    let container = &record.container;
    let facts = tag::Facts {
        id: record.id(),
        name: record.name(),
        image: &container.image,
        image_id: &container.image_id,
        command: container.args.join(" "),
        attributes: attributes.clone(),
    };
    let tag = given.get("tag").filter(|tag| !tag.is_empty());
    let tag = |default: &str| -> Result<String> {
        Ok(Tag::parse(tag.map_or(default, String::as_str))?.text(&facts))
    };
    match name {
        "json-file" => {
            let mut attributes = attributes;
            let tag = tag("")?;
            if !tag.is_empty() {
                attributes.insert("tag".to_owned(), tag);
            }
            for (key, value) in attributes {
                query.push("label", &format!("{key}={value}"));
            }
        }
        "syslog" => {
            query.push("syslog", receiver.unwrap_or("local"));
            let facility = given.get("syslog-facility").map(String::as_str).unwrap_or_default();
            let facility = syslog::facility(facility).map_err(Error::invalid)?;
            query.push("syslog-facility", &facility.to_string());
            query.push_given("syslog-format", given);
            query.push("tag", &tag(tag::DEFAULT)?);
        }
        "journald" => {
            query.push("journald", JOURNAL);
            let tag = tag(tag::DEFAULT)?;
            let id = record.id();
            let mut fields = std::collections::BTreeMap::from(
                [
                    ("CONTAINER_ID", id.get(..12).unwrap_or(id).to_owned()),
                    ("CONTAINER_ID_FULL", id.to_owned()),
                    ("CONTAINER_NAME", record.name().to_owned()),
                    ("CONTAINER_TAG", tag.clone()),
                    ("IMAGE_NAME", container.image.clone()),
                    ("SYSLOG_IDENTIFIER", tag),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
            for (key, value) in attributes {
                fields.extend(attributes::field(&key).map(|name| (name, value)));
            }
            for (name, value) in fields {
                query.push("field", &format!("{name}={value}"));
            }
        }
        _ => {}
    }
    if matches!(name, "syslog" | "journald") {
        query.push_given("mode", given);
        query.push_given("max-buffer-size", given);
    }
    Ok(query.0)
}

/// A URI that grows.
struct Query(String);

impl Query {
    fn push(&mut self, key: &str, value: &str) {
        self.0.extend(["&", key, "=", &encode(value)]);
    }

    /// What was given, if it says something.
    fn push_given(&mut self, key: &str, given: &Given) {
        if let Some(value) = given.get(key).filter(|value| !value.is_empty()) {
            self.push(key, value);
        }
    }

    /// How the files are rotated. `default`: how many there are, and whether they are compressed.
    fn files(&mut self, given: &Given, prefix: &str, default: (&str, bool)) {
        let get = |key: &str| given.get(&format!("{prefix}{key}")).map(String::as_str);
        let count = get("max-file").unwrap_or(default.0);
        let compress = get("compress").and_then(parse_bool).unwrap_or(default.1);
        self.push("max-size", get("max-size").unwrap_or("20m"));
        self.push("max-file", count);
        // A single file has nothing to compress.
        self.push("compress", if compress && count != "1" { "true" } else { "false" });
    }
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

    fn record(driver: &str, given: &[(&str, &str)]) -> Record {
        let options = given.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Record {
            container: v1::Container {
                id: "0123456789abcdef".into(),
                name: "c1".into(),
                image: "busybox".into(),
                ..Default::default()
            },
            effective: v1::ContainerOptions {
                log: Some(v1::LogOptions { driver: driver.into(), options }),
                labels: [("a".to_owned(), "x&y".to_owned())].into(),
                env: vec!["V=1".into(), "V=2".into()],
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn each_driver_is_a_uri() {
        let place = Place {
            directory: Path::new("/d d"),
            bundle: Path::new("/b"),
            attach: Path::new("/s/a"),
        };
        let json = "/d%20d/0123456789abcdef-json.log?attach=%2fs%2fa";
        let cache = "/d%20d/container-cached.log?attach=%2fs%2fa&format=local";
        let local = "max-size=20m&max-file=5&compress=true";
        for (driver, given, uri) in [
            ("json-file", &[][..], format!("{json}&max-size=20m&max-file=3&compress=false")),
            ("", &[], format!("{json}&max-size=20m&max-file=3&compress=false")),
            (
                "json-file",
                &[("max-file", "1"), ("compress", "true"), ("max-size", "1k")],
                format!("{json}&max-size=1k&max-file=1&compress=false"),
            ),
            (
                "json-file",
                &[("labels", "a,b"), ("env-regex", "^V$"), ("tag", "{{.Name}}")],
                format!(
                    "{json}&max-size=20m&max-file=3&compress=false&label=V%3d2&label=a%3dx%26y\
                     &label=tag%3dc1"
                ),
            ),
            ("local", &[], format!("/d%20d/local.log?attach=%2fs%2fa&format=local&{local}")),
            ("none", &[], "/b/output?attach=%2fs%2fa&max-size=64k".to_owned()),
            (
                "syslog",
                &[("cache-max-file", "2"), ("cache-compress", "0"), ("syslog-format", "rfc3164")],
                format!(
                    "{cache}&max-size=20m&max-file=2&compress=false&syslog=udp%3a%2f%2f1.2.3.4%3a5\
                     &syslog-facility=3&syslog-format=rfc3164&tag=0123456789ab"
                ),
            ),
            (
                "syslog",
                &[
                    ("cache-disabled", "true"),
                    ("syslog-facility", "local0"),
                    ("tag", "{{(.ExtraAttributes nil).V}}"),
                    ("env", "V"),
                    ("mode", "non-blocking"),
                    ("max-buffer-size", "4m"),
                ],
                "/b/output?attach=%2fs%2fa&max-size=64k&syslog=udp%3a%2f%2f1.2.3.4%3a5\
                 &syslog-facility=16&tag=2&mode=non-blocking&max-buffer-size=4m"
                    .to_owned(),
            ),
            (
                "journald",
                &[("labels", "a"), ("env", "V")],
                format!(
                    "{cache}&{local}&journald=%2frun%2fsystemd%2fjournal%2fsocket\
                     &field=A%3dx%26y&field=CONTAINER_ID%3d0123456789ab\
                     &field=CONTAINER_ID_FULL%3d0123456789abcdef&field=CONTAINER_NAME%3dc1\
                     &field=CONTAINER_TAG%3d0123456789ab&field=IMAGE_NAME%3dbusybox\
                     &field=SYSLOG_IDENTIFIER%3d0123456789ab&field=V%3d2"
                ),
            ),
        ] {
            let found = super::uri(&record(driver, given), &place, Some("udp://1.2.3.4:5"));
            assert_eq!(found.unwrap(), format!("hull-log://{uri}"));
        }
    }

    #[test]
    fn what_can_never_be_written_is_refused_at_creation() {
        for (given, error) in [
            (("tag", "{{"), "log opt tag: unclosed action"),
            (
                ("syslog-address", "unixgram:///nonexistent"),
                "stat /nonexistent: no such file or directory",
            ),
        ] {
            let refused = accept(&record("syslog", &[given]).effective).unwrap_err();
            assert_eq!(refused.to_string(), error);
        }
        assert!(accept(&record("json-file", &[("labels-regex", "(")]).effective).is_err());
        assert!(accept(&record("syslog", &[("syslog-address", "udp://h")]).effective).is_ok());
    }

    #[tokio::test]
    async fn the_shim_gets_numbers_for_names() {
        let given = [("syslog-address", "tcp://localhost:15")];
        let found = receiver(&record("syslog", &given).effective).await.unwrap().unwrap();
        assert!(["tcp://127.0.0.1:15", "tcp://[::1]:15"].contains(&found.as_str()), "{found}");
        assert_eq!(receiver(&record("local", &[]).effective).await.unwrap(), None);
    }
}
