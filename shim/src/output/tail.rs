//! The last lines of a log, read back from its files.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

use super::{
    Options,
    entry::{Format, Piece},
    rotation::{Name, Present},
};

/// So much of each file's end is read.
const WINDOW_BYTES: usize = 256 * 1024;

/// A larger compressed file is not read: it would take longer than the report is worth.
const GZIP_BYTES: u64 = 4 << 20;

/// The end of one file.
struct End {
    bytes: Vec<u8>,
    /// Whether the file has more before it.
    is_cut: bool,
}

/// The last `count` lines, oldest first, and no more than `limit_bytes` in all.
pub(super) fn read(options: &Options, count: usize, limit_bytes: usize) -> Result<Vec<String>> {
    let format = options.form.format;
    let mut ends: Vec<End> = Vec::new();
    let mut lines = Vec::new();
    for name in Present::look(&options.path, options.max_files).readable() {
        let path = name.path(&options.path);
        let gzip = matches!(name, Name::Rotated { gzip: true, .. });
        let end = read_end(&path, gzip).with_context(|| format!("read {}", path.display()))?;
        let Some(end) = end else { break };
        let is_cut = end.is_cut;
        ends.insert(0, end);
        lines = join(format, &ends);
        if lines.len() >= count || is_cut {
            break;
        }
    }
    let from = lines.len().saturating_sub(count);
    Ok(limit(lines.split_off(from), limit_bytes))
}

/// None for a file that is gone meanwhile, or too large to be read.
fn read_end(path: &Path, gzip: bool) -> Result<Option<End>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let size = file.metadata()?.len();
    if !gzip {
        let start = size.saturating_sub(WINDOW_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(size - start)?];
        file.read_exact_at(&mut bytes, start)?;
        return Ok(Some(End { bytes, is_cut: start > 0 }));
    }
    if size > GZIP_BYTES {
        return Ok(None);
    }
    let mut decoder = GzDecoder::new(file);
    let mut end = End { bytes: Vec::new(), is_cut: false };
    loop {
        let before = end.bytes.len();
        if decoder.by_ref().take(WINDOW_BYTES as u64).read_to_end(&mut end.bytes)? == 0 {
            return Ok(Some(end));
        }
        let surplus = end.bytes.len().saturating_sub(WINDOW_BYTES).min(before);
        end.bytes.drain(..surplus);
        end.is_cut |= surplus > 0;
    }
}

/// Puts the pieces of the entries together to lines. A line is where its last piece is.
fn join(format: Format, ends: &[End]) -> Vec<String> {
    let mut begun: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    let mut lines = Vec::new();
    for end in ends {
        let mut bytes = &end.bytes[..];
        if end.is_cut {
            let first = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            bytes = &bytes[first..];
        }
        if bytes.is_empty() {
            continue;
        }
        for entry in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n') {
            let Some(parsed) = format.parse(entry) else { continue };
            let line = &mut begun[parsed.stream.map_or(0, |stream| stream as usize)];
            line.extend_from_slice(&parsed.text);
            if parsed.piece == Piece::Full {
                lines.push(String::from_utf8_lossy(line).into_owned());
                line.clear();
            }
        }
    }
    let unfinished = begun.iter().filter(|line| !line.is_empty());
    lines.extend(unfinished.map(|line| String::from_utf8_lossy(line).into_owned()));
    lines
}

/// Drops what is more than `limit_bytes`, from the beginning.
fn limit(mut lines: Vec<String>, limit_bytes: usize) -> Vec<String> {
    let mut left = limit_bytes;
    for at in (0..lines.len()).rev() {
        if lines[at].len() > left {
            let cut = lines[at].len() - left;
            let cut = (cut..=lines[at].len()).find(|cut| lines[at].is_char_boundary(*cut));
            lines[at].drain(..cut.unwrap_or(0));
            return lines.split_off(if lines[at].is_empty() { at + 1 } else { at });
        }
        left -= lines[at].len();
    }
    lines
}
