//! Fetching one image.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hull_manager_content::{Claim, Lease};
use hull_manager_core::{Error, ErrorKind, Result};
use hull_manager_registry::{Blob, BlobEvent, Image, Repository};
use hull_specs_api::v1::progress::Phase;
use hull_specs_image::{Descriptor, Digest, config::MAX_CONFIG_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    Images, documents,
    install::{Layer, Prepared},
    layer::{self, Unpack, Unpacked},
    progress::{Meter, Report},
};

/// So many layers at once.
const PARALLEL: usize = 6;

/// So many bytes of a layer may lie between the network and the disk, and one piece more. They
/// are counted because a piece has up to 408 KiB, or as few as a frame of HTTP/2.
const WAITING_BYTES: usize = 512 << 10;

/// So many pieces, however small.
const PIECES: usize = 64;

impl Images {
    /// Whether an image is there with this manifest and all its layers.
    pub(crate) fn is_whole(&self, id: &Digest, manifest: &Digest) -> Result<bool> {
        let same = self.records.get(id)?.is_some_and(|record| record.manifest.digest == *manifest);
        if !same || !self.content.has(id) {
            return Ok(false);
        }
        let (config, _) = self.config(id)?;
        for (row, diff_id) in self.records.layers(id)?.iter().zip(&config.rootfs.diff_ids) {
            if !self.snapshots.has_layer(&row.chain)? || !layer::is_there(self, &row.blob, diff_id)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Fetches what is not there of an image.
pub(crate) async fn image(
    images: &Images,
    repository: &Repository,
    found: Image,
    report: &Report,
) -> Result<Prepared> {
    let Image { manifest, descriptor, bytes, .. } = found;
    let lease = images.content.lease();
    let config_bytes = if images.content.has(&manifest.config.digest) {
        images.content.read(&manifest.config.digest, MAX_CONFIG_BYTES)?.into()
    } else {
        repository.small_blob(&manifest.config, MAX_CONFIG_BYTES).await?
    };
    let config = documents::config(&manifest, &config_bytes)?;
    let chains = config.rootfs.chain_ids();
    // First held, then looked at.
    let hold = images.hold_fresh(&chains);
    for digest in manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest) {
        lease.add(digest);
    }
    let jobs: Vec<_> = manifest
        .layers
        .iter()
        .zip(config.rootfs.diff_ids.iter().zip(&chains))
        .map(|(blob, (diff_id, chain))| {
            let meter = Meter::new(report, blob.digest.short(), blob.size);
            one(images, repository, blob.clone(), *diff_id, *chain, meter)
        })
        .collect();
    let layers: Vec<Layer> = stream::iter(jobs).buffered(PARALLEL).try_collect().await?;
    let images_ = images.clone();
    tokio::task::spawn_blocking(move || {
        add_documents(&images_, &lease, &config_bytes, &bytes)?;
        let id = manifest.config.digest;
        images_.prepare(id, &config, descriptor, None, layers, lease, hold)
    })
    .await
    .unwrap_or_else(|cause| Err(Error::internal("the pull ended early").because(cause)))
}

fn add_documents(images: &Images, lease: &Lease, config: &[u8], manifest: &[u8]) -> Result<()> {
    images.content.add(config, lease)?;
    images.content.add(manifest, lease)?;
    Ok(())
}

/// Fetches and unpacks a layer, as far as it is not there.
async fn one(
    images: &Images,
    repository: &Repository,
    blob: Descriptor,
    diff_id: Digest,
    chain: Digest,
    mut meter: Meter,
) -> Result<Layer> {
    meter.tell(Phase::Waiting, 0);
    // The same blob may be another layer of this image, or of one that is pulled meanwhile.
    let claim = images.content.claim(blob.digest).await;
    if images.snapshots.has_layer(&chain)? && layer::is_there(images, &blob.digest, &diff_id)? {
        meter.tell(Phase::AlreadyExists, blob.size);
        return Ok(Layer { diff_id, blob, unpacked: None });
    }
    let unpacked = if images.content.has(&blob.digest) {
        drop(claim);
        let (images, blob) = (images.clone(), blob.clone());
        tokio::task::spawn_blocking(move || {
            meter.tell(Phase::Extracting, 0);
            let unpacked = layer::unpack_blob(&images, &blob)?;
            meter.tell(Phase::Complete, blob.size);
            Ok(unpacked)
        })
        .await
        .unwrap_or_else(|cause| Err(Error::internal("the unpacking ended early").because(cause)))?
    } else {
        fetch(images, repository, &blob, claim, meter).await?
    };
    if unpacked.diff_id != diff_id {
        return Err(Error::corrupt(format!(
            "layer {} unpacks to {}, the image says {diff_id}",
            blob.digest, unpacked.diff_id
        )));
    }
    Ok(Layer { diff_id, blob, unpacked: Some(unpacked) })
}

/// What goes to the thread that writes.
enum Piece {
    /// With its share of what may wait.
    Data(bytes::Bytes, OwnedSemaphorePermit),
    Retrying(String),
    End,
}

/// Fetches and unpacks, from a mirror that serves something else no more than once.
async fn fetch(
    images: &Images,
    repository: &Repository,
    blob: &Descriptor,
    claim: Claim,
    meter: Meter,
) -> Result<Unpacked> {
    let mut claim = Some(claim);
    loop {
        let claim = match claim.take() {
            Some(claim) => claim,
            None => images.content.claim(blob.digest).await,
        };
        let mut source = None;
        let outcome = attempt(images, repository, blob, claim, meter.clone(), &mut source).await;
        let Err(error) = outcome else { return outcome };
        let wrong = matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::InvalidArgument);
        // What was there already may be what is wrong.
        let other = |source: &Source| source.resumed || source.blob.distrust();
        if !wrong || !source.as_ref().is_some_and(other) {
            return Err(error);
        }
        meter.say(Phase::Retrying, 0, &error.to_string());
    }
}

/// Where an attempt took a blob from.
struct Source {
    blob: Blob,
    resumed: bool,
}

/// One stream: from the network through a thread that hashes and writes, into the content store
/// and the worker that unpacks.
async fn attempt(
    images: &Images,
    repository: &Repository,
    blob: &Descriptor,
    claim: Claim,
    meter: Meter,
    source: &mut Option<Source>,
) -> Result<Unpacked> {
    let (pieces, incoming) = mpsc::channel(PIECES);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let (at, offset) = oneshot::channel();
    let writer = {
        let (images, blob) = (images.clone(), blob.clone());
        tokio::task::spawn_blocking(move || write(&images, &blob, claim, incoming, at, meter))
    };
    let pump = async {
        // Without an offset the writer has failed, and says why.
        let Ok(offset) = offset.await else { return Ok(()) };
        let fetching = repository.blob(blob, offset);
        let Source { blob: fetching, .. } =
            source.insert(Source { blob: fetching, resumed: offset > 0 });
        while let Some(event) = fetching.next().await? {
            let piece = match event {
                BlobEvent::Data(bytes) => {
                    let share = bytes.len().min(WAITING_BYTES) as u32;
                    // The writer gives back what it has, and all when it ends.
                    let Ok(share) = Arc::clone(&room).acquire_many_owned(share).await else {
                        return Ok(());
                    };
                    Piece::Data(bytes, share)
                }
                BlobEvent::Retrying(why) => Piece::Retrying(why),
            };
            if pieces.send(piece).await.is_err() {
                return Ok(());
            }
        }
        // The same: if nobody takes it, the writer says why.
        drop(pieces.send(Piece::End).await);
        Ok(())
    };
    let pumped: Result<()> = pump.await;
    drop(pieces);
    let written = writer
        .await
        .unwrap_or_else(|cause| Err(Error::internal("the writer ended early").because(cause)));
    pumped.and(written)
}

/// The thread's side. If the stream ends without [`Piece::End`], what came is kept.
fn write(
    images: &Images,
    blob: &Descriptor,
    claim: Claim,
    mut incoming: mpsc::Receiver<Piece>,
    at: oneshot::Sender<u64>,
    mut meter: Meter,
) -> Result<Unpacked> {
    let mut unpack = Unpack::begin(images)?;
    let mut ingest = claim.open(blob.size, |piece| unpack.write(piece))?;
    let gone = || Error::cancelled("the pull was given up");
    at.send(ingest.offset()).map_err(|_| gone())?;
    loop {
        match incoming.blocking_recv() {
            None => return Err(gone()),
            Some(Piece::Retrying(why)) => meter.say(Phase::Retrying, ingest.offset(), &why),
            Some(Piece::Data(bytes, _share)) => {
                ingest.write(&bytes)?;
                if let Err(error) = unpack.write(&bytes) {
                    if error.kind() == ErrorKind::InvalidArgument {
                        ingest.discard();
                    }
                    return Err(error);
                }
                meter.tell(Phase::Downloading, ingest.offset());
            }
            Some(Piece::End) => break,
        }
    }
    // The rest of the unpacking and the way to the disk, at the same time.
    meter.tell(Phase::Extracting, blob.size);
    let mut unpack = Some(unpack);
    let unpacked = std::thread::scope(|scope| {
        let unpack = unpack.take();
        let rest = scope.spawn(move || unpack.map(Unpack::finish));
        let committed = ingest.commit();
        let unpacked = rest.join();
        committed?;
        match unpacked {
            Ok(Some(unpacked)) => unpacked,
            _ => Err(Error::internal("the unpacking ended early")),
        }
    })?;
    meter.tell(Phase::Complete, blob.size);
    Ok(unpacked)
}
