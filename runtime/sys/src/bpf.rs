//! bpf(2): device programs of cgroup v2.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{Error, Result, check_fd, retry};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The verifier gives up with `EAGAIN` when a signal is pending.
const MAX_INTERRUPTIONS: u32 = 30;

/// One eBPF instruction: `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// An instruction from its fields; registers are numbered 0 to 10.
    #[must_use]
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        // The C bit-field puts the destination in the first four bits of the byte order.
        let registers = if cfg!(target_endian = "little") {
            destination & 0xf | source << 4
        } else {
            destination << 4 | source & 0xf
        };
        Self { code, registers, offset, immediate }
    }

    /// The same with another offset.
    #[must_use]
    pub const fn with_offset(self, offset: i16) -> Self {
        Self { offset, ..self }
    }

    /// The operation.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.code
    }

    /// The destination register.
    #[must_use]
    pub const fn destination(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers & 0xf } else { self.registers >> 4 }
    }

    /// The source register.
    #[must_use]
    pub const fn source(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers >> 4 } else { self.registers & 0xf }
    }

    /// The offset of a load or jump.
    #[must_use]
    pub const fn offset(self) -> i16 {
        self.offset
    }

    /// The immediate value.
    #[must_use]
    pub const fn immediate(self) -> i32 {
        self.immediate
    }
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to the fields used.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
    replaced: i32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`, whole: since 6.17 the kernel writes `revision`
/// whatever size it is told.
#[repr(C)]
struct Query {
    target: i32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

fn bpf<T>(call: &'static str, command: libc::c_long, attribute: &mut T) -> Result<i64> {
    retry(call, || {
        // SAFETY: `attribute` is exclusively borrowed for the call and its size is given; the
        // callers below put only addresses of live buffers of the stated lengths into it.
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) }
    })
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `EINVAL` or `EACCES` when the verifier refuses the program.
pub fn load_cgroup_device(program: &[Instruction], license: &CStr) -> Result<OwnedFd> {
    let call = "bpf(BPF_PROG_LOAD)";
    let count = u32::try_from(program.len()).map_err(|_| Error::new(call, libc::E2BIG))?;
    let mut attribute = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let mut interruptions = 0;
    loop {
        match bpf(call, BPF_PROG_LOAD, &mut attribute) {
            Err(error) if error.errno() == libc::EAGAIN && interruptions < MAX_INTERRUPTIONS => {
                interruptions += 1;
            }
            result => return check_fd(call, result?),
        }
    }
}

/// Attaches a device program to the cgroup of the directory `cgroup`, beside others
/// (`BPF_F_ALLOW_MULTI`) or in the place of `replaced` (`BPF_F_REPLACE`, kernel 5.6).
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` or `CAP_BPF`, `ENOENT` when `replaced` isn't attached.
pub fn attach_cgroup_device(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<&OwnedFd>,
) -> Result<()> {
    let mut attribute = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: replaced.map_or(0, AsRawFd::as_raw_fd),
    };
    bpf("bpf(BPF_PROG_ATTACH)", BPF_PROG_ATTACH, &mut attribute).map(drop)
}

/// Detaches a device program from the cgroup of the directory `cgroup`.
///
/// # Errors
/// `ENOENT` when it isn't attached.
pub fn detach_cgroup_device(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attribute = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    bpf("bpf(BPF_PROG_DETACH)", BPF_PROG_DETACH, &mut attribute).map(drop)
}

/// The ids of the device programs attached to the cgroup of the directory `cgroup` itself
/// (not to its ancestors); returns how many of `ids` were filled.
///
/// # Errors
/// `ENOSPC` when `ids` is too short.
pub fn query_cgroup_device(cgroup: impl AsFd, ids: &mut [u32]) -> Result<usize> {
    let call = "bpf(BPF_PROG_QUERY)";
    let count = u32::try_from(ids.len()).map_err(|_| Error::new(call, libc::EINVAL))?;
    let mut attribute = Query {
        target: cgroup.as_fd().as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count,
        padding: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    bpf(call, BPF_PROG_QUERY, &mut attribute)?;
    Ok((attribute.count as usize).min(ids.len()))
}

/// Opens a loaded program by its id.
///
/// # Errors
/// `ENOENT` when it is gone, `EPERM` without `CAP_SYS_ADMIN`.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let call = "bpf(BPF_PROG_GET_FD_BY_ID)";
    let mut attribute = [id];
    check_fd(call, bpf(call, BPF_PROG_GET_FD_BY_ID, &mut attribute)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_eight_bytes_with_the_registers_in_one() {
        assert_eq!(size_of::<Instruction>(), 8);
        let instruction = Instruction::new(0x61, 2, 1, 4, -1);
        assert_eq!(
            (instruction.destination(), instruction.source(), instruction.offset()),
            (2, 1, 4)
        );
        if cfg!(target_endian = "little") {
            assert_eq!(instruction.registers, 0x12);
        }
    }

    #[test]
    fn attributes_have_the_kernels_layout() {
        assert_eq!(size_of::<Load>(), 24);
        assert_eq!(size_of::<Attach>(), 20);
        assert_eq!(size_of::<Query>(), 64);
        assert_eq!(std::mem::offset_of!(Query, ids), 16);
        assert_eq!(std::mem::offset_of!(Query, revision), 56);
    }
}
