//! The plain bytes of an archive: decompressed, measured and hashed in a thread of their own, so
//! that the kernel's work on files and the decompression happen at once.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

use hull_specs_image::{Digest, digest::Hasher};

use crate::{budget::Budgets, compression::Decompressor, error::Refused};

/// Large enough that passing one costs nothing, small enough to stay in the processor's cache.
const PIECE_BYTES: usize = 128 << 10;
/// How far the decompression may be ahead.
const PIECES: usize = 8;

/// What went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// The digest of the plain bytes.
    pub(crate) digest: Digest,
    pub(crate) plain_bytes: u64,
    pub(crate) input_bytes: u64,
}

/// The other end of the thread.
pub(crate) struct Pieces {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

/// Starts the thread; it ends with its input, or when the pieces are no longer wanted.
pub(crate) fn start<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    input: R,
    budgets: Budgets,
) -> (Pieces, ScopedJoinHandle<'scope, io::Result<Measured>>) {
    let (full_sender, full) = sync_channel(PIECES);
    let (empty, empty_receiver) = sync_channel(PIECES);
    let thread = scope.spawn(move || {
        let result = produce(input, budgets, &full_sender, &empty_receiver);
        match result {
            Ok(measured) => Ok(measured),
            Err(error) => {
                // The reader is told too, as the reason of the end.
                let copy = copy_of(&error);
                drop(full_sender.send(Err(error)));
                Err(copy)
            }
        }
    });
    (Pieces { full, empty, piece: Vec::new(), at: 0 }, thread)
}

fn copy_of(error: &io::Error) -> io::Error {
    match (error.raw_os_error(), error.get_ref().and_then(|e| e.downcast_ref::<Refused>())) {
        (Some(number), _) => io::Error::from_raw_os_error(number),
        (None, Some(refused)) => io::Error::new(error.kind(), refused.clone()),
        (None, None) => io::Error::new(error.kind(), error.to_string()),
    }
}

fn produce(
    input: impl Read,
    budgets: Budgets,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Measured> {
    let counted = Counted { input, bytes: 0 };
    let mut plain = Decompressor::new(BufReader::with_capacity(PIECE_BYTES, counted))?;
    let mut hasher = Hasher::default();
    let mut plain_bytes = 0;
    loop {
        let mut piece = empty.try_recv().unwrap_or_else(|_| vec![0; PIECE_BYTES]);
        piece.resize(PIECE_BYTES, 0);
        let mut filled = 0;
        // A piece waits until it is full: small ones would cost a wake-up each.
        while let Some(rest) = piece.get_mut(filled..)
            && !rest.is_empty()
        {
            match plain.read(rest) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        piece.truncate(filled);
        let input_bytes = plain.input().get_ref().bytes;
        if filled == 0 {
            return Ok(Measured { digest: hasher.finish(), plain_bytes, input_bytes });
        }
        hasher.update(&piece);
        plain_bytes += filled as u64;
        if plain_bytes > budgets.free_bytes && plain_bytes / budgets.expansion.max(1) > input_bytes
        {
            let text = format!(
                "the archive is more than {} times larger than its compressed form",
                budgets.expansion
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, Refused(text)));
        }
        if full.send(Ok(piece)).is_err() {
            return Err(io::Error::other("the archive was not read to its end"));
        }
    }
}

struct Counted<R> {
    input: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.bytes += length as u64;
        Ok(length)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.piece.len() {
            let used = std::mem::take(&mut self.piece);
            if used.capacity() > 0 {
                // Full if the thread has enough, or gone with it.
                drop(self.empty.try_send(used));
            }
            self.at = 0;
            self.piece = match self.full.recv() {
                Ok(piece) => piece?,
                // The thread is at the input's end.
                Err(_) => Vec::new(),
            };
        }
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..length), piece.get(..length)) {
            target.copy_from_slice(source);
        }
        self.consume(length);
        Ok(length)
    }
}
