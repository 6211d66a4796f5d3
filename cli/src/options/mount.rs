//! `--mount type=…,source=…,target=…`.

use std::collections::HashMap;

use hull_specs_api::v1::{Mount, mount::Type};

use super::{csv, size, volume::octal};

/// Reads one.
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { r#type: Type::Volume.into(), ..Mount::default() };
    let mut families = Vec::new();
    let mut read_only_said = false;
    for field in csv::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        if let Some((family @ ("bind" | "volume" | "tmpfs" | "image"), _)) = key.split_once('-') {
            families.push(family.to_owned());
        }
        let flag = || -> Result<bool, String> {
            value.map_or(Ok(true), |value| {
                super::parse_bool(value).map_err(|_| format!("invalid value for {key}: {value}"))
            })
        };
        match key.as_str() {
            "readonly" | "ro" => {
                mount.read_only = flag()?;
                read_only_said = mount.read_only;
                continue;
            }
            "volume-nocopy" => {
                mount.no_copy = flag()?;
                continue;
            }
            // podman's word.
            "idmap" => {
                mount.id_mapped = flag()?;
                continue;
            }
            "bind-nonrecursive" => {
                mount.non_recursive = flag()?;
                continue;
            }
            _ => {}
        }
        let value =
            value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        set(&mut mount, &key, value, &field)?;
    }
    check(&mount, &families, read_only_said)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    match key {
        "type" => {
            mount.r#type = match value.to_ascii_lowercase().as_str() {
                "bind" => Type::Bind,
                "volume" => Type::Volume,
                "tmpfs" => Type::Tmpfs,
                "image" => Type::Image,
                other => {
                    return Err(format!(
                        "invalid mount config for type {other:?}: mount type unknown"
                    ));
                }
            }
            .into();
        }
        "source" | "src" => value.clone_into(&mut mount.source),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "bind-propagation" => {
            if !["private", "rprivate", "shared", "rshared", "slave", "rslave"].contains(&value) {
                return Err(invalid());
            }
            value.clone_into(&mut mount.propagation);
        }
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => mount.non_recursive = true,
            "writable" => mount.read_only_non_recursive = true,
            "readonly" => mount.read_only_force_recursive = true,
            _ => return Err(invalid()),
        },
        "consistency" => {
            // For other systems than Linux: there is only one consistency here.
            if !["default", "consistent", "cached", "delegated"].contains(&value) {
                return Err(invalid());
            }
        }
        "volume-subpath" | "image-subpath" => value.clone_into(&mut mount.subpath),
        "volume-driver" => value.clone_into(&mut mount.volume_driver),
        "volume-label" => insert(&mut mount.volume_labels, value),
        "volume-opt" => insert(&mut mount.volume_options, value),
        "tmpfs-size" => mount.tmpfs_size_bytes = size::bytes(value).map_err(|_| invalid())?,
        "tmpfs-mode" => mount.tmpfs_mode = Some(octal(value).map_err(|_| invalid())?),
        "tmpfs-opt" => mount.tmpfs_options.push(value.to_owned()),
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn insert(map: &mut HashMap<String, String>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    map.insert(key.to_owned(), value.to_owned());
}

fn check(mount: &Mount, families: &[String], read_only: bool) -> Result<(), String> {
    let kind = hull_specs_docker::container::kind(mount.r#type());
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if let Some(family) = families.iter().find(|family| *family != kind) {
        return Err(format!("cannot mix '{family}-*' options with mount type '{kind}'"));
    }
    let invalid = |why: &str| Err(format!("invalid mount config for type {kind:?}: {why}"));
    if !mount.target.starts_with('/') {
        return invalid(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.target
        ));
    }
    if mount.read_only_non_recursive && !read_only {
        return Err(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
                .to_owned(),
        );
    }
    if mount.read_only_force_recursive && (!read_only || mount.propagation != "rprivate") {
        return Err("option 'bind-recursive=readonly' requires 'readonly' and 'bind-propagation=rprivate' to be specified in conjunction".to_owned());
    }
    match mount.r#type() {
        Type::Bind if mount.source.is_empty() => invalid("field Source must not be empty"),
        Type::Bind if !mount.source.starts_with('/') => {
            invalid(&format!("invalid mount path: '{}' mount path must be absolute", mount.source))
        }
        Type::Image if mount.source.is_empty() => invalid("field Source must not be empty"),
        Type::Tmpfs if !mount.source.is_empty() => invalid("field Source must not be specified"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let bind = parse("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert_eq!(
            (bind.r#type(), bind.source.as_str(), bind.target.as_str()),
            (Type::Bind, "/a", "/b")
        );
        assert!(bind.read_only && bind.propagation == "rslave" && !bind.create_source);
        let volume = parse(
            "source=v,target=/b,volume-nocopy,volume-label=a=b,\"volume-opt=o=a,b\",volume-subpath=x",
        )
        .unwrap();
        assert!(volume.no_copy && volume.r#type() == Type::Volume && volume.subpath == "x");
        assert_eq!(volume.volume_labels["a"], "b");
        let tmpfs = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        assert_eq!((tmpfs.tmpfs_size_bytes, tmpfs.tmpfs_mode), (1 << 20, Some(0o700)));
        assert!(parse("type=bind,src=/a,dst=/b,readonly=false").is_ok_and(|m| !m.read_only));
        assert!(parse("type=bind,src=/a,dst=/b,idmap").is_ok_and(|m| m.id_mapped));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("source=x", "target is required"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("x=y,target=/a", "unexpected key 'x' in 'x=y'"),
            ("type=foo,target=/x", "invalid mount config for type \"foo\": mount type unknown"),
            (
                "type=bind,target=/x",
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (
                "type=bind,src=/a,dst=/b,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            ("type=bind,src=/a,dst=/b,idmap=uids=0-1-2", "invalid value for idmap: uids=0-1-2"),
            ("type=bind,src=/a,dst=/b,ro=maybe", "invalid value for ro: maybe"),
            (
                "type=tmpfs,src=/a,dst=/b",
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                "src=a,dst=b",
                "invalid mount config for type \"volume\": invalid mount path: 'b' mount path must be absolute",
            ),
            ("type=tmpfs,dst=/b,tmpfs-size=x", "invalid value for tmpfs-size: x"),
        ] {
            assert_eq!(parse(text).unwrap_err(), words, "{text}");
        }
    }
}
