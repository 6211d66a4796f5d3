//! Running a program with a time limit and keeping what it said.
//!
//! Output goes to files, not pipes: a container that stays behind inherits them, and
//! a pipe would be read until it dies.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;

use crate::runtime::{Peer, runtime};
use crate::user::{User, public_runtime};
use crate::wait::patience;
use crate::{SOON, note, scratch_dir};

/// A command about to be run.
#[derive(Debug)]
pub struct Invocation {
    program: PathBuf,
    args: Vec<OsString>,
    stdin: Vec<u8>,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: Option<PathBuf>,
    preludes: Vec<String>,
    user: Option<u32>,
    limit: Duration,
}

impl Invocation {
    /// Any program.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            stdin: Vec::new(),
            env: Vec::new(),
            cwd: None,
            preludes: Vec::new(),
            user: None,
            limit: SOON,
        }
    }

    /// The runtime under test.
    pub fn runtime() -> Self {
        let runtime = runtime();
        let mut invocation = Self::new(&runtime.program);
        invocation.preludes.extend(runtime.prelude().map(str::to_owned));
        invocation
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What the program reads on its standard input.
    #[must_use]
    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        text.as_ref().clone_into(&mut self.stdin);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        self.cwd = Some(directory.as_ref().to_owned());
        self
    }

    /// Runs a line of shell first, in a mount namespace made for this command alone.
    #[must_use]
    pub fn prelude(mut self, line: impl Into<String>) -> Self {
        self.preludes.push(line.into());
        self
    }

    /// Runs the runtime as a user without privileges.
    #[must_use]
    pub fn user(mut self, user: &User) -> Self {
        self.program = public_runtime().to_owned();
        self.preludes.extend(user.preludes());
        self.user = Some(user.id);
        self
    }

    /// Sets the time after which the program is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().wait()
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Running {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let base = scratch_dir().join(format!("command-{number}"));
        let (stdout, stderr) = (base.with_extension("out"), base.with_extension("err"));
        let words: Vec<String> =
            self.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let shown = format!("{} {}", self.program.display(), words.join(" "));

        let mut command = self.command();
        command.stdin(match self.stdin.is_empty() {
            true => Stdio::null(),
            false => {
                let path = base.with_extension("in");
                fs::write(&path, &self.stdin).expect("the scratch directory is writable");
                let file = File::open(&path).expect("it was just written");
                fs::remove_file(&path).expect("it was just written");
                Stdio::from(file)
            }
        });
        command.stdout(append(&stdout)).stderr(append(&stderr));
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
        Running {
            child,
            shown,
            stdout,
            stderr,
            started: Instant::now(),
            limit: self.limit * patience(),
            done: false,
        }
    }

    fn command(&self) -> Command {
        let mut words = vec![self.program.clone().into_os_string()];
        if let Some(id) = self.user.map(|id| id.to_string()) {
            let setpriv = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"];
            words.splice(..0, setpriv.map(OsString::from));
        }
        if !self.preludes.is_empty() {
            let script = format!("set -e; {}; exec \"$@\"", self.preludes.join("; "));
            let shell =
                ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", &script, "sh"];
            words.splice(..0, shell.map(OsString::from));
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.args);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        command
    }
}

/// Waits for the end of a child.
fn ends_within(pid: i32, limit: Duration) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).expect("process ids are positive");
    let child = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("it is our child");
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, limit) {
            Err(Errno::EINTR) => {}
            Ok(0) if !left.is_zero() => {}
            result => return result.expect("a descriptor of a process") > 0,
        }
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the scratch directory is writable")
}

/// A program that runs beside the test. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
    limit: Duration,
    done: bool,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are positive")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid()), signal).expect("the process was not waited for");
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has complained of so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end; at the limit, kills it and fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let limit = self.limit.saturating_sub(self.started.elapsed());
        let running = matches!(self.child.try_wait(), Ok(None));
        // Not asked for again and again: benchmarks time commands by this.
        let status = if running && !ends_within(self.pid(), limit) {
            // The whole story first: what it said so far is in the files.
            let _ = self.child.kill();
            let _ = self.child.wait();
            None
        } else {
            let status = self.child.wait();
            Some(status.unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.shown)))
        };
        self.done = true;
        let output = Output {
            shown: self.shown.clone(),
            status,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            stdout_file: self.stdout.clone(),
            took: self.started.elapsed(),
        };
        note(&output.transcript());
        assert!(output.status.is_some(), "{}: killed after {:?}", self.shown, self.limit);
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Output {
    shown: String,
    status: Option<ExitStatus>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
    /// Where standard output still goes, for what a container writes later.
    pub stdout_file: PathBuf,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// The exit code, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code(), Some(0), "{}", self.summary());
        self
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.summary());
        self
    }

    /// Fails the test unless the runtime refused, as a program should: an exit code,
    /// no signal, no panic, and words on standard error.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.code().is_some_and(|code| code != 0), "should fail: {}", self.summary());
        assert!(!self.stderr.contains("panicked"), "{}", self.summary());
        assert!(!self.stderr.trim().is_empty(), "fails in silence: {}", self.summary());
        // Peers add a usage text or a second error; ours is held to one sentence.
        if runtime().peer == Peer::Hull {
            assert_eq!(self.complaints().len(), 1, "one sentence is enough: {}", self.summary());
        }
        self
    }

    /// Fails the test unless it refused with words that callers look for. crun words
    /// its errors in its own way, and its callers know those.
    #[track_caller]
    pub fn fails_with(self, words: &str) -> Self {
        let output = self.fails();
        if runtime().peer != Peer::Crun {
            assert!(output.stderr.contains(words), "no {words:?} in {}", output.summary());
        }
        output
    }

    /// Fails the test unless standard output is this, white space at the ends aside.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert_eq!(self.text(), text, "{}", self.transcript());
        self
    }

    /// Fails the test unless standard error has these words.
    #[track_caller]
    pub fn stderr_says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "no {words:?} in {}", self.transcript());
        self
    }

    /// The lines on standard error that are not warnings.
    pub fn complaints(&self) -> Vec<&str> {
        let lines = self.stderr.trim_end_matches('\n').lines();
        lines.filter(|line| !line.contains("level=warning")).collect()
    }

    /// Standard output without the white space at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// The lines of standard output, without the white space at their ends.
    pub fn lines(&self) -> Vec<&str> {
        self.text().lines().map(str::trim).collect()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.summary()))
    }

    /// The command, how it ended and what it complained of, in one line.
    pub fn summary(&self) -> String {
        let status = match self.status {
            Some(status) => status.to_string(),
            None => "killed at its time limit".to_owned(),
        };
        let complaint: String = self.stderr.trim().chars().take(500).collect();
        format!("{status} of {}: {complaint}", self.shown)
    }

    /// The whole of it, for a failure message.
    pub fn transcript(&self) -> String {
        let status = match self.status {
            Some(status) => status.to_string(),
            None => "killed at its time limit".to_owned(),
        };
        let mut out = format!("$ {}\n  -> {status} in {:?}", self.shown, self.took);
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                let shown: String = text.trim_end().chars().take(1500).collect();
                out.push_str(&format!("\n  {name}: {}", shown.replace('\n', "\n    ")));
            }
        }
        out
    }
}
