//! `NOTIFY_SOCKET`: a container's readiness on its way to systemd (sd_notify(3)).
//!
//! Where the caller has a notification socket, the container gets one of its own, in a
//! directory that is bound read-only on `/run/notify`. Whoever lets the program run binds
//! it first and passes on that it is ready, with the pid to watch: `start` and `run
//! --detach` wait for that and name the container's first process; `run` in the foreground
//! names itself. Nothing that the container wrote is passed on, only that it was
//! `READY=1`.

use std::{
    env, fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

use super::Dir;
use crate::log;

/// In the container's state directory.
const DIRECTORY: &str = "notify";
/// In the container.
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";

/// The longest message that is understood, in bytes: systemd's own limit.
const MAX_MESSAGE_BYTES: usize = 4096;

/// How long systemd may take to read what it was sent, in milliseconds.
const BARRIER_TIMEOUT_MS: i32 = 30_000;

/// The caller's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Caller {
    /// The one that the environment names, if any.
    pub(super) fn find() -> Result<Option<Self>> {
        env::var_os("NOTIFY_SOCKET").map_or(Ok(None), |name| Self::parse(name.as_bytes()))
    }

    fn parse(name: &[u8]) -> Result<Option<Self>> {
        match name {
            [] => Ok(None),
            [b'/', ..] => Ok(Some(Self::Path(std::ffi::OsStr::from_bytes(name).into()))),
            [b'@', name @ ..] => Ok(Some(Self::Abstract(name.to_owned()))),
            _ => bail!("NOTIFY_SOCKET must be an absolute path or start with @"),
        }
    }

    /// Says that the service is ready and which process it is.
    fn tell(&self, pid: i32) -> Result<OwnedFd> {
        let socket = match self {
            Self::Path(path) => sys::socket::connect_datagram(path)?,
            Self::Abstract(name) => sys::socket::connect_abstract_datagram(name)?,
        };
        sys::socket::send(&socket, format!("READY=1\nMAINPID={pid}\n").as_bytes(), &[])?;
        Ok(socket)
    }
}

/// Gives the container its end: a mount and a variable.
pub(super) fn add(spec: &mut oci::Spec, container: &Path) {
    spec.mounts.push(oci::Mount {
        destination: INSIDE.to_owned(),
        source: container.join(DIRECTORY).display().to_string(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).into(),
        ..oci::Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
}

/// Makes what [`add`] mounts.
pub(super) fn make_directory(dir: &Dir) -> Result<()> {
    let path = dir.path.join(DIRECTORY);
    let make = || {
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        // Whatever the caller's umask: the container's users walk through it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// The container's socket, of which we have the other end.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    caller: Caller,
}

impl Listener {
    /// Binds the socket. The container must have been created with one.
    pub(super) fn bind(dir: &Dir, caller: Caller) -> Result<Self> {
        let path = dir.path.join(DIRECTORY).join(SOCKET);
        // Of a start that was killed.
        let _ = fs::remove_file(&path);
        // A later chmod could be led elsewhere by a container that writes here after all.
        let umask = sys::process::set_umask(0);
        let socket = sys::socket::bind_datagram(&path);
        sys::process::set_umask(umask);
        let socket = socket.context("cannot listen for the container's notification")?;
        Ok(Self { socket, caller })
    }

    /// Waits until the container's first process, `pid`, is ready or has ended, and passes
    /// it on. The container runs by now, so a caller that cannot be reached is a warning.
    pub(super) fn wait(&self, pidfd: &OwnedFd, pid: i32) -> Result<()> {
        loop {
            let found = sys::process::wait_any(&[self.socket.as_fd(), pidfd.as_fd()], -1)?;
            if found[0] {
                if self.hears_ready()? {
                    warn(self.caller.tell(pid).and_then(|socket| barrier(&socket)));
                    return Ok(());
                }
            } else if found[1] {
                return Ok(());
            }
        }
    }

    /// Reads one message; passes on that the service is ready, with this process as the one
    /// to watch. Says whether it was.
    pub(super) fn step(&self) -> Result<bool> {
        let ready = self.hears_ready()?;
        if ready {
            // No barrier: this process stays, and systemd finds its unit by it.
            warn(self.caller.tell(sys::process::id()).map(drop));
        }
        Ok(ready)
    }

    fn hears_ready(&self) -> Result<bool> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        match sys::socket::receive(&self.socket, &mut buffer) {
            // Whatever it is: a container must not be able to end its watching.
            Err(error) if error.errno() == libc::EMSGSIZE => Ok(false),
            result => Ok(says_ready(&buffer[..result?.0])),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

/// Waits until systemd has read everything (sd_notify_barrier(3)): it finds the unit by the
/// sender's cgroup, so the sender must not have ended.
fn barrier(socket: &OwnedFd) -> Result<()> {
    let (ours, theirs) = sys::fd::pipe()?;
    sys::socket::send(socket, b"BARRIER=1", &[theirs.as_raw_fd()])?;
    drop(theirs);
    if !sys::process::wait_readable(&ours, BARRIER_TIMEOUT_MS)? {
        bail!("it was not read within {} s", BARRIER_TIMEOUT_MS / 1000);
    }
    Ok(())
}

fn warn(result: Result<()>) {
    if let Err(error) = result {
        log::warning(format!("cannot tell NOTIFY_SOCKET that the container is ready: {error:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_says_ready() {
        for (message, ready) in [
            ("READY=1", true),
            ("STATUS=up\nREADY=1\n", true),
            ("READY=10", false),
            ("STATUS=READY=1", false),
            ("", false),
        ] {
            assert_eq!(says_ready(message.as_bytes()), ready, "{message:?}");
        }
    }

    #[test]
    fn sockets_are_paths_or_abstract_names() {
        assert_eq!(Caller::parse(b"").unwrap(), None);
        assert_eq!(Caller::parse(b"/run/x").unwrap(), Some(Caller::Path("/run/x".into())));
        assert_eq!(Caller::parse(b"@x").unwrap(), Some(Caller::Abstract(b"x".to_vec())));
        assert!(Caller::parse(b"x").is_err());
        assert!(Caller::parse(b"vsock:2:1").is_err());
    }
}
