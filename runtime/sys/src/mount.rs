//! The descriptor-based mount API (kernel 5.2; mount_setattr(2) 5.12).
//!
//! A mount is made detached, gets its flags while nobody can reach it, and is attached
//! from descriptor to descriptor. Classic mount(2) is here only for what the newer calls
//! cannot say ([`mount_here`]), and acts on the current directory, which is a descriptor
//! too.

use std::{
    ffi::CStr,
    ops::BitOr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::{
    Error, Result, check, check_fd,
    fd::{AT_FDCWD, read},
    path::c_path,
    retry,
};

/// Flags of one mount, as mount_setattr(2) and fsmount(2) take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// No writes.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-id bits and file capabilities have no effect.
    pub const NO_SUID: Self = Self(0x2);
    /// Device files cannot be opened.
    pub const NO_DEV: Self = Self(0x4);
    /// Nothing can be executed.
    pub const NO_EXEC: Self = Self(0x8);
    /// The field of access-time modes. To set one, all of this is cleared.
    pub const ACCESS_TIME: Self = Self(0x70);
    /// Access times are not updated. With neither this nor `STRICT_ACCESS_TIME`, they
    /// are updated as `relatime` says.
    pub const NO_ACCESS_TIME: Self = Self(0x10);
    /// Access times are always updated.
    pub const STRICT_ACCESS_TIME: Self = Self(0x20);
    /// Access times of directories are not updated.
    pub const NO_DIR_ACCESS_TIME: Self = Self(0x80);
    /// Symbolic links are not followed (kernel 5.14).
    pub const NO_SYMLINKS: Self = Self(0x0020_0000);
    const ID_MAP: Self = Self(0x0010_0000);

    /// Whether there is no flag.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all flags of `other` are here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags that are in both.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These flags without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The flags of the mount that a file is on (fstatfs(2)).
    pub fn of(fd: impl AsFd) -> Result<Self> {
        /// `ST_*` beside the flag of the same meaning. There is no `ST_STRICTATIME`.
        const MEANINGS: [(u64, Attributes); 7] = [
            (0x1, Attributes::READ_ONLY),
            (0x2, Attributes::NO_SUID),
            (0x4, Attributes::NO_DEV),
            (0x8, Attributes::NO_EXEC),
            (0x400, Attributes::NO_ACCESS_TIME),
            (0x800, Attributes::NO_DIR_ACCESS_TIME),
            (0x2000, Attributes::NO_SYMLINKS),
        ];
        const RELATIVE_ACCESS_TIME: u64 = 0x1000;
        let flags = crate::path::file_system(fd)?.flags;
        let mut attributes = MEANINGS
            .iter()
            .filter(|(bit, _)| flags & bit != 0)
            .fold(Self::NONE, |all, (_, attribute)| all | *attribute);
        if flags & RELATIVE_ACCESS_TIME == 0 && !attributes.contains(Self::NO_ACCESS_TIME) {
            attributes = attributes | Self::STRICT_ACCESS_TIME;
        }
        Ok(attributes)
    }
}

impl BitOr for Attributes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How mounts made beneath a mount travel to its copies in other namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// Not at all.
    Private,
    /// Only from the other side to here.
    Slave,
    /// Not at all, and the mount cannot be bound elsewhere.
    Unbindable,
}

/// What [`set_attributes`] changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Flags to set.
    pub set: Attributes,
    /// Flags to clear.
    pub clear: Attributes,
    /// The new propagation.
    pub propagation: Option<Propagation>,
    /// The user namespace whose mapping the mount shows its owners through.
    pub id_map: Option<BorrowedFd<'a>>,
}

/// mount_setattr(2) on the mount whose root `mount` is, with all mounts beneath it if
/// `recursive`.
pub fn set_attributes(mount: impl AsFd, change: Change<'_>, recursive: bool) -> Result<()> {
    let propagation = match change.propagation {
        None => 0,
        Some(Propagation::Shared) => libc::MS_SHARED,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
    };
    let mut set = change.set;
    let mut user_namespace = 0;
    if let Some(fd) = change.id_map {
        set = set | Attributes::ID_MAP;
        user_namespace = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // `struct mount_attr` of version 0.
    let attr: [u64; 4] = [set.0, change.clear.0, propagation, user_namespace];
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path is a static string, `attr` outlives the call and the size is its own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    };
    check("mount_setattr", result).map(drop)
}

fn open_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    check_fd("open_tree", fd)
}

/// A detached copy of the mount at a path of the host, beginning there, with all mounts
/// beneath if `recursive`. Links are followed. Closing the descriptor before
/// [`attach`] unmounts the copy.
pub fn copy_at(path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd> {
    let path = path.as_ref();
    open_tree(AT_FDCWD, &c_path(path)?, recursive).map_err(|e| e.on(path.display()))
}

/// A detached copy of the mount that `file` is on, beginning at `file`.
pub fn copy_of(file: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    open_tree(file.as_fd(), c"", recursive)
}

/// Attaches a detached mount to the file or directory `target`, or moves an attached one.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    const BOTH_EMPTY_PATHS: u32 = 0x04 | 0x40;
    let (mount, target) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let empty = c"".as_ptr();
    // SAFETY: the paths are static NUL-terminated strings.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, mount, empty, target, empty, BOTH_EMPTY_PATHS)
    };
    check("move_mount", result).map(drop)
}

/// The most bytes that fsconfig(2) takes as a value, its NUL included.
pub const VALUE_LIMIT_BYTES: usize = 256;

/// A file system that is being configured (fsopen(2), fspick(2)).
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
    kind: Box<str>,
}

/// The commands of fsconfig(2).
mod command {
    pub(super) const SET_FLAG: u32 = 0;
    pub(super) const SET_STRING: u32 = 1;
    pub(super) const CREATE: u32 = 6;
    pub(super) const RECONFIGURE: u32 = 7;
}

impl Context {
    /// A new file system of this type.
    pub fn open(kind: &str) -> Result<Self> {
        const FSOPEN_CLOEXEC: u32 = 1;
        let name = c_path(kind)?;
        // SAFETY: `name` is NUL-terminated and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        let fd = check_fd("fsopen", fd).map_err(|e| e.on(kind))?;
        Ok(Self { fd, kind: kind.into() })
    }

    /// The file system that is mounted at `mount`.
    pub fn pick(mount: impl AsFd) -> Result<Self> {
        const CLOEXEC_EMPTY_PATH: u32 = 0x1 | 0x8;
        let fd = mount.as_fd().as_raw_fd();
        // SAFETY: the path is a static NUL-terminated string.
        let fd = unsafe { libc::syscall(libc::SYS_fspick, fd, c"".as_ptr(), CLOEXEC_EMPTY_PATH) };
        Ok(Self { fd: check_fd("fspick", fd)?, kind: "".into() })
    }

    /// Sets a parameter that has a value.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let subject = || format!("{} {key}={value}", self.kind);
        let (key, value) = (c_path(key)?, c_path(value)?);
        self.configure(command::SET_STRING, Some(&key), Some(&value), subject)
    }

    /// Sets a parameter that has none.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        let subject = || format!("{} {key}", self.kind);
        self.configure(command::SET_FLAG, Some(&c_path(key)?), None, subject)
    }

    /// Makes the file system.
    pub fn create(&self) -> Result<()> {
        self.configure(command::CREATE, None, None, || self.kind.to_string())
    }

    /// Applies the parameters to the file system that was picked.
    pub fn reconfigure(&self) -> Result<()> {
        self.configure(command::RECONFIGURE, None, None, || self.kind.to_string())
    }

    /// A detached mount of the file system that was created.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd> {
        const FSMOUNT_CLOEXEC: u32 = 1;
        let fd = self.fd.as_raw_fd();
        // SAFETY: fsmount takes only integers.
        let fd = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes.0) };
        check_fd("fsmount", fd).map_err(|e| e.on(self.with_log(self.kind.to_string())))
    }

    fn configure(
        &self,
        command: u32,
        key: Option<&CStr>,
        value: Option<&CStr>,
        subject: impl Fn() -> String,
    ) -> Result<()> {
        let fd = self.fd.as_raw_fd();
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the pointers are null or NUL-terminated strings that outlive the call, as
        // the command requires.
        retry("fsconfig", || unsafe {
            libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0)
        })
        .map(drop)
        .map_err(|e| e.on(self.with_log(subject())))
    }

    /// Adds what the kernel has written about the failure: one message a read, the first
    /// letter and a space before it say how serious it is.
    fn with_log(&self, subject: String) -> String {
        let mut buffer = [0; 512];
        let mut text = subject;
        while let Ok(length @ 1..) = read(&self.fd, &mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            let message = message.trim_end();
            if let Some(("e", message)) = message.split_once(' ') {
                text = format!("{text} ({message})");
            }
        }
        text
    }
}

/// What only classic mount(2) can say of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classic {
    /// Flags of the mount.
    pub attributes: Attributes,
    /// Change the mount at the current directory instead of making one.
    pub remount: bool,
    /// `MS_I_VERSION`, for which fsconfig(2) has no parameter.
    pub inode_version: bool,
    /// `MS_SYNCHRONOUS`.
    pub synchronous: bool,
    /// `MS_DIRSYNC`.
    pub synchronous_directories: bool,
    /// `MS_MANDLOCK`.
    pub mandatory_locks: bool,
    /// `MS_LAZYTIME`.
    pub lazy_time: bool,
}

/// mount(2) over the current directory: for `MS_I_VERSION`, and for parameters longer than
/// [`VALUE_LIMIT_BYTES`], which fsconfig(2) refuses (overlay's list of layers).
pub fn mount_here(source: &str, kind: &str, how: Classic, data: &str) -> Result<()> {
    classic(source, c".", kind, how, data)
}

/// mount(2) over the directory that a descriptor is open on, for a caller whose current
/// directory matters: names in `data` that are relative begin there. Mounts are reached by
/// no other name than the descriptor's magic link, so procfs must be at `/proc`.
pub fn mount_on(
    target: impl AsFd,
    source: &str,
    kind: &str,
    how: Classic,
    data: &str,
) -> Result<()> {
    let link = c_path(format!("/proc/self/fd/{}", target.as_fd().as_raw_fd()))?;
    classic(source, &link, kind, how, data)
}

fn classic(source: &str, target: &CStr, kind: &str, how: Classic, data: &str) -> Result<()> {
    let attributes = [
        (Attributes::READ_ONLY, libc::MS_RDONLY),
        (Attributes::NO_SUID, libc::MS_NOSUID),
        (Attributes::NO_DEV, libc::MS_NODEV),
        (Attributes::NO_EXEC, libc::MS_NOEXEC),
        (Attributes::NO_ACCESS_TIME, libc::MS_NOATIME),
        (Attributes::STRICT_ACCESS_TIME, libc::MS_STRICTATIME),
        (Attributes::NO_DIR_ACCESS_TIME, libc::MS_NODIRATIME),
        (Attributes::NO_SYMLINKS, 0x100),
    ]
    .into_iter()
    .filter(|(attribute, _)| how.attributes.contains(*attribute));
    let others = [
        (how.remount, libc::MS_REMOUNT),
        (how.inode_version, libc::MS_I_VERSION),
        (how.synchronous, libc::MS_SYNCHRONOUS),
        (how.synchronous_directories, libc::MS_DIRSYNC),
        (how.mandatory_locks, libc::MS_MANDLOCK),
        (how.lazy_time, libc::MS_LAZYTIME),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted);
    let flags = attributes
        .map(|(_, bit)| bit)
        .chain(others.map(|(_, bit)| bit))
        .fold(0, |all, bit| all | bit);
    let subject = kind;
    let (source, kind, data) = (c_path(source)?, c_path(kind)?, c_path(data)?);
    // SAFETY: all four are NUL-terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    };
    check("mount", result.into()).map(drop).map_err(|e| e.on(subject))
}

/// pivot_root(2) with the current directory, which must be the root of a mount, as the new
/// root; the old one lies on top of it afterwards, for [`detach_here`] to take away.
pub fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both paths are static NUL-terminated strings.
    check("pivot_root", unsafe { libc::syscall(libc::SYS_pivot_root, here, here) }).map(drop)
}

/// Detaches the topmost mount at the current directory, with all beneath it.
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is a static NUL-terminated string.
    let result = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
    check("umount2", result.into()).map(drop)
}

/// umount2(2) of the topmost mount at a path of the host, whose last component may not be a
/// link. With `lazy` it goes out of sight at once, and away when its last user does.
///
/// # Errors
/// `EINVAL` when the path is no mount point, `EBUSY` when it is in use and `lazy` is not set.
pub fn unmount(path: impl AsRef<Path>, lazy: bool) -> Result<()> {
    let path = path.as_ref();
    let name = c_path(path)?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let result = unsafe { libc::umount2(name.as_ptr(), flags) };
    check("umount2", result.into()).map(drop).map_err(|e| e.on(path.display()))
}

/// Whether an error says that the kernel has no descriptor-based mount API.
#[must_use]
pub fn is_unsupported(error: &Error) -> bool {
    error.errno() == libc::ENOSYS
}
