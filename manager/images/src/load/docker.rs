//! `manifest.json`: what `docker save` writes, in all its ages.

use hull_manager_core::{Error, Result};
use hull_specs_image::{
    Descriptor, Digest, Index, Manifest, Platform, Reference, config::MAX_CONFIG_BYTES,
    document::MAX_MANIFEST_BYTES, media_type,
};
use serde::Deserialize;

use super::{Incoming, MAX_IMAGES, document, invalid, layer_of, oci};
use crate::{Images, documents, outer::Files};

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive.
pub(super) fn images(
    images: &Images,
    files: &Files,
    platform: Option<&Platform>,
) -> Result<Vec<Incoming>> {
    let bytes = files.read(images, "manifest.json", MAX_MANIFEST_BYTES)?;
    let items: Vec<Item> = document("manifest.json", &bytes)?;
    if items.len() > MAX_IMAGES {
        return Err(invalid(format!("it has more than {MAX_IMAGES} images")));
    }
    let kept = manifests(images, files);
    let mut found = Vec::new();
    for item in items {
        let image = image(images, files, &item, &kept)?;
        let fits = platform.is_none_or(|wanted| wanted.accepts(&image.config.platform()));
        if fits {
            found.push(image);
        }
    }
    match platform {
        Some(wanted) if found.is_empty() => {
            Err(Error::not_found(format!("the archive has no image for {wanted}")))
        }
        _ => Ok(found),
    }
}

fn image(
    images: &Images,
    files: &Files,
    item: &Item,
    kept: &[(Descriptor, Manifest, bytes::Bytes)],
) -> Result<Incoming> {
    let config_bytes = files.read(images, &item.config, MAX_CONFIG_BYTES)?;
    let config = documents::parse_config(&config_bytes)?;
    let id = Digest::of(&config_bytes);
    let names = item.layers.as_deref().unwrap_or_default();
    if names.len() != config.rootfs.diff_ids.len() {
        return Err(invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            config.rootfs.diff_ids.len(),
            names.len()
        )));
    }
    let mut layers = Vec::new();
    for name in names {
        let (digest, size, magic) = files.blob(images, name)?;
        layers.push(layer_of(digest, size, &magic)?);
    }
    let references = item.repo_tags.as_deref().unwrap_or_default();
    let references = references
        .iter()
        .map(|name| {
            let reference: Reference = name.parse().map_err(Error::invalid)?;
            match reference.digest() {
                None => Ok(reference),
                Some(_) => Err(invalid(format!("invalid tag {name:?}"))),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let digests = |blobs: &[Descriptor]| blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>();
    let same = kept.iter().find(|(_, manifest, _)| {
        manifest.config.digest == id && digests(&manifest.layers) == digests(&layers)
    });
    let (manifest, manifest_bytes, layers) = match same {
        Some((descriptor, manifest, bytes)) => {
            (descriptor.clone(), bytes.clone(), manifest.layers.clone())
        }
        None => {
            let (manifest, bytes) = oci::manifest(&config_bytes, &layers)?;
            (manifest, bytes.into(), layers)
        }
    };
    Ok(Incoming { config, config_bytes, manifest, manifest_bytes, layers, references })
}

/// The manifests that `index.json` names, as far as they are ones: it does not decide here.
fn manifests(images: &Images, files: &Files) -> Vec<(Descriptor, Manifest, bytes::Bytes)> {
    let Ok(bytes) = files.read(images, "index.json", MAX_MANIFEST_BYTES) else { return Vec::new() };
    let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { return Vec::new() };
    let usable = |entry: &&Descriptor| media_type::is_manifest(&entry.media_type);
    index
        .manifests
        .iter()
        .filter(usable)
        .take(MAX_IMAGES)
        .filter_map(|entry| oci::image(images, files, entry).ok())
        .collect()
}
