//! A container's root file system: mounting what `Create` brings, and unmounting it.
//!
//! The mounts are containerd's: a type, a source, options in fstab's words, and a place beneath
//! the root file system, which must be there. Each is attached to a descriptor; a place is
//! resolved inside the root file system, whose content is the image's.

mod id_map;
mod options;
mod overlay;

use std::{
    cmp::Reverse,
    ffi::OsStr,
    fs::{self, File},
    io::ErrorKind,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::types::mount::Mount;
use hull_runtime_sys::{
    fd::{AT_FDCWD, openat},
    loop_device,
    mount::{self, Attributes, Change},
    path::{self, Missing, c_path},
    process::Exit,
};

use crate::{
    mountinfo,
    program::{self, Call},
};
use id_map::IdMap;
use options::Options;

/// What mount(2) reads of its options. It does not fail of more: it cuts.
const DATA_LIMIT_BYTES: usize = 4095;

/// How long a program that mounts may take: a server far away may have to answer. Who asked
/// for the container has given up by then.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// Mounts that can lie on one another at one place. More are not ours.
const MAX_STACKED: usize = 256;

/// Makes the mounts, in order. If one fails, those before it are undone.
pub(crate) async fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    for mount in mounts {
        let Mount { type_, source, target, .. } = mount;
        if let Err(error) = mount_one(mount, rootfs).await {
            let error =
                error.context(format!("mount {type_:?} from {source:?} on the root file system"));
            return Err(match unmount_all(rootfs) {
                Ok(()) => error,
                Err(undo) => error.context(format!("and what was mounted stays: {undo:#}")),
            }
            .context(format!("{}{target}", rootfs.display())));
        }
    }
    Ok(())
}

/// What a mount comes down to.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Bind {
        recursive: bool,
        attributes: Attributes,
        id_map: IdMap,
    },
    /// The program that mounts it, and its words but for the target, which is the second.
    Helper {
        program: &'static str,
        words: Vec<String>,
    },
    FileSystem {
        options: Options,
        data: String,
    },
}

fn plan(mount: &Mount) -> Result<Plan> {
    for (program, prefix) in [("mount.fuse", "fuse."), ("mount.fuse3", "fuse3.")] {
        if let Some(kind) = mount.type_.strip_prefix(prefix) {
            let options = mount.options.iter().flat_map(|word| ["-o", word]);
            let words = [mount.source.as_str()].into_iter().chain(options).chain(["-t", kind]);
            return Ok(Plan::Helper { program, words: words.map(str::to_owned).collect() });
        }
    }
    let options = options::parse(&mount.options)?;
    if options.bind {
        if let Some(word) = options.data.first() {
            bail!("a bind mount does not take the option {word:?}");
        }
        let Options { recursive, how, id_map, .. } = options;
        return Ok(Plan::Bind { recursive, attributes: how.attributes, id_map });
    }
    let data = options.data.join(",");
    ensure!(
        options.id_map.is_empty() || mount.type_ == "overlay",
        "only overlays and bind mounts can be id-mapped, and this is {:?}",
        mount.type_
    );
    ensure!(
        data.len() <= DATA_LIMIT_BYTES || mount.type_ == "overlay",
        "mount options are too long: {} bytes of {DATA_LIMIT_BYTES}",
        data.len()
    );
    Ok(Plan::FileSystem { options, data })
}

async fn mount_one(mount: &Mount, rootfs: &Path) -> Result<()> {
    let plan = plan(mount)?;
    // Opened anew for each mount: the one before may lie on it.
    let open = || -> Result<_> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let root = openat(AT_FDCWD, &c_path(rootfs)?, flags, 0)?;
        Ok(path::resolve(&root, &mount.target, Missing::Fail)?)
    };
    let target = open()?;
    match plan {
        Plan::Bind { recursive, attributes, id_map } => {
            bind(&mount.source, target.fd.as_fd(), recursive, attributes, &id_map)
        }
        Plan::Helper { program, words } => help(program, words, &rootfs.join(target.path)).await,
        Plan::FileSystem { options, data } => {
            file_system(mount, target.fd.as_fd(), &options, &data)?;
            match overlay::work_directory(&mount.type_, options.how, &data) {
                Some(work) => overlay::ensure_writable(open()?.fd, work),
                None => Ok(()),
            }
        }
    }
}

fn bind(
    source: &str,
    target: BorrowedFd<'_>,
    recursive: bool,
    set: Attributes,
    id_map: &IdMap,
) -> Result<()> {
    let copy = mount::copy_at(source, recursive)?;
    if !id_map.is_empty() {
        id_map.apply(&copy)?;
    }
    if !set.is_empty() {
        // Access-time modes are one field: all of it is cleared to set one.
        let times = Attributes::ACCESS_TIME;
        let clear = if set.both(times).is_empty() { Attributes::NONE } else { times };
        // Of this mount alone, as mount(2) does it: not of those beneath it.
        mount::set_attributes(&copy, Change { set, clear, ..Change::default() }, false)?;
    }
    Ok(mount::attach(copy, target)?)
}

fn file_system(mount: &Mount, target: BorrowedFd<'_>, options: &Options, data: &str) -> Result<()> {
    let (kind, source) = (mount.type_.as_str(), mount.source.as_str());
    if !options.id_map.is_empty() {
        return overlay::mount_mapped(source, target, options.how, data, &options.id_map);
    }
    if data.len() > DATA_LIMIT_BYTES {
        return overlay::mount(source, target, options.how, data);
    }
    if let Some(mode) = options.loop_device {
        let access = if mode.read_only { libc::O_RDONLY } else { libc::O_RDWR };
        let file = openat(AT_FDCWD, &c_path(source)?, access, 0)?;
        let (_device, path) = loop_device::attach(file, mode)?;
        return Ok(mount::mount_on(target, &path, kind, options.how, data)?);
    }
    Ok(mount::mount_on(target, source, kind, options.how, data)?)
}

/// Runs a program that mounts, and waits for it.
async fn help(program: &str, words: Vec<String>, target: &Path) -> Result<()> {
    let file = program::find(program, None)
        .with_context(|| format!("exec: {program:?}: executable file not found in $PATH"))?;
    let (source, rest) = words.split_first().context("a mount has a source")?;
    let words = [OsStr::new(program), OsStr::new(source), target.as_os_str()];
    let args = program::arguments(words.into_iter().chain(rest.iter().map(OsStr::new)))?;
    let call = Call { program: &file, args, env: program::environment(None) };
    let ran = call.run(File::open("/dev/null")?.into(), Some(HELPER_LIMIT)).await;
    let (exit, said) = ran.with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&said);
    let how = program::how(exit);
    ensure!(exit == Exit::Code(0), "{program}: {how}: {:?}", said.trim_end());
    Ok(())
}

/// Unmounts all that is mounted on a root file system and beneath it, the deepest first, as
/// often as something is mounted there. That nothing is, or that there is no such directory, is
/// well. What is in use goes out of sight now, and away when its last user does: a shim must
/// not wait.
pub(crate) fn unmount_all(rootfs: &Path) -> Result<()> {
    let Some(rootfs) = real_place(rootfs)? else { return Ok(()) };
    if unmount_only(&rootfs) {
        return Ok(());
    }
    let mut places = Vec::new();
    mountinfo::each(|mount| {
        if mount.point.starts_with(&rootfs) {
            places.push(mount.point);
        }
    })?;
    places.sort_by_cached_key(|place| (Reverse(place.components().count()), place.clone()));
    places.dedup();
    let mut failed = None;
    for place in places {
        if let Err(error) = unmount(&place) {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), |error| Err(error).context("unmount the root file system"))
}

/// Unmounts what is mounted on a directory that is empty below, and says whether that was all:
/// nearly always, and it spares the list of all mounts of the host.
fn unmount_only(rootfs: &Path) -> bool {
    for _ in 0..MAX_STACKED {
        match mount::unmount(rootfs, false) {
            Ok(()) => {}
            // Not, or no longer, a mount point. Nothing can be mounted in an empty directory.
            Err(error) if error.errno() == libc::EINVAL => {
                return fs::read_dir(rootfs).is_ok_and(|mut entries| entries.next().is_none());
            }
            Err(_) => return false,
        }
    }
    false
}

fn unmount(place: &Path) -> Result<()> {
    for _ in 0..MAX_STACKED {
        let result = match mount::unmount(place, false) {
            Err(error) if error.errno() == libc::EBUSY => mount::unmount(place, true),
            result => result,
        };
        match result {
            // Not, or no longer, a mount point; or gone with what lay above it.
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::ENOENT) => return Ok(()),
            result => result?,
        }
    }
    bail!("more than {MAX_STACKED} mounts lie on {}", place.display())
}

/// The path as mountinfo shows it, but for the last component, which is not followed.
fn real_place(path: &Path) -> Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} cannot be the place of a root file system", path.display());
    };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("resolve {}", parent.display())),
    }
}

#[cfg(test)]
mod tests;
