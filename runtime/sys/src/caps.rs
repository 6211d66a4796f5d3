//! Capability sets of the calling thread, as bit masks (bit n is capability n).
//!
//! The `caps` crate reads and writes one set a call; a container's start sets three at
//! once, which capset(2) does in one.

use crate::{Result, check};

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets that capset(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What the kernel checks against.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What an exec of a file with inheritable capabilities keeps.
    pub inheritable: u64,
}

fn halves(mask: u64) -> [u32; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the mask")]
    [mask as u32, (mask >> 32) as u32]
}

/// capget(2).
pub fn get() -> Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structures.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check("capget", result)?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// capset(2).
pub fn set(sets: Sets) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let (e, p, i) = (halves(sets.effective), halves(sets.permitted), halves(sets.inheritable));
    let data = [0, 1].map(|n| Data { effective: e[n], permitted: p[n], inheritable: i[n] });
    // SAFETY: version 3 reads one header and two data structures.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check("capset", result).map(drop)
}

/// Whether the bounding set holds `capability`; `None` when the kernel does not know it.
#[must_use]
pub fn bounding_holds(capability: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes an integer and changes nothing.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Takes `capability` out of the bounding set.
pub fn drop_bounding(capability: u32) -> Result<()> {
    // SAFETY: PR_CAPBSET_DROP takes an integer.
    let result =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    check("prctl PR_CAPBSET_DROP", result.into()).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    // SAFETY: PR_CAP_AMBIENT takes integers.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check("prctl PR_CAP_AMBIENT", result.into()).map(drop)
}

/// Puts `capability` into the ambient set; it must be permitted and inheritable.
pub fn raise_ambient(capability: u32) -> Result<()> {
    // SAFETY: PR_CAP_AMBIENT takes integers.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    };
    check("prctl PR_CAP_AMBIENT", result.into()).map(drop)
}

/// Whether capabilities stay permitted when the user id changes away from 0.
pub fn keep_over_setuid(keep: bool) -> Result<()> {
    // SAFETY: PR_SET_KEEPCAPS takes an integer.
    let result = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) };
    check("prctl PR_SET_KEEPCAPS", result.into()).map(drop)
}
