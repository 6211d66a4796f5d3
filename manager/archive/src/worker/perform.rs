//! The job itself: in the worker, after it has confined itself.

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use hull_runtime_sys::{entry, fd, process};
use hull_specs_image::digest::Hasher;

use super::{
    Mounted, confine,
    job::{Changed, Job, Order, Outcome, Packing, Report},
};
use crate::{
    apply::{Options, apply_with},
    budget::Budgets,
    changes::Source,
    compression::Compressor,
    pack::{self, Packed},
    source,
};

/// The descriptors that a worker is given, after the standard streams; those of mounts follow.
const JOB: i32 = 3;
const REPORT: i32 = 4;
const ROOT: i32 = 5;
const BASE: i32 = 6;
const MAX_JOB_BYTES: usize = 1 << 20;

/// The worker: never returns.
pub(super) fn run() -> ! {
    let Ok(report) = fd::take(REPORT) else { process::exit_now(2) };
    // The standard library tells of a panic on standard error, the report that there was one.
    let result = catch_unwind(AssertUnwindSafe(|| work(&report)))
        .unwrap_or_else(|_| Err(anyhow!("the archive worker panicked")));
    let told = serde_json::to_vec(&Report::of(&result))
        .is_ok_and(|line| fd::write_all(&report, &line).is_ok());
    process::exit_now(i32::from(!told || result.is_err()))
}

fn work(report: &OwnedFd) -> Result<Outcome> {
    let order = fd::read_to_end(fd::take(JOB)?, MAX_JOB_BYTES)?;
    let Order { job, has_base, mounts } =
        serde_json::from_slice(&order).context("understand the job")?;
    let root = fd::take(ROOT)?;
    let base = has_base.then(|| fd::take(BASE)).transpose()?;
    let mounts = (BASE + i32::from(has_base)..)
        .zip(mounts)
        .map(|(number, at)| Ok(Mounted { mount: fd::take(number)?, at }))
        .collect::<Result<Vec<_>>>()?;
    let root = confine::confine(root, base.as_ref().map(|fd| fd.as_fd()), &mounts, &job)?;
    drop(mounts);
    let watched = fd::duplicate(report, 3)?;
    // Ends the process when the manager does, whatever the other threads do.
    thread::spawn(move || {
        if entry::wait_for_reader_gone(watched).is_ok() {
            process::exit_now(3);
        }
    });
    let input = File::from(fd::duplicate(fd::STDIN, 3)?);
    let output = File::from(fd::duplicate(fd::STDOUT, 3)?);
    perform_with(&job, root.as_fd(), base.as_ref().map(|fd| fd.as_fd()), input, output, true)
}

/// Does a job in the calling thread, without confinement: what a worker does.
///
/// # Errors
/// [`crate::Refused`] in the chain if it is the archive's fault, the machine's otherwise.
pub fn perform(
    job: &Job,
    root: BorrowedFd<'_>,
    base: Option<BorrowedFd<'_>>,
    input: impl Read + Send,
    output: impl Write,
) -> Result<Outcome> {
    perform_with(job, root, base, input, output, false)
}

fn perform_with(
    job: &Job,
    root: BorrowedFd<'_>,
    base: Option<BorrowedFd<'_>>,
    input: impl Read + Send,
    output: impl Write,
    exact: bool,
) -> Result<Outcome> {
    match job {
        Job::Unpack { options } => unpack(root, b"", options, input, exact),
        // In a container's own directories anything may alter modes.
        Job::CopyIn { at, options } => unpack(root, at, options, input, false),
        Job::Decompress { budgets } => decompress(*budgets, input, output),
        Job::Pack { at, name, follow, packing } => {
            let at = Path::new(std::ffi::OsStr::from_bytes(at));
            packed(*packing, output, |output| pack::pack(root, at, name, *follow, output))
        }
        Job::Diff { changed, packing } => {
            let source = match changed {
                Changed::Upper => Source::Upper(root, base),
                Changed::Tree => Source::Tree(root, base),
            };
            packed(*packing, output, |output| pack::diff(&source, output))
        }
    }
}

fn unpack(
    root: BorrowedFd<'_>,
    at: &[u8],
    options: &Options,
    input: impl Read + Send,
    exact: bool,
) -> Result<Outcome> {
    thread::scope(|scope| {
        let (pieces, thread) = source::start(scope, input, options.budgets);
        let applied = apply_with(root, at, pieces, options, exact)?;
        let measured = thread
            .join()
            .map_err(|_| anyhow!("the decompression panicked"))?
            .context("read the archive")?;
        Ok(Outcome {
            diff_id: measured.digest,
            entries: applied.entries,
            file_bytes: applied.file_bytes,
            plain_bytes: measured.plain_bytes,
            archive_bytes: measured.input_bytes,
            dropped_attributes: applied.dropped_attributes,
        })
    })
}

fn decompress(
    budgets: Budgets,
    input: impl Read + Send,
    mut output: impl Write,
) -> Result<Outcome> {
    thread::scope(|scope| {
        let (mut pieces, thread) = source::start(scope, input, budgets);
        let copied = copy(&mut pieces, &mut output).context("decompress the archive");
        // The thread waits for somebody to take what it has.
        drop(pieces);
        let measured = thread.join().map_err(|_| anyhow!("the decompression panicked"))?;
        copied?;
        let measured = measured.context("read the archive")?;
        Ok(Outcome {
            diff_id: measured.digest,
            entries: 0,
            file_bytes: 0,
            plain_bytes: measured.plain_bytes,
            archive_bytes: measured.input_bytes,
            dropped_attributes: 0,
        })
    })
}

fn copy(pieces: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    loop {
        let piece = pieces.fill_buf()?;
        let length = piece.len();
        if length == 0 {
            return Ok(());
        }
        output.write_all(piece)?;
        pieces.consume(length);
    }
}

/// Collects small writes: headers are written one by one.
const BUFFER_BYTES: usize = 64 << 10;

fn packed(
    packing: Packing,
    output: impl Write,
    pack: impl FnOnce(&mut dyn Write) -> Result<Packed>,
) -> Result<Outcome> {
    let compressor = Compressor::new(packing.into(), Counted { output, bytes: 0 })?;
    let hashed = Hashed { output: compressor, hasher: Hasher::default(), bytes: 0 };
    let mut buffered = io::BufWriter::with_capacity(BUFFER_BYTES, hashed);
    let packed = pack(&mut buffered)?;
    let hashed = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    let counted = hashed.output.finish().context("write the archive")?;
    Ok(Outcome {
        diff_id: hashed.hasher.finish(),
        entries: packed.entries,
        file_bytes: packed.file_bytes,
        plain_bytes: hashed.bytes,
        archive_bytes: counted.bytes,
        dropped_attributes: 0,
    })
}

struct Hashed<W> {
    output: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.output.write_all(piece)?;
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

struct Counted<W> {
    output: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let length = self.output.write(piece)?;
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
