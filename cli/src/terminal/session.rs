//! One attached process: our standard streams and its own, until it or the person ends it.

use std::io;

use anyhow::Result;
use hull_specs_api::v1::{
    AttachRequest, AttachResponse, StartExecRequest, TerminalSize, attach_request, attach_response,
    start_exec_request,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tonic::Streaming;

use super::{
    detach::Keys,
    output::{Output, Piece},
    raw::{self, Raw},
    signals, stdin,
};
use crate::failure::{Failure, refused};

/// What goes to the process.
#[derive(Debug)]
pub(crate) enum Input {
    /// Bytes for its standard input.
    Bytes(Vec<u8>),
    /// There are no more.
    Close,
    /// The terminal's size.
    Resize(TerminalSize),
}

impl From<Input> for AttachRequest {
    fn from(input: Input) -> Self {
        use attach_request::Message;
        Self {
            message: Some(match input {
                Input::Bytes(bytes) => Message::Stdin(bytes),
                Input::Close => Message::CloseStdin(true),
                Input::Resize(size) => Message::Resize(size),
            }),
        }
    }
}

impl From<Input> for StartExecRequest {
    fn from(input: Input) -> Self {
        use start_exec_request::Message;
        Self {
            message: Some(match input {
                Input::Bytes(bytes) => Message::Stdin(bytes),
                Input::Close => Message::CloseStdin(true),
                Input::Resize(size) => Message::Resize(size),
            }),
        }
    }
}

/// How it ended for us.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The output is at its end; the exit code, where the stream has it.
    Ended(Option<i32>),
    /// The person left.
    Detached,
}

/// How we take part.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
    pub(crate) keys: Keys,
    /// What runs has drawn its screen for somebody else: it is to do so again.
    pub(crate) redraw: bool,
    /// Signals are somebody else's to forward; else the deadly ones end us, the terminal as it was.
    pub(crate) proxy: bool,
}

/// An open stream to a process.
#[derive(Debug)]
pub(crate) struct Session<M> {
    pub(crate) requests: mpsc::Sender<M>,
    pub(crate) responses: Streaming<AttachResponse>,
}

impl<M: From<Input> + Send + 'static> Session<M> {
    /// Carries the streams until the end.
    pub(crate) async fn run(mut self, part: Part) -> Result<End> {
        let raw = if part.tty && part.stdin { Raw::begin()? } else { None };
        let output = Output::start();
        if part.tty {
            tokio::spawn(resize(self.requests.clone(), part.redraw));
        }
        let (detach, mut detached) = oneshot::channel();
        let typing =
            part.stdin.then(|| tokio::spawn(typed(self.requests.clone(), part.clone(), detach)));
        // Without raw mode the default action of a signal leaves nothing behind.
        let mut deadly =
            if raw.is_some() && !part.proxy { Some(signals::forwarded()?) } else { None };
        // The server sees the end of our stream when all senders are gone.
        drop(self.requests);
        let end = loop {
            let response = tokio::select! {
                response = self.responses.message() => match response {
                    Ok(response) => response,
                    // What came before is still written.
                    Err(status) => break Err(refused(status)),
                },
                // Without a sender, nothing was detached.
                Ok(()) = &mut detached, if typing.is_some() => break Ok(End::Detached),
                Some(number) = next(&mut deadly) => {
                    let code = u8::try_from(128 + number).unwrap_or(u8::MAX);
                    return Err(Failure::quiet(code));
                }
            };
            use attach_response::Message;
            let written = match response.and_then(|response| response.message) {
                None => break Ok(End::Ended(None)),
                Some(Message::Ended(ended)) => break Ok(End::Ended(ended.exit_code)),
                Some(Message::Attached(_)) => true,
                Some(Message::Stdout(bytes)) => output.write(Piece::Out(bytes)).await,
                Some(Message::Stderr(bytes)) => output.write(Piece::Err(bytes)).await,
            };
            if !written {
                break Ok(End::Ended(None));
            }
        };
        stop(typing);
        output.finish().await?;
        drop(raw);
        end
    }
}

fn stop(typing: Option<JoinHandle<()>>) {
    if let Some(typing) = typing {
        typing.abort();
    }
}

async fn next(signals: &mut Option<mpsc::Receiver<i32>>) -> Option<i32> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

/// Carries what is typed; says when the keys to detach were.
async fn typed<M: From<Input>>(
    requests: mpsc::Sender<M>,
    mut part: Part,
    detach: oneshot::Sender<()>,
) {
    let mut chunks = stdin::chunks();
    while let Some(bytes) = chunks.recv().await {
        // Docker has the keys on terminals only.
        let typed = if part.tty {
            part.keys.filter(&bytes)
        } else {
            super::detach::Typed { bytes, detach: false }
        };
        if !typed.bytes.is_empty() && requests.send(Input::Bytes(typed.bytes).into()).await.is_err()
        {
            return;
        }
        if typed.detach {
            // Whom it is for may have ended.
            let _ = detach.send(());
            return;
        }
    }
    let _ = requests.send(Input::Close.into()).await;
    // Kept, because its end would be taken for a detach; aborted with the session.
    std::future::pending::<()>().await;
}

/// Tells the terminal's size now and whenever it changes. Programs draw again only for another
/// size, so that one that is larger comes first where they shall.
async fn resize<M: From<Input>>(requests: mpsc::Sender<M>, redraw: bool) {
    let Ok(mut changes) = signals::resized() else { return };
    if let Some(size) = raw::size().filter(|_| redraw)
        && requests.send(Input::Resize(larger(size)).into()).await.is_err()
    {
        return;
    }
    loop {
        if let Some(size) = raw::size()
            && requests.send(Input::Resize(size).into()).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

fn larger(size: TerminalSize) -> TerminalSize {
    TerminalSize { columns: size.columns.saturating_add(1), rows: size.rows.saturating_add(1) }
}

/// Refuses a terminal for the container where we have none to give.
pub(crate) fn check_tty(stdin: bool, tty: bool) -> Result<()> {
    use io::IsTerminal as _;
    if stdin && tty && !io::stdin().is_terminal() {
        return Err(Failure { code: 1, message: "the input device is not a TTY".to_owned() }.into());
    }
    Ok(())
}
