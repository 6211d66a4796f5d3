//! The beginnings of lines, kept where a killed shim leaves them: `FILE.partial`.
//!
//! dockerd and containerd keep the beginning of a line in memory until its end comes, and so
//! must we, or one line would become several entries. It may wait there for hours: a prompt. So
//! it is also written to a file, which is not the log. The next [`super::Writer::open`] puts it
//! into the log, marked as a part, and `finish` removes the file. A container that writes whole
//! lines never has one.
//!
//! A slot a stream holds the bytes, and where the log ended when that was true. If the log has
//! an entry of the stream after that place, the bytes are in it: the shim was killed between
//! its writes to the two files. Thus nothing is lost, and nothing is there twice.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use flate2::Crc;

use super::{Stream, entry::Format, rotation};

/// Where the slot of standard error begins: the first page after the longest slot before it.
const SLOT_BYTES: u64 = 32 * 1024;

/// Larger than any beginning of a line.
const MOST_BYTES: usize = 20 * 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"hullpart");

/// A place in a log: so many bytes of the file with this inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
}

/// What stands before the bytes of a slot. It is in one page, so that a kill can't tear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// The log's end when these bytes were in no entry.
    place: Place,
    time: Duration,
    length: usize,
    checksum: u32,
}

impl Header {
    const BYTES: usize = 56;

    fn encode(self) -> [u8; Self::BYTES] {
        let words = [
            MAGIC,
            self.place.inode,
            self.place.offset,
            self.time.as_secs(),
            u64::from(self.time.subsec_nanos()),
            self.length as u64,
            u64::from(self.checksum),
        ];
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut words = [0; Self::BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [MAGIC, inode, offset, seconds, nanoseconds, length, checksum] = words else {
            return None;
        };
        let nanoseconds = u32::try_from(nanoseconds).ok().filter(|n| *n < 1_000_000_000)?;
        let length = usize::try_from(length).ok().filter(|n| (1..=MOST_BYTES).contains(n))?;
        let place = Place { inode, offset };
        let checksum = u32::try_from(checksum).ok()?;
        Some(Self { place, time: Duration::new(seconds, nanoseconds), length, checksum })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn slot(stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => SLOT_BYTES,
    }
}

/// The file, as far as this process has written to it.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// None until there is something to keep.
    file: Option<File>,
    headers: [Option<Header>; 2],
}

/// The beginning of a line that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) stream: Stream,
    pub(super) bytes: Vec<u8>,
    /// When it was read from the container.
    pub(super) time: SystemTime,
}

impl Journal {
    /// The journal of the log at `log`, where this process has written nothing yet.
    pub(super) fn new(log: &Path) -> Self {
        Self { path: rotation::with_suffix(log, ".partial"), file: None, headers: [None; 2] }
    }

    /// What a process before this one left, that is in no entry of `log`.
    pub(super) fn recover(&self, log: &File, format: Format) -> Result<Vec<Beginning>> {
        if self.path.symlink_metadata().is_err() {
            return Ok(Vec::new());
        }
        let file = rotation::open(&self.path, false)?;
        let mut found = Vec::new();
        for stream in Stream::BOTH {
            let mut bytes = [0; Header::BYTES];
            if file.read_exact_at(&mut bytes, slot(stream)).is_err() {
                continue;
            }
            let Some(header) = Header::decode(&bytes) else { continue };
            let mut bytes = vec![0; header.length];
            let start = slot(stream) + Header::BYTES as u64;
            if file.read_exact_at(&mut bytes, start).is_err() || checksum(&bytes) != header.checksum
            {
                continue;
            }
            if !is_in_log(log, header.place, stream, format)? {
                found.push(Beginning { stream, bytes, time: UNIX_EPOCH + header.time });
            }
        }
        Ok(found)
    }

    /// Notes that `stream` has begun a line with `bytes` (none: that it has not), and that the
    /// log ends at `place`. A journal that can't be written is removed, so that it never says
    /// what is no longer so; the next call tries again.
    pub(super) fn keep(&mut self, stream: Stream, bytes: &[u8], time: SystemTime, place: Place) {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header { place, time, length: bytes.len(), checksum: checksum(bytes) };
        let result =
            if bytes.is_empty() { self.forget(stream) } else { self.write(stream, header, bytes) };
        let result = result.and_then(|()| self.rebase(place));
        if result.is_err() {
            // Nothing to do for an error of the removal: there is no file, or no way to it.
            let _ = self.remove();
        }
    }

    /// Notes that `stream` has no line begun.
    pub(super) fn forget(&mut self, stream: Stream) -> Result<()> {
        if self.headers[stream as usize].take().is_some()
            && let Some(file) = &self.file
        {
            file.write_all_at(&[0; Header::BYTES], slot(stream))
                .context("write the partial line")?;
        }
        Ok(())
    }

    /// Notes that the log ends at `place`, and that what is kept is not in it.
    pub(super) fn rebase(&mut self, place: Place) -> Result<()> {
        for stream in Stream::BOTH {
            if let (Some(header), Some(file)) = (&mut self.headers[stream as usize], &self.file)
                && header.place != place
            {
                header.place = place;
                file.write_all_at(&header.encode(), slot(stream))
                    .context("write the partial line")?;
            }
        }
        Ok(())
    }

    /// Removes the file.
    pub(super) fn remove(&mut self) -> Result<()> {
        (self.file, self.headers) = (None, [None; 2]);
        rotation::remove(&self.path)
    }

    fn write(&mut self, stream: Stream, header: Header, bytes: &[u8]) -> Result<()> {
        if self.file.is_none() {
            rotation::remove(&self.path)?;
            self.file = Some(create(&self.path)?);
        }
        let file = self.file.as_ref().context("the file was just made")?;
        let content = [&header.encode()[..], bytes].concat();
        file.write_all_at(&content, slot(stream)).context("write the partial line")?;
        self.headers[stream as usize] = Some(header);
        Ok(())
    }
}

/// Not [`rotation::open`]: with `O_APPEND`, Linux ignores the offset of pwrite(2).
fn create(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options.write(true).create_new(true).mode(rotation::FILE_MODE);
    options.open(path).with_context(|| format!("create {}", path.display()))
}

/// Whether `log` has an entry of `stream` after `place`.
fn is_in_log(log: &File, place: Place, stream: Stream, format: Format) -> Result<bool> {
    let metadata = log.metadata().context("stat the log")?;
    if metadata.ino() != place.inode {
        // Every entry after a rotation is written after the journal has followed it.
        return Ok(metadata.len() > 0);
    }
    let mut entries = BufReader::new(log);
    entries.seek(SeekFrom::Start(place.offset)).context("read the log")?;
    let mut entry = Vec::new();
    loop {
        entry.clear();
        // No entry is so long, also with all of its bytes escaped.
        let n =
            entries.by_ref().take(1 << 20).read_until(b'\n', &mut entry).context("read the log")?;
        if n == 0 {
            return Ok(false);
        }
        let text = entry.strip_suffix(b"\n").unwrap_or(&entry);
        if format.parse(text).is_some_and(|parsed| parsed.stream == Some(stream)) {
            return Ok(true);
        }
    }
}
