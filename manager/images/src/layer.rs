//! Layers: unpacked by the worker, and their forms in the content store.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd as _, OwnedFd},
};

use hull_manager_archive::{
    Options,
    compression::{Compressor, detect},
    worker::{self, Files, Job, Packing, Worker},
};
use hull_manager_content::Lease;
use hull_manager_core::{Error, Result, error::IoContext as _, name};
use hull_specs_image::{
    Descriptor, Digest,
    media_type::{self, Compression},
};

use crate::{Images, push::gzip_type, records::LayerBlob};

/// What is read at once.
const PIECE: usize = 256 << 10;

/// A directory of the snapshotter that is no layer yet; removed unless it becomes one.
struct Staged {
    images: Images,
    key: Option<String>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let snapshots = self.images.snapshots.clone();
        let remove = move || {
            if let Err(error) = snapshots.remove(&key) {
                tracing::warn!(snapshot.key = key, %error, "a staged layer stays");
            }
        };
        // A tree may take seconds, and whoever gave up may be on a thread that others wait for.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// A layer that is being unpacked. Dropped before its end, nothing of it stays.
pub(crate) struct Unpack {
    worker: Option<Worker>,
    staged: Staged,
}

/// A layer that was unpacked.
pub(crate) struct Unpacked {
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    staged: Staged,
}

impl Unpack {
    pub(crate) fn begin(images: &Images) -> Result<Self> {
        Self::start(images, None)
    }

    /// From a file, if there is one: then nothing is written.
    fn start(images: &Images, input: Option<&File>) -> Result<Self> {
        let key = format!("unpack-{}", name::random_id()?);
        let staged = Staged { images: images.clone(), key: Some(key.clone()) };
        let directory = images.snapshots.stage(&key)?;
        let job = Job::Unpack { options: Options::default() };
        let root = directory.dir.as_fd();
        let input = input.map(File::as_fd);
        let worker = worker::spawn(&job, Files { root, base: None, input, output: None })?;
        Ok(Self { worker: Some(worker), staged })
    }

    /// The next bytes of the layer, as it came.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(input) = self.worker.as_mut().and_then(|worker| worker.input.as_mut()) else {
            return Err(Error::internal("the layer was given up"));
        };
        match input.write_all(bytes) {
            // It has ended early, and says why; or it takes no more than the archive's end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let worker = self.worker.take();
                match worker.map(Worker::finish) {
                    Some(Err(error)) => Err(refused(error)),
                    _ => Err(Error::invalid("a layer goes on behind its end")),
                }
            }
            other => other.about("write to the unpacking process"),
        }
    }

    /// All is written.
    pub(crate) fn finish(mut self) -> Result<Unpacked> {
        let gone = || Error::internal("the layer was given up");
        let outcome = self.worker.take().ok_or_else(gone)?.finish().map_err(refused)?;
        Ok(Unpacked { diff_id: outcome.diff_id, bytes: outcome.file_bytes, staged: self.staged })
    }
}

impl Unpacked {
    /// Makes it the layer with this chain id.
    pub(crate) fn commit(mut self, chain: &Digest, parent: Option<&Digest>) -> Result<()> {
        let Some(key) = self.staged.key.clone() else { return Ok(()) };
        self.staged.images.snapshots.commit_layer(&key, chain, parent)?;
        self.staged.key = None;
        Ok(())
    }
}

/// An archive's own fault is one of the request.
fn refused(error: anyhow::Error) -> Error {
    match hull_manager_archive::Refused::of(&error) {
        Some(why) => Error::invalid(format!("the layer is refused: {why}")),
        None => error.into(),
    }
}

/// Unpacks a layer that is in the content store.
pub(crate) fn unpack_blob(images: &Images, blob: &Descriptor) -> Result<Unpacked> {
    Unpack::start(images, Some(&images.content.open_blob(&blob.digest)?))?.finish()
}

fn copy(input: &mut impl Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => take(piece.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).about("read a layer"),
        }
    }
}

/// How a layer of this type is compressed.
pub(crate) fn compression(kind: &str) -> Result<Compression> {
    media_type::layer_compression(kind).ok_or_else(|| {
        Error::invalid(format!("{:?} is no layer", kind.escape_default().to_string()))
    })
}

/// The type of a layer whose first bytes these are.
pub(crate) fn kind_of(first: &[u8]) -> Result<&'static str> {
    Ok(match (first, detect(first)) {
        (_, Compression::Gzip) => media_type::LAYER_GZIP,
        (_, Compression::Zstd) => media_type::LAYER_ZSTD,
        ([b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', ..], _) => {
            return Err(Error::unimplemented(
                "archives compressed with bzip2 or xz are not supported: use gzip, zstd or none",
            ));
        }
        (_, Compression::None) => media_type::LAYER,
    })
}

/// The form of a layer that can be read: the named one, or another that is there.
pub(crate) fn any(
    images: &Images,
    blob: &Descriptor,
    diff_id: &Digest,
    lease: &Lease,
) -> Result<Descriptor> {
    lease.add(blob.digest);
    if images.content.has(&blob.digest) {
        return Ok(blob.clone());
    }
    for form in images.records.forms(diff_id)? {
        lease.add(form.digest);
        if images.content.has(&form.digest) {
            return Ok(form);
        }
    }
    Err(Error::corrupt(format!("the content of layer {diff_id} is gone: pull its image again")))
}

/// Whether the content store has a layer in any form.
pub(crate) fn is_there(images: &Images, blob: &Digest, diff_id: &Digest) -> Result<bool> {
    Ok(images.content.has(blob)
        || images.records.forms(diff_id)?.iter().any(|form| images.content.has(&form.digest)))
}

/// The form of a layer that is sent to registries: as it came from one, else compressed.
pub(crate) fn to_send(
    images: &Images,
    blob: &Descriptor,
    diff_id: &Digest,
    lease: &Lease,
) -> Result<Descriptor> {
    let there = any(images, blob, diff_id, lease)?;
    let plain = compression(&there.media_type)? == Compression::None;
    if !plain || !images.records.sources(&there.digest)?.is_empty() {
        return Ok(there);
    }
    for form in images.records.forms(diff_id)? {
        lease.add(form.digest);
        if compression(&form.media_type)? != Compression::None && images.content.has(&form.digest) {
            return Ok(form);
        }
    }
    let mut compressed = images.content.create()?;
    let mut file = images.content.open_blob(&there.digest)?;
    let failed = "compress a layer";
    let mut gzip = Compressor::new(Compression::Gzip, Writing(&mut compressed)).about(failed)?;
    copy(&mut file, |piece| gzip.write_all(piece).about(failed))?;
    gzip.finish().about(failed)?;
    let (digest, size) = compressed.finish(lease)?;
    let blob = Descriptor::new(gzip_type(&blob.media_type), digest, size);
    images.records.add_form(&LayerBlob { diff_id: *diff_id, blob: blob.clone() })?;
    Ok(blob)
}

struct Writing<'a>(&'a mut hull_manager_content::NewBlob);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a container changed, as it is read.
pub(crate) struct Diff {
    worker: Worker,
}

impl Diff {
    pub(crate) fn begin(images: &Images, key: &str) -> Result<Self> {
        let changes = images.snapshots.changes(key)?;
        let job = Job::Diff { changed: changes.form, packing: Packing::Plain };
        let base = changes.below.as_ref().map(OwnedFd::as_fd);
        let root = changes.root.as_fd();
        let worker = worker::spawn(&job, Files { root, base, input: None, output: None })?;
        Ok(Self { worker })
    }

    /// How many entries it had.
    ///
    /// # Errors
    /// [`hull_manager_core::ErrorKind::Cancelled`] if it was not read to its end.
    pub(crate) fn finish(self) -> Result<u64> {
        let left = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        };
        match self.worker.finish() {
            Ok(outcome) => Ok(outcome.entries),
            Err(error) if error.chain().any(left) => Err(Error::cancelled("nobody reads it")),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Read for Diff {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.worker.output.as_mut().map_or(Ok(0), |output| output.read(buffer))
    }
}
