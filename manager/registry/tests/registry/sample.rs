//! Images to push and pull.

use std::{fs, path::Path};

use hull_specs_image::{Descriptor, Digest, Index, Manifest, Platform, media_type};

/// An image: a configuration, layers, a manifest.
pub(crate) struct Sample {
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) descriptor: Descriptor,
}

/// Bytes that don't compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        })
        .collect()
}

/// An image of layers of these sizes. The layers are noise: registries don't look inside.
pub(crate) fn image(seed: u64, sizes: &[usize]) -> Sample {
    let diff_ids: Vec<Digest> =
        sizes.iter().map(|size| Digest::of(format!("{seed} {size}").as_bytes())).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let mut blobs = vec![(Descriptor::of(media_type::CONFIG, &config), config)];
    for (number, size) in sizes.iter().enumerate() {
        let layer = noise(seed * 100 + number as u64, *size);
        blobs.push((Descriptor::of(media_type::LAYER_GZIP, &layer), layer));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: None,
        config: blobs[0].0.clone(),
        layers: blobs[1..].iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        subject: None,
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
    Sample { blobs, manifest, descriptor }
}

/// An index of images for platforms.
pub(crate) fn index(entries: &[(&str, &Sample)]) -> Vec<u8> {
    let manifests = entries
        .iter()
        .map(|(platform, sample)| Descriptor {
            platform: Some(platform.parse::<Platform>().unwrap()),
            ..sample.descriptor.clone()
        })
        .collect();
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.into(),
        manifests,
        annotations: Default::default(),
    };
    serde_json::to_vec(&index).unwrap()
}

/// Writes an OCI image layout with one image.
pub(crate) fn layout(sample: &Sample, directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for (descriptor, bytes) in &sample.blobs {
        fs::write(blobs.join(descriptor.digest.hex()), bytes).unwrap();
    }
    fs::write(blobs.join(sample.descriptor.digest.hex()), &sample.manifest).unwrap();
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.into(),
        manifests: vec![sample.descriptor.clone()],
        annotations: Default::default(),
    };
    fs::write(directory.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// A file with these bytes, that nobody sees.
pub(crate) fn file(bytes: &[u8]) -> fs::File {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}
