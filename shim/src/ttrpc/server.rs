//! The server: connections, and the requests they carry.

use std::{
    cell::{Cell, RefCell},
    os::{fd::OwnedFd, unix::net::UnixListener},
    rc::Rc,
    time::Duration,
};

use anyhow::Result;
use containerd_shim_protos::ttrpc::proto::{Request, Response};
use futures_util::future::LocalBoxFuture;
use hull_runtime_sys::{fd, process, socket};
use protobuf::{Message, MessageField};

use super::{
    Failure, Kind,
    frame::{self, Next},
};
use crate::reactor::{self, Signal, Source};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 256;

/// Requests of one connection in work at one time. containerd waits for each process by one.
const MAX_REQUESTS: usize = 4096;

/// Bytes of answers that a connection has not taken.
const MAX_UNSENT: usize = 8 << 20;

/// How much is read at once; a longer message grows its buffer as it comes.
const READ: usize = 4096;

/// A request, taken from its frame.
#[derive(Debug)]
pub(crate) struct Call {
    /// `containerd.task.v2.Task` and the like.
    pub(crate) service: String,
    /// `Create` and the like.
    pub(crate) method: String,
    /// The message, in protobuf.
    pub(crate) payload: Vec<u8>,
}

/// Whoever answers requests.
pub(crate) trait Service: 'static {
    /// Answers one request with a message in protobuf.
    fn call(self: Rc<Self>, call: Call) -> LocalBoxFuture<'static, Result<Vec<u8>, Failure>>;

    /// Whether a request only waits, so that it ends with its connection or its time limit.
    /// Any other is worked to its end, whoever is still there to hear of it.
    fn only_waits(&self, method: &str) -> bool;
}

/// Accepts connections for ever, and counts those that are open.
///
/// # Errors
/// Those of accept(2) that do not concern one connection alone.
pub(crate) async fn serve(
    listener: UnixListener,
    service: Rc<impl Service>,
    connections: Rc<Cell<usize>>,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let source = Source::new(OwnedFd::from(listener.try_clone()?));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => source.readable().await?,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        reactor::sleep(Duration::from_millis(100)).await;
                    }
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    _ => return Err(error.into()),
                }
                continue;
            }
        };
        let uid = socket::peer_uid(&stream);
        let ours = uid.is_ok_and(|uid| uid == 0 || uid == process::effective_uid());
        if !ours || connections.get() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
            continue;
        }
        connections.set(connections.get() + 1);
        let (service, connections) = (Rc::clone(&service), Rc::clone(&connections));
        reactor::spawn(async move {
            let connection = Rc::new(Connection::new(OwnedFd::from(stream)));
            connection.read(&service).await;
            connection.closed.raise();
            connections.set(connections.get() - 1);
        });
    }
}

struct Connection {
    stream: Source,
    /// What the stream did not take yet.
    unsent: RefCell<Vec<u8>>,
    sending: Cell<bool>,
    requests: Cell<usize>,
    closed: Signal,
}

impl Connection {
    fn new(stream: OwnedFd) -> Self {
        Self {
            stream: Source::new(stream),
            unsent: RefCell::default(),
            sending: Cell::new(false),
            requests: Cell::new(0),
            closed: Signal::default(),
        }
    }

    /// Reads requests until the peer is gone or talks nonsense.
    async fn read(self: &Rc<Self>, service: &Rc<impl Service>) {
        let mut bytes: Vec<u8> = Vec::new();
        let mut skip = 0;
        loop {
            // What an idle connection holds is its buffer: none.
            if bytes.is_empty() {
                bytes = Vec::new();
            }
            if reactor::unless(&self.closed, self.stream.readable()).await.is_none() {
                return;
            }
            match self.receive(&mut bytes, &mut skip) {
                Ok(()) => {}
                Err(error) if error.errno() == libc::EAGAIN => continue,
                Err(_) => return,
            }
            let mut used = 0;
            while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                match frame::next(rest) {
                    Next::Part(_) => break,
                    Next::Whole(frame, length) => {
                        used += length;
                        if frame.kind == frame::REQUEST {
                            self.take(frame.stream, frame.payload, service);
                        }
                    }
                    Next::TooLong { stream, length } => {
                        let text = "the message is longer than 4 MiB";
                        self.answer(stream, Err(Failure::new(Kind::ResourceExhausted, text)));
                        let here = rest.len().min(length);
                        used += here;
                        skip = length - here;
                    }
                }
            }
            bytes.drain(..used);
        }
    }

    /// Appends what has come, less `skip` bytes. The buffer is here so that it is not part of
    /// a task that waits.
    fn receive(&self, bytes: &mut Vec<u8>, skip: &mut usize) -> hull_runtime_sys::Result<()> {
        let mut buffer = [0; READ];
        let n = fd::read(&self.stream, &mut buffer)?;
        if n == 0 {
            return Err(hull_runtime_sys::Error::new("read", libc::ECONNRESET));
        }
        let skipped = n.min(*skip);
        *skip -= skipped;
        bytes.extend_from_slice(&buffer[skipped..n]);
        Ok(())
    }

    /// Takes one request up.
    fn take(self: &Rc<Self>, stream: u32, payload: &[u8], service: &Rc<impl Service>) {
        let request = match Request::parse_from_bytes(payload) {
            Ok(request) => request,
            Err(error) => return self.answer(stream, Err(error.into())),
        };
        // Clients count streams up by odd numbers; even ones are the server's.
        if stream.is_multiple_of(2) {
            let text = "the number of a client's stream must be odd";
            return self.answer(stream, Err(Failure::new(Kind::InvalidArgument, text)));
        }
        if self.requests.get() >= MAX_REQUESTS {
            let text = format!("{MAX_REQUESTS} requests of this connection are in work");
            return self.answer(stream, Err(Failure::new(Kind::ResourceExhausted, text)));
        }
        self.requests.set(self.requests.get() + 1);
        let limit = u64::try_from(request.timeout_nano).ok().filter(|nanos| *nanos > 0);
        let only_waits = service.only_waits(&request.method);
        let call =
            Call { service: request.service, method: request.method, payload: request.payload };
        let (connection, service) = (Rc::clone(self), Rc::clone(service));
        reactor::spawn(async move {
            let work = service.call(call);
            let result = if only_waits {
                let work = reactor::unless(&connection.closed, work);
                let work = match limit {
                    Some(nanos) => reactor::within(Duration::from_nanos(nanos), work).await,
                    None => Some(work.await),
                };
                let late = || Failure::new(Kind::DeadlineExceeded, "context deadline exceeded");
                work.unwrap_or_else(|| Some(Err(late())))
            } else {
                Some(work.await)
            };
            connection.requests.set(connection.requests.get() - 1);
            if let Some(result) = result {
                connection.answer(stream, result);
            }
        });
    }

    fn answer(self: &Rc<Self>, stream: u32, result: Result<Vec<u8>, Failure>) {
        let mut response = Response::default();
        match result {
            Ok(payload) => response.payload = payload,
            Err(failure) => response.status = MessageField::some(failure.status()),
        }
        // Writing to memory fails only for messages beyond 2 GiB.
        let payload = response.write_to_bytes().unwrap_or_default();
        if self.closed.is_raised() {
            return;
        }
        self.unsent.borrow_mut().extend_from_slice(&frame::encode(
            stream,
            frame::RESPONSE,
            &payload,
        ));
        if self.unsent.borrow().len() > MAX_UNSENT {
            self.closed.raise();
        } else if !self.sending.replace(true) {
            let connection = Rc::clone(self);
            reactor::spawn(async move {
                if connection.send().await.is_err() {
                    connection.closed.raise();
                }
                connection.sending.set(false);
            });
        }
    }

    /// Sends until nothing is left to send.
    async fn send(&self) -> hull_runtime_sys::Result<()> {
        loop {
            let sent = {
                let mut unsent = self.unsent.borrow_mut();
                if unsent.is_empty() {
                    *unsent = Vec::new();
                    return Ok(());
                }
                fd::write(&self.stream, &unsent).map(|n| unsent.drain(..n).len())
            };
            match sent {
                Err(error) if error.errno() == libc::EAGAIN => {
                    if reactor::unless(&self.closed, self.stream.writable()).await.is_none() {
                        return Ok(());
                    }
                }
                result => result.map(drop)?,
            }
        }
    }
}
