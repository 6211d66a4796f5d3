//! Receiving what a runtime sends over a socket: a terminal, a seccomp listener.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use crate::{note, wait_for};

/// One message with its descriptors.
#[derive(Debug)]
pub struct ReceivedFds {
    /// The bytes.
    pub payload: Vec<u8>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message; the test fails when none comes in time.
#[track_caller]
pub fn receive_fds(stream: &UnixStream, limit: Duration) -> ReceivedFds {
    stream.set_read_timeout(Some(limit)).expect("a socket has a time limit");
    let mut bytes = vec![0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap_or_else(|error| panic!("no message came within {limit:?}: {error}"));
    assert!(!message.flags.contains(ReturnFlags::CTRUNC), "more than 8 descriptors came");
    bytes.truncate(message.bytes);
    let fds = control
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    ReceivedFds { payload: bytes, fds }
}

/// The socket that `--console-socket` names.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in a directory.
    pub fn bind(directory: &Path) -> Self {
        let path = directory.join("console.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("the directory is writable");
        listener.set_nonblocking(true).expect("a socket");
        Self { listener, path }
    }

    /// What to give the runtime.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("test paths are text")
    }

    /// Takes the next connection.
    #[track_caller]
    pub fn accept(&self, limit: Duration) -> UnixStream {
        let stream = wait_for("a connection to the socket", limit, || {
            self.listener.accept().ok().map(|(stream, _)| stream)
        });
        stream.set_nonblocking(false).expect("a socket");
        stream
    }

    /// Takes the next terminal.
    #[track_caller]
    pub fn terminal(&self, limit: Duration) -> Pty {
        let stream = self.accept(limit);
        let mut received = receive_fds(&stream, limit);
        assert_eq!(received.fds.len(), 1, "exactly one descriptor is sent");
        let master = File::from(received.fds.remove(0));
        Pty { master, name: String::from_utf8_lossy(&received.payload).into_owned() }
    }
}

/// The master side of a container's terminal.
#[derive(Debug)]
pub struct Pty {
    master: File,
    /// The name that came with it.
    pub name: String,
}

impl Pty {
    /// Types.
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal is open");
    }

    /// Reads until the text appears or the other side is gone; gives all that was read.
    #[track_caller]
    pub fn read_until(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut all = Vec::new();
        loop {
            let seen = String::from_utf8_lossy(&all).into_owned();
            if !text.is_empty() && seen.contains(text) {
                note(&format!("terminal: {seen:?}"));
                return seen;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {text:?} on the terminal within {limit:?}: {seen:?}");
            let timeout = PollTimeout::try_from(left.min(Duration::from_secs(1))).expect("short");
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout).expect("a terminal can be polled") == 0 {
                continue;
            }
            let mut chunk = [0; 4096];
            match self.master.read(&mut chunk) {
                Ok(0) | Err(_) => {
                    // EIO: the last process that had the slave open is gone.
                    assert!(text.is_empty(), "the terminal closed before {text:?}: {seen:?}");
                    return seen;
                }
                Ok(count) => all.extend(&chunk[..count]),
            }
        }
    }

    /// Reads until the other side is gone.
    #[track_caller]
    pub fn read_to_end(&mut self, limit: Duration) -> String {
        self.read_until("", limit)
    }
}
