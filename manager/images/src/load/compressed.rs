//! Archives that come compressed: a worker, which can reach no file, makes them plain.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd as _,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hull_manager_archive::{
    Refused,
    worker::{self, Job, Worker},
};
use hull_manager_core::{Error, Result, error::IoContext as _};
use tokio::{io::AsyncWriteExt as _, net::unix::pipe::Sender};

use crate::outer::{self, Files};

/// What a worker makes of an archive.
pub(super) struct Plain {
    worker: Worker,
    output: File,
    ended: bool,
}

impl Plain {
    /// Starts a worker; gives what comes out of it, and where the archive goes in.
    pub(super) fn begin() -> Result<(Self, Sender)> {
        let nowhere = worker::nowhere()?;
        let job = Job::Decompress { budgets: outer::budgets() };
        let root = nowhere.as_fd();
        let files = worker::Files { root, base: None, input: None, output: None };
        let mut worker = worker::spawn(&job, files)?;
        let (Some(input), Some(output)) = (worker.input.take(), worker.output.take()) else {
            return Err(Error::internal("the archive worker has no pipes"));
        };
        let input = Sender::from_owned_fd(input.into()).about("write to the archive worker")?;
        Ok((Self { worker, output, ended: false }, input))
    }

    /// What was read, unless the worker knows better.
    pub(super) fn finish(self, read: Result<Files>) -> Result<Files> {
        let Self { worker, output, ended } = self;
        drop(output);
        if !ended {
            return read;
        }
        // Its side is closed: its word, which is the reason of an archive that is too short, comes
        // at once.
        match worker.finish() {
            Ok(_) => read,
            Err(error) if Refused::of(&error).is_some() => Err(outer::refused(error)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// Passes a stream on to a worker.
pub(super) async fn feed(
    mut chunks: impl Stream<Item = Result<Bytes>> + Unpin,
    mut input: Sender,
) -> Result<()> {
    while let Some(chunk) = chunks.next().await {
        match input.write_all(&chunk?).await {
            // It has ended, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.about("write to the archive worker")?,
        }
    }
    Ok(())
}
