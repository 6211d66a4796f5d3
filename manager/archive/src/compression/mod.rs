//! gzip and zstd, in this process: nothing is run, nothing is loaded (R12).

mod gzip;

use std::io::{self, BufRead, Chain, Cursor, Read, Write};

use crate::error::Refused;
use gzip::Gunzip;
pub use gzip::Gzip;

pub use hull_specs_image::media_type::Compression;

/// The largest window of a zstd frame, as its logarithm: what the zstd program itself takes
/// without being told to (128 MiB).
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Of 16 numbers for frames that are skipped; zstd files may begin with one (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// How content that begins so is compressed. The first four bytes are enough.
#[must_use]
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        _ if start.starts_with(&ZSTD_MAGIC) => Compression::Zstd,
        [0x50..=0x5f, rest @ ..] if rest.starts_with(&ZSTD_SKIPPABLE) => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Decompresses what is compressed, by how it begins; what follows the compressed content is
/// refused.
pub struct Decompressor<R: BufRead>(Form<Chain<Start, R>>);

/// The bytes that say what it is; a pipe may give them one by one.
type Start = Cursor<Vec<u8>>;

enum Form<R: BufRead> {
    Plain(R),
    Gzip(Box<Gunzip<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decompressor<R> {
    /// Looks at how the input begins.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::new();
        input.by_ref().take(4).read_to_end(&mut start)?;
        let compression = detect(&start);
        let input = Cursor::new(start).chain(input);
        let form = match compression {
            Compression::None => Form::Plain(input),
            Compression::Gzip => Form::Gzip(Box::new(Gunzip::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Form::Zstd(Box::new(decoder))
            }
        };
        Ok(Self(form))
    }

    /// What it reads from.
    pub fn input(&self) -> &R {
        let chain = match &self.0 {
            Form::Plain(input) => input,
            Form::Gzip(decoder) => decoder.input(),
            Form::Zstd(decoder) => decoder.get_ref(),
        };
        chain.get_ref().1
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Form::Plain(input) => input.read(buffer),
            Form::Gzip(decoder) => decoder.read(buffer),
            Form::Zstd(decoder) => decoder.read(buffer).map_err(|error| {
                // Of the system's errors zstd knows nothing: without a number it is its own.
                match error.raw_os_error() {
                    Some(_) => error,
                    None => refused(format!("zstd: {error}")),
                }
            }),
        }
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Refused(text))
}

/// Compresses what is written to it.
pub enum Compressor<W: Write> {
    /// As it is.
    Plain(W),
    /// gzip.
    Gzip(Box<Gzip<W>>),
    /// zstd.
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Compresses in this form.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(form: Compression, output: W) -> io::Result<Self> {
        Ok(match form {
            Compression::None => Self::Plain(output),
            Compression::Gzip => Self::Gzip(Box::new(Gzip::new(output))),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, 3)?;
                encoder.include_checksum(true)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Ends the compressed content; gives the output back.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(self) -> io::Result<W> {
        let mut output = match self {
            Self::Plain(output) => output,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        output.flush()?;
        Ok(output)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(piece),
            Self::Gzip(encoder) => encoder.write(piece),
            Self::Zstd(encoder) => encoder.write(piece),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests;
