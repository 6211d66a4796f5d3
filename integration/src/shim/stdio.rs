//! The far ends of a container's streams: named pipes, as containerd makes them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use super::SOON;
use crate::wait_for;

/// Makes a named pipe as containerd does.
pub(super) fn make_fifo(path: &str) {
    nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o700)).expect("the site is writable");
}

#[derive(Debug, Default)]
struct Received {
    bytes: Mutex<Vec<u8>>,
    ended: AtomicBool,
    stop: AtomicBool,
}

/// The reader of an output stream. Dropping it closes its end.
#[derive(Debug)]
pub struct Stream {
    received: Arc<Received>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Opens a named pipe, whether or not somebody writes to it, and keeps what comes.
    pub fn collect(path: impl AsRef<Path>) -> Self {
        let received = Arc::new(Received::default());
        let sink = Arc::clone(&received);
        Self::read(open(path.as_ref()), received, move |chunk| lock(&sink.bytes).extend(chunk))
    }

    /// The same, for writers who come and go: it has no end.
    pub fn follow(path: impl AsRef<Path>) -> Self {
        let received = Arc::new(Received::default());
        let sink = Arc::clone(&received);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path).expect("the pipe exists");
        Self::read(file, received, move |chunk| lock(&sink.bytes).extend(chunk))
    }

    /// Opens a named pipe and gives what comes to a function.
    pub fn each(path: impl AsRef<Path>, sink: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self::read(open(path.as_ref()), Arc::new(Received::default()), sink)
    }

    /// Opens a named pipe and never reads.
    pub fn hold(path: impl AsRef<Path>) -> File {
        open(path.as_ref())
    }

    fn read(
        mut file: File,
        received: Arc<Received>,
        mut sink: impl FnMut(&[u8]) + Send + 'static,
    ) -> Self {
        let state = Arc::clone(&received);
        let thread = thread::spawn(move || {
            let mut chunk = vec![0; 64 << 10];
            while !state.stop.load(Ordering::SeqCst) {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                // The time limit is for the flag alone.
                if poll(&mut fds, PollTimeout::from(50_u8)).unwrap_or(0) == 0 {
                    continue;
                }
                match file.read(&mut chunk) {
                    // Polled: so there was a writer, and it is gone.
                    Ok(0) => break,
                    Ok(count) => sink(&chunk[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("cannot read the pipe: {error}"),
                }
            }
            state.ended.store(true, Ordering::SeqCst);
        });
        Self { received, thread: Some(thread) }
    }

    /// Everything that has come so far.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.received.bytes).clone()
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Whether every writer has closed its end.
    pub fn ended(&self) -> bool {
        self.received.ended.load(Ordering::SeqCst)
    }

    /// Waits until the text has come, and gives everything that has.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        wait_for(&format!("{text:?} from the container"), SOON, || {
            let seen = self.text();
            seen.contains(text).then_some(seen)
        })
    }

    /// Waits until every writer is gone, and gives everything that has come.
    #[track_caller]
    pub fn to_end(&self) -> String {
        wait_for("the end of the container's output", SOON, || self.ended().then_some(()));
        self.text()
    }
}

/// Opens the reading end whether or not there is a writer.
fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(path).expect("the pipe exists")
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.received.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer of an input stream. Dropping it closes its end.
#[derive(Debug)]
pub struct Input {
    file: File,
}

impl Input {
    /// Opens a named pipe that a shim reads, or will soon.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> Self {
        let file = wait_for("a reader of the container's input", SOON, || {
            OpenOptions::new()
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(path.as_ref())
                .ok()
        });
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe");
        Self { file }
    }

    /// Writes all of it, however long that takes.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.file.write_all(bytes.as_ref()).expect("somebody reads the container's input");
    }

    /// Writes all of it, unless the reader is gone.
    pub fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.file.write_all(bytes).is_ok()
    }
}
