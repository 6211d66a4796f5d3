//! `attach`: a container's streams, relayed between its shim and a client.
//!
//! A client may come before the container starts: then it waits in the container's list, and the
//! owner connects it between the making of the process and its start.

mod funnel;
mod wire;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1::{self, attach_request, attach_response};
use tokio::sync::{mpsc, oneshot};

use self::wire::{Event, Reader, Writer};
pub(crate) use self::{
    funnel::{Funnel, funnel},
    wire::{Connection, Stream},
};
use crate::{Answers, Containers, Messages, handle::Handle, state::Ask};

/// Answers that may wait for a client; each is at most a frame.
pub(crate) const ANSWERS: usize = 4;

/// A connection to a container's streams.
pub(crate) struct Joined {
    connection: Connection,
    /// Ends of the container that were before: the next one ends the streams.
    exits: u64,
}

/// Clients that wait for the container's start.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Client>>);

/// One that waits; it is told why, if it can't be attached.
type Client = oneshot::Sender<Result<Joined>>;

/// Clients that wait at one time.
const MAX_WAITING: usize = 64;

impl Waiting {
    fn add(&self, client: Client) -> Result<()> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|client| !client.is_closed());
        if list.len() >= MAX_WAITING {
            return Err(Error::exhausted(format!(
                "{MAX_WAITING} clients wait for this container already"
            )));
        }
        list.push(client);
        Ok(())
    }

    /// Those that wait; they wait no more. Dropped, they are told that there is no container.
    pub(crate) fn take(&self) -> Vec<Client> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handle {
    /// Attaches all that wait. Each is told of its own failure.
    ///
    /// # Errors
    /// That of one that can't be attached.
    pub(crate) async fn connect_waiting(&self, socket: &Path) -> Result<()> {
        let exits = self.now().exits;
        let clients = self.attaching.take().into_iter().filter(|client| !client.is_closed());
        let joining = clients.map(async |client| {
            let (joined, result) = match Connection::open(socket).await {
                Ok(connection) => (Ok(Joined { connection, exits }), Ok(())),
                Err(error) => (Err(Error::new(error.kind(), &error)), Err(error)),
            };
            // One that has left meanwhile is disconnected again.
            let _ = client.send(joined);
            result
        });
        futures_util::future::join_all(joining).await.into_iter().collect()
    }
}

/// The terminal's size as the shim takes it.
pub(crate) fn size(size: &v1::TerminalSize) -> Result<(u16, u16)> {
    let number = |number: u32| {
        u16::try_from(number).map_err(|_| {
            Error::invalid(format!("a terminal of {number} rows or columns is too large"))
        })
    };
    Ok((number(size.columns)?, number(size.rows)?))
}

impl Containers {
    /// As in containers.proto. The first message is `open`.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn attach(
        &self,
        mut messages: Messages<v1::AttachRequest>,
    ) -> Result<Answers<v1::AttachResponse>> {
        let first = messages.recv().await.and_then(|message| message.message);
        let Some(attach_request::Message::Open(open)) = first else {
            return Err(Error::invalid("the first message of an attach must be open"));
        };
        let handle = self.find(&open.container)?;
        handle.judge(Ask::Attach, &open.container)?;
        let record = handle.record();
        let options = &record.effective;
        let rules = Rules {
            stdin: open.stdin && options.open_stdin,
            stdout: open.stdout,
            stderr: open.stderr,
            ends_stdin: options.stdin_once && !options.tty,
        };
        let socket = self.0.attach_socket(&handle.id);
        let (sender, connection) = oneshot::channel();
        handle.attaching.add(sender)?;
        // It may have been started meanwhile: then nobody comes for the list.
        if handle.now().is_live() {
            // Each gets its failure where it waits.
            let _ = handle.connect_waiting(&socket).await;
        }
        let (answers, answered) = mpsc::channel(ANSWERS);
        let attached = attach_response::Message::Attached(v1::Attached { tty: options.tty });
        // The receiver is ours yet.
        let _ = answers.send(Ok(v1::AttachResponse { message: Some(attached) })).await;
        self.0.event(&record, "attach", &[]);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            if open.logs
                && let Err(error) = inner.log_before(&handle, &open, &answers).await
            {
                // Whoever asked may have gone.
                let _ = answers.send(Err(error)).await;
                return;
            }
            let closed = answers.clone();
            let joined = tokio::select! {
                joined = connection => joined,
                () = closed.closed() => return,
            };
            match joined {
                Ok(Err(error)) => {
                    let _ = answers.send(Err(error)).await;
                }
                Ok(Ok(joined)) => {
                    let left = relay(&handle, joined, messages, answers, rules).await;
                    if left {
                        inner.event(&handle.record(), "detach", &[]);
                    }
                }
                // The container could not be started, or was removed.
                Err(_) => {
                    let ended = attach_response::Message::Ended(v1::Ended::default());
                    let _ = answers.send(Ok(v1::AttachResponse { message: Some(ended) })).await;
                }
            }
        });
        Ok(answered)
    }
}

/// What a client gets, and may.
#[derive(Clone, Copy, Debug)]
struct Rules {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    /// The container's stdin ends with this client's.
    ends_stdin: bool,
}

impl Rules {
    fn wants(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// Carries until the streams end, or the client leaves: then true.
async fn relay(
    handle: &Arc<Handle>,
    joined: Joined,
    messages: Messages<v1::AttachRequest>,
    answers: mpsc::Sender<Result<v1::AttachResponse>>,
    rules: Rules,
) -> bool {
    let Joined { connection: Connection { reader, writer }, exits } = joined;
    let ending = Arc::clone(handle);
    let (funnel, emptying) = funnel(answers, async move {
        let state = ending.until(|state| state.exits > exits).await;
        Ok((state.exits > exits).then_some(state.exit_code))
    });
    let emptying = tokio::spawn(emptying);
    let typing = tokio::spawn(type_in(writer, messages, rules));
    let over = || async {
        handle.until(|state| state.exits > exits).await;
    };
    let left = tokio::select! {
        () = take_output(reader, &funnel, rules, over) => false,
        () = funnel.gone() => true,
    };
    drop(funnel);
    // It ends when the client has taken all, and the end is known, or when it leaves.
    let _ = emptying.await;
    typing.abort();
    left
}

async fn take_output<F: Future<Output = ()>>(
    mut reader: Reader,
    funnel: &Funnel,
    rules: Rules,
    over: impl Fn() -> F,
) {
    let mut open = 2;
    while open > 0 {
        match reader.next().await {
            Ok(Some(Event::Output(stream, bytes))) if rules.wants(stream) => {
                if funnel.put(stream, bytes, over()).await.is_err() {
                    return;
                }
            }
            Ok(Some(Event::Output(..))) => {}
            Ok(Some(Event::End(_))) => open -= 1,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "an attached client is cut off");
                return;
            }
        }
    }
}

/// Carries what the client types. Ends with the client's messages.
async fn type_in(mut writer: Writer, mut messages: Messages<v1::AttachRequest>, rules: Rules) {
    use attach_request::Message;
    let mut typed = async || -> std::io::Result<()> {
        while let Some(message) = messages.recv().await {
            match message.message {
                Some(Message::Stdin(bytes)) if rules.stdin => writer.stdin(&bytes).await?,
                Some(Message::CloseStdin(_)) if rules.stdin && rules.ends_stdin => {
                    writer.close_stdin().await?;
                }
                Some(Message::Resize(to)) => {
                    if let Ok((columns, rows)) = size(&to) {
                        writer.resize(columns, rows).await?;
                    }
                }
                // What was not asked for in `open` is not passed on.
                _ => {}
            }
        }
        if rules.stdin && rules.ends_stdin {
            writer.close_stdin().await?;
        }
        Ok(())
    };
    // The container has ended: its output says so.
    let _ = typed().await;
    // The sending half stays open: its end would be the client's.
    std::future::pending::<()>().await;
}
