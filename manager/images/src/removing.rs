//! Taking references, images, layers and blobs away.

use std::{collections::HashSet, time::Duration};

use hull_manager_content::Collected;
use hull_manager_core::{Error, ErrorKind, Result, filter::Filters};
use hull_manager_snapshots::Kind;
use hull_specs_api::v1;
use hull_specs_image::{Descriptor, Digest, Reference};

use crate::{
    Images,
    list::until,
    lookup::{Named, parse},
    removal::{Graph, Node, Step},
    time,
};

/// Content that nothing refers to is kept so long: the next pull of a cancelled one needs it.
const UNREFERENCED: Duration = Duration::from_secs(24 * 3600);

/// The key of descriptors in `index.json` that says the whole reference, as containerd writes it.
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// The key that the image specification has for it.
pub(crate) const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";

impl Images {
    pub(crate) fn graph(&self) -> Result<Graph> {
        let mut graph = Graph { users: self.users(), ..Graph::default() };
        for record in self.records.all()? {
            graph.images.insert(record.id, Node { references: Vec::new(), parent: record.parent });
        }
        for (reference, id) in self.records.all_references()? {
            if let Some(node) = graph.images.get_mut(&id) {
                node.references.push(reference);
            }
        }
        Ok(graph)
    }

    pub(crate) fn tag_now(&self, request: &v1::TagImageRequest) -> Result<()> {
        let reference = parse(&request.reference)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let _one = self.changes();
        let id = self.find(&request.image)?.id();
        self.records.point(&reference, id)?;
        self.event(&id, &reference.familiar(), "tag");
        self.write_index()
    }

    pub(crate) fn remove_now(
        &self,
        request: &v1::RemoveImageRequest,
    ) -> Result<Vec<v1::RemovedImage>> {
        let _one = self.changes();
        let named = self.find(&request.image)?;
        let steps =
            self.graph()?.remove(&named, &request.image, request.force, !request.no_prune)?;
        let (removed, _) = self.apply(&steps)?;
        self.write_index()?;
        Ok(removed)
    }

    /// Does the steps. What was removed, and the bytes of it on the disk.
    fn apply(&self, steps: &[Step]) -> Result<(Vec<v1::RemovedImage>, u64)> {
        let mut removed = Vec::new();
        let mut bytes = 0;
        for step in steps {
            match step {
                Step::Untag(reference, id) => {
                    self.records.remove(std::slice::from_ref(reference), None)?;
                    self.event(id, &id.to_string(), "untag");
                    removed.push(untagged(reference));
                }
                Step::Delete(id) => {
                    let blobs = self.blobs_of(id)?;
                    let layers = self.records.layers(id)?;
                    self.event(id, &id.to_string(), "delete");
                    self.records.remove(&[], Some(*id))?;
                    self.records.sync()?;
                    removed.push(deleted(id));
                    for layer in layers.iter().rev() {
                        if self.remove_layer(&layer.chain)? {
                            removed.push(deleted(&layer.chain));
                            bytes += layer.unpacked_bytes;
                        }
                    }
                    let keep = || self.records.blobs();
                    bytes += self.content.collect(keep, |blob, _| blobs.contains(blob))?.bytes;
                }
            }
        }
        Ok((removed, bytes))
    }

    /// What the content store has of an image.
    fn blobs_of(&self, id: &Digest) -> Result<HashSet<Digest>> {
        let mut blobs = HashSet::from([*id]);
        blobs.extend(self.records.get(id)?.map(|record| record.manifest.digest));
        blobs.extend(self.records.layers(id)?.iter().map(|layer| layer.blob));
        if let Ok((config, _)) = self.config(id) {
            for diff_id in &config.rootfs.diff_ids {
                blobs.extend(self.records.forms(diff_id)?.iter().map(|form| form.digest));
            }
        }
        Ok(blobs)
    }

    /// Removes a layer, unless an image has it, or somebody is about to use it, or a container
    /// or another layer stands on it.
    pub(crate) fn remove_layer(&self, chain: &Digest) -> Result<bool> {
        if self.records.layer_bytes(chain)?.is_some() {
            return Ok(false);
        }
        self.unless_held(chain, || match self.snapshots.remove_layer(chain) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::debug!(%chain, %error, "a layer stays");
                Ok(false)
            }
        })
    }

    pub(crate) fn prune_now(
        &self,
        request: &v1::PruneImagesRequest,
    ) -> Result<v1::PruneImagesResponse> {
        let filters = Filters::parse(&request.filters, &["dangling", "label", "label!", "until"])?;
        let dangling = filters.flag("dangling", true)?;
        let limit = filters.values("until").iter().try_fold(None, |limit, text| {
            let at = until(text)?;
            Ok::<_, Error>(Some(limit.map_or(at, |limit: std::time::SystemTime| limit.min(at))))
        })?;
        let _one = self.changes();
        let mut graph = self.graph()?;
        let mut response = v1::PruneImagesResponse::default();
        let ids: Vec<Digest> = graph.images.keys().copied().collect();
        for id in ids {
            let candidate =
                if dangling { graph.is_dangling(&id) } else { !graph.is_intermediate(&id) };
            if !candidate || graph.users.iter().any(|user| user.image == id) {
                continue;
            }
            let Ok((config, _)) = self.config(&id) else { continue };
            let at = config.created.as_deref().and_then(time::parse);
            if !filters.labels(|key| config.config.labels.get(key))
                || limit.is_some_and(|limit| at.is_none_or(|at| at >= limit))
            {
                continue;
            }
            let references = graph.references(&id).to_vec();
            let named = if references.is_empty() {
                vec![Named::Id(id)]
            } else {
                references.into_iter().map(|one| Named::Reference(one, id)).collect()
            };
            for named in named {
                // Gone with the one before, or in use since.
                if let Named::Reference(reference, _) = &named
                    && !graph.references(&id).contains(reference)
                {
                    continue;
                }
                if let Ok(steps) = graph.remove(&named, "", false, true) {
                    let (removed, bytes) = self.apply(&steps)?;
                    response.removed.extend(removed);
                    response.reclaimed_bytes += bytes;
                }
            }
        }
        // A filter names images; what is of none is not meant then.
        if !["label", "label!", "until"].iter().any(|key| filters.has(key)) {
            response.reclaimed_bytes += self.remove_unreferenced()?;
        }
        self.write_index()?;
        let reclaimed = response.reclaimed_bytes.to_string();
        self.journal.record("image", "prune", "", &[("reclaimed", &reclaimed)]);
        Ok(response)
    }

    /// Removes layers that no image has and content that nothing refers to since a day: what
    /// pulls, loads and removals that did not end have left.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn collect(&self) -> Result<Collected> {
        self.collect_older(UNREFERENCED).await
    }

    async fn collect_older(&self, least: Duration) -> Result<Collected> {
        self.blocking(move |images| {
            let _one = images.changes();
            images.remove_orphans(&mut 0)?;
            images.content.collect(|| images.records.blobs(), |_, age| age >= least)
        })
        .await
    }

    /// What has failed for a full disk keeps nothing for its next attempt: that would be in its
    /// own way.
    pub(crate) async fn after<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::ResourceExhausted
            && let Err(error) = self.forget_all().await
        {
            tracing::warn!(%error, "what failed for a full disk has left something");
        }
        result
    }

    async fn forget_all(&self) -> Result<()> {
        self.collect_older(Duration::ZERO).await?;
        self.blocking(|images| images.content.forget_unfinished(Duration::ZERO)).await.map(drop)
    }

    /// What no image refers to and nobody is at work on, however young: the bytes of it.
    fn remove_unreferenced(&self) -> Result<u64> {
        let mut bytes = 0;
        self.remove_orphans(&mut bytes)?;
        bytes += self.content.collect(|| self.records.blobs(), |_, _| true)?.bytes;
        Ok(bytes + self.content.forget_unfinished(Duration::ZERO)?)
    }

    /// Layers without an image. Of those that lie on each other the upper ones go first.
    fn remove_orphans(&self, bytes: &mut u64) -> Result<()> {
        let layers: Vec<Digest> = self
            .snapshots
            .list()?
            .iter()
            .filter(|snapshot| snapshot.kind == Kind::Layer)
            .filter_map(|snapshot| snapshot.name.parse().ok())
            .collect();
        loop {
            let mut removed = 0;
            for chain in &layers {
                if !self.snapshots.has_layer(chain)? {
                    continue;
                }
                let size = self.snapshots.layer_usage(chain)?.bytes;
                if self.remove_layer(chain)? {
                    removed += 1;
                    *bytes += size;
                }
            }
            if removed == 0 {
                return Ok(());
            }
        }
    }

    /// What `index.json` shall list.
    pub(crate) fn index(&self) -> Result<Vec<Descriptor>> {
        let mut manifests = Vec::new();
        for (reference, id) in self.records.all_references()? {
            let Some(record) = self.records.get(&id)? else { continue };
            manifests.push(listed(record.manifest, &reference, &reference.to_string()));
        }
        Ok(manifests)
    }

    pub(crate) fn write_index(&self) -> Result<()> {
        // It follows the rows, which are written.
        self.records.with_reserve(|| self.content.write_index(|| self.index()))
    }
}

/// A manifest as an index names it, with the specification's name for it.
pub(crate) fn listed(mut manifest: Descriptor, reference: &Reference, name: &str) -> Descriptor {
    manifest.annotations.insert(NAME_ANNOTATION.into(), reference.to_string());
    manifest.annotations.insert(REFERENCE_ANNOTATION.into(), name.to_owned());
    manifest
}

fn untagged(reference: &Reference) -> v1::RemovedImage {
    let what = v1::removed_image::What::Untagged(reference.familiar());
    v1::RemovedImage { what: Some(what) }
}

fn deleted(digest: &Digest) -> v1::RemovedImage {
    v1::RemovedImage { what: Some(v1::removed_image::What::Deleted(digest.to_string())) }
}
