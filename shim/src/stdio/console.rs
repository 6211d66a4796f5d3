//! The socket on which a runtime sends a terminal's master.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::socket;

use crate::reactor::Source;

/// The longest path that a unix socket's address holds, without its NUL.
const MAX_PATH: usize = 107;

/// Tells this shim's sockets apart.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A listening socket in the bundle; its file goes when this does.
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    file: PathBuf,
    path: PathBuf,
    /// What `path` goes through when the bundle's own is too long.
    _bundle: File,
}

impl ConsoleSocket {
    /// # Errors
    /// Those of bind(2).
    pub(crate) fn bind(bundle: &Path) -> Result<Self> {
        let name = format!("pty-{}.sock", COUNTER.fetch_add(1, Relaxed));
        let directory = File::open(bundle)?;
        let file = bundle.join(&name);
        let path = if file.as_os_str().len() <= MAX_PATH {
            file.clone()
        } else {
            let (pid, fd) = (hull_runtime_sys::process::id(), directory.as_raw_fd());
            PathBuf::from(format!("/proc/{pid}/fd/{fd}/{name}"))
        };
        let listener =
            UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file, path, _bundle: directory })
    }

    /// The path for the runtime.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master, once it has come.
    ///
    /// # Errors
    /// Those of the socket; a message without exactly one descriptor.
    pub(crate) async fn receive(&self) -> Result<OwnedFd> {
        let listener = Source::new(OwnedFd::from(self.listener.try_clone()?));
        let stream = loop {
            match self.listener.accept() {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    listener.readable().await?;
                }
                result => break result?.0,
            }
        };
        stream.set_nonblocking(true)?;
        let stream = Source::new(OwnedFd::from(stream));
        let mut name = [0; 4096];
        let mut fds = loop {
            match socket::receive(&stream, &mut name) {
                Err(error) if error.errno() == libc::EAGAIN => stream.readable().await?,
                result => break result?.1,
            }
        };
        match (fds.pop(), fds.is_empty()) {
            (Some(master), true) => Ok(master),
            _ => bail!("the runtime's message does not hold exactly one descriptor"),
        }
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // The bundle's owner removes what is left of it.
        let _ = std::fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::fs::FileTypeExt};

    use super::*;

    #[test]
    fn a_descriptor_comes_through_a_socket_in_a_bundle_with_a_long_path() {
        let place = tempfile::tempdir().unwrap();
        for name in ["short", &"long".repeat(30)] {
            let bundle = place.path().join(name);
            std::fs::create_dir(&bundle).unwrap();
            let sent = File::open("/dev/null").unwrap();
            let received = crate::reactor::run({
                let bundle = bundle.clone();
                async move {
                    let socket = ConsoleSocket::bind(&bundle).unwrap();
                    let stream = socket::connect_stream(socket.path()).unwrap();
                    let fds = [sent.as_fd().as_raw_fd()];
                    socket::send(&stream, b"/dev/pts/0", &fds).unwrap();
                    socket.receive().await.unwrap()
                }
            });
            let received = File::from(received.unwrap());
            assert!(received.metadata().unwrap().file_type().is_char_device());
            assert_eq!(std::fs::read_dir(&bundle).unwrap().count(), 0);
        }
    }
}
