//! `index.json`: an OCI layout in a tar.

use bytes::Bytes;
use hull_manager_core::{Error, Result};
use hull_manager_registry::{Document, check_image, choose};
use hull_specs_image::{
    Descriptor, Manifest, Platform, Reference, config::MAX_CONFIG_BYTES,
    document::MAX_MANIFEST_BYTES, media_type,
};

use super::{Incoming, MAX_IMAGES, invalid};
use crate::{
    Images, documents,
    outer::Files,
    removing::{NAME_ANNOTATION, REFERENCE_ANNOTATION},
};

/// So many indexes may lie within each other.
const MAX_INDEXES: usize = 2;

/// The images of an archive.
pub(super) fn images(
    images: &Images,
    files: &Files,
    platform: Option<&Platform>,
) -> Result<Vec<Incoming>> {
    if files.get("oci-layout").is_none() || files.get("index.json").is_none() {
        return Err(invalid("does not contain a manifest.json"));
    }
    let bytes = files.read(images, "index.json", MAX_MANIFEST_BYTES)?;
    let (Document::Index(index), _) = Document::parse(media_type::INDEX, &bytes)? else {
        return Err(invalid("index.json is no index"));
    };
    let mut found: Vec<Incoming> = Vec::new();
    for entry in &index.manifests {
        let unknown = entry.platform.as_ref().is_some_and(|of| of.os == "unknown");
        if unknown || entry.artifact_type.is_some() {
            continue;
        }
        let (descriptor, manifest, manifest_bytes) = resolve(images, files, entry, platform)?;
        let config_bytes = blob(images, files, &manifest.config, MAX_CONFIG_BYTES)?;
        let config = documents::config(&manifest, &config_bytes)?;
        if platform.is_some_and(|wanted| !wanted.accepts(&config.platform())) {
            continue;
        }
        for layer in &manifest.layers {
            let name = path(layer);
            let (digest, size, _) = files.blob(images, &name)?;
            if (digest, size) != (layer.digest, layer.size) {
                return Err(Error::corrupt(format!(
                    "{name} has {size} bytes and the digest {digest}"
                )));
            }
        }
        let references = reference(entry).into_iter().collect();
        let same = found.iter_mut().find(|image| image.manifest.digest == descriptor.digest);
        if let Some(image) = same {
            image.references.extend(references as Vec<_>);
            continue;
        }
        if found.len() == MAX_IMAGES {
            return Err(invalid(format!("it has more than {MAX_IMAGES} images")));
        }
        let layers = manifest.layers;
        let manifest = descriptor;
        found.push(Incoming { config, config_bytes, manifest, manifest_bytes, layers, references });
    }
    match platform {
        Some(wanted) if found.is_empty() => {
            Err(Error::not_found(format!("the archive has no image for {wanted}")))
        }
        None if found.is_empty() => Err(invalid("there is no image in it")),
        _ => Ok(found),
    }
}

/// The whole reference where somebody wrote it down; a tag alone names no image.
fn reference(entry: &Descriptor) -> Option<Reference> {
    let name = entry.annotations.get(NAME_ANNOTATION).or_else(|| {
        entry.annotations.get(REFERENCE_ANNOTATION).filter(|name| name.contains([':', '/']))
    })?;
    name.parse().ok().filter(|reference: &Reference| reference.digest().is_none())
}

/// The manifest that an entry leads to, through indexes.
fn resolve(
    images: &Images,
    files: &Files,
    entry: &Descriptor,
    platform: Option<&Platform>,
) -> Result<(Descriptor, Manifest, Bytes)> {
    let mut entry = entry.clone();
    for _ in 0..=MAX_INDEXES {
        if !media_type::is_index(&entry.media_type) {
            return image(images, files, &entry);
        }
        let bytes = blob(images, files, &entry, MAX_MANIFEST_BYTES)?;
        let (Document::Index(index), _) = Document::parse(&entry.media_type, &bytes)? else {
            return Err(invalid("an index is none"));
        };
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        // Of several for the platform, the best that is there.
        let chosen = choose(&index, &wanted);
        let there = chosen.iter().find(|entry| files.get(&path(entry)).is_some());
        let none = || Error::not_found(format!("no matching manifest for {wanted} in the archive"));
        entry = (*there.or(chosen.first()).ok_or_else(none)?).clone();
    }
    Err(invalid(format!("more than {MAX_INDEXES} indexes within each other")))
}

/// The manifest of one image.
pub(super) fn image(
    images: &Images,
    files: &Files,
    entry: &Descriptor,
) -> Result<(Descriptor, Manifest, Bytes)> {
    let bytes = blob(images, files, entry, MAX_MANIFEST_BYTES)?;
    let (Document::Manifest(manifest), kind) = Document::parse(&entry.media_type, &bytes)? else {
        return Err(invalid("a manifest is none"));
    };
    check_image(&manifest)?;
    Ok((Descriptor::new(&kind, entry.digest, entry.size), manifest, bytes))
}

fn path(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// A document, which has the digest and size that its descriptor says.
fn blob(images: &Images, files: &Files, blob: &Descriptor, max_bytes: u64) -> Result<Bytes> {
    let name = path(blob);
    let bytes = files.read(images, &name, max_bytes)?;
    if files.digest(&name) != Some(blob.digest) || bytes.len() as u64 != blob.size {
        return Err(Error::corrupt(format!("{name} is not what its descriptor says")));
    }
    Ok(bytes)
}

/// A manifest of a configuration and layers.
pub(crate) fn manifest(config: &[u8], layers: &[Descriptor]) -> Result<(Descriptor, Vec<u8>)> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, config),
        layers: layers.to_vec(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|cause| Error::internal("write a manifest").because(cause))?;
    Ok((Descriptor::of(media_type::MANIFEST, &bytes), bytes))
}
