//! A daemon of the test's own, ended by its process id.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait::poll;
use crate::{SOON, wait_until};

/// A running daemon. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts one and waits until something listens on its socket.
    #[track_caller]
    pub(super) fn start(words: &[String], log: &str, socket: &str) -> Self {
        let (program, args) = words.split_first().expect("a command line has a program");
        let file =
            File::options().create(true).append(true).open(log).expect("the site is writable");
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor is free"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        let mut daemon = Self { name: program.clone(), child, log: PathBuf::from(log) };
        wait_until(&format!("{program} listens on {socket}"), SOON, || {
            let ended = daemon.child.try_wait().expect("it was not waited for");
            assert!(ended.is_none(), "{program} did not start:\n{}", daemon.tail());
            UnixStream::connect(socket).is_ok()
        });
        daemon
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash does.
    pub(super) fn crash(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and gives a complaint when it does not.
    pub(super) fn stop(&mut self) -> Option<String> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are positive"));
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Some(format!("{} ended on its own:\n{}", self.name, self.tail()));
        }
        let _ = signal::kill(pid, Signal::SIGTERM);
        let ended = || matches!(self.child.try_wait(), Ok(Some(_))).then_some(());
        if poll(SOON, ended).is_some() {
            return None;
        }
        self.crash();
        Some(format!("{} had to be killed:\n{}", self.name, self.tail()))
    }

    /// The end of its log.
    pub(super) fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.crash();
        }
    }
}
