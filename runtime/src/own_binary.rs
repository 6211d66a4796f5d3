//! Going on from a copy of this program that nobody can write (rule R5; CVE-2019-5736).
//!
//! A process of a container can get hold of the program that is entering it, through
//! /proc/PID/exe or an entrypoint that names /proc/self/exe. What it then holds must not
//! be the file that the host runs next time. So the program runs from a mount of its own
//! file that is read-only, detached, and gone from every mount namespace once nothing runs
//! from it; where such a mount can't be made, from a sealed memory file.

use std::{
    ffi::{CString, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use anyhow::{Context, Result};
use hull_runtime_sys as sys;
use sys::{
    mount::{Attributes, Change},
    process::StringArray,
};

/// Starts this program again from the protected copy, unless it already runs from it.
pub(crate) fn protect() -> Result<()> {
    let flags = libc::O_RDONLY;
    let exe = sys::fd::openat(sys::fd::AT_FDCWD, c"/proc/self/exe", flags, 0)
        .context("cannot open our own program")?;
    if sys::fd::is_unwritable(&exe)? {
        return Ok(());
    }
    let copy = match readonly_copy(&exe) {
        Ok(copy) => copy,
        // Without the privilege to mount.
        Err(_) => memory_copy(&exe).context("cannot make a protected copy of our own program")?,
    };
    let strings = |items: Vec<OsString>| -> Result<StringArray> {
        let items: Result<Vec<_>, _> =
            items.into_iter().map(|item| CString::new(item.into_vec())).collect();
        Ok(StringArray::new(items.context("an argument holds a NUL byte")?))
    };
    let args = strings(std::env::args_os().collect())?;
    let env = strings(
        std::env::vars_os()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect(),
    )?;
    let error = sys::process::execveat(copy.as_fd(), &args, &env);
    Err(error).context("cannot run the protected copy of our own program")
}

fn readonly_copy(exe: &OwnedFd) -> sys::Result<OwnedFd> {
    let copy = sys::mount::copy_of(exe, false)?;
    let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
    sys::mount::set_attributes(&copy, change, false)?;
    Ok(copy)
}

fn memory_copy(exe: &OwnedFd) -> Result<OwnedFd> {
    let size = std::fs::metadata("/proc/self/exe")?.len();
    let copy = sys::fd::memory_file(c"hull-runtime")?;
    sys::fd::copy_all(exe, &copy, size)?;
    sys::fd::seal(&copy)?;
    Ok(copy)
}
