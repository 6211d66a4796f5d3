//! From entries to an archive's bytes: ustar, and extended headers only where an entry does not
//! fit. The same entries give the same bytes.

use std::io::{self, Write};

use super::{Entry, Kind, header::BLOCK};

/// The largest owner that a header's octal field can say.
const MAX_OWNER: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// An archive that is written.
pub struct Writer<W: Write> {
    output: W,
    entries: u64,
}

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output, entries: 0 }
    }

    /// Writes an entry's headers. The content of a file of `size` bytes follows by
    /// [`Self::content`], of exactly that many.
    ///
    /// # Errors
    /// If the output fails, or the entry cannot be said: the root needs the name `./`, which is
    /// written for it, and holes are not.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        let mut records = Vec::new();
        let name = stored_name(entry);
        let (prefix, short) = fit(&name).unwrap_or_else(|| {
            record(&mut records, b"path", &name);
            (&[], cut(&name))
        });
        let link: &[u8] = match &entry.kind {
            Kind::HardLink(target) | Kind::SymbolicLink(target) => target,
            _ => b"",
        };
        if link.len() > 100 {
            record(&mut records, b"linkpath", link);
        }
        let size = match &entry.kind {
            Kind::File { data: Some(_), .. } => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "holes cannot be written"));
            }
            Kind::File { size, data: None } => *size,
            _ => 0,
        };
        for (key, value, fits) in [
            (&b"size"[..], size, size <= MAX_SIZE),
            (b"uid", entry.uid.into(), entry.uid <= MAX_OWNER),
            (b"gid", entry.gid.into(), entry.gid <= MAX_OWNER),
        ] {
            if !fits {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(entry.modified.seconds).ok().filter(|s| *s <= MAX_SIZE);
        if seconds.is_none() {
            record(&mut records, b"mtime", entry.modified.seconds.to_string().as_bytes());
        }
        for (attribute, value) in &entry.attributes {
            record(&mut records, &[b"SCHILY.xattr.", &attribute[..]].concat(), value);
        }
        if !records.is_empty() {
            let mut block = block(b"", b"././@PaxHeader", b'x');
            octal(&mut block, 100, 8, 0o644);
            octal(&mut block, 124, 12, records.len() as u64);
            self.header(block)?;
            self.output.write_all(&records)?;
            self.fill(records.len() as u64)?;
        }
        let mut block = block(prefix, short, type_flag(&entry.kind));
        octal(&mut block, 100, 8, (entry.mode & 0o7777).into());
        octal(&mut block, 108, 8, if entry.uid <= MAX_OWNER { entry.uid.into() } else { 0 });
        octal(&mut block, 116, 8, if entry.gid <= MAX_OWNER { entry.gid.into() } else { 0 });
        octal(&mut block, 124, 12, if size <= MAX_SIZE { size } else { 0 });
        octal(&mut block, 136, 12, seconds.unwrap_or(0));
        put(&mut block, 157, cut(link));
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = entry.kind {
            octal(&mut block, 329, 8, (major & MAX_OWNER).into());
            octal(&mut block, 337, 8, (minor & MAX_OWNER).into());
        }
        self.header(block)
    }

    /// Writes a piece of content.
    ///
    /// # Errors
    /// If the output fails.
    pub fn content(&mut self, piece: &[u8]) -> io::Result<()> {
        self.output.write_all(piece)
    }

    /// Fills up the last block of `size` bytes of content.
    ///
    /// # Errors
    /// If the output fails.
    pub fn fill(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.output.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
    }

    /// An entry with all its content.
    ///
    /// # Errors
    /// If the output fails.
    pub fn whole(&mut self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        self.entry(entry)?;
        self.content(content)?;
        self.fill(content.len() as u64)
    }

    /// Ends the archive; gives the output back, and how many entries there were.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok((self.output, self.entries))
    }

    fn header(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        octal(&mut block, 148, 7, sum);
        self.output.write_all(&block)
    }
}

/// The path as the archive has it: directories end with a slash.
fn stored_name(entry: &Entry) -> Vec<u8> {
    match (&entry.kind, entry.path.is_empty()) {
        (_, true) => b"./".to_vec(),
        (Kind::Directory, false) => [&entry.path[..], b"/"].concat(),
        _ => entry.path.clone(),
    }
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => b'0',
        Kind::HardLink(_) => b'1',
        Kind::SymbolicLink(_) => b'2',
        Kind::Character(..) => b'3',
        Kind::Block(..) => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// The two fields of a name in a header: at most 155 bytes, and 100 after a slash.
fn fit(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((&[], name));
    }
    let from = name.len().checked_sub(101)?;
    let at = from + name.get(from..name.len() - 1)?.iter().position(|b| *b == b'/')?;
    (1..=155).contains(&at).then(|| (&name[..at], &name[at + 1..]))
}

fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(100)]
}

fn block(prefix: &[u8], name: &[u8], kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, name);
    for (at, length) in [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)] {
        octal(&mut block, at, length, 0);
    }
    block[156] = kind;
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 345, prefix);
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, text: &[u8]) {
    block[at..at + text.len()].copy_from_slice(text);
}

/// Digits to the end of the field but one byte, which is NUL.
fn octal(block: &mut [u8; BLOCK], at: usize, length: usize, value: u64) {
    let mut value = value;
    for place in block[at..at + length - 1].iter_mut().rev() {
        *place = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    block[at + length - 1] = 0;
}

/// A record says its own length, digits included.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend_from_slice(b" ");
    records.extend_from_slice(key);
    records.extend_from_slice(b"=");
    records.extend_from_slice(value);
    records.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use super::{super::Reader, super::Time, *};
    use crate::budget::Budgets;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            modified: Time { seconds: 1_700_000_000, nanoseconds: 0 },
            attributes: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let long = [b"d/".repeat(100), b"f".repeat(90)].concat();
        let wide = b"w".repeat(180);
        let mut owned = entry(b"owned", Kind::File { size: 3, data: None });
        (owned.uid, owned.gid) = (u32::MAX - 1, 3_000_000);
        owned.modified.seconds = -1;
        owned.attributes = vec![(b"user.a".to_vec(), b"1\n2=\0".to_vec())];
        let entries = [
            entry(b"", Kind::Directory),
            entry(b"dir", Kind::Directory),
            entry(&long, Kind::Directory),
            entry(&wide, Kind::HardLink(long.clone())),
            entry(b"link", Kind::SymbolicLink(b"/../x".to_vec())),
            owned,
            entry(b"null", Kind::Character(1, 3)),
            entry(b"disk", Kind::Block(259, 70_000)),
            entry(b"pipe", Kind::Fifo),
        ];
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            let content: &[u8] = if matches!(entry.kind, Kind::File { .. }) { b"abc" } else { b"" };
            writer.whole(entry, content).unwrap();
        }
        let (archive, count) = writer.finish().unwrap();
        assert_eq!((archive.len() % BLOCK, count), (0, entries.len() as u64));
        let mut reader = Reader::new(&archive[..], Budgets::default());
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn names_are_split_where_both_parts_fit() {
        for length in [100, 101, 102, 150, 200, 255, 256, 257, 300] {
            let name = b"0123456789/".repeat(40)[..length].to_vec();
            if let Some((prefix, rest)) = fit(&name) {
                assert!(prefix.len() <= 155 && rest.len() <= 100 && !rest.is_empty());
                let joined = [prefix, b"/", rest].concat();
                assert!(prefix.is_empty() && rest == name || joined == name);
            } else {
                assert!(length > 200);
            }
        }
        assert_eq!(fit(&b"x".repeat(101)), None);
    }
}
