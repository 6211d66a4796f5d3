//! `/dev`: device files, the links that programs expect, the console, stdio's null.
//!
//! Nothing here trusts what the image has put in place: every device file is looked at
//! after it was made or found, through the descriptor that is then used.

use std::{
    ffi::{CStr, OsStr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use hull_runtime_sys::{
    fd::{is_open, openat, place},
    mount,
    path::{self, Missing, c_path, clean},
    process::set_umask,
};
use hull_specs_oci as oci;

use super::Root;

/// Character device 1:3.
const NULL: u64 = libc::makedev(1, 3);

/// What `/dev` shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dev {
    pub(crate) devices: Vec<Device>,
    /// Bind the devices from the host: a user namespace cannot make any.
    pub(crate) bind: bool,
    /// Name in `/dev` and target.
    pub(crate) links: Vec<(&'static str, &'static str)>,
}

/// A device file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// From the root, clean.
    pub(crate) path: PathBuf,
    /// File type and permissions.
    pub(crate) mode: u32,
    pub(crate) number: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The devices that every container has (config-linux.md, "Default Devices").
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/random", 1, 8),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/zero", 1, 5),
    ("dev/urandom", 1, 9),
];

/// Plans `/dev`: a device of the configuration replaces the default of the same path.
pub(crate) fn plan(configured: &[oci::Device], bind: bool, kcore: bool) -> Result<Dev> {
    let configured = configured.iter().filter(|d| !d.path.is_empty()).map(device);
    let configured: Vec<Device> = configured.collect::<Result<_>>()?;
    let mut devices: Vec<Device> = DEFAULTS
        .iter()
        .filter(|(path, ..)| !configured.iter().any(|d| d.path == Path::new(path)))
        .map(|&(path, major, minor)| Device {
            path: path.into(),
            mode: libc::S_IFCHR | 0o666,
            number: libc::makedev(major, minor),
            uid: 0,
            gid: 0,
        })
        .collect();
    // /dev/ptmx is always the link to the container's own devpts.
    devices.extend(configured.into_iter().filter(|d| d.path != Path::new("dev/ptmx")));
    let mut links = vec![
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    if kcore {
        links.push(("core", "/proc/kcore"));
    }
    Ok(Dev { devices, bind, links })
}

fn device(device: &oci::Device) -> Result<Device> {
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => bail!("device {:?}: invalid device type {other:?}", device.path),
    };
    let number = |number: i64| {
        u32::try_from(number)
            .with_context(|| format!("device {:?}: invalid number {number}", device.path))
    };
    let number = if kind == libc::S_IFIFO {
        0
    } else {
        libc::makedev(number(device.major)?, number(device.minor)?)
    };
    let path = clean(Path::new(&device.path));
    ensure!(path.file_name().is_some(), "device {:?} has no file name", device.path);
    ensure!(!device.path.contains('\0'), "device {:?} contains a null byte", device.path);
    Ok(Device {
        path,
        mode: kind | device.file_mode.unwrap_or(0o666) & 0o7777,
        number,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Fills `/dev`; the container's null device is kept open in `root`.
pub(super) fn apply(root: &mut Root, dev: &Dev) -> Result<()> {
    let directory =
        path::resolve(&root.fd, "dev", Missing::Directory(0o755)).context("error opening /dev")?.fd;
    // Modes come out as configured, and what is wrong anyway is corrected after a look.
    let umask = set_umask(0);
    let result = dev.devices.iter().try_for_each(|device| {
        create(root, &directory, device, dev.bind)
            .with_context(|| format!("error creating device node /{}", device.path.display()))
    });
    set_umask(umask);
    result?;

    match path::unlink(&directory, c"ptmx") {
        Err(error) if error.errno() != libc::ENOENT => {
            return Err(error).context("error setting up ptmx");
        }
        _ => path::symlink(c"pts/ptmx", &directory, c"ptmx").context("error setting up ptmx")?,
    }
    for (name, target) in &dev.links {
        match path::symlink(&c_path(target)?, &directory, &c_path(name)?) {
            Err(error) if error.errno() != libc::EEXIST => {
                return Err(error).context("error setting up /dev symlinks");
            }
            _ => {}
        }
    }
    root.null = Some(open_null(&directory)?);
    Ok(())
}

/// Opens the container's null device, and nothing else.
fn open_null(directory: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let null = openat(directory, c"null", flags, 0).context("error opening /dev/null")?;
    ensure!(is_null(&null)?, "container's /dev/null is invalid");
    Ok(null)
}

/// Whether this is the null device, whatever its name.
pub(super) fn is_null(fd: impl AsFd) -> Result<bool> {
    let stat = path::stat(fd)?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == NULL)
}

fn create(root: &Root, dev: &OwnedFd, device: &Device, bind: bool) -> Result<()> {
    let name = c_path(device.path.file_name().unwrap_or(OsStr::new("")))?;
    let parent = device.path.parent().unwrap_or(Path::new(""));
    let opened;
    let directory = if parent == Path::new("dev") {
        dev
    } else {
        opened = path::resolve(&root.fd, parent, Missing::Directory(0o755))?.fd;
        &opened
    };
    // A pipe is no device to the kernel: user namespaces may make it.
    if bind && device.mode & libc::S_IFMT != libc::S_IFIFO {
        return bind_from_host(directory.as_fd(), &name, device);
    }
    match path::mknod(directory, &name, device.mode, device.number) {
        Ok(()) => {}
        Err(error) if error.errno() == libc::EPERM => {
            return bind_from_host(directory.as_fd(), &name, device);
        }
        Err(error) if error.errno() == libc::EEXIST => {
            let found = openat(directory, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            if matches(&path::stat(&found)?, device) {
                return Ok(());
            }
            // The image has something else of that name, which is not ours to delete.
            return bind_from_host(directory.as_fd(), &name, device);
        }
        Err(error) => return Err(error.into()),
    }
    let node = openat(directory, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = path::stat(&node)?;
    ensure!(matches(&stat, device), "the new device node was replaced by something else");
    if (stat.st_uid, stat.st_gid) != (device.uid, device.gid) {
        path::chown(&node, device.uid, device.gid)?;
    }
    if stat.st_mode & 0o7777 != device.mode & 0o7777 {
        path::chmod(&node, device.mode & 0o7777)?;
    }
    Ok(())
}

fn matches(stat: &libc::stat, device: &Device) -> bool {
    let kind = device.mode & libc::S_IFMT;
    stat.st_mode & libc::S_IFMT == kind && (kind == libc::S_IFIFO || stat.st_rdev == device.number)
}

/// Binds the host's device of the same path; if that is another device, the one that the
/// host's `/dev/char` or `/dev/block` has for the number.
fn bind_from_host(directory: BorrowedFd<'_>, name: &CStr, device: &Device) -> Result<()> {
    let copy = |path: &Path| -> Result<Option<OwnedFd>> {
        match mount::copy_at(path, false) {
            Ok(copy) => Ok(matches(&path::stat(&copy)?, device).then_some(copy)),
            Err(error) if error.errno() == libc::ENOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let host = Path::new("/").join(&device.path);
    let mut found = copy(&host)?;
    let class = match device.mode & libc::S_IFMT {
        libc::S_IFCHR => Some("char"),
        libc::S_IFBLK => Some("block"),
        _ => None,
    };
    if let (None, Some(class)) = (&found, class) {
        let (major, minor) = (libc::major(device.number), libc::minor(device.number));
        found = copy(Path::new(&format!("/dev/{class}/{major}:{minor}")))?;
    }
    let found =
        found.with_context(|| format!("the host has no such device at {}", host.display()))?;
    mount::attach(&found, mount_point(directory, name, 0)?)?;
    Ok(())
}

/// A file to mount a device on: the one that is there, which must not be a link, or a new
/// empty one.
fn mount_point(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd> {
    let create = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
    match openat(directory, name, create, mode) {
        Ok(file) => Ok(file),
        Err(error) if error.errno() == libc::EEXIST => {
            let file = openat(directory, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            ensure!(
                !path::is_link(&path::stat(&file)?),
                "{} in the container's /dev is a symbolic link",
                name.to_string_lossy()
            );
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts the terminal `tty`, which must be open from a mount of this namespace, at the
/// container's `/dev/console` (R8: from descriptor to descriptor).
pub(crate) fn attach_console(root: &Root, tty: BorrowedFd<'_>) -> Result<()> {
    let context = "error mounting the console";
    let terminal = path::stat(tty)?;
    ensure!(
        terminal.st_mode & libc::S_IFMT == libc::S_IFCHR,
        "the console is not a character device"
    );
    let directory = path::resolve(&root.fd, "dev", Missing::Directory(0o755)).context(context)?.fd;
    let target = mount_point(directory.as_fd(), c"console", 0o666).context(context)?;
    let copy = mount::copy_of(tty, false).context(context)?;
    mount::attach(copy, target).context(context)
}

/// Makes those of the first three descriptors that are the host's null device the
/// container's, so that a container which changes its owner or mode changes its own.
pub(crate) fn replace_null_stdio(root: &Root) -> Result<()> {
    let Some(null) = &root.null else { return Ok(()) };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (number, fd) in [(0, stdin.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())] {
        if is_open(number) && is_null(fd)? {
            place(null, number).context("error reopening /dev/null inside container")?;
        }
    }
    Ok(())
}
