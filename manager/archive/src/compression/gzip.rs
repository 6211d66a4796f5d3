//! gzip (RFC 1952) around zlib-rs's deflate.

use std::io::{self, BufRead, Read, Write};

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status, crc32::crc32};

use super::refused;

const WINDOW_BITS: u8 = 15;
/// gzip's own default.
const LEVEL: i32 = 6;
/// Of a name or a comment in a header.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Reads members one after another, each checked, until the input ends.
pub(super) struct Gunzip<R> {
    input: R,
    inflate: Inflate,
    crc: u32,
    size: u32,
    in_member: bool,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        let inflate = Inflate::new(false, WINDOW_BITS);
        Self { input, inflate, crc: 0, size: 0, in_member: false }
    }

    pub(super) fn input(&self) -> &R {
        &self.input
    }

    fn header(&mut self) -> io::Result<()> {
        // Byte by byte: what is no header may be too short for one.
        for expected in [0x1f, 0x8b, 8] {
            let mut byte = [0];
            self.exactly(&mut byte)?;
            if byte != [expected] {
                return Err(refused("gzip: something follows the compressed content".into()));
            }
        }
        let mut fixed = [0; 7];
        self.exactly(&mut fixed)?;
        let [flags, ..] = fixed;
        if flags & 0xe0 != 0 {
            return Err(refused("gzip: a header has flags that are not defined".into()));
        }
        if flags & 4 != 0 {
            let mut length = [0; 2];
            self.exactly(&mut length)?;
            let mut extra = vec![0; u16::from_le_bytes(length).into()];
            self.exactly(&mut extra)?;
        }
        for text in [8, 16] {
            if flags & text != 0 {
                self.skip_text()?;
            }
        }
        if flags & 2 != 0 {
            self.exactly(&mut [0; 2])?;
        }
        self.inflate.reset(false);
        (self.crc, self.size, self.in_member) = (0, 0, true);
        Ok(())
    }

    fn skip_text(&mut self) -> io::Result<()> {
        let mut byte = [1];
        for _ in 0..MAX_TEXT_BYTES {
            self.exactly(&mut byte)?;
            if byte == [0] {
                return Ok(());
            }
        }
        Err(refused("gzip: a name in a header does not end".into()))
    }

    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.exactly(&mut trailer)?;
        let [c0, c1, c2, c3, s0, s1, s2, s3] = trailer;
        let stored = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([s0, s1, s2, s3]));
        if stored != (self.crc, self.size) {
            return Err(refused("gzip: the content is not what its checksum says".into()));
        }
        self.in_member = false;
        Ok(())
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            _ => error,
        })
    }
}

fn truncated() -> io::Error {
    refused("gzip: the content ends too early".into())
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_member {
                if self.input.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.header()?;
            }
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, buffer, InflateFlush::NoFlush)
                .map_err(|error| refused(format!("gzip: {}", error.as_str())))?;
            let consumed = self.inflate.total_in() - before_in;
            let made = self.inflate.total_out() - before_out;
            self.input.consume(usize::try_from(consumed).unwrap_or(0));
            let made = usize::try_from(made).unwrap_or(0);
            let content = buffer.get(..made).unwrap_or_default();
            self.crc = crc32(self.crc, content);
            // The size is kept modulo 2^32.
            self.size = self.size.wrapping_add(made as u32);
            if status == Status::StreamEnd {
                self.trailer()?;
            } else if at_end && made == 0 {
                return Err(truncated());
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

/// Writes one member without a time and a name.
pub struct Gzip<W> {
    output: W,
    deflate: Deflate,
    buffer: Vec<u8>,
    crc: u32,
    size: u32,
    begun: bool,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(output: W) -> Self {
        Self {
            output,
            deflate: Deflate::new(LEVEL, false, WINDOW_BITS),
            buffer: vec![0; 64 << 10],
            crc: 0,
            size: 0,
            begun: false,
        }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        while self.step(&[], DeflateFlush::Finish)?.1 != Status::StreamEnd {}
        self.output.write_all(&self.crc.to_le_bytes())?;
        self.output.write_all(&self.size.to_le_bytes())?;
        Ok(self.output)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            // No flags, no time, no hint, an unknown system.
            self.output.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
            self.begun = true;
        }
        Ok(())
    }

    /// How much of the piece was taken.
    fn step(&mut self, piece: &[u8], flush: DeflateFlush) -> io::Result<(usize, Status)> {
        let (before_in, before_out) = (self.deflate.total_in(), self.deflate.total_out());
        let status = self
            .deflate
            .compress(piece, &mut self.buffer, flush)
            .map_err(|error| io::Error::other(format!("gzip: {}", error.as_str())))?;
        let taken = usize::try_from(self.deflate.total_in() - before_in).unwrap_or(0);
        let made = usize::try_from(self.deflate.total_out() - before_out).unwrap_or(0);
        self.output.write_all(self.buffer.get(..made).unwrap_or_default())?;
        Ok((taken, status))
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.begin()?;
        let mut rest = piece;
        while !rest.is_empty() {
            let (taken, _) = self.step(rest, DeflateFlush::NoFlush)?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        self.crc = crc32(self.crc, piece);
        self.size = self.size.wrapping_add(piece.len() as u32);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
