//! Whether what the rows say is on the disk, and how much of it there is.

use std::collections::{BTreeMap, BTreeSet};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use hull_specs_image::{Digest, Manifest, document::MAX_MANIFEST_BYTES};

use crate::{Images, layer, records::Record};

/// What [`Images::check`] saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// What is wrong.
    pub findings: Vec<v1::Finding>,
    /// Blobs that were read.
    pub blobs: u64,
    /// Images that were looked at.
    pub images: u64,
}

impl Images {
    /// Reads all content and compares it with its digests and with the rows. With `repair`,
    /// damaged blobs are removed, layers that are gone are unpacked again, and `index.json` is
    /// written again; an image that lacks content stays, runs while its layers are there, and
    /// says what brings the content back.
    ///
    /// # Errors
    /// If the disk can't be read at all.
    pub async fn check(&self, repair: bool) -> Result<Checked> {
        self.blocking(move |images| images.check_now(repair)).await
    }

    fn check_now(&self, repair: bool) -> Result<Checked> {
        let mut checked = Checked::default();
        checked.findings = self.content.check(repair, |_| checked.blobs += 1)?;
        let _one = self.changes();
        for record in self.records.all()? {
            checked.images += 1;
            self.check_image(&record, repair, &mut checked.findings)?;
        }
        if !self.content.index_lists(self.index()?) {
            let written = repair && self.write_index().is_ok();
            checked.findings.push(v1::Finding {
                subject: "file content/index.json".into(),
                problem: "it does not list what references name".into(),
                repaired: if written { "written again".into() } else { String::new() },
            });
        }
        Ok(checked)
    }

    fn check_image(
        &self,
        record: &Record,
        repair: bool,
        findings: &mut Vec<v1::Finding>,
    ) -> Result<()> {
        let mut found = |problem: String, repaired: String| {
            let subject = format!("image {}", record.id);
            findings.push(v1::Finding { subject, problem, repaired });
        };
        for (what, digest) in [("configuration", record.id), ("manifest", record.manifest.digest)] {
            if !self.content.has(&digest) {
                let remedy = self.remedy(&record.id)?;
                found(format!("its {what} {digest} is gone: {remedy}"), String::new());
            }
        }
        let Ok((config, _)) = self.config(&record.id) else { return Ok(()) };
        let mut parent: Option<Digest> = None;
        for (layer, diff_id) in self.records.layers(&record.id)?.iter().zip(&config.rootfs.diff_ids)
        {
            let is_there = layer::is_there(self, &layer.blob, diff_id)?;
            if !is_there {
                let remedy = self.remedy(&record.id)?;
                let why = format!("the content of its layer {} is gone: {remedy}", layer.blob);
                found(why, String::new());
            }
            if !self.snapshots.has_layer(&layer.chain)? {
                let again = repair && is_there;
                let unpacked =
                    again.then(|| self.unpack_again(record, &layer.blob, &layer.chain, parent));
                let repaired = match unpacked {
                    Some(Ok(())) => "unpacked again".into(),
                    Some(Err(error)) => {
                        tracing::warn!(image.digest = %record.id, %error, "a layer stays away");
                        String::new()
                    }
                    None => String::new(),
                };
                found(format!("its layer {} is gone", layer.chain), repaired);
            }
            parent = Some(layer.chain);
        }
        Ok(())
    }

    /// How an image's content comes back. What runs needs layers only, so nothing is in a hurry: without
    /// its content an image can't be saved or pushed, nor a lost layer be unpacked again.
    fn remedy(&self, id: &Digest) -> Result<String> {
        let mut sources = Vec::new();
        for layer in self.records.layers(id)? {
            sources.extend(self.records.sources(&layer.blob)?);
        }
        let references = self.records.references(id)?;
        let pulled = references.iter().find(|one| sources.contains(&one.name()));
        Ok(match pulled {
            Some(reference) => format!("hull pull {} brings it back", reference.familiar()),
            None => "load or pull it again".into(),
        })
    }

    fn unpack_again(
        &self,
        record: &Record,
        blob: &Digest,
        chain: &Digest,
        parent: Option<Digest>,
    ) -> Result<()> {
        let bytes = self.content.read(&record.manifest.digest, MAX_MANIFEST_BYTES)?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|cause| Error::corrupt("the image's manifest").because(cause))?;
        let (config, _) = self.config(&record.id)?;
        let chains = config.rootfs.chain_ids();
        let position = chains.iter().position(|one| one == chain);
        let layer =
            position.and_then(|at| manifest.layers.get(at).zip(config.rootfs.diff_ids.get(at)));
        let Some((descriptor, diff_id)) = layer.filter(|(layer, _)| layer.digest == *blob) else {
            return Err(Error::corrupt("the image's manifest and its row do not agree"));
        };
        let form = layer::any(self, descriptor, diff_id, &self.content.lease())?;
        let unpacked = layer::unpack_blob(self, &form)?;
        if unpacked.diff_id != *diff_id {
            return Err(Error::corrupt(format!("layer {blob} unpacks to {}", unpacked.diff_id)));
        }
        unpacked.commit(chain, parent.as_ref())
    }

    /// What images take: each layer counts once; what only images without a container have can
    /// be reclaimed.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn usage(&self) -> Result<v1::disk_usage_response::Images> {
        self.blocking(Self::usage_now).await
    }

    fn usage_now(&self) -> Result<v1::disk_usage_response::Images> {
        let used: BTreeSet<Digest> = self.users().iter().map(|user| user.image).collect();
        let mut usage = v1::disk_usage_response::Images::default();
        let mut layers = BTreeMap::<Digest, (u64, bool)>::new();
        for record in self.records.all()? {
            usage.count += 1;
            let active = used.contains(&record.id);
            usage.active += u32::from(active);
            for layer in self.records.layers(&record.id)? {
                layers.entry(layer.chain).or_insert((layer.unpacked_bytes, false)).1 |= active;
            }
        }
        usage.size_bytes = layers.values().map(|(bytes, _)| bytes).sum();
        let idle = layers.values().filter(|(_, active)| !active);
        usage.reclaimable_bytes = idle.map(|(bytes, _)| bytes).sum();
        Ok(usage)
    }

    /// Bytes of all blobs.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub async fn content_bytes(&self) -> Result<u64> {
        self.blocking(|images| images.content.usage()).await
    }
}
