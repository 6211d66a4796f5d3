//! `inspect`, and what other parts of the manager ask about all containers.

use std::{fs, path::Path};

use hull_manager_core::{Error, Result};
use hull_manager_spec::{self as spec, Host};
use hull_specs_api::v1;

use crate::{Containers, Inner, prepare, record::Record};

/// How many containers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That run.
    pub running: u32,
    /// That are paused.
    pub paused: u32,
    /// All others.
    pub stopped: u32,
}

impl Inner {
    /// What a container's own layer takes.
    pub(crate) async fn size_rw(&self, id: &str) -> Result<u64> {
        let (snapshots, id) = (self.parts.snapshots.clone(), id.to_owned());
        tokio::task::spawn_blocking(move || snapshots.usage(&id).map(|usage| usage.bytes))
            .await
            .map_err(|cause| Error::internal("the size").because(cause))?
    }

    /// Adds the sizes to a container that is shown.
    pub(crate) async fn measure(&self, container: &mut v1::Container) -> Result<()> {
        let own = self.size_rw(&container.id).await?;
        let (snapshots, id) = (self.parts.snapshots.clone(), container.id.clone());
        let layers = tokio::task::spawn_blocking(move || -> Result<u64> {
            let all = snapshots.list()?;
            let parent_of = |name: &str| all.iter().find(|info| info.name == name)?.parent;
            let (mut bytes, mut next) = (0, parent_of(&id));
            while let Some(layer) = next {
                bytes += snapshots.layer_usage(&layer)?.bytes;
                next = parent_of(&layer.to_string());
            }
            Ok(bytes)
        });
        let layers = layers.await.map_err(|cause| Error::internal("the size").because(cause))??;
        container.size_rw_bytes = Some(own);
        container.size_root_bytes = Some(own + layers);
        Ok(())
    }
}

/// The options in effect, with what follows from them on this host.
fn shown(record: &Record, host: &Host) -> Result<v1::ContainerOptions> {
    let mut options = record.effective.clone();
    if spec::container_of(&options.network_mode).is_none() {
        options.hostname = spec::hostname(&options, record.id(), &prepare::host_name());
    }
    // As docker has it: nothing is said of a privileged container, in which nothing is closed.
    if !options.privileged {
        let spec::SystemPaths { masked, read_only } =
            spec::paths_of(&options, host).map_err(Error::invalid)?;
        options.masked_paths = Some(v1::Words { words: masked });
        options.readonly_paths = Some(v1::Words { words: read_only });
    }
    Ok(options)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`.
    pub async fn inspect(
        &self,
        request: v1::InspectContainerRequest,
    ) -> Result<v1::InspectContainerResponse> {
        let handle = self.find(&request.container)?;
        let inner = &self.0;
        let mut container = inner.shown(&handle);
        if request.size {
            inner.measure(&mut container).await?;
        }
        let (directory, bundle) = (inner.directory(&handle.id), inner.bundle(&handle.id));
        let snapshots = &inner.parts.snapshots;
        let mut data = snapshots.data(&handle.id).unwrap_or_default();
        if data.contains_key("UpperDir") {
            data.insert("MergedDir".to_owned(), text(&bundle.join(crate::bundle::ROOTFS)));
        }
        let effective = shown(&handle.record(), &inner.settings().defaults.host)?;
        Ok(v1::InspectContainerResponse {
            container: Some(container),
            log_path: inner.public_log(&handle).map(|path| text(&path)).unwrap_or_default(),
            resolv_conf_path: text(&directory.join("resolv.conf")),
            hostname_path: text(&directory.join("hostname")),
            hosts_path: text(&directory.join("hosts")),
            snapshotter: snapshots.name().to_owned(),
            snapshot_data: data.into_iter().collect(),
            exec_ids: inner.execs.of(&handle.id).iter().map(|exec| exec.id.clone()).collect(),
            oci_spec_json: fs::read(bundle.join(prepare::CONFIG)).unwrap_or_default(),
            bundle_path: text(&bundle),
            effective: Some(effective),
            network_namespace_path: handle
                .attached()
                .and_then(|attached| attached.namespace_path().map(text))
                .unwrap_or_default(),
        })
    }

    /// Which images are used by containers; for `Images::set_users`.
    #[must_use]
    pub fn users(&self) -> Vec<hull_manager_images::User> {
        let handles = self.0.all();
        let user = |handle: &std::sync::Arc<crate::handle::Handle>| {
            Some(hull_manager_images::User {
                image: handle.record().container.image_id.parse().ok()?,
                container: handle.id.clone(),
                running: handle.now().is_live(),
            })
        };
        handles.iter().filter_map(user).collect()
    }

    /// How many run, are paused, and neither.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for handle in self.0.all() {
            match handle.now().status {
                v1::Status::Running => counts.running += 1,
                v1::Status::Paused => counts.paused += 1,
                _ => counts.stopped += 1,
            }
        }
        counts
    }

    /// What the containers' own layers take.
    ///
    /// # Errors
    /// If a snapshot can't be measured.
    pub async fn disk_usage(&self) -> Result<Vec<v1::disk_usage_response::Item>> {
        let mut items = Vec::new();
        for handle in self.0.all() {
            items.push(v1::disk_usage_response::Item {
                id: handle.id.clone(),
                name: handle.record().name().to_owned(),
                size_bytes: self.0.size_rw(&handle.id).await?,
                in_use: handle.now().is_live(),
            });
        }
        Ok(items)
    }
}
