//! From an archive's bytes to its entries, in one pass.

use std::io::{self, BufRead, Read};

use anyhow::{Context as _, Result};

use super::{
    Entry, Kind, Time, clean,
    header::{BLOCK, Header},
    pax::Extended,
    sparse::{self, Extent, MapReader},
};
use crate::{
    budget::Budgets,
    error::{Refused, Shown, refuse},
};

/// The largest size that a header's octal field can say.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// What a header says of the header that follows.
#[derive(Default)]
struct Pending {
    extended: Option<Extended>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.name.is_none() && self.link.is_none()
    }
}

/// An archive that is read.
pub struct Reader<R> {
    input: R,
    budgets: Budgets,
    global: Extended,
    /// Of the present entry's data.
    remaining: u64,
    padding: u64,
    entries: u64,
    content_bytes: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`, which is not compressed.
    pub fn new(input: R, budgets: Budgets) -> Self {
        Self {
            input,
            budgets,
            global: Extended::default(),
            remaining: 0,
            padding: 0,
            entries: 0,
            content_bytes: 0,
            ended: false,
        }
    }

    /// The next entry; what is left of the one before is skipped. Nothing at the end, which is
    /// two blocks of zeros or the input's end, after which there may be zeros only.
    ///
    /// # Errors
    /// [`Refused`] if the archive is damaged, contradicts itself or is over budget; others from
    /// the input.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.header()? else {
                if !pending.is_empty() {
                    refuse!("the archive ends after an extended header");
                }
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.budgets.entries {
                refuse!("the archive has more than {} entries", self.budgets.entries);
            }
            let header = Header::parse(&block)?;
            if let Some(entry) = self.entry(&header, &mut pending)? {
                return Ok(Some(entry));
            }
        }
    }

    /// Takes a header in; gives the entry if it is one, and not about another.
    fn entry(&mut self, header: &Header<'_>, pending: &mut Pending) -> Result<Option<Entry>> {
        match header.kind() {
            b'x' if pending.extended.is_some() => refuse!("two extended headers follow each other"),
            b'x' => {
                let content = self.meta(header)?;
                pending.extended = Some(Extended::parse(&content, false)?);
            }
            b'g' if !pending.is_empty() => refuse!("a global header follows an extended one"),
            b'g' => {
                let content = self.meta(header)?;
                let global = std::mem::take(&mut self.global);
                self.global = Extended::parse(&content, true)?.over(&global);
            }
            kind @ (b'L' | b'K') => {
                let mut name = self.meta(header)?;
                // It ends with its first NUL; what comes after it has no meaning.
                if let Some(end) = name.iter().position(|b| *b == 0) {
                    name.truncate(end);
                }
                let place = if kind == b'L' { &mut pending.name } else { &mut pending.link };
                if place.replace(name).is_some() {
                    refuse!("two long names follow each other");
                }
            }
            // The name of the volume.
            b'V' if pending.is_empty() => self.stored(header.size()?),
            _ => return self.whole(header, std::mem::take(pending)).map(Some),
        }
        Ok(None)
    }

    /// The content of a header that is about another.
    fn meta(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > self.budgets.header_bytes {
            refuse!(
                "an extended header has {size} bytes of {} that are allowed",
                self.budgets.header_bytes
            );
        }
        self.stored(size);
        let mut content = Vec::new();
        while let Some(piece) = self.chunk()? {
            content.extend_from_slice(piece);
            let length = piece.len();
            self.consume(length);
        }
        Ok(content)
    }

    /// An entry, from its header and those before it.
    fn whole(&mut self, header: &Header<'_>, pending: Pending) -> Result<Entry> {
        let extended = pending.extended.unwrap_or_default().over(&self.global);
        if pending.name.is_some() && extended.path.is_some()
            || pending.link.is_some() && extended.link.is_some()
        {
            refuse!("an entry has long names of two kinds");
        }
        let raw_name = match (&extended.sparse.name, extended.path, pending.name) {
            (Some(name), _, _) => name.clone(),
            (None, Some(name), _) | (None, None, Some(name)) => name,
            (None, None, None) => header.name()?,
        };
        let path = clean(&raw_name, &self.budgets)?;
        let link = || {
            extended
                .link
                .clone()
                .or_else(|| pending.link.clone())
                .unwrap_or_else(|| header.link().to_vec())
        };
        let stored = stored_size(header.size()?, extended.size)?;
        let is_directory_by_name = raw_name.ends_with(b"/") || path.is_empty();
        if extended.sparse.is_used() && !matches!(header.kind(), b'0' | 0) {
            refuse!("{} is sparse and no regular file", Shown(&path));
        }
        let kind = match header.kind() {
            // The oldest format has no type for directories.
            b'0' | 0 | b'7' if is_directory_by_name => Kind::Directory,
            b'0' | 0 | b'7' => {
                self.stored(stored);
                let data = self.sparse_data(&extended.sparse)?;
                let size = match &data {
                    Some((_, size)) => *size,
                    None => stored,
                };
                Kind::File { size, data: data.map(|(map, _)| map) }
            }
            b'S' => {
                let (fields, more, size) = header.gnu_sparse()?;
                let mut map = Vec::new();
                sparse::old(fields, &mut map)?;
                self.old_sparse_blocks(more, &mut map)?;
                sparse::check(&map, size, stored)?;
                self.stored(stored);
                Kind::File { size, data: Some(map) }
            }
            b'5' => Kind::Directory,
            b'1' => Kind::HardLink(clean(&link(), &self.budgets)?),
            b'2' => Kind::SymbolicLink(self.target(link(), &path)?),
            b'3' => {
                let (major, minor) = header.device()?;
                Kind::Character(major, minor)
            }
            b'4' => {
                let (major, minor) = header.device()?;
                Kind::Block(major, minor)
            }
            b'6' => Kind::Fifo,
            other => {
                refuse!(
                    "{} is of the type {:?}, which is not known",
                    Shown(&path),
                    char::from(other)
                );
            }
        };
        if let Kind::File { size, .. } = kind {
            self.content_bytes = self.content_bytes.saturating_add(size);
            if self.content_bytes > self.budgets.content_bytes {
                refuse!("the archive has more than {} bytes", self.budgets.content_bytes);
            }
        } else if stored != 0 {
            refuse!("{} has content, and is no regular file", Shown(&path));
        }
        let modified = match extended.modified.flatten() {
            Some(time) => time,
            None => Time { seconds: header.modified_seconds()?, nanoseconds: 0 },
        };
        Ok(Entry {
            kind,
            mode: header.mode()?,
            uid: owner("user", extended.uid.flatten(), header.uid(), &path)?,
            gid: owner("group", extended.gid.flatten(), header.gid(), &path)?,
            modified,
            attributes: extended.attributes,
            path,
        })
    }

    fn target(&self, target: Vec<u8>, path: &[u8]) -> Result<Vec<u8>> {
        if target.is_empty() || target.contains(&0) || target.len() > self.budgets.name_bytes {
            refuse!("the link {} has no usable target", Shown(path));
        }
        Ok(target)
    }

    /// The map of a sparse file in an extended header, or before the data, and its size.
    fn sparse_data(&mut self, sparse: &super::pax::Sparse) -> Result<Option<(Vec<Extent>, u64)>> {
        if !sparse.is_used() {
            return Ok(None);
        }
        let Some(size) = sparse.real_size else { refuse!("a sparse file has no size") };
        let map = match (sparse.major, sparse.minor, &sparse.map) {
            (Some(1), Some(0), None) if sparse.listed.is_empty() && sparse.count.is_none() => {
                self.map_before_data()?
            }
            (None, None, Some(map)) if sparse.listed.is_empty() => map.clone(),
            (None, None, None) => sparse.listed.clone(),
            _ => refuse!("a sparse file is of a version that is not known, or of two"),
        };
        if sparse.count.is_some_and(|count| count != map.len() as u64) {
            refuse!("a sparse file's map has another length than it says");
        }
        sparse::check(&map, size, self.remaining)?;
        Ok(Some((map, size)))
    }

    fn map_before_data(&mut self) -> Result<Vec<Extent>> {
        let mut reader = MapReader::default();
        let mut read = 0;
        loop {
            read += BLOCK as u64;
            if self.remaining < BLOCK as u64 || read > self.budgets.header_bytes {
                refuse!("a sparse file's map does not end");
            }
            let block = self.block()?;
            self.remaining -= BLOCK as u64;
            if let Some(map) = reader.feed(&block)? {
                return Ok(map);
            }
        }
    }

    fn old_sparse_blocks(&mut self, mut more: bool, map: &mut Vec<Extent>) -> Result<()> {
        let mut read = 0;
        while more {
            read += BLOCK as u64;
            if read > self.budgets.header_bytes {
                refuse!("a sparse file's map does not end");
            }
            let block = self.block()?;
            sparse::old(&block[..504], map)?;
            more = block[504] != 0;
        }
        Ok(())
    }

    /// From here on, `size` bytes and what fills up their last block.
    fn stored(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// A piece of the present entry's data; nothing at its end. It stays the next one until it
    /// is consumed.
    ///
    /// # Errors
    /// If the input ends or fails.
    pub fn chunk(&mut self) -> Result<Option<&[u8]>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let buffer = self.input.fill_buf().map_err(input_failed)?;
        if buffer.is_empty() {
            refuse!("{TRUNCATED}");
        }
        let length = usize::try_from(self.remaining).map_or(buffer.len(), |r| r.min(buffer.len()));
        Ok(Some(&buffer[..length]))
    }

    /// Goes on by `length` bytes, at most those of the last [`Self::chunk`].
    pub fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.remaining -= length as u64;
    }

    /// How many entries there were, with headers about others.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn skip_data(&mut self) -> Result<()> {
        while let Some(piece) = self.chunk()? {
            let length = piece.len();
            self.consume(length);
        }
        // umoci's inserted layers end without it, and Go's reader does not miss it: nothing of the
        // entry is lost.
        self.remaining = std::mem::take(&mut self.padding);
        while !self.input.fill_buf().map_err(input_failed)?.is_empty()
            && let Some(piece) = self.chunk()?
        {
            let length = piece.len();
            self.consume(length);
        }
        self.remaining = 0;
        Ok(())
    }

    /// The next header's block; nothing at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.ended || self.input.fill_buf().map_err(input_failed)?.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        let block = self.block()?;
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        self.ended = true;
        loop {
            let buffer = self.input.fill_buf().map_err(input_failed)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            if buffer.iter().any(|b| *b != 0) {
                refuse!("something follows the end of the archive");
            }
            let length = buffer.len();
            self.input.consume(length);
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(input_failed)?;
        Ok(block)
    }
}

/// The present entry's data.
impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let copied = match self.chunk() {
            Err(error) => return Err(io::Error::other(error)),
            Ok(None) => return Ok(0),
            Ok(Some(piece)) => {
                let length = piece.len().min(buffer.len());
                buffer[..length].copy_from_slice(&piece[..length]);
                length
            }
        };
        self.consume(copied);
        Ok(copied)
    }
}

const TRUNCATED: &str = "the archive ends in the middle of an entry";

/// The input's own refusal (damaged compression), its end, or an error of the machine.
fn input_failed(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Refused(TRUNCATED.into()).into();
    }
    Err::<(), _>(error).context("read the archive").expect_err("it is an error")
}

/// The size of what is stored: readers that know extended headers take theirs, others the
/// header's, so both must say the same, unless the number does not fit a header's octal digits.
/// Writers then leave zeros or as many sevens as fit.
fn stored_size(header: u64, extended: Option<u64>) -> Result<u64> {
    match extended {
        None => Ok(header),
        Some(size) if size == header => Ok(size),
        Some(size) if size > MAX_OCTAL && matches!(header, 0 | MAX_OCTAL) => Ok(size),
        Some(size) => {
            refuse!("an entry has {header} bytes by its header and {size} by its extended one")
        }
    }
}

fn owner(what: &str, extended: Option<i64>, header: Result<i64>, path: &[u8]) -> Result<u32> {
    let id = match extended {
        Some(id) => id,
        None => header?,
    };
    // The last number means "unchanged" to the kernel.
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => refuse!("{} belongs to the {what} {id}, which cannot be", Shown(path)),
    }
}
