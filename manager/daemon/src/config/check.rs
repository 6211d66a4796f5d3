//! What the values of keys must be, by the rules of those who use them: what would be refused at
//! the start, or for each container, is refused when the configuration is read.

use anyhow::{Result, anyhow};
use hull_manager_core::Error;
use hull_specs_api::v1;

use super::Config;
use crate::listen;

/// Refuses the first value that can't be.
pub(super) fn check(config: &Config) -> Result<()> {
    let log = v1::LogOptions {
        driver: config.log_driver.clone(),
        options: config.log_opts.clone().into_iter().collect(),
    };
    let named = |key: &str, error: Error| anyhow!("{key}: {error}");
    hull_manager_containers::check_log(&log).map_err(|error| named("log-opts", error))?;
    let limits: Vec<v1::Ulimit> = config
        .default_ulimits
        .iter()
        .map(|limit| v1::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
        .collect();
    hull_manager_spec::check_ulimits(&limits).map_err(|why| anyhow!("default-ulimits: {why}"))?;
    hull_manager_spec::check_cgroup_parent(&config.cgroup_parent, false)
        .map_err(|why| anyhow!(why))?;
    // It names its key itself.
    hull_manager_registry::check_insecure(&config.insecure_registries)?;
    config.group.as_deref().map(listen::group_id).transpose()?;
    Ok(())
}
