//! Pushing: the layers as they were pulled, so that the digest stays; such as were made here are
//! compressed first.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hull_manager_content::Lease;
use hull_manager_core::{Error, Result};
use hull_manager_registry::{Pushed, Repository};
use hull_specs_api::v1::{self, progress::Phase};
use hull_specs_image::{
    Descriptor, Digest, Manifest, Reference, document::MAX_MANIFEST_BYTES, media_type,
};
use tokio::sync::mpsc::Sender;

use crate::{
    Images, layer, lookup,
    progress::{Meter, Report, progress},
    pull::credentials,
    records::{LayerBlob, LayerRecord, NewImage},
};

/// So many blobs at once.
const PARALLEL: usize = 6;

/// An image in the form in which it is sent.
struct Outgoing {
    id: Digest,
    config: Descriptor,
    layers: Vec<Descriptor>,
    manifest: Descriptor,
    bytes: Vec<u8>,
    _lease: Lease,
}

/// The RPC.
pub(crate) async fn push(
    images: &Images,
    request: v1::PushRequest,
    answers: Sender<v1::PushResponse>,
) -> Result<()> {
    let reference = lookup::parse(&request.reference)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    let mut references = vec![reference.clone()];
    if request.all_tags {
        if lookup::has_tag(&request.reference) {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        references = images.records.all_references()?.into_iter().map(|(one, _)| one).collect();
        references.retain(|one| one.tag().is_some() && one.name() == reference.name());
        if references.is_empty() {
            return Err(missing(&reference.familiar_name()));
        }
    }
    let credentials = credentials(request.credentials.as_ref());
    let report: Report = {
        let answers = answers.clone();
        // What a slow client does not take at once is left out.
        Arc::new(move |told| {
            let event = Some(v1::push_response::Event::Progress(told));
            drop(answers.try_send(v1::PushResponse { event }));
        })
    };
    for reference in references {
        let name = reference.familiar();
        if images.records.named(&reference)?.is_none() {
            return Err(missing(&name));
        }
        let id = images.record(&reference.to_string(), &request.platform)?.id;
        let message = format!("The push refers to repository [{}]", reference.name());
        report(progress("", Phase::Resolving, 0, 0, &message));
        let outgoing = images.blocking(move |images| prepare(images, id)).await?;
        let repository = images.registry().repository(&reference, &credentials)?;
        let pushed = send(images, &repository, &reference, &outgoing, &report).await?;
        images.journal.record("image", "push", &name, &[("name", &reference.familiar_name())]);
        let event = Some(v1::push_response::Event::Pushed(pushed));
        let gone = |_| Error::cancelled("the client went away");
        answers.send(v1::PushResponse { event }).await.map_err(gone)?;
    }
    Ok(())
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("An image does not exist locally with the tag: {name}"))
}

/// Finds or makes the form of each layer, and with a new one the manifest.
fn prepare(images: &Images, id: Digest) -> Result<Outgoing> {
    let lease = images.content.lease();
    let record = images.records.get(&id)?.ok_or_else(|| lookup::no_such(&id.to_string()))?;
    lease.add(record.manifest.digest);
    let mut bytes = images.content.read(&record.manifest.digest, MAX_MANIFEST_BYTES)?;
    let mut manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::corrupt("the image's manifest").because(cause))?;
    let (config, _) = images.config(&id)?;
    let mut changed = false;
    for (blob, diff_id) in manifest.layers.iter_mut().zip(&config.rootfs.diff_ids) {
        let form = layer::to_send(images, blob, diff_id, &lease)?;
        changed |= form.digest != blob.digest;
        if form.digest != blob.digest {
            *blob = form;
        }
    }
    let mut descriptor = record.manifest;
    if changed {
        bytes = serde_json::to_vec(&manifest)
            .map_err(|cause| Error::internal("write the manifest").because(cause))?;
        descriptor = Descriptor::of(&descriptor.media_type, &bytes);
        images.content.add(&bytes, &lease)?;
        let _one = images.changes();
        let mut rows = images.records.layers(&id)?;
        for (row, blob) in rows.iter_mut().zip(&manifest.layers) {
            *row = LayerRecord { blob: blob.digest, ..row.clone() };
        }
        let blobs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let blobs =
            blobs.map(|(blob, diff_id)| LayerBlob { diff_id: *diff_id, blob: blob.clone() });
        let image = NewImage {
            id,
            manifest: descriptor.clone(),
            parent: record.parent,
            layers: rows,
            blobs: blobs.collect(),
        };
        // It may have been removed meanwhile: then it stays so.
        if images.records.get(&id)?.is_some() {
            images.records.put(&image, &[])?;
            images.write_index()?;
        }
    }
    let Manifest { config, layers, .. } = manifest;
    Ok(Outgoing { id, config, layers, manifest: descriptor, bytes, _lease: lease })
}

async fn send(
    images: &Images,
    repository: &Repository,
    reference: &Reference,
    outgoing: &Outgoing,
    report: &Report,
) -> Result<v1::Pushed> {
    let mut blobs = outgoing.layers.clone();
    blobs.sort_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
    let jobs: Vec<_> =
        blobs.iter().map(|blob| send_blob(images, repository, reference, blob, report)).collect();
    stream::iter(jobs).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    let config = images.content.open_blob(&outgoing.config.digest)?;
    repository.push_blob(&outgoing.config, config, None, |_| ()).await?;
    let tag = reference.tag().unwrap_or_default();
    let kind = &outgoing.manifest.media_type;
    let digest = repository.put_manifest(tag, kind, outgoing.bytes.clone().into()).await?;
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let (id, name, by_digest) = (outgoing.id, reference.name(), reference.with_digest(digest));
    images
        .blocking(move |images| {
            let _one = images.changes();
            images.records.saw(&digests, &name)?;
            if images.records.get(&id)?.is_some() {
                images.records.point(&by_digest, id)?;
                images.write_index()?;
            }
            Ok(())
        })
        .await?;
    let size_bytes = outgoing.bytes.len() as u64;
    Ok(v1::Pushed { reference: reference.to_string(), digest: digest.to_string(), size_bytes })
}

async fn send_blob(
    images: &Images,
    repository: &Repository,
    reference: &Reference,
    blob: &Descriptor,
    report: &Report,
) -> Result<()> {
    let mut meter = Meter::new(report, blob.digest.short(), blob.size);
    meter.tell(Phase::Waiting, 0);
    // Another repository of the same registry that is known to have it.
    let prefix = format!("{}/", reference.domain());
    let from = images.records.sources(&blob.digest)?.into_iter().find_map(|source| {
        source.strip_prefix(&prefix).filter(|path| *path != reference.path()).map(str::to_owned)
    });
    let file = images.content.open_blob(&blob.digest)?;
    let meter = Arc::new(Mutex::new(meter));
    let tell = {
        let meter = meter.clone();
        move |phase, current| {
            meter.lock().unwrap_or_else(PoisonError::into_inner).tell(phase, current);
        }
    };
    let sent = {
        let tell = tell.clone();
        repository
            .push_blob(blob, file, from.as_deref(), move |at| tell(Phase::Uploading, at))
            .await?
    };
    let phase = match sent {
        Pushed::Exists => Phase::AlreadyExists,
        Pushed::Mounted => Phase::Mounted,
        Pushed::Uploaded => Phase::Uploaded,
    };
    tell(phase, blob.size);
    Ok(())
}

/// The media type of a gzip layer in the manifest of a layer of this type.
pub(crate) fn gzip_type(of: &str) -> &'static str {
    if of.starts_with("application/vnd.docker.") {
        media_type::DOCKER_LAYER_GZIP
    } else {
        media_type::LAYER_GZIP
    }
}
