//! A log that the shim writes itself, and the clients that are attached to it.

use std::{
    cell::{Cell, RefCell},
    ffi::CString,
    fs::{self, File},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::{
    process::Exit,
    spawn::{self, Program},
    tty,
};

use super::Stdio;
use crate::{
    bootstrap, bundle_file, log,
    output::{Attach, Console, Forward, Options, Stream, WriteError, Writer},
    reactor::{self, Source},
};

/// The file in a bundle with the log's URI, for `delete` after the shim's death.
const URI_FILE: &str = "log-uri";

/// Most of the log's end that is looked at for its last lines, in bytes.
const TAIL: usize = 16 << 10;

/// A log and its clients.
pub(super) struct LogFile {
    writer: RefCell<Writer>,
    forward: Option<Forward>,
    attach: Option<Attach>,
    keyboard: Rc<Keyboard>,
    /// Streams that have not ended.
    open: Cell<usize>,
    compressing: Cell<bool>,
}

impl LogFile {
    /// # Errors
    /// The URI is wrong, the log or the socket cannot be opened, or the host's log is not there.
    pub(super) async fn open(uri: &str) -> Result<Rc<Self>> {
        let options = Options::parse(uri)?;
        let forward = match &options.forward {
            Some(forward) => Some(Forward::open(forward).await?),
            None => None,
        };
        let keyboard = Rc::new(Keyboard::default());
        let attach = options.attach.as_deref();
        let attach = attach.map(|path| Attach::listen(path, Rc::clone(&keyboard))).transpose()?;
        Ok(Rc::new(Self {
            writer: RefCell::new(Writer::open(&options)?),
            forward,
            attach,
            keyboard,
            open: Cell::new(2),
            compressing: Cell::new(false),
        }))
    }

    pub(super) fn has_socket(&self) -> bool {
        self.attach.is_some()
    }

    pub(super) fn dropped_clients(&self) -> u64 {
        self.attach.as_ref().map_or(0, Attach::dropped_clients)
    }

    pub(super) fn keyboard(&self) -> &Keyboard {
        &self.keyboard
    }

    /// Writes what has come.
    ///
    /// # Errors
    /// What is lost; the log says so, too, when it can.
    pub(super) fn put(self: &Rc<Self>, stream: Stream, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.writer.borrow_mut().write(stream, bytes, SystemTime::now());
        self.tell_rotation_error();
        if let Some(attach) = &self.attach {
            attach.output(stream, bytes);
        }
        self.compress();
        written
    }

    /// Hands on what was put, and waits for those that the container waits for.
    pub(super) async fn pass_on(&self, stream: Stream, bytes: &[u8]) {
        if let Some(forward) = &self.forward {
            forward.put(stream, bytes, SystemTime::now()).await;
        }
        if let Some(attach) = &self.attach {
            attach.room().await;
        }
    }

    fn tell_rotation_error(&self) {
        if let Some(error) = self.writer.borrow_mut().take_rotation_error() {
            log::error(&format!("a log is not rotated: {}", log::sentence(&error)));
        }
    }

    /// A stream has ended.
    ///
    /// # Errors
    /// What is lost for good.
    pub(super) fn end(&self, stream: Stream) -> Result<(), WriteError> {
        if let Some(attach) = &self.attach {
            attach.end(stream);
        }
        self.open.set(self.open.get() - 1);
        if self.open.get() > 0 {
            return Ok(());
        }
        let finished = self.writer.borrow_mut().finish(SystemTime::now());
        self.tell_rotation_error();
        finished
    }

    /// Hands on the rest of a stream that has ended.
    pub(super) async fn pass_on_end(&self, stream: Stream) {
        if let Some(forward) = &self.forward {
            forward.end(stream, SystemTime::now()).await;
        }
    }

    pub(super) fn tail(&self, lines: usize) -> Vec<String> {
        self.writer.borrow().tail(lines, TAIL).unwrap_or_else(|error| {
            log::error(&format!("the log cannot be read back: {}", log::sentence(&error)));
            Vec::new()
        })
    }

    /// Compresses rotated files, one after the other, in a process of its own.
    fn compress(self: &Rc<Self>) {
        if self.compressing.get() {
            return;
        }
        let Some(path) = self.writer.borrow_mut().next_compression() else { return };
        self.compressing.set(true);
        let log_file = Rc::clone(self);
        reactor::spawn(async move {
            let compressed = compress(&path).await;
            if let Err(error) = &compressed {
                log::error(&format!(
                    "{} is not compressed: {}",
                    path.display(),
                    log::sentence(error)
                ));
            }
            log_file.writer.borrow_mut().compression_ended(compressed.is_ok());
            log_file.compressing.set(false);
            if compressed.is_ok() {
                log_file.compress();
            }
        });
    }
}

async fn compress(path: &Path) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let words = [b"containerd-shim-hull-v2".as_slice(), b"compress", path.as_os_str().as_bytes()];
    let args = words.into_iter().map(CString::new).collect::<Result<_, _>>()?;
    let expected = reactor::expect_children();
    let child = spawn::spawn(Program {
        path: c"/proc/self/exe",
        args,
        env: Vec::new(),
        fds: &[null.as_fd(), null.as_fd(), null.as_fd()],
        death_signal: None,
    })?;
    match reactor::wait_for(&expected, child.pid).await {
        Exit::Code(0) => Ok(()),
        exit => bail!("its process ended by {exit:?}"),
    }
}

/// What clients do to a process: its stdin and its terminal.
#[derive(Default)]
pub(super) struct Keyboard {
    stdin: RefCell<Option<Rc<Source>>>,
    console: RefCell<Option<Rc<Source>>>,
}

impl Keyboard {
    pub(super) fn connect(&self, stdin: Rc<Source>) {
        self.stdin.replace(Some(stdin));
    }

    pub(super) fn set_console(&self, console: Rc<Source>) {
        self.console.replace(Some(console));
    }

    pub(super) fn close(&self) {
        self.stdin.take();
    }
}

impl Console for Keyboard {
    async fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.borrow().clone().context("the process has no open stdin")?;
        Ok(stdin.write_all(bytes).await?)
    }

    fn close_stdin(&self) {
        self.close();
    }

    fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let console = self.console.borrow().clone().context("the process has no terminal")?;
        Ok(tty::set_size(console.as_ref(), rows, columns)?)
    }
}

fn uri_file(bundle: &Path) -> PathBuf {
    bundle.join(URI_FILE)
}

/// Notes in the bundle which log the shim writes, if it does.
///
/// # Errors
/// The bundle cannot be written to.
pub(crate) fn note_log(bundle: &Path, stdio: &Stdio) -> Result<()> {
    if Options::is_ours(&stdio.stdout) {
        bundle_file::put(&uri_file(bundle), stdio.stdout.as_bytes())?;
    }
    Ok(())
}

/// Completes the log of a shim that was killed, by the beginning of a line that it had taken, and
/// removes its socket for clients.
///
/// # Errors
/// The log cannot be opened or written, or the socket not removed.
pub(crate) fn finish_log(bundle: &Path) -> Result<()> {
    let uri = match fs::read_to_string(uri_file(bundle)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        uri => uri.context("cannot read the log's URI")?,
    };
    let options = Options::parse(&uri)?;
    let removed = options.attach.as_deref().map_or(Ok(()), bootstrap::remove_if_dead);
    let mut writer = Writer::open(&options)?;
    writer.finish(SystemTime::now()).map_err(|error| error.cause)?;
    removed
}
