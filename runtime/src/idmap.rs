//! User and group id mappings of user namespaces.

use std::{
    ffi::CString,
    fs,
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::IdMapping;

/// The kernel takes at most this many lines in a map (user_namespaces(7)).
const MAX_LINES: usize = 340;

fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

/// Checks what the kernel would refuse with a bare EINVAL.
pub(crate) fn validate(kind: &str, mappings: &[IdMapping]) -> Result<()> {
    if mappings.len() > MAX_LINES {
        bail!("{kind} has {} entries, and the kernel takes {MAX_LINES}", mappings.len());
    }
    for (index, mapping) in mappings.iter().enumerate() {
        if mapping.size == 0 {
            bail!("{kind}[{index}] has size 0");
        }
        for start in [mapping.container_id, mapping.host_id] {
            if u64::from(start) + u64::from(mapping.size) > u64::from(u32::MAX) {
                bail!("{kind}[{index}] reaches past the largest id");
            }
        }
    }
    Ok(())
}

/// Maps the ids of the new user namespace that process `pid` is in.
pub(crate) fn write(
    pid: i32,
    uids: &[IdMapping],
    gids: &[IdMapping],
    privileged: bool,
) -> Result<()> {
    if privileged {
        put(pid, "uid_map", &lines(uids))?;
        return put(pid, "gid_map", &lines(gids));
    }
    // Without privileges the kernel takes one line that maps the caller's own id, and that
    // for groups only once setgroups is denied; everything else needs the setuid helpers,
    // which check /etc/subuid and /etc/subgid.
    let own = |mappings: &[IdMapping], id: u32| matches!(mappings, [IdMapping { host_id, size: 1, .. }] if *host_id == id);
    if own(uids, sys::process::effective_uid()) {
        put(pid, "uid_map", &lines(uids))?;
    } else {
        helper("newuidmap", pid, uids)?;
    }
    if own(gids, sys::process::effective_gid()) {
        put(pid, "setgroups", "deny")?;
        put(pid, "gid_map", &lines(gids))
    } else {
        helper("newgidmap", pid, gids)
    }
}

fn put(pid: i32, file: &str, content: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, content).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        anyhow::Error::new(sys::Error::new("write", errno).on(path))
            .context("cannot map the ids of the user namespace")
    })
}

fn helper(program: &str, pid: i32, mappings: &[IdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for mapping in mappings {
        for number in [mapping.container_id, mapping.host_id, mapping.size] {
            command.arg(number.to_string());
        }
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program} (package uidmap)"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A user namespace with these mappings and nobody in it, for an id-mapped mount.
pub(crate) fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let (ours, theirs) = sys::fd::pipe()?;
    let flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    match sys::namespace::clone(flags, None)? {
        sys::namespace::Clone::Child => {
            // Lives until its other end is closed.
            drop(theirs);
            let _ = sys::fd::read(&ours, &mut [0]);
            sys::process::exit_now(0)
        }
        sys::namespace::Clone::Parent { pid, .. } => {
            let made = write(pid, uids, gids, true).and_then(|()| {
                let path = CString::new(format!("/proc/{pid}/ns/user"))
                    .context("a number holds no NUL")?;
                Ok(sys::fd::openat(sys::fd::AT_FDCWD, &path, libc::O_RDONLY, 0)?)
            });
            drop(theirs);
            sys::process::wait(pid)?;
            made
        }
    }
}

/// The id on the host of a container's id, where the mappings hold it.
pub(crate) fn to_host(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|m| {
        let offset = id.checked_sub(m.container_id)?;
        (offset < m.size).then(|| m.host_id.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn ids_are_found_through_the_right_line() {
        let maps = [map(0, 1000, 1), map(1, 100_000, 65536)];
        assert_eq!(to_host(&maps, 0), Some(1000));
        assert_eq!(to_host(&maps, 1), Some(100_000));
        assert_eq!(to_host(&maps, 65536), Some(165_535));
        assert_eq!(to_host(&maps, 65537), None);
        assert_eq!(lines(&maps), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_named() {
        assert!(validate("uidMappings", &[map(0, 0, 0)]).is_err());
        assert!(validate("uidMappings", &[map(0, u32::MAX, 1)]).is_err());
        assert!(validate("uidMappings", &vec![map(0, 0, 1); 341]).is_err());
        assert!(validate("uidMappings", &[map(0, 0, u32::MAX)]).is_ok());
    }
}
