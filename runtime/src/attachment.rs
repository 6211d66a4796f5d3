//! How a process that we start is connected to its caller: terminal, descriptors, pid file.

use std::{
    ffi::CString,
    fs::OpenOptions,
    io::Write,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

use crate::request::Attachment;

/// The connections, opened before anything is made.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Where the process sends the master of its terminal.
    pub(crate) console: Option<OwnedFd>,
    /// Where we receive it, when we are the one who shows the terminal.
    pub(crate) console_receiver: Option<OwnedFd>,
    /// How many descriptors from 3 on the process inherits.
    pub(crate) inherited_fds: u32,
    /// How many of them come by systemd's socket activation.
    pub(crate) listen_fds: u32,
    pidfd_socket: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
}

/// Opens the connections. `detached` says that we end before the process does.
pub(crate) fn attach(request: &Attachment, terminal: bool, detached: bool) -> Result<Attached> {
    if detached && terminal && request.console_socket.is_none() {
        bail!("cannot allocate tty if the runtime will detach without setting console socket");
    }
    if request.console_socket.is_some() && !(detached && terminal) {
        bail!("cannot use console socket if the runtime will not detach or allocate tty");
    }
    let (console, console_receiver) = match &request.console_socket {
        Some(path) => {
            let socket = sys::socket::connect_stream(path)
                .context("cannot connect to the console socket")?;
            (Some(socket), None)
        }
        None if terminal => {
            let (theirs, ours) = sys::socket::packet_pair()?;
            (Some(theirs), Some(ours))
        }
        None => (None, None),
    };
    let pidfd_socket = request
        .pidfd_socket
        .as_deref()
        .map(sys::socket::connect_stream)
        .transpose()
        .context("cannot connect to the pidfd socket")?;
    let listen_fds = listen_fds();
    let inherited_fds = listen_fds
        .checked_add(request.preserve_fds)
        .filter(|count| *count <= 1 << 20)
        .context("too many descriptors to preserve")?;
    for number in 0..request.preserve_fds {
        let fd = i32::try_from(3 + listen_fds + number).unwrap_or(i32::MAX);
        if !sys::fd::is_open(fd) {
            bail!(
                "unable to stat preserved-fd {number} (of {}): bad file descriptor",
                request.preserve_fds
            );
        }
    }
    Ok(Attached {
        console,
        console_receiver,
        inherited_fds,
        listen_fds,
        pidfd_socket,
        pid_file: request.pid_file.clone(),
    })
}

/// The descriptors that systemd passed to this process (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if i32::try_from(pid) == Ok(sys::process::id()) => count,
        _ => 0,
    }
}

impl Attached {
    /// What the process's environment gains.
    pub(crate) fn environment(&self) -> Vec<CString> {
        let count = CString::new(format!("LISTEN_FDS={}", self.listen_fds));
        match (self.listen_fds, count) {
            (1.., Ok(count)) => vec![count, c"LISTEN_PID=1".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Tells the caller of the process that now exists.
    pub(crate) fn finish(&self, pidfd: &OwnedFd, pid: i32) -> Result<()> {
        use std::os::fd::AsRawFd;
        if let Some(socket) = &self.pidfd_socket {
            sys::socket::send(socket, b"pidfd", &[pidfd.as_raw_fd()])
                .context("cannot send the pidfd")?;
        }
        if let Some(path) = &self.pid_file {
            write_pid_file(path, pid)
                .with_context(|| format!("cannot write the pid file {}", path.display()))?;
        }
        Ok(())
    }
}

/// Writes a pid file such that a reader sees the whole number or no file.
fn write_pid_file(path: &Path, pid: i32) -> std::io::Result<()> {
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&new)?;
    file.write_all(pid.to_string().as_bytes())
        .and_then(|()| std::fs::rename(&new, path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&new);
        })
}
