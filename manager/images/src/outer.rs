//! Reading the archives that images travel in, from a stranger.
//!
//! No name in the archive becomes a path here: each file goes, hashed, to the content store or,
//! if it is small, to memory, and the names are keys of a map. Links are followed in that map.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use hull_manager_archive::{
    Budgets, Refused,
    tar::{Kind, Reader},
};
use hull_manager_content::Lease;
use hull_manager_core::{Error, Result};
use hull_specs_image::Digest;
use tokio::sync::mpsc::{self, Receiver};

use crate::Images;

/// What is read at once.
const BUFFER: usize = 256 << 10;

/// Files up to this size stay in memory, …
const SMALL_BYTES: u64 = 256 << 10;
/// … as long as all of them are not more than this.
const SMALL_TOTAL_BYTES: u64 = 16 << 20;
/// The most entries: an image of 500 layers has some 2,000.
const MAX_ENTRIES: u64 = 20_000;
/// The most links that are followed from one name.
const MAX_LINKS: usize = 8;
/// How many times more than came the archive may be, beyond the first GiB: what is in it is
/// compressed already, or text and programs.
const EXPANSION: u64 = 200;

/// A file of the archive.
#[derive(Clone)]
pub(crate) enum Stored {
    /// In memory.
    Small(Bytes),
    /// In the content store.
    Blob(Digest, u64),
    /// Another name for the file there.
    Link(Vec<u8>),
}

/// What was in an archive.
pub(crate) struct Files {
    files: HashMap<Vec<u8>, Stored>,
    /// Holds what is in the content store.
    pub(crate) lease: Lease,
}

impl Files {
    /// A file by its name: links are followed.
    pub(crate) fn get(&self, name: &str) -> Option<&Stored> {
        let mut path = normal(name.as_bytes())?;
        for _ in 0..=MAX_LINKS {
            match self.files.get(&path)? {
                Stored::Link(target) => path.clone_from(target),
                file => return Some(file),
            }
        }
        None
    }

    /// The bytes of a document.
    pub(crate) fn read(&self, images: &Images, name: &str, max_bytes: u64) -> Result<Bytes> {
        let shown = name.escape_default();
        match self.get(name) {
            None => Err(Error::invalid(format!("invalid archive: there is no {shown} in it"))),
            Some(Stored::Small(bytes)) if bytes.len() as u64 <= max_bytes => Ok(bytes.clone()),
            Some(Stored::Blob(digest, size)) if *size <= max_bytes => {
                Ok(images.content.read(digest, max_bytes)?.into())
            }
            Some(_) => Err(Error::invalid(format!(
                "invalid archive: {shown} is larger than {max_bytes} bytes"
            ))),
        }
    }

    /// A file as a blob of the content store: digest, size, and its first bytes.
    pub(crate) fn blob(&self, images: &Images, name: &str) -> Result<(Digest, u64, Vec<u8>)> {
        match self.get(name) {
            Some(Stored::Small(bytes)) => {
                let digest = images.content.add(bytes, &self.lease)?;
                let magic = bytes.iter().copied().take(4).collect();
                Ok((digest, bytes.len() as u64, magic))
            }
            Some(Stored::Blob(digest, size)) => {
                let mut magic = Vec::new();
                let file = images.content.open_blob(digest)?;
                file.take(4).read_to_end(&mut magic).map_err(|cause| {
                    Error::internal(format!("read blob {digest}")).because(cause)
                })?;
                Ok((*digest, *size, magic))
            }
            _ => Err(Error::invalid(format!(
                "invalid archive: there is no {} in it",
                name.escape_default()
            ))),
        }
    }

    /// The digest of a file.
    pub(crate) fn digest(&self, name: &str) -> Option<Digest> {
        match self.get(name)? {
            Stored::Small(bytes) => Some(Digest::of(bytes)),
            Stored::Blob(digest, _) => Some(*digest),
            Stored::Link(_) => None,
        }
    }
}

/// A name without `.` and double slashes; none with `..`.
fn normal(name: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> =
        name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    (!parts.contains(&&b".."[..])).then(|| parts.join(&b'/'))
}

/// Where a symbolic link in the archive leads: within the archive, or nowhere.
fn target(link: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = match text.first() {
        Some(b'/') => Vec::new(),
        _ => link.split(|b| *b == b'/').collect(),
    };
    // The link's own name.
    parts.pop();
    for part in text.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// What an archive may ask for.
pub(crate) fn budgets() -> Budgets {
    Budgets { entries: MAX_ENTRIES, depth: 16, expansion: EXPANSION, ..Budgets::default() }
}

/// Reads a whole archive, which is not compressed.
pub(crate) fn read(images: &Images, input: impl Read, mut tell: impl FnMut(u64)) -> Result<Files> {
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER, input), budgets());
    let mut found = Files { files: HashMap::new(), lease: images.content.lease() };
    let (mut in_memory, mut total) = (0, 0);
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        let stored = match entry.kind {
            Kind::File { size, data: None }
                if size <= SMALL_BYTES && in_memory + size <= SMALL_TOTAL_BYTES =>
            {
                in_memory += size;
                let mut bytes = Vec::new();
                each(&mut reader, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                total += size;
                Stored::Small(bytes.into())
            }
            Kind::File { data: None, .. } => {
                let mut blob = images.content.create()?;
                each(&mut reader, |piece| {
                    total += piece.len() as u64;
                    tell(total);
                    blob.write(piece)
                })?;
                let (digest, size) = blob.finish(&found.lease)?;
                Stored::Blob(digest, size)
            }
            Kind::HardLink(to) => Stored::Link(to),
            Kind::SymbolicLink(to) => match target(&entry.path, &to) {
                Some(to) => Stored::Link(to),
                None => return Err(invalid(&"a link leads out of it")),
            },
            Kind::Directory => continue,
            _ => return Err(invalid(&"there is something else than files and links in it")),
        };
        if found.files.insert(entry.path.clone(), stored).is_some() {
            let name = String::from_utf8_lossy(&entry.path).escape_default().to_string();
            return Err(invalid(&format!("{name} is there twice")));
        }
    }
    Ok(found)
}

fn each<R: BufRead>(
    reader: &mut Reader<R>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    while let Some(piece) = reader.chunk().map_err(refused)? {
        let length = piece.len();
        take(piece)?;
        reader.consume(length);
    }
    Ok(())
}

fn invalid(why: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("invalid archive: {why}"))
}

/// An error of the reader: the archive's fault, the client's, or ours.
pub(crate) fn refused(error: anyhow::Error) -> Error {
    if let Some(Refused(why)) = Refused::of(&error) {
        return invalid(why);
    }
    let of_client = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .and_then(|cause| cause.get_ref())
        .and_then(|cause| cause.downcast_ref::<Error>());
    match of_client {
        Some(error) => Error::new(error.kind(), error.message()),
        None => invalid(&format!("{error:#}")),
    }
}

/// So many chunks may wait.
const CHUNKS: usize = 8;

/// What a client sends, read on a thread. An error in its stream is one here; so is an end that
/// nobody announced, because then whoever passed the chunks on has been given up.
pub(crate) struct Chunks {
    incoming: Receiver<Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

/// Passes a stream on to a thread that reads it.
pub(crate) fn pass(
    mut chunks: impl Stream<Item = Result<Bytes>> + Send + Unpin,
) -> (Chunks, impl Future<Output = ()>) {
    let (sender, incoming) = mpsc::channel(CHUNKS);
    let passing = async move {
        while let Some(chunk) = chunks.next().await {
            // An empty one is the end's. One that is not taken: the reader has ended, and says why.
            let empty = chunk.as_ref().is_ok_and(Bytes::is_empty);
            if !empty && sender.send(chunk).await.is_err() {
                return;
            }
        }
        drop(sender.send(Ok(Bytes::new())).await);
    };
    (Chunks { incoming, current: Bytes::new(), ended: false }, passing)
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.incoming.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.current = chunk;
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Err(io::Error::other(Error::cancelled("the client went away"))),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_within_the_archive_or_nowhere() {
        for (link, text, to) in [
            ("a/layer.tar", "../b/layer.tar", Some("b/layer.tar")),
            ("a", "b", Some("b")),
            ("a/b", "/c", Some("c")),
            ("a/b", "../../c", None),
            ("a/b", "./x//y", Some("a/x/y")),
        ] {
            let found = target(link.as_bytes(), text.as_bytes());
            assert_eq!(found.as_deref(), to.map(str::as_bytes), "{link} {text}");
        }
        assert_eq!(normal(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(normal(b"a/../b"), None);
    }
}
