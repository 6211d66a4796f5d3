//! Saving: an OCI layout in a tar, with docker's `manifest.json` unless told otherwise. The same
//! images give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write},
};

use bytes::{Bytes, BytesMut};
use hull_manager_archive::tar::{Entry, Kind, Time, Writer};
use hull_manager_content::Lease;
use hull_manager_core::{Error, Result};
use hull_specs_api::v1::{self, save_request::Format, save_response::Event};
use hull_specs_image::{
    Descriptor, Digest, Index, Manifest, Reference, document::MAX_MANIFEST_BYTES, media_type,
};
use serde::Serialize;
use tokio::sync::mpsc::Sender;

use crate::{
    Images, layer,
    lookup::{Named, has_tag},
    progress::{Meter, Report},
    removing::{NAME_ANNOTATION, REFERENCE_ANNOTATION},
};

/// Bytes of one answer.
const CHUNK: usize = 512 << 10;

/// One image of docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What goes into the archive.
#[derive(Default)]
struct Plan {
    documents: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<Digest, u64>,
    images: Vec<Digest>,
}

/// The RPC.
pub(crate) async fn save(
    images: &Images,
    request: v1::SaveRequest,
    answers: Sender<v1::SaveResponse>,
) -> Result<()> {
    images
        .blocking(move |images| {
            let lease = images.content.lease();
            let plan = plan(images, &request, &lease)?;
            let report: Report = {
                let answers = answers.clone();
                std::sync::Arc::new(move |told| {
                    let event = Some(Event::Progress(told));
                    drop(answers.try_send(v1::SaveResponse { event }));
                })
            };
            let mut meter = Meter::new(&report, "archive", plan.blobs.values().sum());
            let mut written = 0;
            let output = Output { answers, chunk: BytesMut::with_capacity(CHUNK) };
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::BrokenPipe => Error::cancelled("the client went away"),
                _ => Error::internal("write the archive").because(error),
            };
            write(images, &plan, output, |bytes| {
                written += bytes;
                meter.tell(v1::progress::Phase::Writing, written);
            })
            .map_err(failed)?;
            for id in &plan.images {
                images.event(id, &id.to_string(), "save");
            }
            Ok(())
        })
        .await
}

fn plan(images: &Images, request: &v1::SaveRequest, lease: &Lease) -> Result<Plan> {
    let format = Format::try_from(request.format)
        .map_err(|_| Error::invalid(format!("{} is no format", request.format)))?;
    if request.images.is_empty() {
        return Err(Error::invalid("no image is named"));
    }
    // By id: an image is there once, with all its names.
    let mut wanted = BTreeMap::<Digest, BTreeSet<Reference>>::new();
    for text in &request.images {
        // A name alone is all its tags, also without `latest`.
        let tags = tags(images, text)?;
        for (reference, id) in &tags {
            images.record(&reference.to_string(), &request.platform)?;
            wanted.entry(*id).or_default().insert(reference.clone());
        }
        if tags.is_empty() {
            let record = images.record(text, &request.platform)?;
            let names = wanted.entry(record.id).or_default();
            if let Named::Reference(reference, _) = images.find(text)?
                && reference.tag().is_some()
            {
                names.insert(reference);
            }
        }
    }
    let mut plan = Plan::default();
    let (mut items, mut manifests) = (Vec::new(), Vec::new());
    let mut repositories = BTreeMap::<String, BTreeMap<String, String>>::new();
    for (id, references) in wanted {
        let (manifest, descriptor, bytes) = manifest(images, id, lease)?;
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        plan.documents.insert(path(&descriptor.digest), bytes);
        plan.blobs.insert(id, images.content.size(&id).unwrap_or(0));
        plan.blobs.extend(manifest.layers.iter().map(|layer| (layer.digest, layer.size)));
        let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
        for reference in &references {
            let mut named = descriptor.clone();
            let tag = reference.tag().unwrap_or_default().to_owned();
            // The name that skopeo and others look for is the tag alone in docker's archive, and
            // here too: the whole is containerd's annotation.
            named.annotations.insert(NAME_ANNOTATION.into(), reference.to_string());
            named.annotations.insert(REFERENCE_ANNOTATION.into(), tag.clone());
            manifests.push(named);
            let layer = manifest.layers.last().map(|layer| layer.digest.hex());
            repositories
                .entry(reference.familiar_name())
                .or_default()
                .insert(tag, layer.unwrap_or_default());
        }
        if references.is_empty() {
            manifests.push(descriptor);
        }
        items.push(Item {
            config: path(&id),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
        });
        plan.images.push(id);
    }
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.into(),
        manifests,
        annotations: BTreeMap::new(),
    };
    plan.documents.insert("index.json".into(), json(&index)?);
    plan.documents.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    if format == Format::DockerArchive {
        plan.documents.insert("manifest.json".into(), json(&items)?);
        if !repositories.is_empty() {
            plan.documents.insert("repositories".into(), json(&repositories)?);
        }
    }
    Ok(plan)
}

/// All tags of a repository, if it is named without one.
fn tags(images: &Images, text: &str) -> Result<Vec<(Reference, Digest)>> {
    let Some(name) =
        text.parse().ok().filter(|_| !has_tag(text)).map(|name: Reference| name.name())
    else {
        return Ok(Vec::new());
    };
    let mut found = images.records.all_references()?;
    found.retain(|(reference, _)| reference.tag().is_some() && reference.name() == name);
    Ok(found)
}

/// An image's manifest, of layers that are in the content store.
fn manifest(images: &Images, id: Digest, lease: &Lease) -> Result<(Manifest, Descriptor, Vec<u8>)> {
    let record = images.records.get(&id)?;
    let record = record.ok_or_else(|| crate::lookup::no_such(&id.to_string()))?;
    lease.add(id);
    let bytes = images.content.read(&record.manifest.digest, MAX_MANIFEST_BYTES)?;
    let mut manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::corrupt("the image's manifest").because(cause))?;
    let (config, _) = images.config(&id)?;
    let mut changed = false;
    for (blob, diff_id) in manifest.layers.iter_mut().zip(&config.rootfs.diff_ids) {
        let form = layer::any(images, blob, diff_id, lease)?;
        if form.digest != blob.digest {
            *blob = form;
            changed = true;
        }
    }
    if !changed {
        return Ok((manifest, record.manifest, bytes));
    }
    let bytes = json(&manifest)?;
    let descriptor = Descriptor::of(&record.manifest.media_type, &bytes);
    Ok((manifest, descriptor, bytes))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::internal("write JSON").because(cause))
}

fn write(
    images: &Images,
    plan: &Plan,
    output: Output,
    mut tell: impl FnMut(u64),
) -> io::Result<()> {
    let mut writer = Writer::new(output);
    for directory in ["blobs", "blobs/sha256"] {
        writer.entry(&entry(directory, Kind::Directory, 0o755))?;
    }
    for (digest, size) in &plan.blobs {
        let name = format!("blobs/sha256/{}", digest.hex());
        writer.entry(&entry(&name, Kind::File { size: *size, data: None }, 0o644))?;
        let mut file = images.content.open_blob(digest).map_err(io::Error::other)?;
        let mut piece = vec![0; CHUNK];
        let mut left = *size;
        while left > 0 {
            let count = file.read(&mut piece)?;
            let read = piece.get(..count).filter(|read| !read.is_empty() && count as u64 <= left);
            let read = read.ok_or_else(|| {
                io::Error::other(format!("blob {digest} is not {size} bytes long"))
            })?;
            writer.content(read)?;
            left -= count as u64;
            tell(count as u64);
        }
        writer.fill(*size)?;
    }
    for (name, bytes) in &plan.documents {
        let kind = Kind::File { size: bytes.len() as u64, data: None };
        writer.whole(&entry(name, kind, 0o644), bytes)?;
    }
    writer.finish().map(drop)
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        modified: Time { seconds: 0, nanoseconds: 0 },
        attributes: Vec::new(),
    }
}

/// Answers, in pieces.
struct Output {
    answers: Sender<v1::SaveResponse>,
    chunk: BytesMut,
}

impl Output {
    fn send(&mut self) -> io::Result<()> {
        let chunk: Bytes = self.chunk.split().freeze();
        let event = Some(Event::Chunk(chunk.to_vec()));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.answers.blocking_send(v1::SaveResponse { event }).map_err(gone)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() { Ok(()) } else { self.send() }
    }
}
