//! The files of a log, and where the last lines begin in them.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader, ErrorKind, Read, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// As many files as a log may have, at most.
const MAX_FILES: u32 = 1000;

/// What is read at once, in bytes.
const BLOCK: usize = 64 << 10;

/// One file of a log.
pub(super) struct Part {
    file: File,
    gzip: bool,
    /// Where reading begins, in bytes of its text.
    start: u64,
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Opens all files of a log, the oldest first. While they are being renamed one may be seen
/// under two names, or under none for a moment: that is looked at again.
pub(super) fn all(path: &Path) -> io::Result<VecDeque<Part>> {
    /// A rotation is a few renames.
    const ATTEMPTS: u32 = 20;
    let mut attempt = 0;
    loop {
        let before = current(path)?;
        let mut parts = VecDeque::new();
        let mut seen = Vec::new();
        for number in 1..MAX_FILES {
            let plain = open(&with_suffix(path, &format!(".{number}")))?;
            let part = match plain {
                Some(file) => Some((file, false)),
                None => {
                    open(&with_suffix(path, &format!(".{number}.gz")))?.map(|file| (file, true))
                }
            };
            let Some((file, gzip)) = part else { break };
            seen.push(file.metadata()?.ino());
            parts.push_front(Part { file, gzip, start: 0 });
        }
        let newest = open(path)?;
        let after = newest.as_ref().map(|file| file.metadata()).transpose()?.map(|data| data.ino());
        attempt += 1;
        let moved = before != after || after.is_some_and(|after| seen.contains(&after));
        if moved && attempt < ATTEMPTS {
            continue;
        }
        parts.extend(newest.map(|file| Part { file, gzip: false, start: 0 }));
        return Ok(parts);
    }
}

/// The inode of the current file.
pub(super) fn current(path: &Path) -> io::Result<Option<u64>> {
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        data => data.map(|data| Some(data.ino())),
    }
}

/// Files that came after the one with the inode `last`, the oldest first.
pub(super) fn newer(path: &Path, last: u64) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for part in all(path)?.into_iter().rev() {
        if part.file.metadata()?.ino() == last {
            break;
        }
        parts.push(part);
    }
    parts.reverse();
    Ok(parts)
}

/// Lets the parts begin with the last `lines`. Only as much is read as has them, and of a
/// compressed part all.
pub(super) fn tail(parts: &mut VecDeque<Part>, lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    let mut kept = VecDeque::new();
    while let Some(mut part) = parts.pop_back() {
        if wanted == 0 {
            // The newest is kept, from its end on, for who follows it.
            if kept.is_empty() {
                part.start = part.file.metadata()?.len();
                kept.push_front(part);
            }
            break;
        }
        let found =
            if part.gzip { tail_gzip(&part, wanted)? } else { tail_plain(&part.file, wanted)? };
        (part.start, wanted) = (found.0, wanted - found.1);
        kept.push_front(part);
    }
    *parts = kept;
    Ok(())
}

/// Where the last `lines` of a file begin, and how many of them there are.
fn tail_plain(file: &File, lines: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; BLOCK];
    let (mut end, mut found) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut buffer[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.read_exact_at(block, start)?;
        for at in memchr::memrchr_iter(b'\n', block) {
            let next = start + at as u64 + 1;
            // The one at the very end ends the last line.
            if next == length {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((next, found));
            }
        }
        end = start;
    }
    Ok((0, found + u64::from(length > 0)))
}

fn tail_gzip(part: &Part, lines: u64) -> io::Result<(u64, u64)> {
    let mut reader = part.reader()?;
    // Where the last so many lines begin.
    let mut starts = VecDeque::new();
    let (mut at, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)?;
        if n == 0 {
            break;
        }
        starts.push_back(at);
        if starts.len() as u64 > lines {
            starts.pop_front();
        }
        at += n as u64;
    }
    Ok((starts.front().copied().unwrap_or(at), starts.len() as u64))
}

impl Part {
    /// Its text from its beginning, whatever `start` says.
    fn reader(&self) -> io::Result<BufReader<Box<dyn Read + Send>>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let read: Box<dyn Read + Send> = match self.gzip {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        Ok(BufReader::with_capacity(BLOCK, read))
    }

    /// Its text from `start` on.
    pub(super) fn into_text(self) -> io::Result<Text> {
        let inode = self.file.metadata()?.ino();
        if self.gzip {
            let mut reader = self.reader()?;
            io::copy(&mut (&mut reader).take(self.start), &mut io::sink())?;
            return Ok(Text { read: Box::new(reader), inode });
        }
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.start))?;
        Ok(Text { read: Box::new(file), inode })
    }
}

/// A file's text, to be read to the end, and on when more has come.
pub(super) struct Text {
    read: Box<dyn Read + Send>,
    pub(super) inode: u64,
}

impl Text {
    /// Adds the next block to `buffer`, by one read; false at what is now the end.
    pub(super) fn more(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let length = buffer.len();
        buffer.resize(length + BLOCK, 0);
        let read = loop {
            match self.read.read(&mut buffer[length..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers.map(|number| format!("line {number}\n")).collect()
    }

    fn text(parts: VecDeque<Part>) -> String {
        let mut bytes = Vec::new();
        for part in parts {
            let mut text = part.into_text().unwrap();
            while text.more(&mut bytes).unwrap() {}
        }
        String::from_utf8(bytes).unwrap()
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let file = File::create(place.path().join("log.2.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(lines(0..10_000).as_bytes()).unwrap();
        gzip.finish().unwrap();
        fs::write(place.path().join("log.1"), lines(10_000..30_000)).unwrap();
        fs::write(&path, lines(30_000..30_005)).unwrap();
        (place, path)
    }

    #[test]
    fn files_are_read_from_the_oldest() {
        let (_place, path) = log();
        assert!(text(all(&path).unwrap()) == lines(0..30_005));
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let (_place, path) = log();
        for count in [0, 1, 4, 5, 6, 7000, 20_005, 20_006, 30_004, 30_005, 99_999] {
            let mut parts = all(&path).unwrap();
            tail(&mut parts, count).unwrap();
            let first = 30_005_u32.saturating_sub(u32::try_from(count).unwrap());
            assert!(text(parts) == lines(first..30_005), "{count}");
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_a_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        fs::write(&path, "a\nb\nc").unwrap();
        let mut parts = all(&path).unwrap();
        tail(&mut parts, 2).unwrap();
        assert_eq!(text(parts), "b\nc");
    }

    #[test]
    fn what_came_after_a_rotation_is_found() {
        let (_place, path) = log();
        let known = current(&path).unwrap().unwrap();
        assert!(newer(&path, known).unwrap().is_empty());
        fs::rename(path.with_file_name("log.1"), path.with_file_name("log.3")).unwrap();
        fs::remove_file(path.with_file_name("log.2.gz")).unwrap();
        fs::rename(&path, path.with_file_name("log.2")).unwrap();
        fs::write(path.with_file_name("log.1"), "between\n").unwrap();
        fs::write(&path, "now\n").unwrap();
        assert_eq!(text(newer(&path, known).unwrap().into()), "between\nnow\n");
    }
}
