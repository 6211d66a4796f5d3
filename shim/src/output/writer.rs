//! The log of one container.

use std::{
    cell::Cell,
    fmt,
    fs::File,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

use super::{
    Options, Stream,
    batch::Batch,
    entry::{Format, Piece},
    journal::{Journal, Place},
    lines::Lines,
    rotation::{self, Name, Present},
    tail,
};

/// No entry is longer: 16 KiB of output, each byte escaped as six, and 4 KiB of labels, also
/// escaped; and the frame.
pub(super) const ENTRY_BYTES: usize = 128 * 1024;

/// A raw log is rotated within a line if the line goes on for so long after the limit.
const RAW_LINE_BYTES: u64 = 64 * 1024;

thread_local! {
    /// The memory in which entries are made, for all logs of the thread: so that a shim with
    /// many containers has it once.
    static BATCH: Cell<Batch> = Cell::default();
}

/// Gives back the memory in which entries are made, about 64 KiB once much was written. For a
/// shim that has nothing to do; the next write takes it again.
pub(crate) fn release_buffers() {
    BATCH.take();
}

/// Output that could not be written: no room, a limit, or an input or output error.
#[derive(Debug)]
pub(crate) struct WriteError {
    /// How many bytes of the container's output this call has lost.
    pub(crate) dropped_bytes: u64,
    /// Why.
    pub(crate) cause: io::Error,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of output were not written to the log", self.dropped_bytes)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Output that is lost, and that no entry has told of yet.
#[derive(Debug)]
struct Untold {
    bytes: u64,
    reason: String,
}

/// An entry of which the file has a part, because there was no room for more.
#[derive(Debug, Default)]
struct Torn {
    rest: Vec<u8>,
    /// How many bytes of output it holds.
    output: u64,
}

/// The log of one container. See [`super`] for what it promises.
///
/// # When a write fails
/// Of the call's bytes, those whose entries are in the file stay, and the others are lost and
/// counted in the error. An entry that is in the file in part is completed by a later call, so
/// that the file never has half an entry in its middle. The writer stays usable, and every call
/// tries again. The first that succeeds begins with an entry on standard error that says how
/// many bytes were lost, and why.
#[derive(Debug)]
pub(crate) struct Writer {
    options: Options,
    file: File,
    inode: u64,
    size: u64,
    /// When the first entry of the file was written.
    born: Option<SystemTime>,
    /// Whether the file's last byte ends a line.
    at_line_start: bool,
    lines: [Lines; 2],
    journal: Journal,
    torn: Torn,
    untold: Option<Untold>,
    /// Whether this call may rotate: not again after it has failed to.
    may_rotate: bool,
    rotation_error: Option<anyhow::Error>,
    /// Whether there may be rotated files to compress.
    compressible: bool,
    /// Whether a child compresses one.
    compressing: bool,
}

impl Writer {
    /// Opens the log, makes it if need be, and goes on where a killed shim has left it: half an
    /// entry at the end is cut off, and lines that had begun are written as parts.
    ///
    /// # Errors
    /// If the file can't be opened, is not a regular one, or does not end in entries.
    pub(crate) fn open(options: &Options) -> Result<Self> {
        let path = &options.path;
        let file = rotation::open(path, false)?;
        let metadata = file.metadata().with_context(|| format!("stat {}", path.display()))?;
        ensure!(metadata.is_file(), "{} is not a regular file", path.display());
        rotation::remove(&Name::New.path(path))?;
        let raw = options.form.format == Format::Raw;
        let (size, at_line_start) = repair(&file, path, metadata.len(), raw)?;
        let mut writer = Self {
            options: options.clone(),
            inode: metadata.ino(),
            size,
            born: (size > 0).then(|| birth(&metadata)).flatten(),
            at_line_start,
            lines: Stream::BOTH.map(Lines::new),
            journal: Journal::new(path),
            torn: Torn::default(),
            untold: None,
            may_rotate: false,
            rotation_error: None,
            compressible: options.compress,
            compressing: false,
            file,
        };
        for beginning in writer.journal.recover(&writer.file, options.form.format)? {
            let mut lines = Lines::new(beginning.stream);
            lines.restore(beginning.bytes);
            let mut batch = Batch::default();
            lines.finish(&options.form, beginning.time, &mut batch);
            let written = writer.append(&batch, beginning.stream, beginning.time);
            written.map_err(|(_, cause)| cause).context("write a partial line")?;
        }
        writer.journal.remove()?;
        Ok(writer)
    }

    /// Writes output that came from the container at `now`. When it returns, every line that
    /// has ended is in the file, and what has not is in `FILE.partial`.
    ///
    /// # Errors
    /// What is lost; see the type.
    pub(crate) fn write(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<(), WriteError> {
        let form = self.options.form.clone();
        let frame = form.frame(stream, now);
        let mut batch = BATCH.take();
        let mut result = Ok(());
        let mut rest = bytes;
        self.may_rotate = true;
        while !rest.is_empty() {
            rest = self.lines[stream as usize].feed(rest, &form, (now, &frame), &mut batch);
            self.put(&mut batch, stream, now, &mut result);
        }
        BATCH.set(batch);
        let place = Place { inode: self.inode, offset: self.size };
        self.journal.keep(stream, self.lines[stream as usize].pending(), now, place);
        result
    }

    /// Writes what has no line end, marked as parts, and completes what could not be written
    /// before. For when both streams have ended.
    ///
    /// # Errors
    /// What is lost for good.
    pub(crate) fn finish(&mut self, now: SystemTime) -> Result<(), WriteError> {
        self.may_rotate = false;
        let mut result = Ok(());
        for stream in Stream::BOTH {
            let mut batch = BATCH.take();
            self.lines[stream as usize].finish(&self.options.form, now, &mut batch);
            self.put(&mut batch, stream, now, &mut result);
            BATCH.set(batch);
        }
        if let Err((_, cause)) = self.append(&Batch::default(), Stream::Stderr, now) {
            let torn = std::mem::take(&mut self.torn).output;
            match &mut result {
                Ok(()) => result = Err(WriteError { dropped_bytes: torn, cause }),
                Err(error) => error.dropped_bytes += torn,
            }
        }
        if let Err(error) = self.journal.remove() {
            self.rotation_error.get_or_insert(error);
        }
        result
    }

    /// The last lines of the log, oldest first, as text: read from the files, whose entries are
    /// put together to lines again. At most `limit_bytes` in all, the oldest cut first.
    ///
    /// # Errors
    /// If a file can't be read.
    pub(crate) fn tail(&self, lines: usize, limit_bytes: usize) -> Result<Vec<String>> {
        tail::read(&self.options, lines, limit_bytes)
    }

    /// Why the files could not be rotated, once. Nothing is lost by it: the file grows.
    pub(crate) fn take_rotation_error(&mut self) -> Option<anyhow::Error> {
        self.rotation_error.take()
    }

    /// A rotated file that a child is to compress ([`super::compress_file`]). One at a time:
    /// [`Self::compression_ended`] makes way for the next.
    pub(crate) fn next_compression(&mut self) -> Option<PathBuf> {
        if !self.compressible || self.compressing {
            return None;
        }
        let present = Present::look(&self.options.path, self.options.max_files);
        let is_plain = |name: &Name| matches!(name, Name::Rotated { gzip: false, .. });
        let name = present.readable().into_iter().find(is_plain);
        self.compressible = name.is_some();
        self.compressing = name.is_some();
        name.map(|name| name.path(&self.options.path))
    }

    /// The child has ended. After a failure the next rotation tries again.
    pub(crate) fn compression_ended(&mut self, success: bool) {
        self.compressing = false;
        self.compressible &= success;
    }

    /// Writes the batch and empties it. After a failure nothing more of this call is tried.
    fn put(
        &mut self,
        batch: &mut Batch,
        stream: Stream,
        now: SystemTime,
        result: &mut Result<(), WriteError>,
    ) {
        if !batch.is_empty() {
            let (lost, cause) = match result {
                Err(_) => (batch.output_after(0), None),
                Ok(()) => match self.append(batch, stream, now) {
                    Ok(()) => (0, None),
                    Err((at, cause)) => (self.tear(batch, at), Some(cause)),
                },
            };
            if let Some(cause) = cause {
                let reason = cause.to_string();
                self.untold.get_or_insert(Untold { bytes: 0, reason });
                *result = Err(WriteError { dropped_bytes: 0, cause });
            }
            if let Err(error) = result {
                error.dropped_bytes += lost;
            }
            if let Some(untold) = &mut self.untold {
                untold.bytes += lost;
            }
        }
        batch.clear();
    }

    /// Keeps the rest of the entry that ended at `at` instead of its end; returns how much
    /// output is in the entries after it.
    fn tear(&mut self, batch: &Batch, at: usize) -> u64 {
        if batch.is_boundary(at) {
            return batch.output_after(at);
        }
        let end = batch.entry_end(at as u64);
        let lost = batch.output_after(end);
        let output = batch.output_after(at) - lost;
        self.torn = Torn { rest: batch.bytes[at..end].to_vec(), output };
        lost
    }

    /// Writes what an earlier call could not, then the batch, and rotates where it is due. An
    /// error comes with how many bytes of the batch are in the file.
    fn append(
        &mut self,
        batch: &Batch,
        stream: Stream,
        now: SystemTime,
    ) -> Result<(), (usize, io::Error)> {
        self.complete().map_err(|cause| (0, cause))?;
        self.tell(now).map_err(|cause| (0, cause))?;
        let mut from = 0;
        while from < batch.bytes.len() {
            if self.is_due(now) {
                self.rotate(stream, from > 0);
            }
            let to = match self.options.max_size {
                Some(limit) if self.may_rotate => {
                    // At least one entry: a raw log may be past its limit, within a line.
                    batch.entry_end(from as u64 + limit.saturating_sub(self.size).max(1))
                }
                _ => batch.bytes.len(),
            };
            let result = self.write_all(&batch.bytes[from..to], now);
            result.map_err(|(written, cause)| (from + written, cause))?;
            from = to;
        }
        Ok(())
    }

    /// Completes the entry that is in the file in part.
    fn complete(&mut self) -> io::Result<()> {
        if self.torn.rest.is_empty() {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.torn.rest);
        // The entry's time is the file's: it has begun already.
        let now = self.born.unwrap_or(SystemTime::UNIX_EPOCH);
        if let Err((written, cause)) = self.write_all(&rest, now) {
            self.torn.rest = rest[written..].to_vec();
            return Err(cause);
        }
        self.torn = Torn::default();
        Ok(())
    }

    /// Writes an entry about what is lost.
    fn tell(&mut self, now: SystemTime) -> io::Result<()> {
        let Some(Untold { bytes, reason }) = self.untold.take_if(|untold| untold.bytes > 0) else {
            self.untold = None;
            return Ok(());
        };
        let text = format!("[hull: {bytes} bytes of output were not written: {reason}]");
        let mut batch = Batch::default();
        if !self.at_line_start {
            batch.bytes.push(b'\n');
        }
        let frame = self.options.form.frame(Stream::Stderr, now);
        frame.push(&mut batch, text.as_bytes(), Piece::Full, 0);
        self.write_all(&batch.bytes, now).map_err(|(written, cause)| {
            if written == 0 {
                self.untold = Some(Untold { bytes, reason });
            } else {
                self.torn = Torn { rest: batch.bytes[written..].to_vec(), output: 0 };
            }
            cause
        })
    }

    /// Writes bytes to the file. An error comes with how many of them are in it.
    fn write_all(&mut self, bytes: &[u8], now: SystemTime) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < bytes.len() {
            match (&self.file).write(&bytes[done..]) {
                Ok(0) => return Err((done, ErrorKind::WriteZero.into())),
                Ok(n) => {
                    done += n;
                    self.size += n as u64;
                    self.born.get_or_insert(now);
                    self.at_line_start = bytes[done - 1] == b'\n';
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let is_full = |limit: u64| self.size >= limit;
        let is_old = |limit| {
            let age = self.born.and_then(|born| now.duration_since(born).ok());
            age.is_some_and(|age| age >= limit)
        };
        self.may_rotate
            && self.size > 0
            && (self.options.max_size.is_some_and(is_full)
                || self.options.max_age.is_some_and(is_old))
            && (self.at_line_start
                || self.options.max_size.is_some_and(|limit| is_full(limit + RAW_LINE_BYTES)))
    }

    /// Rotates the files. If that fails, the present file goes on.
    ///
    /// The journal must never say that a line has only begun which an entry of the old file has
    /// whole (`journal::is_in_log` looks at the new file only). So it forgets the stream's line
    /// before the rotation if a part of the batch is written, and follows to the new file
    /// before anything is written there.
    fn rotate(&mut self, stream: Stream, is_batch_begun: bool) {
        let result = self.try_rotate(stream, is_batch_begun);
        self.may_rotate &= matches!(result, Ok(true));
        if let Err(error) = result {
            self.rotation_error.get_or_insert(error);
        }
    }

    fn try_rotate(&mut self, stream: Stream, is_batch_begun: bool) -> Result<bool> {
        if is_batch_begun && self.journal.forget(stream).is_err() {
            self.journal.remove()?;
        }
        let Options { path, max_files, compress, .. } = &self.options;
        let Some(file) = rotation::rotate(path, *max_files, *compress)? else { return Ok(false) };
        self.inode = file.metadata().context("stat the new log")?.ino();
        self.file = file;
        (self.size, self.born, self.at_line_start) = (0, None, true);
        self.compressible = self.options.compress;
        if self.journal.rebase(Place { inode: self.inode, offset: 0 }).is_err() {
            self.journal.remove()?;
        }
        Ok(true)
    }
}

/// When the file was made: about when its first entry was. Not every file system knows it.
fn birth(metadata: &std::fs::Metadata) -> Option<SystemTime> {
    metadata.created().or_else(|_| metadata.modified()).ok()
}

/// Cuts half an entry off the end. Returns the size, and whether a line has ended there.
fn repair(file: &File, path: &Path, size: u64, raw: bool) -> Result<(u64, bool)> {
    let start = size.saturating_sub(ENTRY_BYTES as u64);
    let mut end = vec![0; usize::try_from(size - start).unwrap_or(0)];
    file.read_exact_at(&mut end, start).with_context(|| format!("read {}", path.display()))?;
    let whole = match memchr::memrchr(b'\n', &end) {
        _ if raw => return Ok((size, end.last().is_none_or(|byte| *byte == b'\n'))),
        Some(at) => start + at as u64 + 1,
        None if start == 0 => 0,
        None => anyhow::bail!("{} has no entry in its last 128 KiB", path.display()),
    };
    if whole < size {
        file.set_len(whole).with_context(|| format!("truncate {}", path.display()))?;
    }
    Ok((whole, true))
}

#[cfg(test)]
mod tests;
