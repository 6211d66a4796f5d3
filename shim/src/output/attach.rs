//! The socket by which clients are attached to a container: they get its output as it comes,
//! type to it, and set its terminal's size. [`protocol`] says what is on the wire.
//!
//! The container does not wait for a client unless the client asks for it (`hold`): what it has
//! not read yet is kept up to a limit, and a client beyond that is disconnected and counted. Of
//! one that has asked no output is lost: nothing more is read from the container until there is
//! room. The other way round a client always waits: nothing more is read from it until the
//! container has taken what it typed.

mod protocol;

use std::{
    cell::{Cell, RefCell},
    fs,
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::lock::Mutex;
use hull_runtime_sys::{fd, process, socket};

use self::protocol::{Decoder, Event, Next, PAYLOAD_BYTES, Queue, Request, TooSlow};
use super::Stream;
use crate::reactor::{self, Signal, Source};

/// Clients at one time.
const MAX_CLIENTS: usize = 64;

/// How much is read from a client at once.
const READ_BYTES: usize = 16 * 1024;

/// What clients act on.
pub(crate) trait Console: 'static {
    /// Writes to the container's standard input; ends when it has taken all.
    async fn write_stdin(&self, bytes: &[u8]) -> Result<()>;

    /// Closes the container's standard input.
    fn close_stdin(&self);

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// If there is no terminal.
    fn resize(&self, columns: u16, rows: u16) -> Result<()>;
}

/// The socket, and who is attached. Dropped, it disconnects them and removes the socket.
pub(crate) struct Attach {
    path: PathBuf,
    clients: Rc<Clients>,
}

#[derive(Default)]
struct Clients {
    list: RefCell<Vec<Rc<Client>>>,
    /// Disconnected because they were too slow.
    dropped: Cell<u64>,
    /// The streams that have ended.
    ended: [Cell<bool>; 2],
    /// Raised, and replaced, when there may be room again for those that hold.
    room: RefCell<Signal>,
    closed: Signal,
}

struct Client {
    source: Source,
    queue: RefCell<Queue>,
    /// Replaced by a new one each time it is raised.
    queued: RefCell<Signal>,
    gone: Signal,
}

impl Attach {
    /// Listens at `path`, in a directory that exists. A socket that a killed shim has left
    /// there is replaced.
    ///
    /// # Errors
    /// If something else is there, or the socket can't be made.
    pub(crate) fn listen(path: &Path, console: Rc<impl Console>) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(old) => {
                ensure!(old.file_type().is_socket(), "{} is not a socket", path.display());
                fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("stat {}", path.display())),
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
        // Whoever connects before this is judged by its user (`accept`).
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("chmod {}", path.display()))?;
        listener.set_nonblocking(true).context("set the socket non-blocking")?;
        let clients = Rc::new(Clients::default());
        let accepting = Rc::clone(&clients);
        reactor::spawn(async move {
            let closed = accepting.closed.clone();
            // It ends with the socket.
            let _ = reactor::unless(&closed, accept(listener, accepting, console)).await;
        });
        Ok(Self { path: path.to_owned(), clients })
    }

    /// Queues output for every client.
    pub(crate) fn output(&self, stream: Stream, bytes: &[u8]) {
        if !self.clients.list.borrow().is_empty() {
            for payload in bytes.chunks(PAYLOAD_BYTES) {
                self.clients.push(Event::Output(stream, payload));
            }
        }
    }

    /// Waits until there is room for more output for every client that holds.
    pub(crate) async fn room(&self) {
        while self.clients.list.borrow().iter().any(|client| client.queue.borrow().is_full()) {
            let room = self.clients.room.borrow().clone();
            room.wait().await;
        }
    }

    /// Tells every client that a stream has ended. After the second, clients are disconnected
    /// as soon as they have read everything, and later ones at once.
    pub(crate) fn end(&self, stream: Stream) {
        if !self.clients.ended[stream as usize].replace(true) {
            self.clients.push(Event::End(stream));
            if self.clients.ended.iter().all(Cell::get) {
                self.clients.list.borrow().iter().for_each(|client| client.end());
            }
        }
    }

    /// How many clients are attached.
    #[cfg(test)]
    pub(crate) fn clients(&self) -> usize {
        self.clients.list.borrow().len()
    }

    /// How many clients were disconnected because they were too slow.
    pub(crate) fn dropped_clients(&self) -> u64 {
        self.clients.dropped.get()
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        self.clients.closed.raise();
        for client in self.clients.list.borrow().iter() {
            client.gone.raise();
        }
        // If it is gone already, that is what was wanted.
        let _ = fs::remove_file(&self.path);
    }
}

impl Clients {
    /// Queues a frame for all; those that have no room for it are disconnected.
    fn push(&self, event: Event<'_>) {
        let frame = event.encode();
        self.list.borrow_mut().retain(|client| {
            let is_fast = client.queue.borrow_mut().push(&frame) != Err(TooSlow);
            if is_fast {
                client.wake();
            } else {
                client.gone.raise();
                self.dropped.set(self.dropped.get() + 1);
            }
            is_fast
        });
    }

    /// Attaches a client, with what it must know first.
    fn add(&self, stream: UnixStream) -> Rc<Client> {
        let mut queue = Queue::default();
        let ended = Stream::BOTH.into_iter().filter(|stream| self.ended[*stream as usize].get());
        for event in [Event::Hello].into_iter().chain(ended.map(Event::End)) {
            // Three small frames have room in an empty queue.
            let _ = queue.push(&event.encode());
        }
        if self.ended.iter().all(Cell::get) {
            queue.end();
        }
        let client = Rc::new(Client {
            source: Source::new(OwnedFd::from(stream)),
            queue: RefCell::new(queue),
            queued: RefCell::default(),
            gone: Signal::default(),
        });
        self.list.borrow_mut().push(Rc::clone(&client));
        client
    }

    fn remove(&self, client: &Rc<Client>) {
        client.gone.raise();
        self.list.borrow_mut().retain(|other| !Rc::ptr_eq(other, client));
        self.room.take().raise();
    }
}

/// Accepts clients for as long as the future is polled.
async fn accept(
    listener: UnixListener,
    clients: Rc<Clients>,
    console: Rc<impl Console>,
) -> Result<()> {
    let source = Source::new(OwnedFd::from(listener));
    // What two clients type is mixed by whole frames.
    let typing = Rc::new(Mutex::new(()));
    loop {
        source.readable().await?;
        // A duplicate for the length of the call, so that a waiting socket costs one.
        let accepted = UnixListener::from(fd::duplicate(&source, 3)?).accept();
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
                {
                    reactor::sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        let ours = |uid| uid == 0 || uid == process::effective_uid();
        let is_full = clients.list.borrow().len() >= MAX_CLIENTS;
        if is_full
            || !socket::peer_uid(&stream).is_ok_and(ours)
            || stream.set_nonblocking(true).is_err()
        {
            continue;
        }
        let client = clients.add(stream);
        let (sender, all) = (Rc::clone(&client), Rc::clone(&clients));
        reactor::spawn(async move {
            let gone = sender.gone.clone();
            let _ = reactor::unless(&gone, sender.send(&all.room)).await;
            all.remove(&sender);
        });
        let (console, all, typing) = (Rc::clone(&console), Rc::clone(&clients), Rc::clone(&typing));
        reactor::spawn(async move {
            let gone = client.gone.clone();
            let _ = reactor::unless(&gone, client.receive(&*console, &typing)).await;
            all.remove(&client);
        });
    }
}

impl Client {
    fn wake(&self) {
        self.queued.take().raise();
    }

    fn end(&self) {
        self.queue.borrow_mut().end();
        self.wake();
    }

    /// Sends what is queued, until the end.
    async fn send(&self, room: &RefCell<Signal>) -> Result<()> {
        loop {
            let next = self.queue.borrow().next();
            match next {
                Next::Send(frame) => {
                    self.source.write_all(&frame).await?;
                    let was_full = self.queue.borrow().is_full();
                    self.queue.borrow_mut().sent();
                    if was_full {
                        room.take().raise();
                    }
                }
                Next::Wait => {
                    let queued = self.queued.borrow().clone();
                    queued.wait().await;
                }
                Next::Close => return Ok(()),
            }
        }
    }

    /// Does what the client asks for, until it is gone.
    ///
    /// # Errors
    /// If it does not keep to the protocol, or the connection is broken.
    async fn receive(&self, console: &impl Console, typing: &Mutex<()>) -> Result<()> {
        let mut decoder = Decoder::default();
        loop {
            self.source.readable().await?;
            // Not kept while nothing comes.
            let mut buffer = vec![0; READ_BYTES];
            let n = self.source.read(&mut buffer).await?;
            if n == 0 {
                // A client that has only closed its sending half goes on reading.
                return Ok(self.source.hung_up().await?);
            }
            for request in decoder.feed(&buffer[..n])? {
                // What the container does not take (its input is closed, it has no terminal)
                // is no reason to take its output from the client.
                let _ = match request {
                    Request::Stdin(bytes) => {
                        let _turn = typing.lock().await;
                        console.write_stdin(&bytes).await
                    }
                    Request::CloseStdin => {
                        console.close_stdin();
                        Ok(())
                    }
                    Request::Resize { columns, rows } => console.resize(columns, rows),
                    Request::Hold => {
                        self.queue.borrow_mut().hold();
                        Ok(())
                    }
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
