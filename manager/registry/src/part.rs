//! A part of a file as a request's body: read again from its beginning for each attempt.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

/// What is read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// Told the position in the file up to which it was handed to the network.
pub(crate) type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Bytes of a file.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) progress: Progress,
}

/// How much of a body was sent.
pub(crate) struct Moved(Arc<AtomicU64>);

impl Moved {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Part {
    /// The body, and a view of how far it is.
    pub(crate) fn body(&self) -> (reqwest::Body, Moved) {
        let moved = Arc::new(AtomicU64::new(0));
        let state = (self.clone(), 0, Arc::clone(&moved));
        let pieces = futures_util::stream::try_unfold(state, |(part, at, moved)| async move {
            if at == part.length {
                return Ok(None);
            }
            let piece = part.read(at).await?;
            let at = at + piece.len() as u64;
            moved.store(at, Ordering::Relaxed);
            (part.progress)(part.offset + at);
            Ok::<_, std::io::Error>(Some((piece, (part, at, moved))))
        });
        (reqwest::Body::wrap_stream(pieces), Moved(moved))
    }

    async fn read(&self, at: u64) -> std::io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let offset = self.offset + at;
        let length = usize::try_from((self.length - at).min(PIECE_BYTES)).unwrap_or(usize::MAX);
        tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        })
        .await
        .map_err(std::io::Error::other)?
    }
}
