//! `--device HOST[:CONTAINER][:rwm]`, or a CDI name, and `--device-cgroup-rule`.

use hull_specs_api::v1;

/// A device of the host, or one that a CDI file describes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Device {
    /// A node.
    Node(v1::Device),
    /// `vendor.com/class=name`.
    Cdi(String),
}

/// Reads one.
pub(crate) fn parse(text: &str) -> Result<Device, String> {
    if is_cdi(text) {
        return Ok(Device::Cdi(text.to_owned()));
    }
    let rights = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b"rwm".contains(&b))
            && (1..text.len()).all(|at| !text[..at].contains(&text[at..=at]))
    };
    let (host, container, permissions) = match text.split(':').collect::<Vec<_>>().as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if rights(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if rights(mode) => (*host, *container, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(Device::Node(v1::Device {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        permissions: permissions.to_owned(),
    }))
}

/// Whether it is `vendor/class=name` (CDI specification, fully qualified device names).
fn is_cdi(text: &str) -> bool {
    let word = |text: &str, more: &[u8]| {
        text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    text.split_once('=').is_some_and(|(kind, name)| {
        word(name, b"_-.:")
            && kind
                .split_once('/')
                .is_some_and(|(vendor, class)| word(vendor, b"_-.") && word(class, b"_-"))
    })
}

/// A rule: `c 1:3 mr`.
pub(crate) fn rule(text: &str) -> Result<String, String> {
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let valid = match text.split(' ').collect::<Vec<_>>().as_slice() {
        [kind, numbers, rights] => {
            matches!(*kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(a, b)| number(a) && number(b))
                && (1..=3).contains(&rights.len())
                && rights.bytes().all(|b| b"rwm".contains(&b))
        }
        _ => false,
    };
    if valid { Ok(text.to_owned()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for (text, host, container, permissions) in [
            ("/dev/a", "/dev/a", "/dev/a", "rwm"),
            ("/dev/a:r", "/dev/a", "/dev/a", "r"),
            ("/dev/a:/dev/b", "/dev/a", "/dev/b", "rwm"),
            ("/dev/a:/dev/b:rw", "/dev/a", "/dev/b", "rw"),
        ] {
            let Ok(Device::Node(device)) = parse(text) else { panic!("{text}") };
            assert_eq!(
                (
                    device.host_path.as_str(),
                    device.container_path.as_str(),
                    device.permissions.as_str()
                ),
                (host, container, permissions)
            );
        }
        for bad in ["", ":", "/dev/a:/dev/b:x", "/dev/a:/b:rr", "/a:/b:r:c", "/dev/a:x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("nvidia.com/gpu=0"), Ok(Device::Cdi("nvidia.com/gpu=0".into())));
    }

    #[test]
    fn rules() {
        for good in ["c 1:3 mr", "a *:* rwm", "b 8:* m"] {
            assert_eq!(rule(good).as_deref(), Ok(good));
        }
        for bad in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr", "c x:3 r"] {
            assert_eq!(rule(bad), Err(format!("invalid device cgroup format '{bad}'")));
        }
    }
}
