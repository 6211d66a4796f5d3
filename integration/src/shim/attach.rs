//! A client of the socket by which clients are attached to a container. The protocol is in
//! `shim/src/output/attach/protocol.rs`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::SOON;
use crate::wait_for;

/// What an attached client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The protocol's version.
    Hello(Vec<u8>),
    /// Output: 1 is standard output, 2 standard error.
    Output(u8, Vec<u8>),
    /// The end of a stream.
    End(u8),
    /// The connection is closed.
    Closed,
}

/// An attached client.
#[derive(Debug)]
pub struct Attached {
    stream: UnixStream,
}

impl Attached {
    /// Connects, and takes the greeting.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> Self {
        let stream =
            wait_for("the attach socket", SOON, || UnixStream::connect(path.as_ref()).ok());
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        stream.set_write_timeout(Some(SOON)).expect("a socket");
        let mut client = Self { stream };
        assert_eq!(client.take(), Told::Hello(vec![1]));
        client
    }

    /// The next frame.
    #[track_caller]
    pub fn take(&mut self) -> Told {
        let mut header = [0; 6];
        match self.stream.read(&mut header[..1]) {
            // Closed with something unread on the other side.
            Ok(0) => return Told::Closed,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Told::Closed;
            }
            result => result.expect("a frame comes"),
        };
        if self.stream.read_exact(&mut header[1..]).is_err() {
            return Told::Closed;
        }
        let [kind, stream, length @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes(length) as usize];
        if self.stream.read_exact(&mut payload).is_err() {
            return Told::Closed;
        }
        match kind {
            0 => Told::Hello(payload),
            1 => Told::Output(stream, payload),
            2 => Told::End(stream),
            other => panic!("a frame of type {other}"),
        }
    }

    /// Reads until `text` has come on a stream, and gives what has.
    #[track_caller]
    pub fn read_until(&mut self, stream: u8, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.take() {
                Told::Output(from, bytes) if from == stream => {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                Told::Closed => panic!("closed after {seen:?}"),
                _ => {}
            }
        }
        seen
    }

    /// Reads to the end of the connection, and gives the streams that were said to have ended.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut ended = Vec::new();
        loop {
            match self.take() {
                Told::Closed => return ended,
                Told::End(stream) => ended.push(stream),
                _ => {}
            }
        }
    }

    /// Types.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.send(16, 0, text.as_bytes());
    }

    /// Closes the container's input.
    #[track_caller]
    pub fn close_input(&mut self) {
        self.send(17, 0, b"");
    }

    /// Sets the size of the container's terminal.
    #[track_caller]
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.send(18, 0, &[columns.to_be_bytes(), rows.to_be_bytes()].concat());
    }

    /// Sends a frame of any type.
    #[track_caller]
    pub fn send(&mut self, kind: u8, stream: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let bytes = [&[kind, stream], &length[..], payload].concat();
        self.stream.write_all(&bytes).expect("the shim takes it");
    }
}
