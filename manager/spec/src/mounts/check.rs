//! Requests for mounts, in docker's words.

use hull_specs_api::v1::{self, mount::Type};

use super::tmpfs;
use crate::{
    defaults::Host,
    error::{Error, Result, must, refuse},
    path,
};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// What kind a mount is; none for a number that we don't know.
#[must_use]
pub fn kind(mount: &v1::Mount) -> Option<Type> {
    Type::try_from(mount.r#type).ok()
}

fn word(kind: Type) -> &'static str {
    match kind {
        Type::Bind => "bind",
        Type::Volume => "volume",
        Type::Tmpfs => "tmpfs",
        Type::Image => "image",
    }
}

/// Whether a mount is of a volume that nobody named.
#[must_use]
pub fn is_anonymous(mount: &v1::Mount) -> bool {
    kind(mount) == Some(Type::Volume) && mount.source.is_empty()
}

/// Checks all mounts, cleans their targets, and adds the volumes of the image that nothing else
/// is mounted on.
pub(crate) fn check<'a>(
    mounts: &mut Vec<v1::Mount>,
    image_volumes: impl Iterator<Item = &'a String>,
    host: &Host,
) -> Result<()> {
    for mount in mounts.iter_mut() {
        let Some(kind) = kind(mount) else { refuse!("mount type unknown") };
        one(mount, kind, host)
            .map_err(|error| error.of(format!("invalid mount config for type {:?}", word(kind))))?;
        mount.target = path::clean(&mount.target);
    }
    let mut kept: Vec<v1::Mount> = Vec::with_capacity(mounts.len());
    // What is named hides what is not; two that are named are one too many.
    let (named, anonymous): (Vec<_>, Vec<_>) =
        std::mem::take(mounts).into_iter().partition(|mount| !is_anonymous(mount));
    for mount in named {
        let there = kept.iter().any(|other| other.target == mount.target);
        must!(!there, "Duplicate mount point: {}", mount.target);
        kept.push(mount);
    }
    let of_image = image_volumes.map(|target| {
        // Relative, it is below the root.
        let target = path::clean(&format!("/{target}"));
        let short_form = target.clone();
        v1::Mount { r#type: Type::Volume.into(), target, short_form, ..Default::default() }
    });
    for mount in anonymous.into_iter().chain(of_image) {
        must!(mount.target != "/", "invalid volume: destination can't be '/'");
        must!(!mount.target.contains('\0'), "invalid volume: {:?}", mount.target);
        if !kept.iter().any(|other| other.target == mount.target) {
            kept.push(mount);
        }
    }
    *mounts = kept;
    Ok(())
}

fn one(mount: &v1::Mount, kind: Type, host: &Host) -> Result<()> {
    exclusive(mount, kind)?;
    must!(!mount.target.is_empty(), "field Target must not be empty");
    must!(
        !mount.target.contains('\0')
            && !mount.source.contains('\0')
            && !mount.subpath.contains('\0'),
        "a path has a zero byte"
    );
    must!(path::clean(&mount.target) != "/", "invalid specification: destination can't be '/'");
    absolute(&mount.target)?;
    match kind {
        Type::Bind => {
            must!(!mount.source.is_empty(), "field Source must not be empty");
            absolute(&mount.source)?;
            let propagation = mount.propagation.as_str();
            must!(
                propagation.is_empty() || PROPAGATIONS.contains(&propagation),
                "invalid propagation mode: {propagation}"
            );
            must!(
                matches!(mount.selinux_relabel.as_str(), "" | "z" | "Z"),
                "invalid mode: {}",
                mount.selinux_relabel
            );
            must!(
                mount.selinux_relabel.is_empty() || !host.selinux,
                "SELinux labels are not supported"
            );
            recursion(mount, host)?;
        }
        Type::Volume => {
            must!(
                matches!(mount.volume_driver.as_str(), "" | "local"),
                "error looking up volume plugin {}: plugin not found",
                mount.volume_driver
            );
            must!(
                mount.subpath.is_empty() || !mount.source.is_empty(),
                "must not set Subpath when using anonymous volumes"
            );
            subpath(mount)?;
        }
        Type::Tmpfs => {
            must!(mount.source.is_empty(), "field Source must not be specified");
            tmpfs::options(mount)?;
        }
        Type::Image => {
            must!(!mount.source.is_empty(), "field Source must not be empty");
            subpath(mount)?;
        }
    }
    Ok(())
}

/// Options of one kind make no sense with another, and are not passed over.
fn exclusive(mount: &v1::Mount, kind: Type) -> Result<()> {
    let bind = !mount.propagation.is_empty()
        || mount.non_recursive
        || mount.create_source
        || mount.read_only_non_recursive
        || mount.read_only_force_recursive
        || mount.id_mapped;
    let volume = mount.no_copy
        || !mount.volume_labels.is_empty()
        || !mount.volume_driver.is_empty()
        || !mount.volume_options.is_empty();
    let tmpfs = mount.tmpfs_size_bytes != 0
        || mount.tmpfs_mode.is_some()
        || !mount.tmpfs_options.is_empty();
    // `-v NAME:/x:z` is written with labels for volumes, too.
    let label = !mount.selinux_relabel.is_empty() && !matches!(kind, Type::Bind | Type::Volume);
    let subpath = !mount.subpath.is_empty() && !matches!(kind, Type::Volume | Type::Image);
    for (there, of, field) in [
        (bind || label, Type::Bind, "BindOptions"),
        (volume || subpath, Type::Volume, "VolumeOptions"),
        (tmpfs, Type::Tmpfs, "TmpfsOptions"),
    ] {
        must!(!there || kind == of, "field {field} must not be specified");
    }
    Ok(())
}

fn recursion(mount: &v1::Mount, host: &Host) -> Result<()> {
    let v1::Mount {
        read_only, read_only_non_recursive: no, read_only_force_recursive: force, ..
    } = mount;
    must!(
        !(*no && *force),
        "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive"
    );
    must!(*read_only || !*no, "mount option \"ReadOnlyNonRecursive\" requires \"ReadOnly\"");
    must!(*read_only || !*force, "mount option \"ReadOnlyForceRecursive\" requires \"ReadOnly\"");
    must!(
        !*force || host.recursive_read_only(),
        "recursively read-only mounts need Linux 5.12 or later"
    );
    Ok(())
}

fn absolute(path: &str) -> Result<()> {
    must!(path.starts_with('/'), "invalid mount path: '{path}' mount path must be absolute");
    Ok(())
}

fn subpath(mount: &v1::Mount) -> Result<()> {
    match mount.subpath.is_empty() || path::is_local(&mount.subpath) {
        true => Ok(()),
        false => Err(Error::new("subpath must be a relative path within the volume")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::example;

    fn mount(kind: Type, source: &str, target: &str) -> v1::Mount {
        let (source, target) = (source.to_owned(), target.to_owned());
        v1::Mount { r#type: kind.into(), source, target, ..Default::default() }
    }

    fn error(mut mounts: Vec<v1::Mount>) -> Option<String> {
        check(&mut mounts, [].iter(), &example().host).err().map(|error| error.to_string())
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        let bind = || mount(Type::Bind, "/a", "/b");
        let cases = [
            (bind(), None),
            (
                mount(Type::Bind, "/a", ""),
                Some("invalid mount config for type \"bind\": field Target must not be empty"),
            ),
            (
                mount(Type::Bind, "", "/b"),
                Some("invalid mount config for type \"bind\": field Source must not be empty"),
            ),
            (
                mount(Type::Bind, "a", "/b"),
                Some(
                    "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute",
                ),
            ),
            (
                mount(Type::Bind, "/a", "b"),
                Some(
                    "invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
                ),
            ),
            (
                mount(Type::Tmpfs, "", "/x/.."),
                Some(
                    "invalid mount config for type \"tmpfs\": invalid specification: destination can't be '/'",
                ),
            ),
            (
                mount(Type::Tmpfs, "a", "/x"),
                Some("invalid mount config for type \"tmpfs\": field Source must not be specified"),
            ),
            (
                mount(Type::Image, "", "/x"),
                Some("invalid mount config for type \"image\": field Source must not be empty"),
            ),
            (
                v1::Mount { propagation: "x".into(), ..bind() },
                Some("invalid mount config for type \"bind\": invalid propagation mode: x"),
            ),
            (
                v1::Mount { tmpfs_size_bytes: 1, ..bind() },
                Some(
                    "invalid mount config for type \"bind\": field TmpfsOptions must not be specified",
                ),
            ),
            (
                v1::Mount { no_copy: true, ..bind() },
                Some(
                    "invalid mount config for type \"bind\": field VolumeOptions must not be specified",
                ),
            ),
            (
                v1::Mount { create_source: true, ..mount(Type::Tmpfs, "", "/x") },
                Some(
                    "invalid mount config for type \"tmpfs\": field BindOptions must not be specified",
                ),
            ),
            (
                v1::Mount { subpath: "../x".into(), ..mount(Type::Volume, "data", "/x") },
                Some(
                    "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
                ),
            ),
            (
                v1::Mount { subpath: "x".into(), ..mount(Type::Volume, "", "/x") },
                Some(
                    "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
                ),
            ),
            (
                v1::Mount { read_only_force_recursive: true, ..bind() },
                Some(
                    "invalid mount config for type \"bind\": mount option \"ReadOnlyForceRecursive\" requires \"ReadOnly\"",
                ),
            ),
            (
                v1::Mount { volume_driver: "nfs".into(), ..mount(Type::Volume, "data", "/x") },
                Some(
                    "invalid mount config for type \"volume\": error looking up volume plugin nfs: plugin not found",
                ),
            ),
            (
                v1::Mount { tmpfs_options: vec!["foo".into()], ..mount(Type::Tmpfs, "", "/x") },
                Some("invalid mount config for type \"tmpfs\": invalid tmpfs option \"foo\""),
            ),
            (v1::Mount { r#type: 99, ..bind() }, Some("mount type unknown")),
        ];
        for (mount, text) in cases {
            assert_eq!(error(vec![mount.clone()]).as_deref(), text, "{mount:?}");
        }
    }

    #[test]
    fn one_mount_at_one_place_and_anonymous_ones_give_way() {
        let mut mounts = vec![
            mount(Type::Volume, "", "/data"),
            mount(Type::Bind, "/a", "/data/"),
            mount(Type::Volume, "", "/other"),
        ];
        let image = ["/other/".to_owned(), "third/../fourth".to_owned(), "/data".to_owned()];
        check(&mut mounts, image.iter(), &example().host).unwrap();
        let targets: Vec<_> = mounts.iter().map(|m| (m.target.as_str(), is_anonymous(m))).collect();
        assert_eq!(targets, [("/data", false), ("/other", true), ("/fourth", true)]);
        let twice = vec![mount(Type::Bind, "/a", "/x"), mount(Type::Tmpfs, "", "//x/")];
        assert_eq!(error(twice).as_deref(), Some("Duplicate mount point: /x"));
        assert!(check(&mut vec![], ["../".to_owned()].iter(), &example().host).is_err());
    }
}
