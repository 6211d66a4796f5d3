//! The streams of an exec: FIFOs in the bundle, between the shim and a client.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_core::{Result, error::IoContext as _};
use hull_runtime_sys::{
    fd::{AT_FDCWD, mkfifoat},
    path::c_path,
};
use hull_specs_api::v1::{self, start_exec_request::Message};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    sync::mpsc,
};

use super::list::Exec;
use crate::{
    Messages,
    attach::{self, Funnel, Stream, funnel},
    shim::{Shim, Streams},
};

/// What is read of a FIFO at once.
pub(super) const BLOCK: usize = 32 << 10;

/// A FIFO for the output of an exec that nobody is attached to: it, its path, and its reader.
pub(crate) fn output_fifo(bundle: &Path, id: &str) -> Result<(Fifos, String, pipe::Receiver)> {
    let mut fifos = Fifos::new(bundle, id);
    let (path, reader) = fifos.reader("out")?;
    Ok((fifos, path, reader))
}

/// The FIFOs of one exec. Dropped, they are removed.
pub(crate) struct Fifos {
    base: PathBuf,
    names: Vec<PathBuf>,
}

impl Fifos {
    fn new(bundle: &Path, id: &str) -> Self {
        Self { base: bundle.join(format!("exec-{id}")), names: Vec::new() }
    }

    fn make(&mut self, suffix: &str) -> Result<PathBuf> {
        let path = self.base.with_extension(suffix);
        let name = c_path(&path).map_err(anyhow::Error::new)?;
        mkfifoat(AT_FDCWD, &name, 0o600).map_err(anyhow::Error::new)?;
        self.names.push(path.clone());
        Ok(path)
    }

    /// One to read from. It is opened before its writer, so that nothing is lost.
    fn reader(&mut self, suffix: &str) -> Result<(String, pipe::Receiver)> {
        let path = self.make(suffix)?;
        let reader = pipe::OpenOptions::new().open_receiver(&path).about(path.display())?;
        Ok((path.to_string_lossy().into_owned(), reader))
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        for path in &self.names {
            // With the bundle they are gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// The streams of one exec.
pub(super) struct Session {
    _fifos: Fifos,
    pub(super) streams: Streams,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Session {
    pub(super) fn open(exec: &Exec, shim: &Shim, detach: bool) -> Result<Self> {
        let mut fifos = Fifos::new(&shim.bundle, &exec.id);
        let mut streams = Streams { terminal: exec.request.tty, ..Streams::default() };
        let (mut stdout, mut stderr) = (None, None);
        if !detach {
            let (path, reader) = fifos.reader("out")?;
            (streams.stdout, stdout) = (path, Some(reader));
            if !exec.request.tty {
                let (path, reader) = fifos.reader("err")?;
                (streams.stderr, stderr) = (path, Some(reader));
            }
            if exec.request.stdin {
                streams.stdin = fifos.make("in")?.to_string_lossy().into_owned();
            }
        }
        Ok(Self { _fifos: fifos, streams, stdout, stderr })
    }

    /// Carries until the process has ended and all its output is sent, or the client leaves.
    pub(super) async fn relay(
        self,
        exec: Arc<Exec>,
        shim: Shim,
        messages: Messages<v1::StartExecRequest>,
        answers: mpsc::Sender<Result<v1::AttachResponse>>,
    ) {
        let ending = Arc::clone(&exec);
        let (funnel, emptying) = funnel(answers, async move {
            let mut states = ending.state.subscribe();
            let state = states.wait_for(|state| state.ended).await;
            Ok(state.ok().and_then(|state| state.exit_code))
        });
        let emptying = tokio::spawn(emptying);
        let typing =
            tokio::spawn(type_in(self.streams.stdin.clone(), exec.id.clone(), shim, messages));
        let outputs = [(Stream::Stdout, self.stdout), (Stream::Stderr, self.stderr)];
        let carried = outputs.map(|(stream, reader)| carry(stream, reader, funnel.clone(), &exec));
        tokio::select! {
            _ = futures_util::future::join_all(carried) => {}
            () = funnel.gone() => {}
        }
        typing.abort();
        drop(funnel);
        // It ends when the client has taken all, or leaves.
        let _ = emptying.await;
    }
}

async fn carry(stream: Stream, reader: Option<pipe::Receiver>, funnel: Funnel, exec: &Exec) {
    let Some(mut reader) = reader else { return };
    loop {
        let mut buffer = Vec::with_capacity(BLOCK);
        // A FIFO that cannot be read has ended, too.
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
        let mut states = exec.state.subscribe();
        let over = async { drop(states.wait_for(|state| state.ended).await) };
        if funnel.put(stream, buffer, over).await.is_err() {
            return;
        }
    }
}

/// Carries what the client types.
async fn type_in(
    stdin: String,
    exec: String,
    shim: Shim,
    mut messages: Messages<v1::StartExecRequest>,
) {
    let mut writer = None;
    if !stdin.is_empty() {
        // The shim has it open.
        writer = pipe::OpenOptions::new().open_sender(&stdin).ok();
    }
    while let Some(message) = messages.recv().await {
        match message.message {
            Some(Message::Stdin(bytes)) => {
                if let Some(open) = &mut writer
                    && open.write_all(&bytes).await.is_err()
                {
                    // The process reads no more.
                    writer = None;
                }
            }
            Some(Message::CloseStdin(_)) => break,
            Some(Message::Resize(size)) if attach::size(&size).is_ok() => {
                // It may have ended.
                let _ = shim.resize(&exec, size.columns, size.rows).await;
            }
            _ => {}
        }
    }
    if writer.take().is_some() {
        // Its reader learns the end when nobody holds the FIFO any more.
        let _ = shim.close_stdin(&exec).await;
    }
    while let Some(message) = messages.recv().await {
        if let Some(Message::Resize(size)) = message.message
            && attach::size(&size).is_ok()
        {
            let _ = shim.resize(&exec, size.columns, size.rows).await;
        }
    }
}
