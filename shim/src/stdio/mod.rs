//! Standard streams: what a caller asked for, and the tasks that carry them.
//!
//! The container never holds a descriptor of a file outside: it gets pipes, or a terminal, and
//! the shim carries the bytes on. Between pipes they are moved, not copied (splice).

mod carry;
mod console;
mod log_file;
mod logger;
mod losses;
mod open;

use std::{
    cell::{Cell, RefCell},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::fchown,
    },
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::{fd, tty};

use crate::{
    output::{self, Stream},
    reactor::{self, Signal, Source},
};
use carry::Target;
use console::ConsoleSocket;
use log_file::LogFile;
pub(crate) use log_file::{finish_log, note_log};
use logger::Logger;
use losses::Losses;

/// How long a runtime may take to hand over a terminal.
const TERMINAL_LIMIT: Duration = Duration::from_secs(30);

/// How long the record of an exit waits for the last output.
const SETTLE_LIMIT: Duration = Duration::from_millis(100);

/// What a caller gives for stdin that comes from the clients of a log's attach socket.
const ATTACHED: &str = "hull-attach:";

/// The streams that a caller asked for, as containerd says it: each a path or a URI, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// What a stream's destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination<'a> {
    /// A FIFO that the caller reads, or a file.
    Path(&'a Path),
    /// `file://`: a file, made if it is not there.
    File(&'a Path),
    /// `hull-log:`: a log that the shim writes itself.
    Log(&'a str),
    /// `binary://` or, `strict`, `binary-v2://`: a program that reads the streams.
    Binary { uri: &'a str, strict: bool },
}

impl<'a> Destination<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        if output::Options::is_ours(text) {
            return Ok(Self::Log(text));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Path(Path::new(text)));
        };
        match scheme {
            "fifo" => Ok(Self::Path(Path::new(rest))),
            "file" => Ok(Self::File(Path::new(rest.split('?').next().unwrap_or_default()))),
            "binary" => Ok(Self::Binary { uri: rest, strict: false }),
            "binary-v2" => Ok(Self::Binary { uri: rest, strict: true }),
            _ => bail!("unknown STDIO scheme {scheme}"),
        }
    }
}

/// Whose streams they are, for loggers and for the owner of the pipes.
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) id: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Streams that are ready for a process to be started with.
pub(crate) struct Prepared {
    /// The process's ends; `/dev/null` where there is none.
    theirs: [OwnedFd; 3],
    ours: Ours,
    stdin: Option<open::Input>,
    stdout: Option<Target>,
    stderr: Option<Target>,
    logger: Option<Logger>,
    log: Option<Rc<LogFile>>,
    /// stdin comes from clients that are attached.
    attached: bool,
}

enum Ours {
    Pipes { stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd> },
    Terminal(ConsoleSocket),
}

/// The streams of a process that runs.
pub(crate) struct Io {
    outputs: Rc<Outputs>,
    /// Keeps the caller's stdin FIFO from ending while clients come and go.
    stdin: RefCell<Option<OwnedFd>>,
    console: Option<Rc<Source>>,
    logger: RefCell<Option<Logger>>,
    log: Option<Rc<LogFile>>,
    /// Output goes to a file or a log.
    writes_files: bool,
}

/// The tasks that carry output.
#[derive(Default)]
struct Outputs {
    running: Cell<usize>,
    ended: Signal,
    stop: Signal,
    losses: Losses,
}

impl Prepared {
    /// Opens everything; nothing of the container is touched.
    ///
    /// # Errors
    /// A path that cannot be opened, a scheme that is not known, a logger that does not start.
    pub(crate) async fn new(stdio: &Stdio, bundle: &Path, owner: &Owner<'_>) -> Result<Self> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let (mut stdout, mut stderr, mut logger) = (None, None, None);
        let mut theirs = [null()?, null()?, null()?];
        let [their_stdin, their_stdout, their_stderr] = &mut theirs;
        let mut direct = false;
        let mut log = None;
        match Destination::parse(&stdio.stdout)? {
            Destination::Binary { uri, strict } => {
                let started = Logger::start(uri, strict, owner).await?;
                if stdio.terminal {
                    stdout = Some(Target::pipe(started.stdout)?);
                } else {
                    direct = true;
                    (*their_stdout, *their_stderr) = (started.stdout, started.stderr);
                }
                logger = Some(started.logger);
            }
            Destination::File(path) => {
                let file = Rc::new(open::append(path, true)?);
                stdout = Some(Target::File(Rc::clone(&file)));
                stderr = Some(Target::File(file));
            }
            Destination::Log(uri) => {
                let file = LogFile::open(uri).await?;
                stdout = Some(Target::Log(Rc::clone(&file), Stream::Stdout));
                stderr = Some(Target::Log(Rc::clone(&file), Stream::Stderr));
                log = Some(file);
            }
            Destination::Path(path) if !path.as_os_str().is_empty() => {
                stdout = Some(open::output(path)?);
            }
            Destination::Path(_) => {}
        }
        if !direct && stderr.is_none() && !stdio.terminal {
            stderr = match Destination::parse(&stdio.stderr)? {
                Destination::Path(path) if path.as_os_str().is_empty() => None,
                Destination::Path(path) if stdio.stderr == stdio.stdout => match &stdout {
                    Some(Target::File(file)) => Some(Target::File(Rc::clone(file))),
                    _ => Some(open::output(path)?),
                },
                Destination::Path(path) => Some(open::output(path)?),
                _ => bail!("stderr must be a path when stdout is {:?}", stdio.stdout),
            };
        }
        let attached = stdio.stdin == ATTACHED;
        if attached && !log.as_ref().is_some_and(|log| log.has_socket()) {
            bail!("stdin {ATTACHED} needs a log with an attach socket");
        }
        let stdin = match stdio.stdin.as_str() {
            "" | ATTACHED => None,
            path => Some(open::Input::open(Path::new(path))?),
        };
        let ours = if stdio.terminal {
            Ours::Terminal(ConsoleSocket::bind(bundle)?)
        } else {
            let (mut input, mut output, mut error) = (None, None, None);
            if stdin.is_some() || attached {
                let (reader, writer) = fd::pipe()?;
                (*their_stdin, input) = (reader, Some(writer));
            }
            if stdout.is_some() {
                let (reader, writer) = fd::pipe()?;
                (*their_stdout, output) = (writer, Some(reader));
            }
            if stderr.is_some() {
                let (reader, writer) = fd::pipe()?;
                (*their_stderr, error) = (writer, Some(reader));
            }
            let given = [
                (&*their_stdin, input.is_some()),
                (&*their_stdout, output.is_some() || direct),
                (&*their_stderr, error.is_some() || direct),
            ];
            // A program that opens /dev/stdout again must be its pipe's owner.
            for (end, is_pipe) in given {
                if is_pipe && (owner.uid, owner.gid) != (0, 0) {
                    fchown(end, Some(owner.uid), Some(owner.gid))?;
                }
            }
            for end in [&input, &output, &error].into_iter().flatten() {
                fd::set_nonblocking(end, true)?;
            }
            Ours::Pipes { stdin: input, stdout: output, stderr: error }
        };
        Ok(Self { theirs, ours, stdin, stdout, stderr, logger, log, attached })
    }

    /// The descriptors for the runtime's run.
    pub(crate) fn streams(&self) -> [BorrowedFd<'_>; 3] {
        self.theirs.each_ref().map(AsFd::as_fd)
    }

    /// Where the runtime is to send the terminal.
    pub(crate) fn console_socket(&self) -> Option<&Path> {
        match &self.ours {
            Ours::Terminal(socket) => Some(socket.path()),
            Ours::Pipes { .. } => None,
        }
    }

    /// Carries the streams from now on; the runtime has started the process.
    ///
    /// # Errors
    /// The runtime did not send a terminal.
    pub(crate) async fn start(self) -> Result<Io> {
        let Self { theirs, ours, stdin, stdout, stderr, logger, log, attached } = self;
        // What we keep of their ends would hide that they have closed them.
        drop(theirs);
        let is_file =
            |target: &Option<Target>| matches!(target, Some(Target::File(_) | Target::Log(..)));
        let writes_files = is_file(&stdout) || is_file(&stderr);
        let outputs = Rc::new(Outputs::default());
        let mut console = None;
        let mut hold = None;
        match ours {
            Ours::Pipes { stdin: input, stdout: output, stderr: error } => {
                for (source, target) in [(output, stdout), (error, stderr)] {
                    if let (Some(source), Some(target)) = (source, target) {
                        outputs.carry(Rc::new(Source::new(source)), target);
                    }
                }
                if let Some(target) = input.map(Source::new) {
                    if let Some(input) = stdin {
                        let (source, kept) = input.split();
                        hold = Some(kept);
                        reactor::spawn(async move { carry::splice(&source, &target).await });
                    } else if let Some(log) = &log {
                        log.keyboard().connect(Rc::new(target));
                    }
                }
            }
            Ours::Terminal(socket) => {
                let master = reactor::within(TERMINAL_LIMIT, socket.receive()).await;
                let master = master.unwrap_or_else(|| bail!("none came in {TERMINAL_LIMIT:?}"));
                let master = master.context("failed to retrieve console master")?;
                fd::set_nonblocking(&master, true)?;
                let master = Rc::new(Source::new(master));
                outputs.carry(Rc::clone(&master), stdout.unwrap_or(Target::Nowhere));
                if let Some(input) = stdin {
                    let (source, kept) = input.split();
                    hold = Some(kept);
                    let (target, stop) = (Rc::clone(&master), outputs.stop.clone());
                    reactor::spawn(async move {
                        reactor::unless(&stop, carry::type_in(&source, &target)).await;
                    });
                }
                if let Some(log) = &log {
                    log.keyboard().set_console(Rc::clone(&master));
                    if attached {
                        log.keyboard().connect(Rc::clone(&master));
                    }
                }
                console = Some(master);
            }
        }
        if outputs.running.get() == 0 {
            outputs.ended.raise();
        }
        let (stdin, logger) = (RefCell::new(hold), RefCell::new(logger));
        Ok(Io { outputs, stdin, console, logger, log, writes_files })
    }
}

impl Outputs {
    fn carry(self: &Rc<Self>, source: Rc<Source>, target: Target) {
        self.running.set(self.running.get() + 1);
        let outputs = Rc::clone(self);
        reactor::spawn(async move {
            reactor::unless(&outputs.stop, carry::output(&source, target, &outputs.losses)).await;
            outputs.running.set(outputs.running.get() - 1);
            if outputs.running.get() == 0 {
                outputs.ended.raise();
            }
        });
    }
}

impl Io {
    /// Waits until every stream of output has ended and is carried whole.
    pub(crate) async fn drained(&self) {
        self.outputs.ended.wait().await;
    }

    /// No more clients will write: stdin ends with those that have it open now.
    pub(crate) fn close_stdin(&self) {
        self.stdin.take();
        if let Some(log) = &self.log {
            log.keyboard().close();
        }
    }

    /// Waits until what the process has written is in its files, but not for what it has left
    /// running.
    pub(crate) async fn settled(&self) {
        if self.writes_files {
            reactor::within(SETTLE_LIMIT, self.drained()).await;
        }
    }

    /// The last lines of a log that the shim writes itself, oldest first; none of another.
    pub(crate) fn last_lines(&self, lines: usize) -> Vec<String> {
        self.log.as_ref().map(|log| log.tail(lines)).unwrap_or_default()
    }

    /// How many bytes of output could not be written to a file.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.outputs.losses.bytes()
    }

    /// How many clients of the log were too slow.
    pub(crate) fn dropped_clients(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.dropped_clients())
    }

    /// Whether the process has a terminal; if so, it now has this size.
    ///
    /// # Errors
    /// Those of the ioctl.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        if let Some(console) = &self.console {
            tty::set_size(console.as_ref(), rows, columns)?;
        }
        Ok(())
    }

    /// Gives up what is not carried, and ends the logger.
    pub(crate) async fn close(&self) {
        self.outputs.stop.raise();
        self.close_stdin();
        let logger = self.logger.take();
        if let Some(logger) = logger {
            logger.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_paths_or_known_schemes() {
        let path = |text| Destination::Path(Path::new(text));
        for (text, expected) in [
            ("/run/fifo", path("/run/fifo")),
            ("", path("")),
            ("fifo:///run/x", path("/run/x")),
            ("file:///log?x=y", Destination::File(Path::new("/log"))),
            ("hull-log:///l?format=cri", Destination::Log("hull-log:///l?format=cri")),
            ("binary:///l?a=b", Destination::Binary { uri: "/l?a=b", strict: false }),
            ("binary-v2:///l", Destination::Binary { uri: "/l", strict: true }),
        ] {
            assert_eq!(Destination::parse(text).unwrap(), expected);
        }
        let error = Destination::parse("http://x").unwrap_err();
        assert_eq!(error.to_string(), "unknown STDIO scheme http");
    }
}
