//! The manager's side of the shim's attach socket. The shim documents the frames.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// The longest payload of a frame.
const PAYLOAD_BYTES: usize = 64 * 1024;

const VERSION: u8 = 1;

const HELLO: u8 = 0;
const OUTPUT: u8 = 1;
const END: u8 = 2;
const STDIN: u8 = 16;
const CLOSE_STDIN: u8 = 17;
const RESIZE: u8 = 18;
const HOLD: u8 = 19;

/// How long a place among the shim's clients is waited for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// One of the two streams of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What the shim tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Output(Stream, Vec<u8>),
    End(Stream),
}

/// A client that the container waits for.
pub(crate) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Connection {
    /// When it returns, the client is attached: it gets all output from now on.
    ///
    /// # Errors
    /// [`hull_manager_core::ErrorKind::ResourceExhausted`] if the shim has too many clients.
    pub(crate) async fn open(socket: &Path) -> Result<Self> {
        let began = Instant::now();
        let (stream, hello) = loop {
            let stream = UnixStream::connect(socket).await.about(socket.display())?;
            match greet(stream).await {
                // The shim hangs up on one too many. One that has just left may still be counted.
                Err(error) if is_hang_up(&error) && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if is_hang_up(&error) => {
                    return Err(Error::exhausted("too many clients are attached to the container"));
                }
                greeted => break greeted.about(socket.display())?,
            }
        };
        if hello != [HELLO, 0, 0, 0, 0, 1, VERSION] {
            return Err(Error::internal(format!(
                "{} speaks another protocol: {hello:?}",
                socket.display()
            )));
        }
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Reader(reader), writer: Writer(writer) })
    }
}

async fn greet(mut stream: UnixStream) -> std::io::Result<(UnixStream, [u8; 7])> {
    stream.write_all(&frame(HOLD, &[])).await?;
    let mut hello = [0; 7];
    stream.read_exact(&mut hello).await?;
    Ok((stream, hello))
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
    )
}

pub(super) struct Reader(OwnedReadHalf);

impl Reader {
    /// The next event; none at the connection's end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>> {
        let mut header = [0; 6];
        match self.0.read_exact(&mut header).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.about("the attach socket")?,
        };
        let [kind, stream, length @ ..] = header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(Error::internal(format!("a frame for stream {other}"))),
        };
        match kind {
            OUTPUT if length <= PAYLOAD_BYTES => {
                let mut payload = vec![0; length];
                self.0.read_exact(&mut payload).await.about("the attach socket")?;
                Ok(Some(Event::Output(stream, payload)))
            }
            END if length == 0 => Ok(Some(Event::End(stream))),
            _ => Err(Error::internal(format!("a frame of type {kind} with {length} bytes"))),
        }
    }
}

pub(super) struct Writer(OwnedWriteHalf);

impl Writer {
    pub(super) async fn stdin(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for payload in bytes.chunks(PAYLOAD_BYTES) {
            self.0.write_all(&frame(STDIN, payload)).await?;
        }
        Ok(())
    }

    pub(super) async fn close_stdin(&mut self) -> std::io::Result<()> {
        self.0.write_all(&frame(CLOSE_STDIN, &[])).await
    }

    pub(super) async fn resize(&mut self, columns: u16, rows: u16) -> std::io::Result<()> {
        let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
        self.0.write_all(&frame(RESIZE, &[a, b, c, d])).await
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind, 0], &length[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_asks_to_be_waited_for_and_reads_events() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let shim = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hold = [0; 6];
            stream.read_exact(&mut hold).await.unwrap();
            stream.write_all(&[0, 0, 0, 0, 0, 1, 1]).await.unwrap();
            stream.write_all(&[1, 2, 0, 0, 0, 2, b'h', b'i', 2, 1, 0, 0, 0, 0]).await.unwrap();
            let mut typed = [0; 17];
            stream.read_exact(&mut typed).await.unwrap();
            (hold, typed)
        });
        let Connection { mut reader, mut writer } = Connection::open(&path).await.unwrap();
        let output = Event::Output(Stream::Stderr, b"hi".to_vec());
        assert_eq!(reader.next().await.unwrap(), Some(output));
        assert_eq!(reader.next().await.unwrap(), Some(Event::End(Stream::Stdout)));
        writer.stdin(b"x").await.unwrap();
        writer.resize(80, 24).await.unwrap();
        let (hold, typed) = shim.await.unwrap();
        assert_eq!(hold, [19, 0, 0, 0, 0, 0]);
        assert_eq!(typed, [16, 0, 0, 0, 0, 1, b'x', 18, 0, 0, 0, 0, 4, 0, 80, 0, 24]);
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_client_too_many_gets_a_place_that_becomes_free_or_a_sentence() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let shim = tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[0, 0, 0, 0, 0, 1, 1]).await.unwrap();
            (listener, stream)
        });
        drop(Connection::open(&path).await.unwrap());
        let (listener, _) = shim.await.unwrap();
        let full = tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let refused = Connection::open(&path).await.err().unwrap();
        assert_eq!(refused.kind(), hull_manager_core::ErrorKind::ResourceExhausted);
        assert_eq!(refused.to_string(), "too many clients are attached to the container");
        full.abort();
    }

    #[tokio::test]
    async fn another_protocol_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let other = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
            stream.write_all(&[0, 0, 0, 0, 0, 1, 2]).await.unwrap();
        };
        let (opened, ()) = tokio::join!(Connection::open(&path), other);
        assert!(opened.err().unwrap().to_string().contains("another protocol"));
    }
}
