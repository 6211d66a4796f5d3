//! Frames: a header of ten bytes (length, stream, type, flags; big endian), then a message.

/// The longest message of the protocol, in bytes.
pub(super) const MAX_LENGTH: usize = 4 << 20;

/// A header's length in bytes.
const HEADER: usize = 10;

/// What a frame carries. Numbers are the protocol's.
pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;

/// A frame, borrowed from the bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
}

/// What the bytes that have come so far begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A frame, and how many bytes it takes.
    Whole(Frame<'a>, usize),
    /// The beginning of one; so many bytes are missing at least.
    Part(usize),
    /// A frame longer than is allowed: its stream and how many bytes to skip, header included.
    TooLong { stream: u32, length: usize },
}

/// Looks at the bytes that have come.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Next::Part(HEADER - bytes.len());
    };
    let [a, b, c, d, e, f, g, h, kind, _flags] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let stream = u32::from_be_bytes([e, f, g, h]);
    if length > MAX_LENGTH {
        return Next::TooLong { stream, length: HEADER + length };
    }
    match rest.get(..length) {
        Some(payload) => Next::Whole(Frame { stream, kind, payload }, HEADER + length),
        None => Next::Part(length - rest.len()),
    }
}

/// A frame's bytes. The payload is at most [`MAX_LENGTH`] long.
pub(super) fn encode(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_once_it_is_whole() {
        let bytes = encode(5, REQUEST, b"hello");
        assert_eq!(bytes[..10], [0, 0, 0, 5, 0, 0, 0, 5, 1, 0]);
        let frame = Frame { stream: 5, kind: REQUEST, payload: b"hello" };
        assert_eq!(next(&bytes), Next::Whole(frame, 15));
        for missing in 1..=5 {
            assert_eq!(next(&bytes[..15 - missing]), Next::Part(missing));
        }
        assert_eq!(next(&bytes[..3]), Next::Part(7));
        assert_eq!(next(&[]), Next::Part(10));
    }

    #[test]
    fn a_declared_length_over_the_limit_is_not_believed() {
        let mut bytes = encode(1, REQUEST, b"");
        bytes[..4].copy_from_slice(&0x0040_0000u32.to_be_bytes());
        assert_eq!(next(&bytes), Next::Part(4 << 20));
        bytes[..4].copy_from_slice(&0x0040_0001u32.to_be_bytes());
        assert_eq!(next(&bytes), Next::TooLong { stream: 1, length: (4 << 20) + 11 });
        bytes[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(next(&bytes), Next::TooLong { .. }));
    }

    #[test]
    fn whatever_comes_a_frame_is_within_it_and_within_the_limit() {
        let valid = [encode(1, REQUEST, b"one"), encode(3, RESPONSE, b"another")].concat();
        crate::mutants::each(&valid, 100_000, |bytes| match next(bytes) {
            Next::Whole(frame, length) => {
                assert_eq!(frame.payload, &bytes[HEADER..length]);
                assert!(frame.payload.len() <= MAX_LENGTH);
            }
            Next::Part(missing) => assert!((1..=HEADER + MAX_LENGTH).contains(&missing)),
            Next::TooLong { length, .. } => assert!(length > HEADER + MAX_LENGTH),
        });
    }
}
