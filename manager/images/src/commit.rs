//! Committing: what a container changed, as a layer on top of its image.

use std::{sync::Arc, time::SystemTime};

use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_api::v1::{self, progress::Phase};
use hull_specs_image::{
    ContainerConfig, Digest, History, ImageConfig, Manifest, Platform, RootFs,
    document::MAX_MANIFEST_BYTES,
};
use hull_specs_oci::time::rfc3339_nano;
use tokio::sync::mpsc::Sender;

use crate::{
    Images, changes, import,
    install::Layer,
    layer,
    progress::{Meter, Report},
};

/// What to make an image of.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The image the container was made from; none for an empty one.
    pub parent: Option<Digest>,
    /// The key of the container's snapshot.
    pub snapshot: String,
    /// The container's id.
    pub container: String,
    /// How it runs, as an image says it; `changes` go on top.
    pub config: ContainerConfig,
    /// As in `CommitRequest`.
    pub reference: String,
    /// As in `CommitRequest`.
    pub author: String,
    /// As in `CommitRequest`.
    pub message: String,
    /// As in `CommitRequest`.
    pub changes: Vec<String>,
}

/// See [`Images::commit`].
pub(crate) async fn commit(
    images: &Images,
    commit: Commit,
    progress: Sender<v1::Progress>,
) -> Result<Digest> {
    // What a slow client does not take at once is left out.
    let report: Report = Arc::new(move |told| drop(progress.try_send(told)));
    let reference = import::new_reference(&commit.reference)?;
    let name = reference.as_ref().map(hull_specs_image::Reference::familiar);
    let id = images
        .blocking(move |images| {
            // Before anything is read.
            let changed = changes::parse(&commit.changes)?;
            let lease = images.content.lease();
            let (mut config, mut layers, _hold) = base(images, commit.parent)?;
            for layer in &layers {
                lease.add(layer.blob.digest);
            }
            let meter = Meter::new(&report, commit.container.get(..12).unwrap_or_default(), 0);
            let mut diff = layer::Diff::begin(images, &commit.snapshot)?;
            let read = import::read(images, &mut diff, &lease, meter);
            // If both failed: the one that made the other fail.
            let (changes, layer) = match (diff.finish(), read) {
                (Ok(changes), Ok(layer)) => (changes, layer),
                (Err(left), Err(why)) if left.kind() == ErrorKind::Cancelled => return Err(why),
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            report(crate::progress::progress("", Phase::Writing, 0, 0, ""));
            let now = rfc3339_nano(SystemTime::now());
            config.created = Some(now.clone());
            config.author.clone_from(&commit.author);
            config.comment.clone_from(&commit.message);
            config.container.clone_from(&commit.container);
            config.docker_version = String::new();
            config.history.push(History {
                created: Some(now),
                created_by: commit.config.cmd.join(" "),
                author: commit.author,
                comment: commit.message,
                empty_layer: changes == 0,
            });
            config.config = changes::merge(changed, &commit.config);
            if changes > 0 {
                config.rootfs.diff_ids.push(layer.diff_id);
                layers.push(layer);
            }
            images.make(&config, commit.parent, layers, lease, reference.as_slice())
        })
        .await?;
    if let Some(name) = name {
        images.event(&id, &name, "tag");
    }
    Ok(id)
}

/// The parent's configuration and layers.
fn base(
    images: &Images,
    parent: Option<Digest>,
) -> Result<(ImageConfig, Vec<Layer>, Option<Arc<crate::Hold>>)> {
    let Some(parent) = parent else {
        let platform = Platform::host();
        let config = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            rootfs: RootFs { kind: "layers".into(), diff_ids: Vec::new() },
            ..ImageConfig::default()
        };
        return Ok((config, Vec::new(), None));
    };
    let image = images.resolve_now(&parent.to_string(), "")?;
    let record = images.record(&parent.to_string(), "")?;
    let bytes = images.content.read(&record.manifest.digest, MAX_MANIFEST_BYTES)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::corrupt("the image's manifest").because(cause))?;
    let config = (*image.config).clone();
    let layers = manifest
        .layers
        .into_iter()
        .zip(&config.rootfs.diff_ids)
        .map(|(blob, diff_id)| Layer { diff_id: *diff_id, blob, unpacked: None })
        .collect();
    Ok((config, layers, Some(image.hold)))
}
