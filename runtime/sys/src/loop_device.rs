//! Loop devices: block devices that show a file (loop(4)).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::{
    Result, check,
    fd::{AT_FDCWD, openat},
    path::c_path,
    retry,
};

/// How often another device is asked for, when somebody else took the free one first.
const ATTEMPTS: u32 = 100;

/// How the device shows its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// It cannot be written to.
    pub read_only: bool,
    /// Past the page cache.
    pub direct: bool,
}

/// Lets a free loop device show a file: the device, and its path. It is free again when its
/// last user is gone, so it must be mounted before the descriptor is closed (LOOP_CONFIGURE,
/// kernel 5.8).
///
/// # Errors
/// `ENOENT` without the driver, `EBUSY` when every device was taken by somebody else first.
pub fn attach(file: impl AsFd, mode: Mode) -> Result<(OwnedFd, String)> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    const DIRECT_IO: u32 = 16;
    /// Where `struct loop_config`, 304 bytes, has the file and the flags.
    const FILE_AT: usize = 0;
    const FLAGS_AT: usize = 15;

    let control = openat(AT_FDCWD, c"/dev/loop-control", libc::O_RDWR, 0)?;
    let mut config = [0_u32; 304 / 4];
    config[FILE_AT] = file.as_fd().as_raw_fd().cast_unsigned();
    config[FLAGS_AT] = AUTOCLEAR
        | if mode.read_only { READ_ONLY } else { 0 }
        | if mode.direct { DIRECT_IO } else { 0 };
    let access = if mode.read_only { libc::O_RDONLY } else { libc::O_RDWR };
    let mut attempt = 1;
    loop {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = retry("ioctl LOOP_CTL_GET_FREE", || unsafe {
            libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE).into()
        })?;
        let path = format!("/dev/loop{number}");
        let device = openat(AT_FDCWD, &c_path(&path)?, access, 0)?;
        // SAFETY: `config` has the size of the structure that LOOP_CONFIGURE reads.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) };
        match check("ioctl LOOP_CONFIGURE", result.into()) {
            Ok(_) => return Ok((device, path)),
            Err(error) if error.errno() == libc::EBUSY && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.on(path)),
        }
    }
}
