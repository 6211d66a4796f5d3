//! Options of the local driver: type, device, o. From words to a mount, purely.

use std::collections::HashMap;

use hull_manager_core::{Error, Result};
use hull_runtime_sys::mount::{Attributes, Classic};

/// What is mounted on a volume's directory when it is first used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// Another directory of the host, with the mounts below it or without.
    Bind { device: String, recursive: bool, attributes: Attributes },
    /// A file system.
    FileSystem { kind: String, device: String, how: Classic, data: String },
}

/// Checks options, and says what they mean; none: a plain directory.
///
/// # Errors
/// In docker's words.
pub(crate) fn source(options: &HashMap<String, String>) -> Result<Option<Source>> {
    let known = ["type", "device", "o", "size"];
    if let Some(other) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Error::invalid(format!("invalid option: {other:?}")));
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    for (option, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")]
    {
        if options.contains_key(option) && !options.contains_key(needed) {
            return Err(Error::invalid(format!("missing required option: {needed:?}")));
        }
    }
    let (Some(kind), Some(device)) = (options.get("type"), options.get("device")) else {
        return Ok(None);
    };
    for (name, text) in [("type", kind), ("device", device)] {
        if text.is_empty() || text.contains(char::is_control) {
            return Err(Error::invalid(format!("invalid value for option {name:?}: {text:?}")));
        }
    }
    let words = options.get("o").map_or("", String::as_str);
    if words.contains(char::is_control) {
        return Err(Error::invalid("invalid value for option \"o\""));
    }
    Ok(Some(parse(kind, device, words)?))
}

fn parse(kind: &str, device: &str, words: &str) -> Result<Source> {
    let mut how = Classic::default();
    let (mut bind, mut data) = (None, Vec::new());
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let flag = match word.strip_prefix("no").unwrap_or(word) {
            "suid" => Some(Attributes::NO_SUID),
            "dev" => Some(Attributes::NO_DEV),
            "exec" => Some(Attributes::NO_EXEC),
            "atime" => Some(Attributes::NO_ACCESS_TIME),
            "diratime" => Some(Attributes::NO_DIR_ACCESS_TIME),
            _ => None,
        };
        match (word, flag) {
            (_, Some(flag)) if word.starts_with("no") => how.attributes = how.attributes | flag,
            (_, Some(flag)) => how.attributes = how.attributes.without(flag),
            ("ro", _) => how.attributes = how.attributes | Attributes::READ_ONLY,
            ("rw", _) => how.attributes = how.attributes.without(Attributes::READ_ONLY),
            ("strictatime", _) => how.attributes = how.attributes | Attributes::STRICT_ACCESS_TIME,
            ("defaults" | "relatime" | "async", _) => {}
            ("sync", _) => how.synchronous = true,
            ("dirsync", _) => how.synchronous_directories = true,
            ("bind", _) => bind = Some(false),
            ("rbind", _) => bind = Some(true),
            _ => data.push(word),
        }
    }
    let Some(recursive) = bind else {
        let (kind, device) = (kind.to_owned(), device.to_owned());
        return Ok(Source::FileSystem { kind, device, how, data: data.join(",") });
    };
    if let Some(word) = data.first() {
        return Err(Error::invalid(format!("a bind mount has no option {word:?}")));
    }
    if !device.starts_with('/') {
        return Err(Error::invalid(format!("invalid device {device:?}: it must be absolute")));
    }
    Ok(Source::Bind { device: device.to_owned(), recursive, attributes: how.attributes })
}

/// The host's name in `addr=` of network file systems: the kernel takes only numbers.
pub(crate) fn address(kind: &str, data: &str) -> Option<String> {
    let network = matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3");
    let host = data.split(',').find_map(|word| word.strip_prefix("addr="))?;
    (network && host.parse::<std::net::IpAddr>().is_err()).then(|| host.to_owned())
}

/// The options for a message: without passwords.
pub(crate) fn shown(data: &str) -> String {
    let hide = |word: &str| match word.split_once('=') {
        Some((key @ ("password" | "pass" | "password2"), _)) => format!("{key}=********"),
        _ => word.to_owned(),
    };
    data.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Source>> {
        source(&pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect())
    }

    #[test]
    fn options_are_the_local_drivers() {
        assert_eq!(of(&[]).unwrap(), None);
        let Some(Source::FileSystem { kind, how, data, .. }) =
            of(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nosuid,uid=5,ro,rw")])
                .unwrap()
        else {
            panic!("not a file system");
        };
        assert_eq!((kind.as_str(), data.as_str()), ("tmpfs", "size=1m,uid=5"));
        assert_eq!(how.attributes, Attributes::NO_SUID);
        assert_eq!(
            of(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]).unwrap(),
            Some(Source::Bind {
                device: "/srv".into(),
                recursive: false,
                attributes: Attributes::READ_ONLY
            })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (pairs, error) in [
            (&[("foo", "1")][..], "invalid option: \"foo\""),
            (&[("size", "1m")], "quota size requested but no quota support"),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", ":/x")], "missing required option: \"type\""),
            (&[("type", ""), ("device", "x")], "invalid value for option \"type\": \"\""),
            (
                &[("type", "none"), ("device", "a"), ("o", "bind")],
                "invalid device \"a\": it must be absolute",
            ),
            (
                &[("type", "none"), ("device", "/a"), ("o", "bind,size=1")],
                "a bind mount has no option \"size=1\"",
            ),
        ] {
            assert_eq!(of(pairs).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn passwords_are_not_shown_and_names_are_found() {
        assert_eq!(shown("user=a,password=b"), "user=a,password=********");
        assert_eq!(address("nfs", "addr=host,rw").as_deref(), Some("host"));
        assert_eq!(address("nfs", "addr=127.0.0.1"), None);
        assert_eq!(address("tmpfs", "addr=host"), None);
    }
}
