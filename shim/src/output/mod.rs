//! Where a container's output goes: a log that the shim writes itself, and clients that are
//! attached to it.
//!
//! `options` reads the `hull-log:` URI. `lines` cuts a stream into lines, `entry` gives each
//! its form, `writer` puts them into the file, `rotation` plans what happens to the files when
//! one is full, `compress` is what a child process does to a rotated one, `tail` reads the end
//! back. `forward` hands lines on to the host's log as well. `journal` keeps the bytes of an unfinished line where a killed shim leaves them.
//!
//! What [`Writer::write`] was given is in the file, or in `FILE.partial`, when it returns. So
//! a shim that is killed loses at most the one read that it had not handed over yet. Nothing is
//! synced: a power cut may cost what the kernel had not written back.
//!
//! Files, for `max-file=N`:
//!
//! | name | content |
//! | --- | --- |
//! | `FILE` | the newest entries |
//! | `FILE.1` to `FILE.N-1`, or with `.gz` | older ones; the highest number is the oldest |
//! | `FILE.partial` | lines that have begun; gone when the container has |
//! | `FILE.new`, `FILE.gz.tmp` | a rotation or a compression is under way |
//!
//! A reader that finds `FILE.2` and `FILE.2.gz` reads the first: the other is its copy. While a
//! file is rotated there are moments without `FILE`, or without one of the numbers.

mod attach;
mod batch;
mod compress;
mod entry;
mod escape;
mod forward;
mod journal;
mod lines;
mod options;
mod rotation;
mod tail;
mod writer;

pub(crate) use attach::{Attach, Console};
pub(crate) use compress::compress_file;
pub(crate) use forward::Forward;
pub(crate) use options::Options;
pub(crate) use writer::{WriteError, Writer, release_buffers};

/// One of a container's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its name in every form of the log.
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
