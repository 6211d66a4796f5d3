//! A process's output on ours, written by a thread of its own: a reader that stands still must
//! not hold keys and signals.

use std::io::{self, Write as _};

use anyhow::Result;
use tokio::sync::{mpsc, oneshot};

/// Bytes for one of our streams.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Standard output.
    Out(Vec<u8>),
    /// Standard error.
    Err(Vec<u8>),
}

/// The writer.
#[derive(Debug)]
pub(crate) struct Output {
    pieces: mpsc::Sender<Piece>,
    finished: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let (pieces, mut received) = mpsc::channel::<Piece>(4);
        let (result, finished) = oneshot::channel();
        std::thread::spawn(move || {
            let mut outcome = Ok(());
            while let Some(piece) = received.blocking_recv() {
                outcome = write(&piece);
                if outcome.is_err() {
                    break;
                }
            }
            // Nobody waits any more if the program ends.
            let _ = result.send(outcome);
        });
        Self { pieces, finished }
    }

    /// Writes a piece after those before. False: the stream has failed, `finish` says how.
    pub(crate) async fn write(&self, piece: Piece) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<()> {
        drop(self.pieces);
        Ok(self.finished.await.unwrap_or(Ok(()))?)
    }
}

fn write(piece: &Piece) -> io::Result<()> {
    match piece {
        Piece::Out(bytes) => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Piece::Err(bytes) => io::stderr().lock().write_all(bytes),
    }
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    Ok(write(&Piece::Out(text.as_bytes().to_vec()))?)
}
