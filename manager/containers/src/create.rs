//! `create`: a row, a snapshot, volumes and a directory. A list of steps; what fails undoes those
//! before it, and what is cut off is undone at the next start, because the row comes last.

use std::{fs, os::unix::fs::DirBuilderExt as _, sync::Arc, time::SystemTime};

use hull_manager_archive::scaffold;
use hull_manager_core::{Error, Result, error::IoContext as _, name};
use hull_manager_spec::{self as spec, volumes_from};
use hull_specs_api::v1::{self, Status};

use crate::{
    Containers, Inner, bundle,
    handle::Handle,
    logs::driver,
    owner::Owner,
    record::{Facts, Record},
    volumes,
};

/// Attempts to find a random name that is free.
const NAME_ATTEMPTS: u32 = 64;

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words: no such image, a conflict of names, what is wrong with the options.
    pub async fn create(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse> {
        let inner = Arc::clone(&self.0);
        // Also if the caller leaves it is done whole, or undone.
        let create = tokio::task::spawn_blocking(move || inner.create(request.options));
        create.await.map_err(|cause| Error::internal("create").because(cause))?
    }
}

impl Inner {
    fn create(
        self: &Arc<Self>,
        options: Option<v1::ContainerOptions>,
    ) -> Result<v1::CreateContainerResponse> {
        let options = options.ok_or_else(|| Error::invalid("the options are missing"))?;
        if !options.name.is_empty() {
            name::check_name("container", options.name.trim_start_matches('/'))?;
        }
        let image = self.parts.images.resolve(&options.image, &options.platform)?;
        let spec::Effective { options: mut effective, warnings } =
            spec::effective(&options, &image.config, &self.settings().defaults)
                .map_err(Error::invalid)?;
        self.accept(&mut effective)?;
        let id = name::random_id()?;
        let name = self.name(options.name.trim_start_matches('/'), &id)?;
        effective.name.clone_from(&name);
        let container = v1::Container {
            id: id.clone(),
            name: name.clone(),
            image: options.image.clone(),
            image_id: image.id.to_string(),
            created: Some(SystemTime::now().into()),
            args: spec::args(&effective),
            labels: effective.labels.clone(),
            ports: effective.expose.clone(),
            options: Some(options),
            ..Default::default()
        };
        let mut record = Record { container, effective, facts: Facts::default() };
        let made = self.make(&mut record, image.chain_id.as_ref());
        if let Err(error) = made {
            if let Err(left) = self.discard_parts(&id, true) {
                tracing::error!(container = %id, error = %left, "a failed creation is not undone");
            }
            self.registry().release(&name, &id);
            return Err(error);
        }
        self.event(&record, "create", &[]);
        self.adopt_new(record);
        Ok(v1::CreateContainerResponse { id, warnings })
    }

    /// Refuses what is not of the options alone: other containers, drivers, networks.
    fn accept(&self, options: &mut v1::ContainerOptions) -> Result<()> {
        self.parts.network.accept(options)?;
        driver::accept(options)?;
        if !options.storage_options.is_empty() {
            // docker's sentence. Quotas are not done here at all.
            return Err(Error::unimplemented(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            ));
        }
        if options.init == Some(true) && self.settings().init_path.is_none() {
            return Err(Error::conflict("the init program is not installed"));
        }
        // Names can be given to others: modes keep the id.
        for mode in [
            &mut options.network_mode,
            &mut options.ipc_mode,
            &mut options.pid_mode,
            &mut options.uts_mode,
        ] {
            if let Some(other) = spec::container_of(mode) {
                let other = self.find(other)?;
                if self.ranges.of(&other.id)?.is_some() {
                    return Err(Error::unimplemented(format!(
                        "cannot join a namespace of container {}: it is in a user namespace of its own",
                        other.id
                    )));
                }
                *mode = format!("container:{}", other.id);
            }
        }
        let mut others = Vec::new();
        for text in &options.volumes_from {
            let (other, read_only) = volumes_from::parse(text).map_err(Error::invalid)?;
            let other = self.find(other)?;
            others.push((read_only, other.record().effective.mounts.clone()));
        }
        volumes_from::inherit(&mut options.mounts, &others);
        Ok(())
    }

    /// Takes the name that was asked for, or a free one.
    fn name(&self, asked: &str, id: &str) -> Result<String> {
        let mut registry = self.registry();
        if !asked.is_empty() {
            registry.reserve(asked, id)?;
            return Ok(asked.to_owned());
        }
        for attempt in 0..NAME_ATTEMPTS {
            let name = name::random_name(attempt)?;
            if registry.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id.get(..12).unwrap_or(id).to_owned();
        registry.reserve(&name, id)?;
        Ok(name)
    }

    fn make(&self, record: &mut Record, chain_id: Option<&hull_specs_image::Digest>) -> Result<()> {
        let id = record.id().to_owned();
        let directory = self.directory(&id);
        fs::DirBuilder::new().mode(0o711).create(&directory).about(directory.display())?;
        self.parts.snapshots.prepare(&id, chain_id)?;
        let untouched = self.parts.snapshots.changes(&id)?;
        scaffold::make(&untouched.source())
            .map_err(|cause| Error::from(cause.context("prepare the root")))?;
        self.take_range(&id, &record.effective.userns_mode, &record.effective.user)?;
        volumes::acquire(self, record)?;
        self.records.insert(record)
    }

    /// Gives a container that is in the store its handle and its owner.
    pub(crate) fn adopt_new(self: &Arc<Self>, record: Record) {
        let (handle, orders) = Handle::new(record, Status::Created);
        let owner = Owner::new(self, &handle, orders);
        self.registry().insert(&handle.id.clone(), handle);
        tokio::spawn(owner.run());
    }

    /// Removes what a container has besides its row. What is not there is passed over.
    pub(crate) fn discard_parts(&self, id: &str, anonymous_volumes: bool) -> Result<()> {
        bundle::remove(&self.bundle(id))?;
        self.parts.snapshots.remove(id)?;
        self.ranges.free(id)?;
        self.parts.volumes.release(id, anonymous_volumes)?;
        bundle::remove_tree(&self.directory(id))
    }
}
