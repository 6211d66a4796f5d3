//! A program on a terminal of its own, and what is typed and shown there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use super::{command, stock};
use crate::wait::patience;
use crate::{SOON, wait_for};

/// A program whose standard streams are a terminal that it controls.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    device: PathBuf,
    shown: String,
    /// How much of it `read_until` has given.
    read: usize,
}

impl Terminal {
    /// Starts a program on a terminal of 33 rows and 101 columns.
    #[track_caller]
    pub fn start<S: AsRef<str>>(words: &[S]) -> Self {
        // Close-on-exec from birth: a daemon that another test starts at this moment
        // would keep the terminal open.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .expect("a terminal is free");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let device = PathBuf::from(ptsname_r(&master).expect("the terminal has a name"));
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&device)
            .expect("the terminal is ours");
        set_size(&device, &["rows", "33", "columns", "101"]);
        let stream = || Stdio::from(slave.try_clone().expect("a descriptor is free"));
        let child = Command::new(stock("setsid"))
            .args(["--ctty", "--wait"])
            .args(words.iter().map(AsRef::as_ref))
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("setsid can be run");
        let master = File::from(OwnedFd::from(master));
        Self { child, master, device, shown: String::new(), read: 0 }
    }

    /// Types.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal is open");
    }

    /// Gives the terminal another number of rows; its program is told by the kernel.
    #[track_caller]
    fn resize(&self, rows: u16) {
        // Not the columns too: stty makes two steps of it, and engines lose the second.
        set_size(&self.device, &["rows", &rows.to_string()]);
    }

    /// Changes the number of rows until the text is shown, which the program does once it has
    /// `rows` of them. Engines read the size first and listen for changes after that; one in
    /// between is lost.
    #[track_caller]
    pub fn resize_until(&mut self, rows: u16, text: &str) {
        let deadline = Instant::now() + SOON * patience();
        while !self.shown[self.read..].contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} on the terminal: {:?}", self.shown);
            self.resize(rows - 1);
            self.resize(rows);
            let soon = Instant::now() + Duration::from_secs(1);
            while Instant::now() < soon && !self.shown[self.read..].contains(text) {
                let open = self.read_some(soon) || Instant::now() >= soon;
                assert!(open, "the terminal closed before {text:?}: {:?}", self.shown);
            }
        }
        self.read_until(text);
    }

    /// Reads until the text is shown after everything that was read before, and gives
    /// what was shown.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON * patience();
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                let end = self.read + at + text.len();
                let new = self.shown[self.read..end].to_owned();
                self.read = end;
                return new;
            }
            let open = self.read_some(deadline);
            assert!(open, "the terminal closed before {text:?}: {:?}", self.shown);
            assert!(Instant::now() < deadline, "no {text:?} on the terminal: {:?}", self.shown);
        }
    }

    /// Waits for the program's end and gives its exit code.
    #[track_caller]
    pub fn exit_code(mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON * patience();
        let status: ExitStatus = wait_for("the end of the program on the terminal", SOON, || {
            // What it shows must be taken away, or it stops.
            self.read_some(Instant::now() + Duration::from_millis(5));
            self.child.try_wait().expect("it was not waited for")
        });
        while Instant::now() < deadline && self.read_some(Instant::now()) {}
        assert!(status.code().is_some(), "a signal ended it: {:?}", self.shown);
        status.code()
    }

    /// Everything shown so far.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether the terminal is still open and, at the deadline, has nothing new.
    fn read_some(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.min(Duration::from_secs(1))).expect("short");
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).expect("a terminal can be polled") == 0 {
            return !left.is_zero();
        }
        let mut chunk = [0; 4096];
        match self.master.read(&mut chunk) {
            // EIO: nobody has the other side open any more.
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.shown.push_str(&String::from_utf8_lossy(&chunk[..count]));
                true
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn set_size(device: &Path, size: &[&str]) {
    let mut words = vec!["stty", "-F", device.to_str().expect("the path is text")];
    words.extend(size);
    command(&words).run().ok();
}
