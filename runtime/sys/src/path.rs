//! Paths beneath a root: every name that a container could control is resolved here.
//!
//! A root is a directory descriptor. Names are resolved by openat2(2) (kernel 5.6), which
//! keeps symbolic links, `..` and renames by other processes inside the root, and never
//! follows a magic link of procfs. What openat2 cannot do, creating what is missing while
//! links are followed, is done by a walk of single components in which every directory is
//! reached from the root by `O_NOFOLLOW` opens and `..` goes back to a descriptor that the
//! walk already holds.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Error, Result, check, check_fd, fd::openat, retry};

/// How long a resolution that keeps colliding with renames (`EAGAIN`) is tried again.
/// Resolutions take microseconds; a machine that collides for this long is under attack.
const COLLISION_LIMIT: Duration = Duration::from_millis(10);

/// The kernel's own limit of links in one resolution.
const LINK_LIMIT: u32 = 40;

/// Components that one walk may visit, so that an adversary who keeps changing the tree
/// cannot keep it going.
const STEP_LIMIT: u32 = 8192;

/// What a resolution does with symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow them inside the root.
    Follow,
    /// Fail with `ELOOP` at the first one, in any component.
    Refuse,
}

/// What [`resolve`] does about components that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Fail with `ENOENT`.
    Fail,
    /// Create directories of this mode.
    Directory(u32),
    /// Create an empty file of this mode, and the directories above it with mode 0755.
    File(u32),
}

/// What a path led to.
#[derive(Debug)]
pub struct Target {
    /// The file. An `O_PATH` descriptor, unless a regular file was created.
    pub fd: OwnedFd,
    /// Where it is, from the root, with all links followed. No leading slash; empty for
    /// the root itself.
    pub path: PathBuf,
    /// Whether the last component did not exist before.
    pub created: bool,
}

/// A path as the kernel wants it; a NUL inside is `EINVAL`.
pub fn c_path(path: impl AsRef<OsStr>) -> Result<CString> {
    let path = path.as_ref();
    CString::new(path.as_bytes())
        .map_err(|_| Error::new("path", libc::EINVAL).on(path.to_string_lossy()))
}

/// The path without `.`, empty components and a leading slash, and with every `..` taken
/// away together with the component before it, never going above the start.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn openat2(dir: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, how: u64) -> Result<OwnedFd> {
    let name = c_path(if path.as_os_str().is_empty() { Path::new(".") } else { path })?;
    // SAFETY: all-zero is a valid open_how.
    let mut open_how: libc::open_how = unsafe { std::mem::zeroed() };
    open_how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    open_how.mode = mode.into();
    open_how.resolve = how;
    let mut deadline = None;
    loop {
        // SAFETY: `name` and `open_how` outlive the call, and the size is the struct's.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                name.as_ptr(),
                &raw const open_how,
                size_of_val(&open_how),
            )
        };
        match check_fd("openat2", fd) {
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) if error.errno() == libc::EAGAIN => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + COLLISION_LIMIT);
                if Instant::now() >= deadline {
                    return Err(error.on(path.display()));
                }
            }
            result => return result.map_err(|e| e.on(path.display())),
        }
    }
}

/// Opens a path beneath `root` as if `root` were `/`. With `O_CREAT` the caller also
/// passes `O_EXCL` and `O_NOFOLLOW`.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: i32,
    mode: u32,
    links: Links,
) -> Result<OwnedFd> {
    let mut how = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    if links == Links::Refuse {
        how |= libc::RESOLVE_NO_SYMLINKS;
    }
    openat2(root.as_fd(), path.as_ref(), flags, mode, how)
}

/// Opens a path of the host, from the current directory, that must contain no link.
pub fn open_without_links(path: impl AsRef<Path>, flags: i32) -> Result<OwnedFd> {
    openat2(crate::fd::AT_FDCWD, path.as_ref(), flags, 0, libc::RESOLVE_NO_SYMLINKS)
}

/// Finds a path beneath `root`, following links inside it, dangling ones too, and makes
/// what is missing. Modes of new files are subject to the umask.
pub fn resolve(root: impl AsFd, path: impl AsRef<Path>, missing: Missing) -> Result<Target> {
    let root = root.as_fd();
    let path = clean(path.as_ref());
    // Without links the cleaned path is the real one, and one call is enough.
    match open_in_root(root, &path, libc::O_PATH, 0, Links::Refuse) {
        Ok(fd) => return Ok(Target { fd, path, created: false }),
        Err(error) if error.errno() == libc::ELOOP => {}
        Err(error) if error.errno() == libc::ENOENT && missing != Missing::Fail => {}
        Err(error) => return Err(error),
    }
    walk(root, &path, missing).map_err(|e| e.on(path.display()))
}

fn walk(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<Target> {
    let mut held: Vec<(OsString, OwnedFd)> = Vec::new();
    let mut pending: Vec<OsString> = Vec::new();
    push_components(&mut pending, path);
    let mut links = 0;
    let mut created = false;
    for _ in 0..STEP_LIMIT {
        let Some(name) = pending.pop() else {
            let path = held.iter().map(|(name, _)| name).collect();
            let fd = match held.pop() {
                Some((_, fd)) => fd,
                None => openat(root, c".", libc::O_PATH, 0)?,
            };
            return Ok(Target { fd, path, created });
        };
        if name == ".." {
            held.pop();
            continue;
        }
        let dir = held.last().map_or(root, |(_, fd)| fd.as_fd());
        let c_name = c_path(&name)?;
        match openat(dir, &c_name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Ok(fd) if is_link(&stat(&fd)?) => {
                links += 1;
                if links > LINK_LIMIT {
                    return Err(Error::new("openat", libc::ELOOP));
                }
                let target = readlink(&fd, c"")?;
                if target.is_absolute() {
                    held.clear();
                }
                push_components(&mut pending, &target);
            }
            Ok(fd) => held.push((name, fd)),
            Err(error) if error.errno() == libc::ENOENT => {
                let mode = match missing {
                    Missing::Fail => return Err(error),
                    Missing::File(mode) if pending.is_empty() => {
                        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                        match openat(dir, &c_name, flags | libc::O_RDONLY, mode) {
                            Ok(fd) => {
                                held.push((name, fd));
                                created = true;
                            }
                            // Somebody else made it meanwhile: look at it again.
                            Err(error) if error.errno() == libc::EEXIST => pending.push(name),
                            Err(error) => return Err(error),
                        }
                        continue;
                    }
                    Missing::File(_) => 0o755,
                    Missing::Directory(mode) => mode,
                };
                match crate::fd::mkdirat(dir, &c_name, mode) {
                    Ok(()) => created |= pending.is_empty(),
                    Err(error) if error.errno() == libc::EEXIST => {}
                    Err(error) => return Err(error),
                }
                // The next turn opens it, whatever it has become by then.
                pending.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new("openat", libc::ELOOP))
}

/// Puts a path's components on the stack of those still to visit, the first on top.
fn push_components(pending: &mut Vec<OsString>, path: &Path) {
    pending.extend(path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }));
}

/// fstat(2). Also of an `O_PATH` descriptor.
pub fn stat(fd: impl AsFd) -> Result<libc::stat> {
    // SAFETY: all-zero is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write and has the type that the call fills.
    let result = unsafe { libc::fstat(fd.as_fd().as_raw_fd(), &raw mut stat) };
    check("fstat", result.into())?;
    Ok(stat)
}

/// fstatat(2) of a name in a directory, not following a link.
pub fn stat_at(dir: impl AsFd, name: &CStr) -> Result<libc::stat> {
    // SAFETY: all-zero is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated and `stat` is ours to write.
    let result =
        unsafe { libc::fstatat(dir, name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW) };
    check("fstatat", result.into()).map_err(|e| e.on(name.to_string_lossy()))?;
    Ok(stat)
}

/// Whether the file is a directory.
#[must_use]
pub fn is_directory(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Whether the file is a symbolic link.
#[must_use]
pub fn is_link(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFLNK
}

/// Whether the file is the root of a mount (statx(2), kernel 5.8).
pub fn is_mount_root(fd: impl AsFd) -> Result<bool> {
    const MOUNT_ROOT: u64 = 0x2000;
    // SAFETY: all-zero is a valid statx.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is a static string and `statx` is ours to write.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, 0, &raw mut statx) };
    check("statx", result.into())?;
    Ok(statx.stx_attributes & MOUNT_ROOT != 0)
}

/// What fstatfs(2) says of the file system that a file is on.
#[derive(Clone, Copy, Debug)]
pub struct FileSystem {
    /// The type's magic number, as in `linux/magic.h`.
    pub magic: u32,
    /// The `ST_*` flags of the mount.
    pub flags: u64,
}

/// procfs, as [`FileSystem::magic`] gives it.
pub const PROC_MAGIC: u32 = 0x9fa0;

/// fstatfs(2). The kernel is asked directly, because glibc's structure hides the flags: on
/// 64-bit machines it fills 15 words, the first of them the type, the eleventh the flags.
pub fn file_system(fd: impl AsFd) -> Result<FileSystem> {
    const _: () = assert!(cfg!(target_pointer_width = "64"));
    let mut words = [0_u64; 15];
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `words` is ours to write and as large as the kernel's structure.
    retry("fstatfs", || unsafe { libc::syscall(libc::SYS_fstatfs, fd, words.as_mut_ptr()) })?;
    let magic = u32::try_from(words[0]).unwrap_or(0);
    Ok(FileSystem { magic, flags: words[10] })
}

/// readlinkat(2): the target of a link in `dir`, or of the link that `dir` itself is an
/// `O_PATH` descriptor of, with an empty name.
pub fn readlink(dir: impl AsFd, name: &CStr) -> Result<PathBuf> {
    let mut buffer = vec![0_u8; libc::PATH_MAX.cast_unsigned() as usize];
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated, and pointer and length describe `buffer`.
    let length =
        unsafe { libc::readlinkat(dir, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let length =
        check("readlinkat", length as libc::c_long).map_err(|e| e.on(name.to_string_lossy()))?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(OsString::from_vec(buffer).into())
}

/// symlinkat(2).
pub fn symlink(target: &CStr, dir: impl AsFd, name: &CStr) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: both strings are NUL-terminated and outlive the call.
    let result = unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) };
    check("symlinkat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// mknodat(2): `mode` holds the file type and the permissions.
pub fn mknod(dir: impl AsFd, name: &CStr, mode: u32, device: u64) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let result = unsafe { libc::mknodat(dir, name.as_ptr(), mode, device) };
    check("mknodat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// unlinkat(2) of something that is not a directory.
pub fn unlink(dir: impl AsFd, name: &CStr) -> Result<()> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let result = unsafe { libc::unlinkat(dir, name.as_ptr(), 0) };
    check("unlinkat", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// renameat2(2) from one directory to another, never over what is there.
pub fn move_new(dir: impl AsFd, name: &CStr, new_dir: impl AsFd, new_name: &CStr) -> Result<()> {
    let (from, to) = (dir.as_fd().as_raw_fd(), new_dir.as_fd().as_raw_fd());
    let flags = libc::RENAME_NOREPLACE;
    // SAFETY: both names are NUL-terminated and outlive the call. Raw, because musl lacks it.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, from, name.as_ptr(), to, new_name.as_ptr(), flags)
    };
    check("renameat2", result).map(drop).map_err(|e| e.on(new_name.to_string_lossy()))
}

/// Changes the owner of the file itself, also of an `O_PATH` descriptor or a link.
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is a static NUL-terminated string.
    let result = unsafe { libc::fchownat(fd, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    check("fchownat", result.into()).map(drop)
}

/// Changes the mode of the file itself, also of an `O_PATH` descriptor.
///
/// fchmodat2(2) is from kernel 6.6. Before it, the only name that an `O_PATH` descriptor
/// has is its magic link, so the host's procfs must still be at `/proc`; that it is procfs
/// is checked.
pub fn chmod(fd: impl AsFd, mode: u32) -> Result<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is a static NUL-terminated string.
    let result =
        unsafe { libc::syscall(SYS_FCHMODAT2, fd, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    match check("fchmodat2", result) {
        Err(error) if error.errno() == libc::ENOSYS => {}
        result => return result.map(drop),
    }
    let proc = open_without_links("/proc", libc::O_PATH | libc::O_DIRECTORY)?;
    if file_system(&proc)?.magic != PROC_MAGIC {
        return Err(Error::new("fchmodat", libc::ENOTSUP).on("/proc"));
    }
    let link = c_path(format!("self/fd/{fd}"))?;
    // SAFETY: `link` is NUL-terminated and outlives the call.
    let result = unsafe { libc::fchmodat(proc.as_raw_fd(), link.as_ptr(), mode, 0) };
    check("fchmodat", result.into()).map(drop)
}

/// fsetxattr(2).
pub fn set_attribute(fd: impl AsFd, name: &CStr, value: &[u8]) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `name` is NUL-terminated, and pointer and length describe `value`.
    let result =
        unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check("fsetxattr", result.into()).map(drop).map_err(|e| e.on(name.to_string_lossy()))
}

/// The names in a directory opened for reading, without `.` and `..`.
pub fn entries(dir: impl AsFd) -> Result<Vec<CString>> {
    /// Where a `linux_dirent64` has its record length and its name.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let fd = dir.as_fd().as_raw_fd();
    let mut names = Vec::new();
    let mut buffer = vec![0_u8; 32768];
    loop {
        // SAFETY: pointer and length describe `buffer`, which is ours to write.
        let filled = retry("getdents64", || unsafe {
            libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len())
        })?;
        let filled = usize::try_from(filled).unwrap_or(0);
        if filled == 0 {
            return Ok(names);
        }
        let mut records = &buffer[..filled];
        while let Some(&[low, high]) = records.get(LENGTH_AT..LENGTH_AT + 2) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let Some((record, rest)) = records.split_at_checked(length) else { break };
            let name = record.get(NAME_AT..).and_then(|n| CStr::from_bytes_until_nul(n).ok());
            if let Some(name) = name.filter(|n| !matches!(n.to_bytes(), b"." | b"..")) {
                names.push(name.to_owned());
            }
            if length == 0 {
                break;
            }
            records = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        openat(crate::fd::AT_FDCWD, &c_path(path).unwrap(), libc::O_PATH, 0).unwrap()
    }

    /// A directory `root` beside a directory `outside`, which nothing may reach.
    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        let root = open(&dir.path().join("root"));
        (dir, root)
    }

    #[test]
    fn cleaning_never_leaves_the_start() {
        for (path, clean_path) in [
            ("/a/b", "a/b"),
            ("a//b/./c/", "a/b/c"),
            ("/../../a", "a"),
            ("a/../../b", "b"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(clean_path), "{path}");
        }
    }

    #[test]
    fn missing_directories_are_made_and_links_stay_inside() {
        let (dir, root) = tree();
        let inside = dir.path().join("root");
        symlink("/../../outside", inside.join("absolute")).unwrap();
        symlink("../../../outside", inside.join("relative")).unwrap();
        symlink("/not/there", inside.join("dangling")).unwrap();
        for (path, real) in [
            ("/a/b/c", "a/b/c"),
            ("absolute/x", "outside/x"),
            ("relative/y", "outside/y"),
            ("dangling/z", "not/there/z"),
        ] {
            let target = resolve(&root, path, Missing::Directory(0o755)).unwrap();
            assert_eq!(target.path, Path::new(real));
            assert!(target.created && inside.join(real).is_dir(), "{path}");
            let again = resolve(&root, path, Missing::Fail).unwrap();
            assert!(!again.created && again.path == target.path, "{path}");
        }
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_file_is_made_where_a_dangling_link_points() {
        let (dir, root) = tree();
        symlink("../etc/real", dir.path().join("root/link")).unwrap();
        let target = resolve(&root, "link", Missing::File(0o644)).unwrap();
        assert_eq!(target.path, Path::new("etc/real"));
        assert!(dir.path().join("root/etc/real").is_file());
        assert!(!dir.path().join("etc").exists());
    }

    #[test]
    fn link_loops_and_refused_links_fail() {
        let (dir, root) = tree();
        symlink("loop", dir.path().join("root/loop")).unwrap();
        let error = resolve(&root, "loop/x", Missing::Directory(0o755)).unwrap_err();
        assert_eq!(error.errno(), libc::ELOOP);
        symlink("..", dir.path().join("root/up")).unwrap();
        let error = open_in_root(&root, "up", libc::O_PATH, 0, Links::Refuse).unwrap_err();
        assert_eq!(error.errno(), libc::ELOOP);
        let up = open_in_root(&root, "up", libc::O_PATH, 0, Links::Follow).unwrap();
        assert_eq!(stat(&up).unwrap().st_ino, stat(&root).unwrap().st_ino);
    }

    #[test]
    fn a_file_in_the_way_is_not_replaced() {
        let (dir, root) = tree();
        fs::write(dir.path().join("root/file"), "x").unwrap();
        let error = resolve(&root, "file/below", Missing::Directory(0o755)).unwrap_err();
        assert_eq!(error.errno(), libc::ENOTDIR);
    }

    #[test]
    fn modes_owners_and_names_go_through_the_descriptor() {
        let (dir, root) = tree();
        let target = resolve(&root, "file", Missing::File(0o600)).unwrap();
        let handle = open(&dir.path().join("root/file"));
        chmod(&handle, 0o640).unwrap();
        assert_eq!(stat(&target.fd).unwrap().st_mode & 0o7777, 0o640);
        symlink("elsewhere", dir.path().join("root/link")).unwrap();
        assert_eq!(readlink(&root, c"link").unwrap(), Path::new("elsewhere"));
        assert!(is_link(&stat_at(&root, c"link").unwrap()));
        let readable = openat(&root, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let mut names = entries(&readable).unwrap();
        names.sort();
        assert_eq!(names, [c"file".to_owned(), c"link".to_owned()]);
        unlink(&root, c"link").unwrap();
        assert_eq!(stat_at(&root, c"link").unwrap_err().errno(), libc::ENOENT);
    }

    #[test]
    fn the_root_of_a_mount_is_known() {
        let proc = open(Path::new("/proc"));
        assert!(is_mount_root(&proc).unwrap());
        assert_eq!(file_system(&proc).unwrap().magic, PROC_MAGIC);
        let (_dir, root) = tree();
        assert!(!is_mount_root(&root).unwrap());
    }
}
