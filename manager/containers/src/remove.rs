//! `rm` and `prune`.

use std::{sync::Arc, time::SystemTime};

use hull_manager_core::{Error, Result, filter::Filters};
use hull_specs_api::v1;
use hull_specs_image::Digest;

use crate::{
    Containers, Inner,
    handle::Request,
    list,
    record::Record,
    state::{Ask, Verdict},
};

impl Inner {
    /// Removes everything of a container, and then its row.
    pub(crate) async fn discard(
        self: &Arc<Self>,
        record: &Arc<Record>,
        volumes: bool,
    ) -> Result<()> {
        let image = record.container.image_id.parse().ok();
        let (inner, record) = (Arc::clone(self), Arc::clone(record));
        let discard = move || -> Result<()> {
            let id = record.id();
            inner.discard_parts(id, volumes)?;
            inner.execs.forget(id)?;
            inner.records.remove(id)?;
            inner.registry().remove(id);
            Ok(())
        };
        tokio::task::spawn_blocking(discard)
            .await
            .map_err(|cause| Error::internal("remove").because(cause))??;
        self.collect_after(image);
        Ok(())
    }

    /// Removes what is left of an image that was removed while its last container was there.
    fn collect_after(&self, image: Option<Digest>) {
        let images = self.parts.images.clone();
        if image.is_some_and(|id| matches!(images.has(&id), Ok(false))) {
            tokio::spawn(async move {
                if let Err(error) = images.collect().await {
                    tracing::warn!(%error, "the layers of a removed image are not collected");
                }
            });
        }
    }

    /// A row gets a new name.
    pub(crate) fn rename(&self, record: &Record, old: &str) -> Result<()> {
        let (name, id) = (record.name(), record.id());
        self.registry()
            .reserve(name, id)
            .map_err(|error| error.context("Error when allocating new name"))?;
        let stored = self.records.update(record);
        self.registry().release(if stored.is_ok() { old } else { name }, id);
        stored
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`, `cannot remove container …`.
    pub async fn remove(
        &self,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse> {
        let handle = self.find(&request.container)?;
        // Another client is removing it, perhaps for long: docker says so at once.
        handle.judge(Ask::Remove { force: request.force }, &request.container)?;
        let remove = Request::Remove { force: request.force, volumes: request.volumes };
        let _: Verdict = handle.order(remove, &request.container).await?;
        Ok(v1::RemoveContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn prune(
        &self,
        request: v1::PruneContainersRequest,
    ) -> Result<v1::PruneContainersResponse> {
        let filters = Filters::parse(&request.filters, &["label", "label!", "until"])?;
        let until = filters.values("until").first().map(|text| list::moment(text)).transpose()?;
        let mut response = v1::PruneContainersResponse::default();
        for handle in self.0.all() {
            let record = handle.record();
            let young = until.is_some_and(|until: SystemTime| handle.created() > until);
            if young || !filters.labels(|key| record.container.labels.get(key)) {
                continue;
            }
            if handle.judge(Ask::Remove { force: false }, &handle.id).is_err() {
                continue;
            }
            let size = self.0.size_rw(&handle.id).await.unwrap_or(0);
            let remove = Request::Remove { force: false, volumes: false };
            match handle.order(remove, &handle.id).await {
                Ok(_) => {
                    response.reclaimed_bytes += size;
                    response.removed.push(handle.id.clone());
                }
                // Started, or removed by another, meanwhile.
                Err(error) => tracing::info!(container = %handle.id, %error, "not pruned"),
            }
        }
        Ok(response)
    }
}
