//! A connection to a shim, on which several calls can be under way.
//!
//! Not the ttrpc crate's: the thread that reads its client's answers goes on with the number
//! of a descriptor that it has just closed. Another connection that has got the number by then
//! loses its first answer to it.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Request, Response};

use super::SOON;
use super::wire::{REQUEST, message_frame, read_frame};

/// Whom the answer of each stream is for. Nothing, once the connection is closed.
type Waiting = Mutex<Option<HashMap<u32, Sender<Response>>>>;

#[derive(Debug)]
pub(super) struct Connection {
    /// With the number of the next stream.
    sending: Mutex<(UnixStream, u32)>,
    waiting: Arc<Waiting>,
}

impl Connection {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(SOON))?;
        let reader = stream.try_clone()?;
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let answers = Arc::clone(&waiting);
        thread::spawn(move || {
            take_answers(reader, &answers);
            // Whoever waits is told by the end of the channel.
            *lock(&answers) = None;
        });
        Ok(Self { sending: Mutex::new((stream, 1)), waiting })
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call(&self, request: &Request, limit: Duration) -> Result<Response, String> {
        let closed = || "the shim has closed the connection".to_owned();
        let (sender, answer) = mpsc::channel();
        {
            let mut sending = lock(&self.sending);
            let (stream, number) = &mut *sending;
            lock(&self.waiting).as_mut().ok_or_else(closed)?.insert(*number, sender);
            let bytes = message_frame(*number, REQUEST, request);
            io::Write::write_all(stream, &bytes).map_err(|error| error.to_string())?;
            *number += 2;
        }
        answer.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {limit:?}"),
            RecvTimeoutError::Disconnected => closed(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The reader ends by it. The shim may have been quicker.
        let _ = lock(&self.sending).0.shutdown(Shutdown::Both);
    }
}

fn take_answers(mut stream: UnixStream, waiting: &Waiting) {
    while let Some((number, body)) = read_frame(&mut stream) {
        let Ok(response) = Response::parse_from_bytes(&body) else { return };
        let sender = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&number));
        // Nobody may wait for it any more.
        let _ = sender.map(|sender| sender.send(response));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
