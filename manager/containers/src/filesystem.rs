//! A container's file system, seen from outside: never by name, always beneath descriptors (R1).

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use hull_manager_archive::{Ids, worker::Mounted};
use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::{
    mount::{self, Attributes, Change},
    path::{self, Links},
};
use hull_specs_api::v1;

use crate::{Containers, Inner, bundle::ROOTFS, handle::Handle, prepare, record::Record};

/// Where a path of a container is: beneath which directory, and where there.
pub(crate) struct Place {
    pub(crate) root: OwnedFd,
    /// Relative to `root`; empty for itself.
    pub(crate) below: PathBuf,
    /// It is on a volume or a bind that the container may not write to.
    pub(crate) read_only: bool,
    /// Files there have the host's ids of the container's user namespace.
    pub(crate) ids: Option<Ids>,
    /// What the container has mounted beneath `root`, parents first.
    pub(crate) mounts: Vec<Mounted>,
}

/// What a container's files are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Files have the container's ids.
    Look,
    /// Files have the ids that are said with it.
    Change,
}

/// Which mount a path is on, and where there: the one with the longest destination.
fn mount_of<'a>(
    mounts: &'a [v1::MountPoint],
    path: &Path,
) -> Option<(&'a v1::MountPoint, PathBuf)> {
    let on = |mount: &'a v1::MountPoint| {
        // A tmpfs is only in the container.
        let below =
            path.strip_prefix(&mount.destination).ok().filter(|_| !mount.source.is_empty())?;
        Some((mount, below.to_owned()))
    };
    mounts.iter().filter_map(on).max_by_key(|(mount, _)| mount.destination.len())
}

/// A path in a container as one from its root: no `..`, no doubled slash.
fn clean(text: &str) -> Result<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(Error::invalid("the path is empty, or has a zero byte"));
    }
    Ok(Path::new("/").join(path::clean(Path::new(text))))
}

impl Inner {
    /// The root of a container's file system: what the shim has mounted, or a mount of its own;
    /// and the ids of the host that files have there.
    pub(crate) fn root(&self, id: &str, purpose: Purpose) -> Result<(OwnedFd, Option<Ids>)> {
        let rootfs = self.bundle(id).join(ROOTFS);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        if let Ok(root) = path::open_without_links(&rootfs, flags)
            && path::is_mount_root(&root).unwrap_or(false)
        {
            return match (self.ids(id)?, purpose) {
                (Some(_), Purpose::Look) => {
                    Ok((self.parts.snapshots.mount_detached(id, true)?, None))
                }
                (ids, _) => Ok((root, ids)),
            };
        }
        Ok((self.parts.snapshots.mount_detached(id, false)?, None))
    }

    fn ids(&self, container: &str) -> Result<Option<Ids>> {
        let range = self.ranges.of(container)?;
        Ok(range.map(|range| Ids { first: range.host_id, size: range.size }))
    }

    /// Where a path is.
    pub(crate) fn place(&self, handle: &Handle, text: &str, purpose: Purpose) -> Result<Place> {
        let record = handle.record();
        let whole = clean(text)?;
        if let Some((mount, below)) = mount_of(&record.container.mounts, &whole) {
            let is_directory = fs::metadata(&mount.source).about(&mount.source)?.is_dir();
            if is_directory {
                let source = fs::File::open(&mount.source).about(&mount.source)?;
                let read_only = !mount.read_write;
                // Without its own ids the container finds the host's there.
                let ids = match is_plain(&record, &mount.destination) && purpose == Purpose::Change
                {
                    true => self.ids(&handle.id)?,
                    false => None,
                };
                let mounts = self.mounts_beneath(&record, Path::new(&mount.destination), ids)?;
                return Ok(Place { root: source.into(), below, read_only, ids, mounts });
            }
            // A container that was never started has no place yet to show a mounted file at.
            if purpose == Purpose::Look && below.as_os_str().is_empty() {
                return file(&mount.source, !mount.read_write);
            }
        }
        let below = whole.strip_prefix("/").unwrap_or(&whole).to_owned();
        let read_only = record.effective.read_only;
        let (root, ids) = self.root(&handle.id, purpose)?;
        let mounts = self.mounts_beneath(&record, Path::new("/"), ids)?;
        Ok(Place { root, below, read_only, ids, mounts })
    }

    /// What a container has mounted beneath a directory, in which files have these ids.
    fn mounts_beneath(
        &self,
        record: &Record,
        top: &Path,
        ids: Option<Ids>,
    ) -> Result<Vec<Mounted>> {
        let mut points = record.container.mounts.clone();
        for (destination, source) in prepare::mounted_files(self, record) {
            if points.iter().all(|point| point.destination != destination) {
                let (destination, read_write) = (destination.into(), !record.effective.read_only);
                let source = source.to_string_lossy().into_owned();
                let point =
                    v1::MountPoint { source, destination, read_write, ..Default::default() };
                points.push(point);
            }
        }
        // As they are mounted for the container.
        points.sort_by_key(|point| point.destination.matches('/').count());
        let mut mounts = Vec::new();
        for mut point in points {
            // With these ids nothing is made where the container shows others.
            point.read_write &= ids.is_none() || is_plain(record, &point.destination);
            let below = Path::new(&point.destination).strip_prefix(top).ok();
            let Some(at) = below.and_then(Path::to_str).filter(|at| !at.is_empty()) else {
                continue;
            };
            if let Some(mount) = copy_of(&point, record)? {
                mounts.push(Mounted { mount, at: at.to_owned() });
            }
        }
        Ok(mounts)
    }
}

/// A file of the host, by itself.
fn file(source: &str, read_only: bool) -> Result<Place> {
    let source = fs::canonicalize(source).about(source)?;
    let (Some(directory), Some(name)) = (source.parent(), source.file_name()) else {
        return Err(Error::internal("a file without a name"));
    };
    let root = fs::File::open(directory).about(directory.display())?.into();
    Ok(Place { root, below: name.into(), read_only, ids: None, mounts: Vec::new() })
}

/// Whether this is a path of the host as it is, whatever ids the container has.
fn is_plain(record: &Record, destination: &str) -> bool {
    record.effective.mounts.iter().any(|asked| {
        asked.target == destination && asked.r#type() == v1::mount::Type::Bind && !asked.id_mapped
    })
}

/// What is mounted at a point, as a mount of its own; nothing if that is only in the container, or
/// not there any more.
fn copy_of(point: &v1::MountPoint, record: &Record) -> Result<Option<OwnedFd>> {
    if point.source.is_empty() {
        return Ok(None);
    }
    let asked = record.effective.mounts.iter().find(|asked| asked.target == point.destination);
    let copied = mount::copy_at(&point.source, asked.is_none_or(|asked| !asked.non_recursive));
    let copied = match copied {
        Err(error) if error.errno() == libc::ENOENT => return Ok(None),
        copied => copied.map_err(anyhow::Error::new)?,
    };
    if !point.read_write {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::set_attributes(&copied, change, false).map_err(anyhow::Error::new)?;
    }
    Ok(Some(copied))
}

/// Whether a path can only be one of a directory, or of a link to one.
pub(crate) fn is_of_directory(text: &str) -> bool {
    text.ends_with('/') || text.ends_with("/.")
}

fn missing(container: &str, path: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {container}"))
}

/// What is at a path, its last link not followed unless a directory is asked for.
pub(crate) fn stat(place: &Place, container: &str, text: &str) -> Result<v1::PathStat> {
    let internal = |error: hull_runtime_sys::Error| Error::from(anyhow::Error::new(error));
    let below = match place.below.as_os_str().is_empty() {
        true => Path::new("."),
        false => &place.below,
    };
    let wants_directory = is_of_directory(text);
    let flags = libc::O_PATH | if wants_directory { 0 } else { libc::O_NOFOLLOW };
    let opened;
    let file = match place.mounts.iter().rfind(|mounted| Path::new(&mounted.at) == below) {
        Some(mounted) => &mounted.mount,
        None => {
            let found = path::open_in_root(place.root.as_fd(), below, flags, 0, Links::Follow);
            opened = found.map_err(|error| match error.errno() {
                libc::ENOENT | libc::ENOTDIR => missing(container, text),
                _ => internal(error),
            })?;
            &opened
        }
    };
    let stat = path::stat(file).map_err(internal)?;
    if wants_directory && !path::is_directory(&stat) {
        return Err(Error::not_found(format!("lstat {text}: not a directory")));
    }
    let link_target = if path::is_link(&stat) {
        path::readlink(file, c"").map_err(internal)?.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let name = Path::new(text).file_name().unwrap_or_else(|| OsStr::from_bytes(b"/"));
    let modified = UNIX_EPOCH
        + Duration::new(
            u64::try_from(stat.st_mtime).unwrap_or(0),
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        );
    Ok(v1::PathStat {
        name: name.to_string_lossy().into_owned(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: Some(modified.into()),
        link_target,
    })
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `Could not find the file …`.
    pub async fn stat_path(&self, request: v1::StatPathRequest) -> Result<v1::PathStat> {
        let handle = self.find(&request.container)?;
        let inner = std::sync::Arc::clone(&self.0);
        let work = move || {
            let place = inner.place(&handle, &request.path, Purpose::Look)?;
            stat(&place, &request.container, &request.path)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|cause| Error::internal("stat").because(cause))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_has_the_path() {
        let mount = |source: &str, destination: &str| v1::MountPoint {
            source: source.into(),
            destination: destination.into(),
            ..Default::default()
        };
        let mounts = [mount("/a", "/data"), mount("/b", "/data/in"), mount("", "/tmp")];
        for (text, expected) in [
            ("/etc/x", None),
            ("/data", Some(("/a", ""))),
            ("data/../data/x", Some(("/a", "x"))),
            ("/data/in/y/z", Some(("/b", "y/z"))),
            ("/datax", None),
            ("/tmp/x", None),
            ("/../../etc", None),
        ] {
            let path = clean(text).unwrap();
            let found = mount_of(&mounts, &path);
            let found =
                found.as_ref().map(|(m, below)| (m.source.as_str(), below.to_str().unwrap()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(place.path().join("secret"), "outside").unwrap();
        fs::write(root.join("etc/inside"), "12345").unwrap();
        std::os::unix::fs::symlink("../..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc/inside", root.join("link")).unwrap();
        let at = |below: &str| {
            let root = fs::File::open(&root).unwrap().into();
            let place =
                Place { root, below: below.into(), read_only: false, ids: None, mounts: vec![] };
            stat(&place, "c", below)
        };
        assert_eq!(at("etc/inside").unwrap().size_bytes, 5);
        let link = at("link").unwrap();
        assert_eq!((link.link_target.as_str(), link.name.as_str()), ("/etc/inside", "link"));
        assert!(at("up/secret").unwrap_err().message().contains("Could not find the file"));
        assert_eq!(at("up/etc/inside").unwrap().size_bytes, 5);
        assert_eq!(at("").unwrap().mode & libc::S_IFMT, libc::S_IFDIR);
    }
}
