//! `--security-opt`.

use hull_specs_api::v1;

use crate::{
    defaults::Host,
    error::{Error, Result, must, refuse},
    logging::parse_bool,
    path, seccomp,
};

/// The options, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) writable_cgroups: Option<bool>,
    pub(crate) seccomp: Seccomp,
    pub(crate) apparmor: String,
    /// Nothing is masked, nothing is read-only.
    pub(crate) systempaths_unconfined: bool,
    pub(crate) mask: Vec<String>,
    pub(crate) unmask: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Seccomp {
    /// Nothing was said: the builtin one, or none for a privileged container.
    #[default]
    Unset,
    Builtin,
    Unconfined,
    /// A profile's JSON.
    Profile(String),
}

pub(crate) fn parse(list: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for option in list {
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((key, value)) = pair else {
            match option.as_str() {
                "no-new-privileges" => options.no_new_privileges = Some(true),
                "writable-cgroups" => options.writable_cgroups = Some(true),
                _ => refuse!("invalid --security-opt 1: {option:?}"),
            }
            continue;
        };
        let bad = || Error::new(format!("invalid --security-opt 2: {option:?}"));
        match key {
            "no-new-privileges" => {
                options.no_new_privileges = Some(parse_bool(value).ok_or_else(bad)?)
            }
            "writable-cgroups" => {
                options.writable_cgroups = Some(parse_bool(value).ok_or_else(bad)?)
            }
            "seccomp" => {
                options.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::Builtin,
                    json => Seccomp::Profile(json.to_owned()),
                }
            }
            "apparmor" => {
                must!(!value.contains(char::is_control), "invalid --security-opt 2: {option:?}");
                value.clone_into(&mut options.apparmor);
            }
            // `label=disable` asks for what is so; other labels have no meaning without SELinux,
            // and docker, too, does nothing for them.
            "label" => {
                let (word, _) = value.split_once(':').unwrap_or((value, ""));
                let known = ["disable", "user", "role", "type", "level", "filetype", "nested"];
                must!(known.contains(&word), "invalid --security-opt 2: {option:?}");
            }
            "systempaths" if value == "unconfined" => options.systempaths_unconfined = true,
            "mask" => options.mask.extend(paths(value)?),
            "unmask" => options.unmask.extend(paths(value)?),
            _ => return Err(bad()),
        }
    }
    Ok(options)
}

/// `ALL` or absolute paths with colons between, as podman has it.
fn paths(value: &str) -> Result<Vec<String>> {
    value
        .split(':')
        .map(|part| {
            must!(
                part == "ALL" || part.starts_with('/'),
                "invalid path {part:?} in --security-opt: it must be absolute"
            );
            Ok(part.to_owned())
        })
        .collect()
}

/// What can be known before there is a container.
pub(crate) fn check(list: &[String], host: &Host) -> Result<()> {
    let options = parse(list)?;
    if let Seccomp::Profile(json) = &options.seccomp {
        must!(
            host.seccomp,
            "seccomp is not enabled in your kernel, cannot run a custom seccomp profile"
        );
        seccomp::parse(json)?;
    }
    must!(
        host.apparmor.is_some() || matches!(options.apparmor.as_str(), "" | "unconfined"),
        "--security-opt apparmor={}: AppArmor is not in force on this host",
        options.apparmor
    );
    if !host.selinux {
        return Ok(());
    }
    let label =
        list.iter().find(|option| option.starts_with("label") && *option != "label=disable");
    must!(label.is_none(), "SELinux labels are not supported");
    Ok(())
}

/// The masked and the read-only paths: docker's, with the machine's own, or exactly the given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemPaths {
    /// That nobody in the container can read.
    pub masked: Vec<String>,
    /// That nobody in the container can write.
    pub read_only: Vec<String>,
}

/// Those of a container.
///
/// # Errors
/// If its security options are no such.
pub fn paths_of(options: &v1::ContainerOptions, host: &Host) -> Result<SystemPaths> {
    Ok(system_paths(options, &parse(&options.security_options)?, host))
}

/// Docker's today, and of R7: the names of what is read through power and thermal counters
/// (CVE-2020-8694), of keys, of timers and of the firmware.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) fn system_paths(
    container: &v1::ContainerOptions,
    options: &Options,
    host: &Host,
) -> SystemPaths {
    let open = container.privileged || options.systempaths_unconfined;
    let (masked, read_only) = (&container.masked_paths, &container.readonly_paths);
    let or = |given: &Option<v1::Words>, default: &[&str]| -> Vec<String> {
        match given {
            Some(given) => given.words.clone(),
            None if open => Vec::new(),
            None => default.iter().map(|&path| path.to_owned()).collect(),
        }
    };
    let mut paths =
        SystemPaths { masked: or(masked, &MASKED), read_only: or(read_only, &READ_ONLY) };
    if masked.is_none() && !open {
        paths.masked.extend(host.thermal_throttle.iter().cloned());
    }
    for pattern in &options.unmask {
        paths.masked.retain(|path| !matches(pattern, path));
        paths.read_only.retain(|path| !matches(pattern, path));
    }
    for path in &options.mask {
        let path = path::clean(path);
        if !paths.masked.contains(&path) {
            paths.masked.push(path);
        }
    }
    paths
}

/// `ALL`, a path, or one with `*` in its parts.
fn matches(pattern: &str, path: &str) -> bool {
    let glob = |pattern: &str, text: &str| match pattern.split_once('*') {
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
        None => pattern == text,
    };
    let (pattern, parts) = (path::clean(pattern), path.split('/'));
    pattern == "ALL"
        || pattern.split('/').count() == parts.clone().count()
            && pattern.split('/').zip(parts).all(|(pattern, part)| glob(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::example;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_dockers_and_podmans() {
        let options = parse(&words(
            "no-new-privileges seccomp=unconfined apparmor=mine label=disable mask=/a:/b unmask=ALL",
        ))
        .unwrap();
        assert_eq!(options.no_new_privileges, Some(true));
        assert_eq!((options.seccomp, options.apparmor.as_str()), (Seccomp::Unconfined, "mine"));
        assert_eq!((options.mask, options.unmask), (words("/a /b"), words("ALL")));
        assert_eq!(
            parse(&words("no-new-privileges:false")).unwrap().no_new_privileges,
            Some(false)
        );
        for (option, error) in [
            ("x", "invalid --security-opt 1: \"x\""),
            ("x=y", "invalid --security-opt 2: \"x=y\""),
            ("no-new-privileges=maybe", "invalid --security-opt 2: \"no-new-privileges=maybe\""),
            ("systempaths=x", "invalid --security-opt 2: \"systempaths=x\""),
            ("label=x", "invalid --security-opt 2: \"label=x\""),
            ("mask=a", "invalid path \"a\" in --security-opt: it must be absolute"),
        ] {
            assert_eq!(parse(&words(option)).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_bad_profile_is_refused_early() {
        let host = example().host;
        assert!(check(&words("seccomp={}"), &host).is_ok());
        assert!(check(&["seccomp=/no/such/file".to_owned()], &host).is_err());
        assert!(check(&words("seccomp={}"), &Host { seccomp: false, ..host }).is_err());
    }

    #[test]
    fn a_profile_that_nobody_would_enforce_is_refused() {
        let with = |apparmor: Option<&str>, option: &str| {
            let host = Host { apparmor: apparmor.map(Into::into), ..example().host };
            check(&words(option), &host).is_ok()
        };
        assert!(with(None, "apparmor=unconfined") && with(Some("p"), "apparmor=mine"));
        assert!(!with(None, "apparmor=mine"));
    }

    #[test]
    fn masks_are_dockers_unless_told_otherwise() {
        let host = Host { thermal_throttle: words("/sys/t"), ..example().host };
        let of = |masked: Option<&[String]>, options: &str, privileged| {
            let options = v1::ContainerOptions {
                privileged,
                security_options: words(options),
                masked_paths: masked.map(|words| v1::Words { words: words.to_vec() }),
                ..v1::ContainerOptions::default()
            };
            paths_of(&options, &host).unwrap()
        };
        let default = of(None, "", false);
        assert_eq!((default.masked.len(), default.read_only.len()), (13, 5));
        assert!(default.masked.contains(&"/sys/t".to_owned()));
        assert!(of(None, "", true).masked.is_empty() && of(None, "", true).read_only.is_empty());
        assert!(of(None, "systempaths=unconfined", false).read_only.is_empty());
        assert!(of(Some(&[]), "", false).masked.is_empty());
        assert_eq!(of(None, "unmask=ALL mask=/x/", false).masked, ["/x"]);
        let some = of(None, "unmask=/proc/ti*:/proc/sys", false);
        assert!(
            !some.masked.iter().any(|path| path.starts_with("/proc/timer")),
            "{:?}",
            some.masked
        );
        assert!(!some.read_only.contains(&"/proc/sys".to_owned()));
        assert!(some.read_only.contains(&"/proc/sysrq-trigger".to_owned()));
    }
}
