//! The session keyring, so that the container does not have its caller's keys.

use std::ffi::CString;

use anyhow::{Context, Result};
use hull_runtime_sys as sys;

/// `KEY_USR_SEARCH | KEY_POS_*` as the key's description prints it: possessor, user,
/// group, other, a byte each. A container's processes may search the ring.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins the container's keyring; `searchable` lets the container's user find keys in it.
/// A kernel without keyrings is no error: then there are no keys to keep apart.
pub(crate) fn join(id: &str, searchable: bool) -> Result<()> {
    let name = CString::new(format!("_ses.{id}")).context("the id holds a NUL byte")?;
    let serial = match sys::process::join_session_keyring(&name) {
        Err(error) if error.errno() == libc::ENOSYS => return Ok(()),
        result => result.context("unable to join session keyring")?,
    };
    if !searchable {
        return Ok(());
    }
    let description =
        sys::process::describe_key(serial).context("unable to read keyring permissions")?;
    let description = String::from_utf8_lossy(&description);
    let permissions = description
        .split(';')
        .nth(3)
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .context("unable to read keyring permissions")?;
    if permissions & USER_SEARCH == 0 {
        sys::process::set_key_permissions(serial, permissions | USER_SEARCH)
            .context("unable to mod keyring permissions")?;
    }
    Ok(())
}
