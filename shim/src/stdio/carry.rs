//! Carrying bytes from one descriptor to another.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::fd::OwnedFd,
    rc::Rc,
};

use hull_runtime_sys::fd;

use super::{log_file::LogFile, losses::Losses};
use crate::{
    output::{self, Stream, WriteError},
    reactor::Source,
};

/// Most that one splice moves: the largest pipe an unprivileged user may have.
const SPLICE: usize = 1 << 20;

/// A buffer's size. It lives while there is something to carry.
const BUFFER: usize = 64 << 10;

/// Where output goes.
pub(super) enum Target {
    /// A pipe or FIFO.
    Pipe(Source),
    /// A file, to whose end it is written.
    File(Rc<File>),
    /// A log that we write.
    Log(Rc<LogFile>, Stream),
    /// Nobody asked for it.
    Nowhere,
}

impl Target {
    pub(super) fn pipe(end: OwnedFd) -> hull_runtime_sys::Result<Self> {
        fd::set_nonblocking(&end, true)?;
        Ok(Self::Pipe(Source::new(end)))
    }
}

/// Carries a pipe's or a terminal's output until it ends. A disk that is full must not stop the
/// container: what cannot be written is dropped, and is in `losses`.
pub(super) async fn output(source: &Source, target: Target, losses: &Losses) {
    let mut account = losses.account();
    // The end of the source, and of a target that is broken: nothing is left to be done.
    let _ = match target {
        Target::Pipe(target) if is_pipe(source) => splice_all(source, &target).await,
        Target::Pipe(target) => copy(source, async |bytes| target.write_all(bytes).await).await,
        Target::File(file) => {
            copy(source, async |bytes| {
                account.enter(append(&file, bytes));
                Ok(())
            })
            .await
        }
        Target::Log(log, stream) => {
            let copied = copy(source, async |bytes| {
                account.enter(log.put(stream, bytes));
                log.pass_on(stream, bytes).await;
                Ok(())
            })
            .await;
            account.enter(log.end(stream));
            log.pass_on_end(stream).await;
            copied
        }
        Target::Nowhere => copy(source, async |_| Ok(())).await,
    };
}

/// Carries what a client writes, until all clients are gone or the process closes its stdin.
pub(super) async fn splice(source: &Source, target: &Source) {
    // Either end: a client that goes on writing learns it from its own end of the FIFO.
    let _ = splice_all(source, target).await;
}

/// Carries what a client types to a terminal.
pub(super) async fn type_in(source: &Source, target: &Source) {
    // A terminal that nobody has open any more takes nothing.
    let _ = copy(source, async |bytes| target.write_all(bytes).await).await;
}

fn append(mut file: &File, mut bytes: &[u8]) -> Result<(), WriteError> {
    while !bytes.is_empty() {
        let cause = match file.write(bytes) {
            Ok(0) => ErrorKind::WriteZero.into(),
            Ok(n) => {
                bytes = &bytes[n..];
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return Err(WriteError { dropped_bytes: bytes.len() as u64, cause });
    }
    Ok(())
}

fn is_pipe(source: &Source) -> bool {
    hull_runtime_sys::path::stat(source)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

async fn splice_all(source: &Source, target: &Source) -> hull_runtime_sys::Result<()> {
    let mut source_was_ready = false;
    loop {
        match fd::splice(source, target, SPLICE) {
            Ok(0) => return Ok(()),
            Ok(_) => source_was_ready = false,
            // Either end can be the reason.
            Err(error) if error.errno() == libc::EAGAIN => {
                if source_was_ready {
                    target.writable().await?;
                }
                source.readable().await?;
                source_was_ready = true;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn copy(
    source: &Source,
    mut put: impl AsyncFnMut(&[u8]) -> hull_runtime_sys::Result<()>,
) -> hull_runtime_sys::Result<()> {
    loop {
        output::release_buffers();
        source.readable().await?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match fd::read(source, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => put(&buffer[..n]).await?,
                Err(error) if error.errno() == libc::EAGAIN => break,
                // EIO: a terminal's other side is closed by all.
                Err(error) if error.errno() == libc::EIO => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
