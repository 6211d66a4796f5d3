//! `update`: other limits, another restart policy.

use std::sync::Arc;

use hull_manager_core::{Error, Result};
use hull_manager_spec as spec;
use hull_specs_api::v1::{self, restart_policy};
use prost::Message as _;

use crate::{Containers, devices, handle::Request, owner::Owner, record::Record};

/// `base` with what `change` sets; a list replaces a list.
fn merge(base: &v1::Resources, change: &v1::Resources) -> Result<v1::Resources> {
    let mut merged = base.clone();
    for (list, new) in [
        (&mut merged.blkio_weight_device, &change.blkio_weight_device),
        (&mut merged.device_read_bps, &change.device_read_bps),
        (&mut merged.device_write_bps, &change.device_write_bps),
        (&mut merged.device_read_iops, &change.device_read_iops),
        (&mut merged.device_write_iops, &change.device_write_iops),
    ] {
        if !new.is_empty() {
            list.clear();
        }
    }
    // Protobuf's own rule for the rest: what is set replaces.
    merged
        .merge(&*change.encode_to_vec())
        .map_err(|cause| Error::internal("resources").because(cause))?;
    Ok(merged)
}

/// The limits as the runtime's `update` takes them.
fn lower(resources: &v1::Resources) -> Result<Vec<u8>> {
    let options = v1::ContainerOptions { resources: Some(resources.clone()), ..Default::default() };
    let mut numbers = std::collections::BTreeMap::new();
    for path in spec::wanted_devices(&options) {
        let found = devices::at(&path)?;
        if let Some(device) = found.first() {
            numbers.insert(path, (i64::from(device.major), i64::from(device.minor)));
        }
    }
    let lowered =
        spec::resources(resources, |path| numbers.get(path).copied()).map_err(Error::invalid)?;
    serde_json::to_vec(&lowered).map_err(|cause| Error::internal("resources").because(cause))
}

impl Owner {
    /// Changes what runs first: what the kernel refuses is not stored.
    pub(crate) async fn update(
        &mut self,
        resources: Option<&v1::Resources>,
        restart: Option<v1::RestartPolicy>,
    ) -> Result<()> {
        let mut record = Record::clone(&self.record());
        if let Some(change) = resources {
            let base = record.effective.resources.clone().unwrap_or_default();
            let mut merged = merge(&base, change)?;
            let settings = self.inner.settings();
            spec::check_resources(&mut merged, &settings.defaults.host, false)
                .map_err(Error::invalid)?;
            if self.handle.now().is_live() {
                self.shim()?.update(lower(&merged)?).await?;
            }
            if let Some(options) = &mut record.container.options {
                let asked = options.resources.clone().unwrap_or_default();
                options.resources = Some(merge(&asked, change)?);
            }
            record.effective.resources = Some(merged);
        }
        if restart.is_some() {
            record.effective.restart = restart;
            if let Some(options) = &mut record.container.options {
                options.restart = restart;
            }
        }
        self.inner.records.update(&record)?;
        self.handle.set_record(record);
        self.event("update", &[]);
        Ok(())
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn update(
        &self,
        request: v1::UpdateContainerRequest,
    ) -> Result<v1::UpdateContainerResponse> {
        let handle = self.find(&request.container)?;
        let mut warnings = Vec::new();
        let mut resources = request.resources;
        if let Some(change) = &mut resources {
            let settings = self.0.settings();
            warnings = spec::check_resources(change, &settings.defaults.host, true)
                .map_err(Error::invalid)?;
        }
        if let Some(restart) = &request.restart {
            let name = restart_policy::Name::try_from(restart.name)
                .map_err(|_| Error::invalid("invalid restart policy"))?;
            if restart.max_retries > 0 && name != restart_policy::Name::OnFailure {
                return Err(Error::invalid(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure'",
                ));
            }
            if handle.record().effective.auto_remove && name != restart_policy::Name::No {
                return Err(Error::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
        }
        let update =
            Request::Update { resources: resources.map(Box::new), restart: request.restart };
        let handle = Arc::clone(&handle);
        handle.order(update, &request.container).await?;
        Ok(v1::UpdateContainerResponse { warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_replaces_and_the_rest_stays() {
        let limit = |value| vec![v1::DeviceLimit { path: "/dev/null".into(), value }];
        let base = v1::Resources {
            memory_bytes: 5,
            cpu_shares: 7,
            pids_limit: Some(9),
            device_read_bps: limit(1),
            ..Default::default()
        };
        let change = v1::Resources {
            memory_bytes: 6,
            pids_limit: Some(-1),
            device_read_bps: limit(2),
            ..Default::default()
        };
        let expected = v1::Resources { cpu_shares: 7, ..change.clone() };
        assert_eq!(merge(&base, &change).unwrap(), expected);
        assert_eq!(merge(&base, &v1::Resources::default()).unwrap(), base);
    }
}
