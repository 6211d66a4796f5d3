//! Reading and writing cgroup files, with the system call's name, the path and the errno in
//! every error.
//!
//! Paths are built by the runtime below the host's own cgroup mounts; cgroupfs has no symbolic
//! links, so a container that may make sub-cgroups can't redirect one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use hull_runtime_sys as sys;

/// More than any file of cgroupfs or mountinfo needs: 10⁶ processes in one `cgroup.procs`.
const MAX_BYTES: u64 = 16 << 20;

pub(super) fn error(call: &'static str, source: &io::Error, path: &Path) -> sys::Error {
    sys::Error::new(call, source.raw_os_error().unwrap_or(libc::EIO)).on(path.display())
}

pub(super) fn read_path(path: &Path) -> sys::Result<String> {
    let file = File::open(path).map_err(|e| error("open", &e, path))?;
    // Most files fit, and std would otherwise feel its way from 32 bytes.
    let mut text = String::with_capacity(2048);
    let bytes =
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| error("read", &e, path))?;
    if bytes as u64 == MAX_BYTES {
        return Err(sys::Error::new("read", libc::EFBIG).on(path.display()));
    }
    Ok(text)
}

pub(super) fn read(dir: &Path, name: &str) -> sys::Result<String> {
    read_path(&dir.join(name))
}

/// Writes `value` in one write(2), as cgroupfs requires.
pub(super) fn write(dir: &Path, name: &str, value: &str) -> sys::Result<()> {
    let path = dir.join(name);
    let mut file =
        OpenOptions::new().write(true).open(&path).map_err(|e| error("open", &e, &path))?;
    write_open(&mut file, &path, value)
}

pub(super) fn write_open(file: &mut File, path: &Path, value: &str) -> sys::Result<()> {
    loop {
        match file.write(value.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(error("write", &e, path)),
            // cgroupfs takes all of a write or none of it.
            Ok(_) => return Ok(()),
        }
    }
}

pub(super) fn open_write(dir: &Path, name: &str) -> sys::Result<File> {
    let path = dir.join(name);
    OpenOptions::new().write(true).open(&path).map_err(|e| error("open", &e, &path))
}

pub(super) fn open_dir(dir: &Path) -> sys::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(dir)
        .map(OwnedFd::from)
        .map_err(|e| error("open", &e, dir))
}

pub(super) fn mkdir(dir: &Path) -> sys::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(dir).map_err(|e| error("mkdir", &e, dir))
}

pub(super) fn rmdir(dir: &Path) -> sys::Result<()> {
    fs::remove_dir(dir).map_err(|e| error("rmdir", &e, dir))
}

/// The number of a file that holds one; `max` is `u64::MAX`, and a negative number (which
/// some kernels print for memory counters that raced) is 0.
pub(super) fn read_number(dir: &Path, name: &str) -> anyhow::Result<u64> {
    let text = read(dir, name)?;
    parse_number(text.trim())
        .ok_or_else(|| anyhow::anyhow!("{} holds {text:?}, not a number", dir.join(name).display()))
}

pub(super) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        _ if text.starts_with('-')
            && text.len() > 1
            && text[1..].bytes().all(|b| b.is_ascii_digit()) =>
        {
            Some(0)
        }
        _ => text.parse().ok(),
    }
}

/// The value of `key` in a file of "key value" lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| parse_number(value.trim()))
}

pub(super) fn is_missing(error: &sys::Error) -> bool {
    matches!(error.errno(), libc::ENOENT | libc::ENODEV)
}

pub(super) fn is_denied(error: &sys::Error) -> bool {
    matches!(error.errno(), libc::EPERM | libc::EACCES | libc::EROFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cgroup_files() {
        assert_eq!(parse_number("max"), Some(u64::MAX));
        assert_eq!(parse_number("-5"), Some(0));
        assert_eq!(parse_number("42"), Some(42));
        assert_eq!(parse_number("x"), None);
        assert_eq!(value_of("oom 1\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(value_of("oom_kill_disable 1\n", "oom_kill"), None);
    }

    #[test]
    fn an_error_names_call_path_and_reason() {
        let error = read(Path::new("/nowhere"), "pids.max").expect_err("no such path");
        assert_eq!(error.to_string(), "open /nowhere/pids.max: no such file or directory");
        assert!(is_missing(&error));
    }
}
