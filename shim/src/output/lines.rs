//! Cutting one stream into lines, and long lines into pieces.

use std::time::SystemTime;

use memchr::memchr;

use super::{
    Stream,
    batch::Batch,
    entry::{Form, Format, Frame, Piece},
};

/// The longest piece, in bytes: dockerd's buffer, and containerd's `max_container_log_line_size`.
const PIECE_BYTES: usize = 16 * 1024;

/// One stream's state between reads.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    /// The line that has begun, without the pieces of it that are written already.
    pending: Vec<u8>,
    /// When the first piece of the present line was written. dockerd gives every piece of a
    /// line the time of the first.
    first_piece: Option<SystemTime>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new(), first_piece: None }
    }

    /// The bytes of a line without its end that are in no entry yet.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Takes up the bytes that another process had kept ([`Self::pending`]).
    pub(super) fn restore(&mut self, pending: Vec<u8>) {
        self.pending = pending;
    }

    /// Appends entries to `batch` until it is full, and returns the bytes that are left then.
    /// `frame` is the stream's frame for `now`.
    pub(super) fn feed<'a>(
        &mut self,
        mut bytes: &'a [u8],
        form: &Form,
        (now, frame): (SystemTime, &Frame),
        batch: &mut Batch,
    ) -> &'a [u8] {
        let hold = hold(form.format);
        while !bytes.is_empty() && !batch.is_full() {
            let wanted = hold - self.pending.len();
            let window = &bytes[..wanted.min(bytes.len())];
            let end = memchr(b'\n', window);
            let used = end.unwrap_or(window.len());
            if end.is_none() && used < wanted && form.format != Format::Raw {
                self.pending.extend_from_slice(window);
                return &[];
            }
            let kept = std::mem::take(&mut self.pending);
            let joined;
            let line = if kept.is_empty() {
                &window[..used]
            } else {
                joined = [&kept, &window[..used]].concat();
                &joined
            };
            match end {
                Some(_) => self.end_line(line, form, frame, batch),
                None if form.format == Format::Raw => {
                    frame.push(batch, line, Piece::Partial, line.len());
                }
                None => {
                    let (piece, rest) = line.split_at(PIECE_BYTES);
                    self.push_piece(piece, form, (now, frame), batch);
                    self.pending.extend_from_slice(rest);
                }
            }
            bytes = &bytes[used + usize::from(end.is_some())..];
        }
        bytes
    }

    /// Appends what has no line end, marked as a part: at the end of the stream.
    pub(super) fn finish(&mut self, form: &Form, now: SystemTime, batch: &mut Batch) {
        let frame = form.frame(self.stream, now);
        for piece in std::mem::take(&mut self.pending).chunks(PIECE_BYTES) {
            self.push_piece(piece, form, (now, &frame), batch);
        }
        self.first_piece = None;
    }

    fn end_line(&mut self, line: &[u8], form: &Form, frame: &Frame, batch: &mut Batch) {
        let mut text = line;
        // The line end is a byte of the output, too; and so is what CRI leaves out before it.
        let mut output = line.len() + 1;
        if form.format == Format::Cri {
            text = text.strip_suffix(b"\r").unwrap_or(text);
            if let Some((piece, rest)) = text.split_at_checked(PIECE_BYTES)
                && !rest.is_empty()
            {
                frame.push(batch, piece, Piece::Partial, piece.len());
                (text, output) = (rest, output - piece.len());
            }
        }
        match self.first_piece.take() {
            Some(first) if form.format.is_dockerds() => {
                form.frame(self.stream, first).push(batch, text, Piece::Full, output);
            }
            _ => frame.push(batch, text, Piece::Full, output),
        }
    }

    fn push_piece(
        &mut self,
        piece: &[u8],
        form: &Form,
        (now, frame): (SystemTime, &Frame),
        batch: &mut Batch,
    ) {
        match self.first_piece {
            Some(first) if form.format.is_dockerds() => {
                form.frame(self.stream, first).push(batch, piece, Piece::Partial, piece.len());
            }
            _ => {
                self.first_piece = Some(now);
                frame.push(batch, piece, Piece::Partial, piece.len());
            }
        }
    }
}

/// So many bytes without a line end are cut. dockerd cuts when its buffer is full; containerd
/// when there is more than fits, and it looks for `\r\n` first.
fn hold(format: Format) -> usize {
    match format {
        Format::Cri => PIECE_BYTES + 2,
        Format::Raw => usize::MAX,
        _ => PIECE_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Feeds the chunks, one a second, and returns the texts as the log has them: `P` or `F`,
    /// the length of a long text or a short one itself, and the second of its time.
    fn pieces(format: Format, chunks: &[&[u8]]) -> Vec<String> {
        let form = Form::new(format, &[]);
        let mut lines = Lines::new(Stream::Stdout);
        let mut batch = Batch::default();
        let mut now = UNIX_EPOCH;
        for chunk in chunks {
            let frame = form.frame(Stream::Stdout, now);
            assert!(lines.feed(chunk, &form, (now, &frame), &mut batch).is_empty());
            now += Duration::from_secs(1);
        }
        lines.finish(&form, now, &mut batch);
        let output: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(batch.output_after(0), output as u64);
        batch
            .bytes
            .split(|byte| *byte == b'\n')
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let parsed = format.parse(entry).unwrap();
                let tag = if parsed.piece == Piece::Full { 'F' } else { 'P' };
                let entry = String::from_utf8_lossy(entry);
                let second = entry.split("1970-01-01T00:00:0").nth(1).unwrap().get(..1).unwrap();
                match parsed.text.len() {
                    0..100 => format!("{tag}{second} {}", String::from_utf8_lossy(&parsed.text)),
                    long => format!("{tag}{second} {long}"),
                }
            })
            .collect()
    }

    #[test]
    fn json_lines_are_cut_as_dockerd_cuts_them() {
        let full = vec![b'x'; PIECE_BYTES];
        let long = [&full[..], b"y"].concat();
        let check = |chunks: &[&[u8]], expected: &[&str]| {
            assert_eq!(pieces(Format::JsonFile, chunks), expected);
        };
        check(&[b"a\nb\n\n"], &["F0 a", "F0 b", "F0 "]);
        check(&[b"a", b"b", b"\nc"], &["F2 ab", "P3 c"]);
        check(&[b"a\r\n"], &["F0 a\r"]);
        check(&[&full[1..], b"\n"], &["F1 16383"]);
        // The end that comes after a full buffer is a line of its own, at the first one's time.
        check(&[&full, b"\n", b"z\n"], &["P0 16384", "F0 ", "F2 z"]);
        check(&[&full[1..], b"x\n"], &["P1 16384", "F1 "]);
        check(&[&long, &long, b"\n"], &["P0 16384", "P0 16384", "F0 xy"]);
        check(&[&long], &["P0 16384", "P0 y"]);
        check(&[&full], &["P0 16384"]);
    }

    #[test]
    fn cri_lines_are_cut_as_containerd_cuts_them() {
        let full = vec![b'x'; PIECE_BYTES];
        let long = [&full[..], b"y"].concat();
        let check = |chunks: &[&[u8]], expected: &[&str]| {
            assert_eq!(pieces(Format::Cri, chunks), expected);
        };
        check(&[b"a\nb\n\n"], &["F0 a", "F0 b", "F0 "]);
        check(&[b"a", b"b", b"\nc"], &["F2 ab", "P3 c"]);
        check(&[b"a\r\n\r\n\rb\n"], &["F0 a", "F0 ", "F0 \rb"]);
        check(&[&full, b"\n"], &["F1 16384"]);
        check(&[&full, b"\r", b"\n"], &["F2 16384"]);
        check(&[&full, b"\ry\n"], &["P1 16384", "F1 \ry"]);
        check(&[&long, b"\n"], &["P1 16384", "F1 y"]);
        // Unlike dockerd, each piece has its own time.
        check(&[&long, &long, b"\n"], &["P1 16384", "P1 16384", "F2 xy"]);
        check(&[&long], &["P1 16384", "P1 y"]);
    }

    #[test]
    fn raw_output_is_kept_as_it_is() {
        let form = Form::new(Format::Raw, &[]);
        let mut batch = Batch::default();
        let mut lines = Lines::new(Stream::Stdout);
        let frame = form.frame(Stream::Stdout, UNIX_EPOCH);
        for chunk in [&b"a"[..], b"b\r\n\nc", b"\0\xff"] {
            assert!(lines.feed(chunk, &form, (UNIX_EPOCH, &frame), &mut batch).is_empty());
            assert!(lines.pending().is_empty());
        }
        assert_eq!(batch.bytes, b"ab\r\n\nc\0\xff");
    }
}
