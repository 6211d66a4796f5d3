//! Lists: which images there are, what one is, how it was made.

use std::{collections::BTreeMap, time::SystemTime};

use hull_manager_core::{Error, Result, filter::Filters};
use hull_specs_api::v1;
use hull_specs_image::{Digest, ImageConfig, Reference, document::MAX_MANIFEST_BYTES};

use crate::{Images, glob, records::Record, removal::Graph, time};

impl Images {
    pub(crate) fn list_now(
        &self,
        request: &v1::ListImagesRequest,
    ) -> Result<Vec<v1::ImageSummary>> {
        let known = ["dangling", "label", "before", "since", "reference", "until"];
        let filters = Filters::parse(&request.filters, &known)?;
        let dangling =
            filters.has("dangling").then(|| filters.flag("dangling", false)).transpose()?;
        let created = |name: &String| -> Result<Option<SystemTime>> {
            let record = self.record(name, "")?;
            Ok(self.config(&record.id)?.0.created.as_deref().and_then(time::parse))
        };
        let (mut before, mut since) = (None, None);
        for name in filters.values("before") {
            before = earliest(before, created(name)?);
        }
        for name in filters.values("since") {
            since = since.max(created(name)?);
        }
        for text in filters.values("until") {
            before = earliest(before, Some(until(text)?));
        }
        let graph = self.graph()?;
        let layers = self.records.layer_counts()?;
        let mut found = Vec::new();
        for record in self.records.all()? {
            let references = graph.references(&record.id);
            let tags = references.iter().any(|reference| reference.tag().is_some());
            let hidden = !request.all && graph.is_intermediate(&record.id);
            if hidden || dangling.is_some_and(|wanted| wanted == tags) {
                continue;
            }
            if dangling == Some(true) && !request.all && !graph.is_dangling(&record.id) {
                continue;
            }
            let Ok((config, _)) = self.config(&record.id) else {
                tracing::warn!(image.digest = %record.id, "its configuration can't be read");
                continue;
            };
            let at = config.created.as_deref().and_then(time::parse);
            if !filters.labels(|key| config.config.labels.get(key))
                || before.is_some_and(|before| at.is_none_or(|at| at >= before))
                || since.is_some_and(|since| at.is_none_or(|at| at <= since))
            {
                continue;
            }
            let shown: Vec<&Reference> = references
                .iter()
                .filter(|reference| filters.any("reference", |pattern| names(pattern, reference)))
                .collect();
            if filters.has("reference") && shown.is_empty() {
                continue;
            }
            found.push(self.summary(&record, &config, &shown, &graph, &layers)?);
        }
        found.sort_by_key(|image| {
            let at = image.created.unwrap_or_default();
            (std::cmp::Reverse((at.seconds, at.nanos)), image.id.clone())
        });
        Ok(found)
    }

    fn summary(
        &self,
        record: &Record,
        config: &ImageConfig,
        references: &[&Reference],
        graph: &Graph,
        counts: &BTreeMap<Digest, (u64, u64)>,
    ) -> Result<v1::ImageSummary> {
        let layers = self.records.layers(&record.id)?;
        let is_shared = |chain: &Digest| counts.get(chain).is_some_and(|(images, _)| *images > 1);
        let (tags, digests): (Vec<&&Reference>, Vec<_>) =
            references.iter().partition(|reference| reference.tag().is_some());
        let users = graph.users.iter().filter(|user| user.image == record.id).count();
        Ok(v1::ImageSummary {
            id: record.id.to_string(),
            parent_id: record.parent.map(|id| id.to_string()).unwrap_or_default(),
            references: tags.iter().map(ToString::to_string).collect(),
            repo_digests: digests.iter().map(|reference| reference.familiar()).collect(),
            created: config.created.as_deref().and_then(time::parse).map(Into::into),
            size_bytes: layers.iter().map(|layer| layer.unpacked_bytes).sum(),
            labels: config.config.labels.clone().into_iter().collect(),
            containers: u32::try_from(users).unwrap_or(u32::MAX),
            shared_bytes: layers
                .iter()
                .filter(|layer| is_shared(&layer.chain))
                .map(|layer| layer.unpacked_bytes)
                .sum(),
        })
    }

    pub(crate) fn inspect_now(
        &self,
        request: &v1::InspectImageRequest,
    ) -> Result<v1::InspectImageResponse> {
        let record = self.record(&request.image, &request.platform)?;
        let (config, config_json) = self.config(&record.id)?;
        let graph = self.graph()?;
        let references: Vec<&Reference> = graph.references(&record.id).iter().collect();
        let counts = self.records.layer_counts()?;
        Ok(v1::InspectImageResponse {
            summary: Some(self.summary(&record, &config, &references, &graph, &counts)?),
            manifest_json: self.content.read(&record.manifest.digest, MAX_MANIFEST_BYTES)?,
            manifest_digest: record.manifest.digest.to_string(),
            snapshotter: self.snapshots.name().to_owned(),
            snapshot_data: match config.rootfs.chain_ids().last() {
                Some(chain) => self.snapshots.layer_data(chain)?.into_iter().collect(),
                None => std::collections::HashMap::new(),
            },
            last_tagged: (record.tagged != SystemTime::UNIX_EPOCH).then(|| record.tagged.into()),
            config_json,
        })
    }

    pub(crate) fn history_now(
        &self,
        request: &v1::ImageHistoryRequest,
    ) -> Result<Vec<v1::ImageHistoryEntry>> {
        let record = self.record(&request.image, &request.platform)?;
        let (config, _) = self.config(&record.id)?;
        let mut layers = self.records.layers(&record.id)?.into_iter();
        let mut entries: Vec<v1::ImageHistoryEntry> = config
            .history
            .iter()
            .map(|step| v1::ImageHistoryEntry {
                image_id: String::new(),
                created: step.created.as_deref().and_then(time::parse).map(Into::into),
                created_by: step.created_by.clone(),
                size_bytes: if step.empty_layer {
                    0
                } else {
                    layers.next().map_or(0, |layer| layer.unpacked_bytes)
                },
                comment: step.comment.clone(),
                references: Vec::new(),
            })
            .collect();
        entries.reverse();
        // What is known of the steps: the image itself, and what it was made from here.
        let mut next = Some(record);
        for entry in &mut entries {
            let Some(image) = next else { break };
            entry.image_id = image.id.to_string();
            entry.references = self
                .records
                .references(&image.id)?
                .iter()
                .filter(|reference| reference.tag().is_some())
                .map(ToString::to_string)
                .collect();
            next = image.parent.map(|id| self.records.get(&id)).transpose()?.flatten();
        }
        Ok(entries)
    }
}

fn earliest(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether a pattern of `--filter reference=` is of a reference: its name, or name and tag, as
/// people write them.
fn names(pattern: &str, reference: &Reference) -> bool {
    glob::matches(pattern, &reference.familiar())
        || glob::matches(pattern, &reference.familiar_name())
}

/// A time of `until`: RFC 3339, seconds since 1970, or how long ago in Go's words.
pub(crate) fn until(text: &str) -> Result<SystemTime> {
    let bad = || Error::invalid(format!("invalid filter 'until={}'", text.escape_default()));
    if let Some(at) = time::parse(text) {
        return Ok(at);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let since = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        return SystemTime::UNIX_EPOCH.checked_add(since).ok_or_else(bad);
    }
    let ago = crate::changes::duration(text).ok_or_else(bad)?;
    SystemTime::now().checked_sub(ago).ok_or_else(bad)
}
