//! Writing blobs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_core::{Error, ErrorKind, Result, error::IoContext as _, name};
use hull_specs_image::{Digest, Hasher};
use tokio::sync::OwnedMutexGuard;

use crate::{Content, Lease, lease::lock};

/// The bytes that are read at once of what was fetched before.
const PIECE: usize = 256 << 10;

/// Blobs without a name yet are called this and something random.
const NAMELESS: &str = "new-";

/// The right to write one blob. Who asks for the same one waits until this is dropped, and then
/// should look whether the blob is there.
pub struct Claim {
    content: Content,
    digest: Digest,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut writers = lock(&self.content.shared.writers);
        self.guard = None;
        // Two: the map's and ours, if nobody waits.
        if writers.get(&self.digest).is_some_and(|writer| Arc::strong_count(writer) == 1) {
            writers.remove(&self.digest);
        }
    }
}

impl Content {
    /// Waits until nobody else writes this blob.
    pub async fn claim(&self, digest: Digest) -> Claim {
        let writer = lock(&self.shared.writers).entry(digest).or_default().clone();
        let guard = writer.lock_owned().await;
        Claim { content: self.clone(), digest, guard: Some(guard) }
    }

    /// Whether somebody writes this blob, or waits for it.
    pub(crate) fn is_claimed(&self, digest: &Digest) -> bool {
        lock(&self.shared.writers).contains_key(digest)
    }

    /// Begins a blob whose digest is not known yet.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(&self) -> Result<NewBlob> {
        let path = self.shared.ingests.join(format!("{NAMELESS}{}", name::random_id()?));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .about(path.display())?;
        Ok(NewBlob { content: self.clone(), path, file, hasher: Hasher::default(), size: 0 })
    }

    /// Makes the file at `from`, which has the digest, the blob. The bytes are on the disk before
    /// the name is.
    fn publish(&self, file: &File, from: &Path, digest: &Digest) -> Result<()> {
        let what = || format!("blob {digest}");
        file.sync_all().about(what())?;
        fs::rename(from, self.path(digest)).about(what())?;
        File::open(&self.shared.blobs).and_then(|directory| directory.sync_all()).about(what())
    }
}

/// A blob that is being written. Dropped before its end, what was written is kept for whoever
/// fetches it next.
pub struct Ingest {
    claim: Claim,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    offset_bytes: u64,
    size_bytes: u64,
}

impl Claim {
    /// Begins to write the blob of `size_bytes`, or goes on where somebody stopped: `replay` is
    /// given all that is there already, piece by piece.
    ///
    /// # Errors
    /// If the disk refuses, or `replay` does.
    pub fn open(
        self,
        size_bytes: u64,
        mut replay: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Ingest> {
        let path = self.content.shared.ingests.join(self.digest.hex());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .about(path.display())?;
        let what = || format!("ingest {}", self.digest);
        if file.metadata().about(what())?.len() > size_bytes {
            file.set_len(0).about(what())?;
        }
        let mut hasher = Hasher::default();
        let mut offset_bytes = 0;
        let mut piece = vec![0; PIECE];
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).about(what()),
            };
            let read = piece.get(..count).unwrap_or_default();
            hasher.update(read);
            if let Err(error) = replay(read) {
                // Of a kind that whoever comes next would meet again.
                if matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::DataLoss) {
                    drop(fs::remove_file(&path));
                }
                return Err(error);
            }
            offset_bytes += count as u64;
        }
        Ok(Ingest { path, file, hasher, offset_bytes, size_bytes, claim: self })
    }
}

impl Ingest {
    /// How much is there: the next bytes written are these of the blob.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset_bytes
    }

    /// The next bytes.
    ///
    /// # Errors
    /// If they are more than the blob has, or the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let after = self.offset_bytes + bytes.len() as u64;
        if after > self.size_bytes {
            drop(fs::remove_file(&self.path));
            return Err(Error::corrupt(format!(
                "blob {} has more than its {} bytes",
                self.claim.digest, self.size_bytes
            )));
        }
        self.file.write_all(bytes).about(format!("ingest {}", self.claim.digest))?;
        self.hasher.update(bytes);
        self.offset_bytes = after;
        Ok(())
    }

    /// All is written: from now on the blob is there.
    ///
    /// # Errors
    /// If it is shorter, or has another digest; then nothing of it is kept.
    pub fn commit(self) -> Result<()> {
        let Self { claim, path, file, hasher, offset_bytes, size_bytes } = self;
        if offset_bytes < size_bytes {
            return Err(Error::corrupt(format!(
                "blob {} has {offset_bytes} bytes instead of {size_bytes}",
                claim.digest
            )));
        }
        let found = hasher.finish();
        if found != claim.digest {
            drop(fs::remove_file(&path));
            return Err(Error::corrupt(format!(
                "what came as blob {} has the digest {found}",
                claim.digest
            )));
        }
        claim.content.publish(&file, &path, &claim.digest)
    }

    /// What there is of it is of no use to anybody.
    pub fn discard(self) {
        drop(fs::remove_file(&self.path));
    }
}

/// A blob whose digest is known at its end. Dropped before, nothing of it is kept.
pub struct NewBlob {
    content: Content,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl NewBlob {
    /// The next bytes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).about("a new blob")?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// What was written so far, from its beginning, to be read; nothing can be written after.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn rewind(&mut self) -> Result<&mut File> {
        self.file.rewind().about("a new blob")?;
        Ok(&mut self.file)
    }

    /// All is written: from now on the blob is there, held by `lease`. Its digest and size.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(mut self, lease: &Lease) -> Result<(Digest, u64)> {
        let digest = std::mem::take(&mut self.hasher).finish();
        lease.add(digest);
        if !self.content.has(&digest) {
            self.content.publish(&self.file, &self.path, &digest)?;
        }
        Ok((digest, self.size))
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        // Gone if it was published.
        drop(fs::remove_file(&self.path));
    }
}

/// What an earlier manager did not finish, and nobody can.
pub(crate) fn remove_nameless(ingests: &Path) -> Result<()> {
    for entry in fs::read_dir(ingests).about(ingests.display())? {
        let entry = entry.about(ingests.display())?;
        if entry.file_name().to_string_lossy().starts_with(NAMELESS) {
            fs::remove_file(entry.path()).about(entry.path().display())?;
        }
    }
    Ok(())
}
