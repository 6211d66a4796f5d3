//! The protocol's bytes, for tests that do not keep to it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Request;

/// Length, stream, kind and flags.
const HEADER_BYTES: usize = 10;
/// What ttrpc allows.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Kinds of frames.
pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;

/// A frame; `length` is what its header says.
pub fn frame(length: u32, stream: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(length.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(body);
    bytes
}

/// A frame with a request of the task service. Only Wait heeds the limit.
pub fn request_frame(stream: u32, method: &str, payload: &[u8], limit: Duration) -> Vec<u8> {
    let request = Request {
        service: "containerd.task.v2.Task".to_owned(),
        method: method.to_owned(),
        payload: payload.to_owned(),
        timeout_nano: i64::try_from(limit.as_nanos()).expect("a short time"),
        ..Request::default()
    };
    message_frame(stream, REQUEST, &request)
}

/// A frame with a message.
pub(super) fn message_frame(stream: u32, kind: u8, message: &impl Message) -> Vec<u8> {
    let body = message.write_to_bytes().expect("a message can be written");
    frame(u32::try_from(body.len()).expect("a short message"), stream, kind, &body)
}

/// The next frame's stream and message; nothing at the end, or when it is too long.
pub(super) fn read_frame(from: &mut impl Read) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).ok()?;
    let (length, stream) = length_and_stream(&header);
    let mut body = vec![0; Some(length).filter(|length| *length <= MESSAGE_BYTES_MAX)?];
    from.read_exact(&mut body).ok()?;
    Some((stream, body))
}

fn length_and_stream(header: &[u8; HEADER_BYTES]) -> (usize, u32) {
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    (number(0) as usize, number(4))
}

/// A connection to a shim.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects.
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the shim listens");
        stream.set_write_timeout(Some(super::SOON)).expect("a socket");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. False if the shim has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Closes the sending half.
    pub fn finish(&self) {
        // The shim may have been quicker.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Takes answers until the streams in `wanted` have all had theirs, and takes those out.
    /// Gives the streams of answers that nobody wanted.
    pub fn await_answers(&mut self, wanted: &mut BTreeSet<u32>, limit: Duration) -> Vec<u32> {
        let deadline = Instant::now() + limit;
        let mut others = Vec::new();
        let mut buffer = [0; 65536];
        while !wanted.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left)).expect("a socket");
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            while let Some(stream) = self.take_frame() {
                if !wanted.remove(&stream) {
                    others.push(stream);
                }
            }
        }
        others
    }

    /// Takes the next answer's frame off, and gives its stream.
    fn take_frame(&mut self) -> Option<u32> {
        let header = self.received.first_chunk::<HEADER_BYTES>()?;
        let (length, stream) = length_and_stream(header);
        if self.received.len() < HEADER_BYTES + length {
            return None;
        }
        self.received.drain(..HEADER_BYTES + length);
        Some(stream)
    }
}
