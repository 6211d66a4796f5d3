//! Loading: the archives of `docker save`, of `hull save`, and OCI layouts in a tar.
//!
//! What an archive holds is decided by one of its documents only: `manifest.json` where it has
//! one, else `index.json`. An archive that has both may bring the manifests of `index.json` along,
//! if they are of exactly the configuration and layers that `manifest.json` names; so digests
//! survive a save and a load.

mod compressed;
mod docker;
pub(crate) mod oci;

use std::{pin::pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt as _, TryStreamExt as _,
    future::{Either, select},
    stream,
};
use hull_manager_core::{Error, Result};
use hull_specs_api::v1::{self, progress::Phase};
use hull_specs_image::{
    Descriptor, Digest, ImageConfig, Platform, Reference, media_type::Compression,
};
use tokio::sync::mpsc::Sender;

use self::compressed::{Plain, feed};
use crate::{
    Images,
    install::{Layer, Prepared},
    layer,
    outer::{self, Files},
    progress::{Meter, Report, progress},
};

/// The most images of an archive.
const MAX_IMAGES: usize = 1000;

/// So many layers are unpacked at once: each takes a process.
const PARALLEL: usize = 4;

/// So many bytes say how an archive is compressed.
const MAGIC_BYTES: usize = 4;

/// An image of an archive, its blobs in the content store but for the documents.
pub(crate) struct Incoming {
    pub(crate) config: ImageConfig,
    pub(crate) config_bytes: Bytes,
    pub(crate) manifest: Descriptor,
    pub(crate) manifest_bytes: Bytes,
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) references: Vec<Reference>,
}

/// The RPC.
pub(crate) async fn load(
    images: &Images,
    mut requests: impl Stream<Item = Result<v1::LoadRequest>> + Send + Unpin,
    answers: Sender<v1::LoadResponse>,
) -> Result<()> {
    let report = report(&answers);
    let first = requests.next().await.transpose()?.unwrap_or_default();
    let platform = match first.platform.as_str() {
        "" => None,
        text => Some(text.parse::<Platform>().map_err(Error::invalid)?),
    };
    let chunks = stream::once(async { Ok(first) })
        .chain(requests)
        .map(|request| request.map(|request| Bytes::from(request.chunk)))
        .boxed();
    let files = receive(images, chunks, report.clone()).await?;
    let (files, incoming) = images
        .blocking(move |images| {
            let incoming = if files.get("manifest.json").is_some() {
                docker::images(images, &files, platform.as_ref())?
            } else {
                oci::images(images, &files, platform.as_ref())?
            };
            Ok((files, incoming))
        })
        .await?;
    for image in incoming {
        let references = image.references.clone();
        let prepared = prepare(images, image, &report).await?;
        let id = prepared.image.id;
        let wanted = references.clone();
        let moved = images.blocking(move |images| images.install(&prepared, &wanted)).await?;
        for (reference, previous) in moved {
            let message = format!(
                "The image {} already exists, renaming the old one with ID {previous} to empty string",
                reference.familiar()
            );
            report(progress(&reference.familiar(), Phase::Complete, 0, 0, &message));
        }
        images.event(&id, &id.to_string(), "load");
        let names = references.iter().map(ToString::to_string).collect::<Vec<_>>();
        let names = if names.is_empty() { vec![String::new()] } else { names };
        for reference in names {
            let loaded = v1::LoadedImage { reference, image_id: id.to_string() };
            let event = Some(v1::load_response::Event::Loaded(loaded));
            let gone = |_| Error::cancelled("the client went away");
            answers.send(v1::LoadResponse { event }).await.map_err(gone)?;
        }
    }
    drop(files);
    Ok(())
}

fn report(answers: &Sender<v1::LoadResponse>) -> Report {
    let answers = answers.clone();
    // What a slow client does not take at once is left out.
    Arc::new(move |told| {
        let event = Some(v1::load_response::Event::Progress(told));
        drop(answers.try_send(v1::LoadResponse { event }));
    })
}

/// Reads the archive as it comes. A compressed one is decompressed by a worker (R11).
async fn receive(
    images: &Images,
    mut chunks: impl Stream<Item = Result<Bytes>> + Send + Unpin,
    report: Report,
) -> Result<Files> {
    let first = begin(&mut chunks).await?;
    let compression = layer::compression(layer::kind_of(&first)?)?;
    let chunks = stream::iter([Ok(first)]).chain(chunks);
    let mut meter = Meter::new(&report, "archive", 0);
    let tell = move |bytes| meter.tell(Phase::Reading, bytes);
    if compression == Compression::None {
        let (chunks, passing) = outer::pass(chunks);
        let reading = images.blocking(move |images| outer::read(images, chunks, tell));
        return while_passing(reading, async {
            passing.await;
            Ok(())
        })
        .await;
    }
    let (mut plain, input) = images.blocking(|_| Plain::begin()).await?;
    let reading = images.blocking(move |images| {
        let files = outer::read(images, &mut plain, tell);
        plain.finish(files)
    });
    while_passing(reading, feed(chunks, input)).await
}

/// The first bytes, which say what it is.
async fn begin(chunks: &mut (impl Stream<Item = Result<Bytes>> + Unpin)) -> Result<Bytes> {
    let mut first = BytesMut::new();
    while first.len() < MAGIC_BYTES
        && let Some(chunk) = chunks.try_next().await?
    {
        first.extend_from_slice(&chunk);
    }
    Ok(first.freeze())
}

/// Whoever reads knows when to end, and why; but if the client failed, that is the reason.
async fn while_passing<T>(
    reading: impl Future<Output = Result<T>>,
    passing: impl Future<Output = Result<()>>,
) -> Result<T> {
    let (reading, passing) = (pin!(reading), pin!(passing));
    match select(reading, passing).await {
        Either::Left((read, _)) => read,
        Either::Right((passed, reading)) => {
            let read = reading.await;
            passed.and(read)
        }
    }
}
/// Unpacks the layers that are not there.
async fn prepare(images: &Images, image: Incoming, report: &Report) -> Result<Prepared> {
    let Incoming { config, config_bytes, manifest, manifest_bytes, layers, .. } = image;
    let lease = images.content.lease();
    let id = images.content.add(&config_bytes, &lease)?;
    images.content.add(&manifest_bytes, &lease)?;
    let chains = config.rootfs.chain_ids();
    let hold = images.hold_fresh(&chains);
    let jobs: Vec<_> = layers
        .into_iter()
        .zip(config.rootfs.diff_ids.iter().copied().zip(chains))
        .map(|(blob, (diff_id, chain))| {
            lease.add(blob.digest);
            unpack(images, blob, diff_id, chain, report)
        })
        .collect();
    let layers = stream::iter(jobs).buffered(PARALLEL).try_collect().await?;
    images
        .blocking(move |images| images.prepare(id, &config, manifest, None, layers, lease, hold))
        .await
}

async fn unpack(
    images: &Images,
    blob: Descriptor,
    diff_id: Digest,
    chain: Digest,
    report: &Report,
) -> Result<Layer> {
    let mut meter = Meter::new(report, diff_id.short(), blob.size);
    if images.snapshots.has_layer(&chain)? {
        meter.tell(Phase::AlreadyExists, blob.size);
        return Ok(Layer { diff_id, blob, unpacked: None });
    }
    images
        .blocking(move |images| {
            meter.tell(Phase::Extracting, 0);
            let unpacked = layer::unpack_blob(images, &blob)?;
            if unpacked.diff_id != diff_id {
                return Err(Error::corrupt(format!(
                    "layer {} unpacks to {}, the image says {diff_id}",
                    blob.digest, unpacked.diff_id
                )));
            }
            meter.tell(Phase::Complete, blob.size);
            Ok(Layer { diff_id, blob, unpacked: Some(unpacked) })
        })
        .await
}

/// A layer's descriptor by what its first bytes say.
fn layer_of(digest: Digest, size: u64, magic: &[u8]) -> Result<Descriptor> {
    Ok(Descriptor::new(layer::kind_of(magic)?, digest, size))
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid archive: {why}"))
}

/// A JSON document of an archive.
fn document<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| invalid(name.escape_default()).because(cause))
}
