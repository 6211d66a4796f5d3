//! A container's mounts: volumes that it takes, and where each source is on the host.

use std::{
    collections::BTreeSet,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::Path,
};

use anyhow::Context as _;
use hull_manager_archive::{
    Options, Whiteouts,
    worker::{self, Files, Job, Packing},
};
use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_manager_spec::mounts::Resolved;
use hull_runtime_sys::path::{self, Links};
use hull_specs_api::v1::{self, mount::Type};

use crate::{Inner, record::Record};

fn kind(mount: &v1::Mount) -> Result<Type> {
    Type::try_from(mount.r#type).map_err(|_| Error::invalid("mount type unknown"))
}

/// Whether something is to be undone when the container has ended.
pub(crate) fn has_mounted(record: &Record) -> bool {
    record
        .effective
        .mounts
        .iter()
        .any(|mount| matches!(kind(mount), Ok(Type::Volume | Type::Image)))
}

/// The container that is being created takes its volumes; those without a name get one. What the
/// image has in their places fills those that are empty.
pub(crate) fn acquire(inner: &Inner, record: &mut Record) -> Result<()> {
    let id = record.id().to_owned();
    let mut points = Vec::new();
    let mut image = None;
    for mount in &mut record.effective.mounts {
        let (mut name, mut source) = (String::new(), String::new());
        let is_named = !mount.source.is_empty();
        match kind(mount)? {
            Type::Bind => {
                bind_source(mount)?;
                source.clone_from(&mount.source);
            }
            Type::Volume => {
                let volume = inner.parts.volumes.acquire(mount, &id)?;
                mount.source.clone_from(&volume.name);
                if !mount.no_copy && mount.subpath.is_empty() {
                    let root = match image.take() {
                        Some(root) => root,
                        None => inner.parts.snapshots.mount_detached(&id, true)?,
                    };
                    fill(inner, &root, &volume.name, &mount.target, &id)?;
                    image = Some(root);
                }
                (name, source) = (volume.name, volume.mountpoint);
            }
            Type::Image => {
                let found = inner.parts.images.resolve(&mount.source, "")?;
                mount.source = found.id.to_string();
                name.clone_from(&mount.source);
            }
            Type::Tmpfs => {}
        }
        points.push(v1::MountPoint {
            r#type: mount.r#type,
            name,
            source,
            destination: mount.target.clone(),
            driver: if kind(mount)? == Type::Volume { "local".into() } else { String::new() },
            mode: mode(mount, is_named),
            read_write: !mount.read_only && kind(mount)? != Type::Image,
            propagation: mount.propagation.clone(),
        });
    }
    record.container.mounts = points;
    Ok(())
}

/// What docker shows as the mode: the words of `-v`, and for other volumes `z`, which is what they
/// would have with SELinux; for those that only `-v /TARGET` or the image asks for, nothing.
fn mode(mount: &v1::Mount, is_named: bool) -> String {
    let mut parts = mount.short_form.splitn(3, ':');
    match (parts.nth(2), kind(mount)) {
        (Some(words), Ok(Type::Bind | Type::Volume)) => words.to_owned(),
        (None, Ok(Type::Volume)) if is_named || mount.short_form.is_empty() => "z".to_owned(),
        _ => String::new(),
    }
}

/// Makes the source of a bind if it is to be made.
fn bind_source(mount: &v1::Mount) -> Result<()> {
    if Path::new(&mount.source).exists() {
        return Ok(());
    }
    if !mount.create_source {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            mount.source
        )));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&mount.source)
        .about(format!("error while creating mount source path '{}'", mount.source))
}

/// Copies what the image has at `target` into a volume that is empty.
fn fill(inner: &Inner, image: &OwnedFd, name: &str, target: &str, id: &str) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let below = target.trim_start_matches('/');
    let below = if below.is_empty() { "." } else { below };
    let there = match path::open_in_root(image.as_fd(), below, flags, 0, Links::Follow) {
        // Nothing there, or a file: a volume is a directory.
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
            return Ok(());
        }
        there => there.map_err(anyhow::Error::new)?,
    };
    inner.parts.volumes.mount(name, "", id)?;
    let filled = inner.parts.volumes.fill(name, |volume| copy(&there, volume));
    inner.parts.volumes.unmount(id)?;
    filled.map(drop)
}

/// Copies a directory with its own owner and mode, by two workers with a pipe between them.
fn copy(from: &OwnedFd, to: &OwnedFd) -> anyhow::Result<()> {
    let stat = path::stat(from)?;
    if !path::entries(from)?.is_empty() {
        let pack = Job::Pack {
            at: b"/".to_vec(),
            name: Vec::new(),
            follow: false,
            packing: Packing::Plain,
        };
        let files = Files { root: from.as_fd(), base: None, input: None, output: None };
        let mut packer = worker::spawn(&pack, files)?;
        let archive = packer.output.take().context("the worker has no output")?;
        let options = Options { whiteouts: Whiteouts::Keep, ..Options::default() };
        let unpack = Job::Unpack { options };
        let input = Some(archive.as_fd());
        let files = Files { root: to.as_fd(), base: None, input, output: None };
        let unpacker = worker::spawn(&unpack, files)?;
        // Its end of the pipe is the only one: should it fail, the packer does.
        drop(archive);
        unpacker.finish()?;
        packer.finish()?;
    }
    path::chown(to, stat.st_uid, stat.st_gid)?;
    path::chmod(to, stat.st_mode & 0o7777)?;
    Ok(())
}

/// Mounts what is to be mounted, and says where each source is.
pub(crate) fn resolve(inner: &Inner, record: &Record) -> Result<Vec<Resolved>> {
    let id = record.id();
    let mut resolved = Vec::new();
    for mount in &record.effective.mounts {
        let source = match kind(mount)? {
            Type::Bind => {
                bind_source(mount)?;
                mount.source.clone()
            }
            Type::Volume => text(inner.parts.volumes.mount(&mount.source, &mount.subpath, id)?),
            Type::Image => {
                let image = inner.parts.images.resolve(&mount.source, "")?;
                let layer = image.chain_id.ok_or_else(|| {
                    Error::invalid(format!("image {} has no layers to mount", mount.source))
                })?;
                let root = inner.parts.snapshots.mount_layer(&layer)?;
                text(inner.parts.volumes.place(root, &mount.subpath, id)?)
            }
            Type::Tmpfs => String::new(),
        };
        resolved.push(Resolved { mount: mount.clone(), source });
    }
    Ok(resolved)
}

fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(path.as_ref().as_os_str().as_bytes()).into_owned()
}

/// Containers that are not there use no volumes.
pub(crate) fn forget_others(inner: &Inner, known: &BTreeSet<String>) -> Result<()> {
    let all = inner.parts.volumes.list(&v1::ListVolumesRequest::default())?;
    let mut users: Vec<String> =
        all.volumes.into_iter().flat_map(|volume| volume.containers).collect();
    users.sort();
    users.dedup();
    users.retain(|id| !known.contains(id));
    for id in users {
        inner.parts.volumes.release(&id, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_docker() {
        let of = |kind: Type, short: &str, is_named| {
            let mount =
                v1::Mount { r#type: kind.into(), short_form: short.into(), ..Default::default() };
            mode(&mount, is_named)
        };
        for (kind, short, is_named, words) in [
            (Type::Volume, "v1:/v:ro,z", true, "ro,z"),
            (Type::Volume, "v1:/v", true, "z"),
            (Type::Volume, "", true, "z"),
            (Type::Volume, "", false, "z"),
            (Type::Volume, "/v", false, ""),
            (Type::Bind, "/a:/v:rw", true, "rw"),
            (Type::Bind, "/a:/v", true, ""),
            (Type::Bind, "", true, ""),
            (Type::Tmpfs, "/t:size=1m", false, ""),
            // As `--volumes-from` has it.
            (Type::Volume, ":/v:", true, ""),
        ] {
            assert_eq!(of(kind, short, is_named), words, "{short}");
        }
    }

    #[test]
    fn the_source_of_a_bind_is_made_only_if_asked() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("a/b").to_string_lossy().into_owned();
        let mut mount = v1::Mount { source: source.clone(), ..Default::default() };
        let error = bind_source(&mount).unwrap_err();
        assert!(error.message().ends_with(&format!("bind source path does not exist: {source}")));
        mount.create_source = true;
        bind_source(&mount).unwrap();
        assert!(Path::new(&source).is_dir());
    }
}
