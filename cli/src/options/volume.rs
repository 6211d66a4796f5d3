//! `-v [SOURCE:]TARGET[:OPTIONS]` and `--tmpfs TARGET[:OPTIONS]`.

use std::path::Path;

use hull_specs_api::v1::{Mount, mount::Type};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Reads `-v`. A source that begins with `.` is beneath `here`; one that begins with neither
/// `/` nor `.` nor `~` is a volume's name.
pub(crate) fn parse(text: &str, here: &Path) -> Result<Mount, String> {
    let invalid = || format!("invalid volume specification: '{text}'");
    let (source, target, options) = match text.split(':').collect::<Vec<_>>().as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(invalid()),
    };
    if (source.is_empty() && text.contains(':')) || target.is_empty() {
        return Err(invalid());
    }
    if !target.starts_with('/') {
        return Err(format!("{}: mount path must be absolute", invalid()));
    }
    if target.split('/').all(|part| matches!(part, "" | ".")) {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    text.clone_into(&mut mount.short_form);
    if source.starts_with('/') {
        mount.source = source.to_owned();
    } else if source.starts_with('.') {
        mount.source = join(here, source)?;
        mount.short_form = text.replacen(source, &mount.source, 1);
    } else {
        mount.r#type = Type::Volume.into();
        mount.source = source.to_owned();
    }
    mount.create_source = mount.r#type() == Type::Bind;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply(&mut mount, option)
            .ok_or_else(|| format!("{}: invalid mode: {options}", invalid()))?;
    }
    Ok(mount)
}

/// Sets what a word of the mode says; nothing if it says nothing.
fn apply(mount: &mut Mount, option: &str) -> Option<()> {
    let volume = mount.r#type() == Type::Volume;
    match option {
        "rw" => {}
        "ro" => mount.read_only = true,
        "z" | "Z" => mount.selinux_relabel = option.to_owned(),
        "nocopy" if volume => mount.no_copy = true,
        "idmap" if !volume => mount.id_mapped = true,
        "nonrecursive" if !volume => mount.non_recursive = true,
        // Docker's, for other systems than Linux: there is only one consistency here.
        "consistent" | "cached" | "delegated" => {}
        word if !volume && PROPAGATIONS.contains(&word) => mount.propagation = word.to_owned(),
        _ => return None,
    }
    Some(())
}

/// `./a/../b` beneath a directory, as text: the path is the manager's to open.
fn join(here: &Path, relative: &str) -> Result<String, String> {
    let mut path = here.to_path_buf();
    for part in Path::new(relative).components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.into_os_string().into_string().map_err(|_| "the working directory is not UTF-8".to_owned())
}

/// Reads `--tmpfs`.
pub(crate) fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(format!("invalid tmpfs specification: '{text}': mount path must be absolute"));
    }
    let mut mount = Mount {
        r#type: Type::Tmpfs.into(),
        target: target.to_owned(),
        short_form: text.to_owned(),
        ..Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) if !size.ends_with('%') => {
                mount.tmpfs_size_bytes = super::size::bytes(size)?;
            }
            Some(("mode", mode)) => mount.tmpfs_mode = Some(octal(mode)?),
            None if option == "ro" => mount.read_only = true,
            None if option == "rw" => mount.read_only = false,
            _ => mount.tmpfs_options.push(option.to_owned()),
        }
    }
    Ok(mount)
}

/// Permissions.
pub(crate) fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777 && !text.starts_with('+'))
        .ok_or_else(|| format!("invalid value for tmpfs-mode: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_binds() {
        for (text, kind, source, target) in [
            ("/data", Type::Volume, "", "/data"),
            ("vol:/data", Type::Volume, "vol", "/data"),
            ("/a:/b", Type::Bind, "/a", "/b"),
            ("./a:/b", Type::Bind, "/here/a", "/b"),
            ("../a/./c:/b", Type::Bind, "/a/c", "/b"),
            (".:/b", Type::Bind, "/here", "/b"),
        ] {
            let mount = parse(text, Path::new("/here")).unwrap();
            assert_eq!(
                (mount.r#type(), mount.source.as_str(), mount.target.as_str()),
                (kind, source, target)
            );
            assert_eq!(mount.create_source, kind == Type::Bind);
        }
        let short = |text| parse(text, Path::new("/here")).unwrap().short_form;
        assert_eq!((short("./a:/a:ro"), short("v:/b")), ("/here/a:/a:ro".into(), "v:/b".into()));
        let mount = parse("/a:/b:ro,rshared,z", Path::new("/")).unwrap();
        assert!(mount.read_only && mount.propagation == "rshared" && mount.selinux_relabel == "z");
        assert!(parse("/a:/b:idmap", Path::new("/")).unwrap().id_mapped);
        assert!(parse("v:/b:nocopy", Path::new("/")).unwrap().no_copy);
        for (bad, words) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            ("x", "invalid volume specification: 'x': mount path must be absolute"),
            (":/b", "invalid volume specification: ':/b'"),
            ("a:", "invalid volume specification: 'a:'"),
            ("a:/", "invalid specification: destination can't be '/'"),
            ("a:/b:foo", "invalid volume specification: 'a:/b:foo': invalid mode: foo"),
            ("v:/b:rshared", "invalid volume specification: 'v:/b:rshared': invalid mode: rshared"),
        ] {
            assert_eq!(parse(bad, Path::new("/")).unwrap_err(), words);
        }
    }

    #[test]
    fn tmpfs_options() {
        let mount = tmpfs("/t:size=1m,mode=1777,noexec,ro").unwrap();
        assert_eq!((mount.tmpfs_size_bytes, mount.tmpfs_mode), (1 << 20, Some(0o1777)));
        assert!(mount.read_only && mount.tmpfs_options == ["noexec"]);
        assert_eq!(mount.short_form, "/t:size=1m,mode=1777,noexec,ro");
        for bad in ["t", "", "/t:mode=9", "/t:size=x"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }
}
