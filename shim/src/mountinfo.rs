//! Lines of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use anyhow::{Context, Result};

/// One mount, as far as it interests a shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The directory of the file system that is visible at the mount point.
    pub(crate) root: PathBuf,
    /// Where it is.
    pub(crate) point: PathBuf,
    /// The file system's type.
    pub(crate) kind: String,
    /// The options of the file system itself, by commas; of a v1 cgroup its controllers.
    pub(crate) super_options: String,
}

/// Calls `visit` with each mount of the caller's namespace, in the kernel's order. The file
/// grows with the host's mounts, so it is never in memory as a whole.
pub(crate) fn each(mut visit: impl FnMut(Mount)) -> Result<()> {
    until(|mount| {
        visit(mount);
        false
    })
}

/// The same, until `visit` says that it was enough. The kernel writes as much as is read.
pub(crate) fn until(mut visit: impl FnMut(Mount) -> bool) -> Result<()> {
    let path = "/proc/thread-self/mountinfo";
    let mut lines = BufReader::new(File::open(path).with_context(|| format!("open {path}"))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).with_context(|| format!("read {path}"))? == 0 {
            return Ok(());
        }
        if parse(&line).is_some_and(&mut visit) {
            return Ok(());
        }
    }
}

/// A line of another shape is nothing that we could act on.
fn parse(line: &[u8]) -> Option<Mount> {
    // "36 35 98:0 /root /point options optional... - type source super-options"
    let mut fields = line.strip_suffix(b"\n").unwrap_or(line).split(|byte| *byte == b' ');
    let root = unescape(fields.by_ref().nth(3)?);
    let point = unescape(fields.next()?);
    fields.by_ref().find(|field| field == b"-")?;
    let kind = fields.next()?;
    let super_options = fields.nth(1)?;
    Some(Mount {
        root: root.into(),
        point: point.into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        super_options: String::from_utf8_lossy(super_options).into_owned(),
    })
}

/// Undoes the octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::thread;

    use hull_runtime_sys::{
        mount::{Change, Propagation, set_attributes},
        namespace::unshare,
        process::effective_uid,
    };

    use super::*;

    /// Runs a test on a thread with a mount namespace of its own, with which all its mounts
    /// go, however it ends.
    pub(crate) fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
        if effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let thread = thread::spawn(|| {
            unshare(libc::CLONE_NEWNS).unwrap();
            let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
            set_attributes(File::open("/").unwrap(), private, true).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn lines_are_read_with_and_without_optional_fields() {
        let mount = |root: &str, point: &str, kind: &str, options: &str| Mount {
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            super_options: options.into(),
        };
        for (line, expected) in [
            (
                "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n",
                Some(mount("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory")),
            ),
            (
                r"36 35 98:0 /a\040b /mnt\134x rw shared:1 master:2 - ext3 /dev/root rw,errors=x",
                Some(mount("/a b", r"/mnt\x", "ext3", "rw,errors=x")),
            ),
            ("36 35 98:0 / /mnt rw", None),
            ("36 35 98:0 / /mnt rw - ext4", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn only_whole_octal_escapes_are_undone() {
        for (field, text) in [
            (r"a\040b", "a b"),
            (r"\011\012", "\t\n"),
            (r"\04", r"\04"),
            (r"\400", r"\400"),
            ("", ""),
        ] {
            assert_eq!(unescape(field.as_bytes()), text, "{field}");
        }
    }

    #[test]
    fn this_process_sees_procfs() {
        let mut found = false;
        each(|mount| found |= mount.kind == "proc" && mount.point.as_os_str() == "/proc").unwrap();
        assert!(found);
    }
}
