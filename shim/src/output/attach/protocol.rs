//! The protocol between the shim and attached clients, without the sockets.
//!
//! A stream of frames in each direction. A frame is a type (1 byte), a stream (1 byte), the
//! length of the payload (4 bytes, the most significant first; at most 65,536), the payload.
//!
//! | type | direction | name | stream | payload |
//! | --- | --- | --- | --- | --- |
//! | 0 | to the client | hello | 0 | the version, 1 byte: 1. The first frame |
//! | 1 | to the client | output | 1 stdout, 2 stderr | bytes |
//! | 2 | to the client | end | 1 stdout, 2 stderr | none: nothing more comes of the stream |
//! | 16 | to the shim | stdin | 0 | bytes |
//! | 17 | to the shim | close stdin | 0 | none |
//! | 18 | to the shim | resize | 0 | columns, rows: 2 bytes each, the most significant first |
//! | 19 | to the shim | hold | 0 | none: from now on the container waits for this client |
//!
//! A container with a terminal has all its output on stdout. The output is live: what was
//! before the attachment is in the log. The shim closes the connection after the last `end`, of
//! a client that is too slow and has not sent `hold`, and of one that does not keep to this.

use std::{collections::VecDeque, rc::Rc};

use anyhow::{Result, bail, ensure};

use super::super::Stream;

const VERSION: u8 = 1;

/// The longest payload.
pub(crate) const PAYLOAD_BYTES: usize = 64 * 1024;

/// So much may wait for a client.
pub(super) const QUEUE_BYTES: usize = 256 * 1024;

const HEADER_BYTES: usize = 6;

const HELLO: u8 = 0;
const OUTPUT: u8 = 1;
const END: u8 = 2;
const STDIN: u8 = 16;
const CLOSE_STDIN: u8 = 17;
const RESIZE: u8 = 18;
const HOLD: u8 = 19;

/// With so much waiting for a client that has sent `hold`, no more is read from the container.
/// What is being carried then comes on top: one read of each stream.
const HOLD_BYTES: usize = 64 * 1024;

/// What the shim tells a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Hello,
    /// At most [`PAYLOAD_BYTES`].
    Output(Stream, &'a [u8]),
    End(Stream),
}

impl Event<'_> {
    pub(super) fn encode(self) -> Rc<[u8]> {
        let number = |stream| match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let (kind, stream, payload) = match self {
            Self::Hello => (HELLO, 0, &[VERSION][..]),
            Self::Output(stream, bytes) => (OUTPUT, number(stream), bytes),
            Self::End(stream) => (END, number(stream), &[][..]),
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[kind, stream], &length[..], payload].concat().into()
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Stdin(Vec<u8>),
    CloseStdin,
    Resize { columns: u16, rows: u16 },
    Hold,
}

/// Takes a client's bytes apart. Holds what has come of one frame, and no more than that.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    begun: Vec<u8>,
}

impl Decoder {
    /// The requests that these bytes complete.
    ///
    /// # Errors
    /// For a type, stream or length that is not in the table. The decoder is of no use after.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Request>> {
        self.begun.extend_from_slice(bytes);
        let mut rest = &self.begun[..];
        let mut requests = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let [kind, stream, length @ ..] = *header;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            check(kind, stream, length)?;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            requests.push(match kind {
                STDIN => Request::Stdin(payload.to_vec()),
                CLOSE_STDIN => Request::CloseStdin,
                HOLD => Request::Hold,
                _ => {
                    let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                    Request::Resize { columns: number(0), rows: number(2) }
                }
            });
            rest = after;
        }
        let used = self.begun.len() - rest.len();
        if used == self.begun.len() {
            self.begun = Vec::new();
        } else {
            self.begun.drain(..used);
        }
        Ok(requests)
    }
}

/// Refuses a frame by its header, before its payload is waited for.
fn check(kind: u8, stream: u8, length: usize) -> Result<()> {
    ensure!(stream == 0, "a frame for stream {stream}");
    ensure!(length <= PAYLOAD_BYTES, "a frame of {length} bytes");
    match (kind, length) {
        (STDIN, _) | (CLOSE_STDIN | HOLD, 0) | (RESIZE, 4) => Ok(()),
        (CLOSE_STDIN | HOLD | RESIZE, _) => bail!("a frame of type {kind} with {length} bytes"),
        _ => bail!("a frame of type {kind}"),
    }
}

/// Frames that wait for a client. They are shared among the clients.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Rc<[u8]>>,
    bytes: usize,
    ends: bool,
    holds: bool,
}

/// A client does not read as fast as the container writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooSlow;

/// What is to be done for a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To be sent, then [`Queue::sent`] called.
    Send(Rc<[u8]>),
    Wait,
    /// All is sent, and nothing more comes.
    Close,
}

impl Queue {
    /// Adds a frame. One that is in the middle of being sent counts as waiting.
    pub(super) fn push(&mut self, frame: &Rc<[u8]>) -> Result<(), TooSlow> {
        if self.bytes + frame.len() > QUEUE_BYTES && !self.holds {
            return Err(TooSlow);
        }
        self.bytes += frame.len();
        self.frames.push_back(Rc::clone(frame));
        Ok(())
    }

    /// From now on there is room for every frame: no more are made while it [`Self::is_full`].
    pub(super) fn hold(&mut self) {
        self.holds = true;
    }

    #[cfg(test)]
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Whether the container is to wait.
    pub(super) fn is_full(&self) -> bool {
        self.holds && self.bytes > HOLD_BYTES
    }

    /// Nothing more will be pushed.
    pub(super) fn end(&mut self) {
        self.ends = true;
    }

    pub(super) fn next(&self) -> Next {
        match self.frames.front() {
            Some(frame) => Next::Send(Rc::clone(frame)),
            None if self.ends => Next::Close,
            None => Next::Wait,
        }
    }

    /// The first frame is sent.
    pub(super) fn sent(&mut self) {
        self.bytes -= self.frames.pop_front().map_or(0, |frame| frame.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_bytes() {
        for (event, bytes) in [
            (Event::Hello, &[0, 0, 0, 0, 0, 1, 1][..]),
            (Event::Output(Stream::Stdout, b"ab"), &[1, 1, 0, 0, 0, 2, b'a', b'b']),
            (Event::Output(Stream::Stderr, b""), &[1, 2, 0, 0, 0, 0]),
            (Event::End(Stream::Stdout), &[2, 1, 0, 0, 0, 0]),
            (Event::End(Stream::Stderr), &[2, 2, 0, 0, 0, 0]),
        ] {
            assert_eq!(&*event.encode(), bytes);
        }
        let long = [0; PAYLOAD_BYTES];
        assert_eq!(Event::Output(Stream::Stdout, &long).encode()[..6], [1, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn requests_are_the_same_wherever_the_bytes_are_cut() {
        let bytes = [
            &[16, 0, 0, 0, 0, 3, b'x', b'y', b'z'][..],
            &[18, 0, 0, 0, 0, 4, 1, 2, 0, 80],
            &[16, 0, 0, 0, 0, 0],
            &[17, 0, 0, 0, 0, 0],
            &[19, 0, 0, 0, 0, 0],
        ]
        .concat();
        let expected = [
            Request::Stdin(b"xyz".to_vec()),
            Request::Resize { columns: 258, rows: 80 },
            Request::Stdin(Vec::new()),
            Request::CloseStdin,
            Request::Hold,
        ];
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let requests: Vec<Request> =
                bytes.chunks(size).flat_map(|chunk| decoder.feed(chunk).unwrap()).collect();
            assert_eq!(requests, expected, "pieces of {size}");
            assert_eq!(decoder.begun.capacity(), 0);
        }
    }

    #[test]
    fn a_bad_header_is_refused_before_its_payload() {
        for (header, expected) in [
            ([16, 0, 0, 1, 0, 1], "a frame of 65537 bytes"),
            ([16, 0, 255, 255, 255, 255], "a frame of 4294967295 bytes"),
            ([16, 1, 0, 0, 0, 0], "a frame for stream 1"),
            ([1, 0, 0, 0, 0, 0], "a frame of type 1"),
            ([255, 0, 0, 0, 0, 0], "a frame of type 255"),
            ([17, 0, 0, 0, 0, 1], "a frame of type 17 with 1 bytes"),
            ([18, 0, 0, 0, 0, 3], "a frame of type 18 with 3 bytes"),
            ([19, 0, 0, 0, 0, 1], "a frame of type 19 with 1 bytes"),
            ([20, 0, 0, 0, 0, 0], "a frame of type 20"),
        ] {
            let error = Decoder::default().feed(&header).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let mut decoder = Decoder::default();
        assert!(decoder.feed(&[16, 0, 0, 1, 0, 0]).unwrap().is_empty());
        assert!(decoder.begun.capacity() < 1000, "nothing is made from a declared length");
    }

    #[test]
    fn any_bytes_give_requests_or_an_error() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut decoder = Decoder::default();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut bytes = state.to_be_bytes();
                // Often a header that is nearly right.
                bytes[0] = 15 + bytes[0] % 5;
                bytes[1..4].fill(0);
                if decoder.feed(&bytes).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_queue_has_a_limit_and_an_end() {
        let mut queue = Queue::default();
        assert_eq!(queue.next(), Next::Wait);
        let frame: Rc<[u8]> = vec![7; QUEUE_BYTES / 4].into();
        for _ in 0..4 {
            queue.push(&frame).unwrap();
        }
        let small: Rc<[u8]> = vec![8].into();
        assert_eq!(queue.push(&small), Err(TooSlow));
        assert_eq!(queue.next(), Next::Send(Rc::clone(&frame)));
        // Still being sent.
        assert_eq!(queue.push(&small), Err(TooSlow));
        queue.sent();
        queue.push(&small).unwrap();
        queue.end();
        for _ in 0..3 {
            assert_eq!(queue.next(), Next::Send(Rc::clone(&frame)));
            queue.sent();
        }
        assert_eq!(queue.next(), Next::Send(small));
        queue.sent();
        assert_eq!(queue.next(), Next::Close);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_queue_of_a_client_that_holds_is_full_and_takes_more() {
        let mut queue = Queue::default();
        let frame: Rc<[u8]> = vec![7; HOLD_BYTES].into();
        queue.push(&frame).unwrap();
        queue.push(&frame).unwrap();
        assert!(!queue.is_full(), "nobody waits for it");
        queue.hold();
        assert!(queue.is_full());
        for _ in 0..QUEUE_BYTES / HOLD_BYTES {
            queue.push(&frame).unwrap();
        }
        while queue.bytes > HOLD_BYTES {
            assert!(queue.is_full());
            queue.sent();
        }
        assert!(!queue.is_full());
    }
}
