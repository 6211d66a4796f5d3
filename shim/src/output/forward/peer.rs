//! The receiver of messages, and the connection to it.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys::{fd, socket};

use super::{super::batch::Batch, journald, options::Address};
use crate::{
    log,
    reactor::{self, Source},
};

/// How long is waited for a receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until a connection is made.
    pub(super) connect: Duration,
    /// Until one that takes nothing takes something. dockerd, and with it the container, waits
    /// for ever.
    pub(super) stall: Duration,
    /// Before one that was waited for in vain is tried again.
    pub(super) rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), stall: seconds(30), rest: seconds(30) }
    }
}

/// Why messages are lost.
enum Refusal {
    /// The receiver is not there, or has closed the connection.
    Error(anyhow::Error),
    /// It takes nothing.
    Timeout(Duration),
}

impl From<hull_runtime_sys::Error> for Refusal {
    fn from(error: hull_runtime_sys::Error) -> Self {
        Self::Error(error.into())
    }
}

/// A receiver of messages.
pub(super) struct Peer {
    address: Address,
    limits: Limits,
    connection: Option<Connection>,
    /// It is not tried before this.
    rests_until: Option<Instant>,
    /// How many messages are lost since it takes none.
    pub(super) lost: u64,
}

impl Peer {
    pub(super) fn new(address: Address, limits: Limits) -> Self {
        Self { address, limits, connection: None, rests_until: None, lost: 0 }
    }

    /// Connects, if it is not connected.
    ///
    /// # Errors
    /// If nobody is there, or does not answer in time.
    pub(super) async fn connect(&mut self) -> Result<()> {
        match self.connected().await {
            Ok(()) => Ok(()),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::Timeout(limit)) => bail!("no connection in {limit:?}"),
        }
    }

    async fn connected(&mut self) -> Result<(), Refusal> {
        if self.connection.is_none() {
            let limit = self.limits.connect;
            let opened = reactor::within(limit, Connection::open(&self.address)).await;
            let opened = opened.ok_or(Refusal::Timeout(limit))?;
            self.connection = Some(opened.map_err(Refusal::Error)?);
        }
        Ok(())
    }

    /// Hands over all messages of the batch, or counts those that are lost.
    pub(super) async fn deliver(&mut self, batch: &Batch) {
        let mut done = 0;
        while done < batch.bytes.len() {
            if self.rests_until.is_some_and(|until| Instant::now() < until) {
                self.lost += batch.entries_after(done);
                return;
            }
            let is_new = self.connection.is_none();
            let (reached, refusal) = match self.connected().await {
                Err(refusal) => (done, refusal),
                Ok(()) => {
                    let Some(connection) = &self.connection else { return };
                    match connection.send(batch, done, self.limits.stall).await {
                        Ok(()) => break,
                        Err(failed) => failed,
                    }
                }
            };
            self.connection = None;
            // An old connection may be one to a receiver that was started again.
            let again = !is_new && matches!(refusal, Refusal::Error(_)) || reached > done;
            done = reached;
            if !again {
                self.refused(batch.entries_after(done), refusal);
                return;
            }
        }
        self.recovered();
    }

    /// Counts messages that are lost; the shim's log tells when that begins.
    pub(super) fn lose(&mut self, messages: u64, why: &str) {
        if messages > 0 && self.lost == 0 {
            log::error(&format!("messages to {} are lost: {why}", self.address.text()));
        }
        self.lost += messages;
    }

    fn refused(&mut self, messages: u64, refusal: Refusal) {
        let why = match refusal {
            Refusal::Error(error) => log::sentence(&error),
            Refusal::Timeout(limit) => {
                self.rests_until = Some(Instant::now() + self.limits.rest);
                format!("it takes none for {limit:?}")
            }
        };
        self.lose(messages, &why);
    }

    fn recovered(&mut self) {
        self.rests_until = None;
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            log::error(&format!("{lost} messages to {} were lost", self.address.text()));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.recovered();
    }
}

impl Address {
    fn text(&self) -> String {
        match self {
            Self::Local => "syslog".to_owned(),
            Self::Unixgram(path) | Self::Unix(path) => format!("syslog at {}", path.display()),
            Self::Udp(address) | Self::Tcp(address) => format!("syslog at {address}"),
            Self::Journal(_) => "journald".to_owned(),
        }
    }
}

/// Where a host's syslog listens, in the order in which it is looked for.
const PLACES: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

struct Connection {
    source: Source,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message is a datagram.
    Datagrams,
    /// The same, and a large one is a file.
    Journal,
    /// Messages are lines.
    Stream,
}

impl Connection {
    async fn open(address: &Address) -> Result<Self> {
        let connection = |fd: hull_runtime_sys::Result<OwnedFd>, kind| -> Result<Self> {
            Ok(Self { source: Source::new(fd?), kind })
        };
        let datagrams =
            |path: &Path| connection(socket::connect_datagram_nonblocking(path), Kind::Datagrams);
        let stream =
            |path: &Path| connection(socket::connect_stream_nonblocking(path), Kind::Stream);
        match address {
            Address::Unixgram(path) => datagrams(path),
            Address::Unix(path) => stream(path),
            Address::Local => {
                let places = PLACES.map(PathBuf::from);
                let mut found = places.iter().map(|path| datagrams(path));
                let mut others = places.iter().map(|path| stream(path));
                let found = found.find_map(Result::ok).or_else(|| others.find_map(Result::ok));
                found.context("Unix syslog delivery error")
            }
            Address::Journal(path) => {
                connection(socket::connect_datagram_nonblocking(path), Kind::Journal)
                    .context("journald is not enabled on this host")
            }
            Address::Udp(address) => {
                Ok(Self { source: Source::new(connect_udp(*address)?), kind: Kind::Datagrams })
            }
            Address::Tcp(address) => {
                let source = Source::new(socket::begin_tcp(*address)?);
                source.writable().await?;
                socket::take_error(&source).with_context(|| address.to_string())?;
                Ok(Self { source, kind: Kind::Stream })
            }
        }
    }

    /// Sends what the batch has from `start` on. A failure comes with the end of the last
    /// message that is sent whole.
    async fn send(
        &self,
        batch: &Batch,
        start: usize,
        stall: Duration,
    ) -> Result<(), (usize, Refusal)> {
        if self.kind == Kind::Stream && self.is_closed() {
            let closed = anyhow::anyhow!("the connection was closed");
            return Err((start, Refusal::Error(closed)));
        }
        let mut sent = start;
        while sent < batch.bytes.len() {
            let next = match self.kind {
                Kind::Stream => batch.bytes.len(),
                Kind::Datagrams | Kind::Journal => batch.entry_end(sent as u64 + 1),
            };
            let waiting = match self.send_some(&batch.bytes[sent..next]) {
                Ok(n) => {
                    sent += n;
                    continue;
                }
                Err(error) if error.errno() == libc::EAGAIN => {
                    reactor::within(stall, self.source.writable()).await
                }
                Err(error) => Some(Err(error)),
            };
            let refusal = match waiting {
                Some(Ok(())) => continue,
                Some(Err(error)) => error.into(),
                None => Refusal::Timeout(stall),
            };
            return Err((batch.whole_entries(sent).max(start), refusal));
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8]) -> hull_runtime_sys::Result<usize> {
        if self.kind == Kind::Stream {
            return fd::write(&self.source, bytes);
        }
        let sent = match socket::send(&self.source, bytes, &[]) {
            Err(error)
                if self.kind == Kind::Journal
                    && matches!(error.errno(), libc::EMSGSIZE | libc::ENOBUFS) =>
            {
                journald::send_large(&self.source, bytes)
            }
            sent => sent,
        };
        sent.map(|()| bytes.len())
    }

    /// Whether the receiver has closed it: a write would seem to succeed.
    fn is_closed(&self) -> bool {
        let mut answer = [0; 1024];
        match fd::read(&self.source, &mut answer) {
            Ok(0) => true,
            // Nobody has asked it anything.
            Ok(_) => false,
            Err(error) => error.errno() != libc::EAGAIN,
        }
    }
}

fn connect_udp(address: SocketAddr) -> Result<OwnedFd> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let connect = || -> std::io::Result<OwnedFd> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    connect().with_context(|| format!("connect {address}"))
}
