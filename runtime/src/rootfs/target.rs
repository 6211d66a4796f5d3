//! Mount points: from a destination in the configuration to a descriptor.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use hull_runtime_sys::{
    Error,
    path::{self, Links, Missing, PROC_MAGIC, Target},
};

use super::Root;

/// Files of procfs that may be covered: lxcfs gives containers their own view of them.
const COVERABLE: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// What is about to be mounted, as far as `/proc` cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A new procfs.
    Proc,
    /// A bind mount whose source is on procfs.
    BoundProc,
    Other,
}

/// The mount point at `destination`, made if it is missing: a file for a file, otherwise a
/// directory. Links are followed inside the root, dangling ones too.
pub(super) fn open(root: &Root, destination: &Path, file: bool, what: What) -> Result<Target> {
    let missing = if file { Missing::File(0o644) } else { Missing::Directory(0o755) };
    let target =
        path::resolve(&root.fd, destination, missing).context("error creating mountpoint")?;
    check(&target.path, what)?;
    if !target.created && path::is_directory(&path::stat(&target.fd)?) == file {
        // The errno and words of mount(2), which callers look for.
        return Err(Error::new("mount", libc::ENOTDIR))
            .context("a directory cannot be mounted on a file, nor a file on a directory");
    }
    Ok(target)
}

/// The directory at `destination` for procfs or sysfs, which go on real directories only:
/// a link would let an image choose what the container's security profile, which goes by
/// path, takes for them (CVE-2019-19921, CVE-2023-27561).
pub(super) fn open_plain(root: &Root, destination: &Path, kind: &str) -> Result<Target> {
    let what = if kind == "proc" { What::Proc } else { What::Other };
    check(destination, what)?;
    let refuse = || format!("filesystem {kind:?} must be mounted on ordinary directory");
    let open = || path::open_in_root(&root.fd, destination, libc::O_PATH, 0, Links::Refuse);
    let (fd, created) = match open() {
        Ok(fd) => (fd, false),
        Err(error) if error.errno() == libc::ENOENT => {
            let made = path::resolve(&root.fd, destination, Missing::Directory(0o755))
                .context("error creating mountpoint")?;
            ensure!(made.path == destination, refuse());
            (made.fd, true)
        }
        Err(error) => return Err(error).with_context(refuse),
    };
    ensure!(path::is_directory(&path::stat(&fd)?), refuse());
    Ok(Target { fd, path: destination.to_owned(), created })
}

/// What may be mounted on or in `/proc`; `path` is real and from the root.
fn check(path: &Path, what: What) -> Result<()> {
    ensure!(!path.as_os_str().is_empty(), "the mountpoint is the root itself");
    let Ok(inside) = path.strip_prefix("proc") else { return Ok(()) };
    let shown = path.display();
    if inside.as_os_str().is_empty() {
        match what {
            What::Proc | What::BoundProc => Ok(()),
            What::Other => bail!("\"/{shown}\" cannot be mounted because it is not of type proc"),
        }
    } else if COVERABLE.iter().any(|allowed| inside == Path::new(allowed)) {
        Ok(())
    } else {
        bail!("\"/{shown}\" cannot be mounted because it is inside /proc")
    }
}

/// What a bind mount of `source` is to `/proc`.
pub(super) fn what_is(source: impl std::os::fd::AsFd) -> Result<What> {
    let magic = path::file_system(source)?.magic;
    Ok(if magic == PROC_MAGIC { What::BoundProc } else { What::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proc_goes_on_proc_and_little_goes_into_it() {
        for (path, what, allowed) in [
            ("proc", What::Proc, true),
            ("proc", What::BoundProc, true),
            ("proc", What::Other, false),
            ("proc/meminfo", What::Other, true),
            ("proc/sys/kernel/ns_last_pid", What::Other, true),
            ("proc/sys", What::Other, false),
            ("proc/self/attr", What::Proc, false),
            ("procedures", What::Other, true),
            ("sys", What::Other, true),
            ("", What::Other, false),
        ] {
            assert_eq!(check(Path::new(path), what).is_ok(), allowed, "{path} {what:?}");
        }
    }
}
