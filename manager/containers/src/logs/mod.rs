//! `logs`: what a container has written, and goes on to write.

mod attributes;
pub(crate) mod driver;
mod entries;
mod files;
mod tag;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::event;
use hull_specs_api::v1::{self, Status};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::mpsc};

use self::{
    entries::{Entries, Wanted},
    files::Text,
};
use crate::{Answers, Containers, Inner, attach::ANSWERS, handle::Handle};

type Sender = mpsc::Sender<Result<v1::LogEntry>>;

/// The reader has left, or has all it wants.
struct Enough;

fn time(time: Option<prost_types::Timestamp>, name: &str) -> Result<Option<std::time::SystemTime>> {
    time.map(std::time::SystemTime::try_from)
        .transpose()
        .map_err(|_| Error::invalid(format!("invalid value for {name:?}")))
}

impl Inner {
    /// The file of a container's log, if it has one that can be read.
    pub(crate) fn log_file(&self, handle: &Handle) -> Option<PathBuf> {
        driver::file(&handle.record(), &self.directory(&handle.id))
    }

    /// The same, if its form is promised to whoever reads it: docker, too, tells of no other.
    pub(crate) fn public_log(&self, handle: &Handle) -> Option<PathBuf> {
        self.log_file(handle).filter(|_| driver::is_public(&handle.record()))
    }

    /// What the log has, as output of an attached client.
    pub(crate) async fn log_before(
        &self,
        handle: &Handle,
        open: &v1::AttachOpen,
        answers: &mpsc::Sender<Result<v1::AttachResponse>>,
    ) -> Result<()> {
        use v1::{attach_response::Message, log_entry::Stream};
        let Some(path) = self.log_file(handle) else { return Ok(()) };
        let wanted = Wanted {
            stdout: open.stdout,
            stderr: open.stderr,
            since: None,
            until: None,
            times: false,
            details: false,
        };
        let answers = answers.clone();
        let read = move || -> Result<()> {
            let mut history = History::open(&path, None)?;
            let mut entries = Entries::new(wanted);
            let mut put = |entry: v1::LogEntry| {
                let message = match entry.stream() {
                    Stream::Stdout => Message::Stdout(entry.data),
                    Stream::Stderr => Message::Stderr(entry.data),
                };
                let answer = Ok(v1::AttachResponse { message: Some(message) });
                answers.blocking_send(answer).map_err(|_| Enough)
            };
            // The client may have left; then the relay finds that out.
            history.read(&mut entries, &mut put).map(drop)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|cause| Error::internal("the log").because(cause))?
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`; a log that is not kept.
    pub async fn logs(&self, request: v1::LogsRequest) -> Result<Answers<v1::LogEntry>> {
        let handle = self.find(&request.container)?;
        let path = self
            .0
            .log_file(&handle)
            .ok_or_else(|| Error::conflict("configured logging driver does not support reading"))?;
        if !request.stdout && !request.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let wanted = Wanted {
            stdout: request.stdout,
            stderr: request.stderr,
            since: time(request.since, "since")?,
            until: time(request.until, "until")?,
            times: request.timestamps,
            details: request.details,
        };
        let (answers, answered) = mpsc::channel(ANSWERS);
        let (tail, follow) = (request.tail, request.follow);
        tokio::spawn(async move {
            let read = read(&handle, path, wanted, tail, follow, answers.clone()).await;
            if let Err(error) = read {
                // Whoever asked may have gone.
                let _ = answers.send(Err(error)).await;
            }
        });
        Ok(answered)
    }
}

/// What is there when the reader comes.
struct History {
    parts: std::collections::VecDeque<files::Part>,
    last: Option<Text>,
}

impl History {
    fn open(path: &Path, tail: Option<u64>) -> Result<Self> {
        let mut parts = files::all(path).about(path.display())?;
        if let Some(lines) = tail {
            files::tail(&mut parts, lines).about(path.display())?;
        }
        Ok(Self { parts, last: None })
    }

    /// Reads all of it; the last file stays open.
    fn read(
        &mut self,
        entries: &mut Entries,
        put: &mut impl FnMut(v1::LogEntry) -> Result<(), Enough>,
    ) -> Result<Option<Enough>> {
        while let Some(part) = self.parts.pop_front() {
            let mut text = part.into_text().about("the log")?;
            while text.more(entries.buffer()).about("the log")? {
                for entry in entries.take() {
                    if put(entry).is_err() {
                        return Ok(Some(Enough));
                    }
                }
                if entries.is_over() {
                    return Ok(Some(Enough));
                }
            }
            self.last = Some(text);
        }
        Ok(None)
    }
}

async fn read(
    handle: &Arc<Handle>,
    path: PathBuf,
    wanted: Wanted,
    tail: Option<u64>,
    follow: bool,
    answers: Sender,
) -> Result<()> {
    // Before what is there is looked at, so that nothing comes in between unseen.
    let watch = if follow { Some(Watch::new(&path)?) } else { None };
    let (sender, log) = (answers.clone(), path.clone());
    let history = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut history = History::open(&log, tail)?;
        let mut entries = Entries::new(wanted);
        let mut put = |entry| sender.blocking_send(Ok(entry)).map_err(|_| Enough);
        let enough = history.read(&mut entries, &mut put)?;
        Ok((history.last, entries, enough))
    });
    let (text, entries, enough) =
        history.await.map_err(|cause| Error::internal("logs").because(cause))??;
    match (watch, enough) {
        (Some(watch), None) => Follower { path, text, entries, answers }.run(handle, watch).await,
        _ => Ok(()),
    }
}

/// Changes in a log's directory.
struct Watch(pipe::Receiver);

impl Watch {
    fn new(path: &Path) -> Result<Self> {
        let watch = || -> anyhow::Result<_> {
            let inotify = event::inotify()?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            event::watch_directory(&inotify, directory)?;
            // It is read and waited for as a pipe is.
            Ok(Self(pipe::Receiver::from_owned_fd_unchecked(inotify)?))
        };
        watch().map_err(|cause| Error::internal("cannot follow the log").because(cause))
    }

    /// Waits until something has changed.
    async fn changed(&mut self) -> Result<()> {
        // What it was is seen from the files themselves.
        let mut buffer = [0; 4096];
        self.0.read(&mut buffer).await.map(drop).about("the log's directory")
    }
}

struct Follower {
    path: PathBuf,
    text: Option<Text>,
    entries: Entries,
    answers: Sender,
}

impl Follower {
    async fn run(mut self, handle: &Arc<Handle>, mut watch: Watch) -> Result<()> {
        loop {
            // Looked at before the file: what was written until then is read.
            let state = handle.now();
            let over = state.gone
                || state.settled && !state.is_live() && state.status != Status::Restarting;
            if self.catch_up().await?.is_some() || over {
                return Ok(());
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                _ = handle.until(|now| now != state) => {}
                () = self.answers.closed() => return Ok(()),
            }
        }
    }

    /// Reads to the end of the newest file.
    async fn catch_up(&mut self) -> Result<Option<Enough>> {
        loop {
            if let Some(text) = &mut self.text {
                while text.more(self.entries.buffer()).about("the log")? {
                    for entry in self.entries.take() {
                        if self.answers.send(Ok(entry)).await.is_err() {
                            return Ok(Some(Enough));
                        }
                    }
                    if self.entries.is_over() {
                        return Ok(Some(Enough));
                    }
                }
            }
            let inode = self.text.as_ref().map_or(0, |text| text.inode);
            if files::current(&self.path).about("the log")?.unwrap_or(inode) == inode {
                return Ok(None);
            }
            // Rotated: to its very end, which was written before the rename, then the next.
            if let Some(text) = &mut self.text
                && text.more(self.entries.buffer()).about("the log")?
            {
                continue;
            }
            let mut newer = files::newer(&self.path, inode).about("the log")?.into_iter();
            let Some(next) = newer.next() else { return Ok(None) };
            self.text = Some(next.into_text().about("the log")?);
        }
    }
}
