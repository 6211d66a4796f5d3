//! `hull update`.

use anyhow::{Result, bail};
use hull_specs_api::v1::{Resources, UpdateContainerRequest};

use crate::{args::container::UpdateArgs, connect::Manager, each::each, failure::refused, report};

/// Changes resources and the restart policy of containers.
pub(crate) async fn update(manager: &Manager, args: UpdateArgs) -> Result<u8> {
    let resources = resources(&args);
    if resources == Resources::default() && args.restart.is_none() {
        bail!("you must provide one or more flags when using this command");
    }
    let restart = args.restart;
    each(&args.containers, |name| {
        let resources = Some(resources.clone());
        async move {
            let request = UpdateContainerRequest { container: name.clone(), resources, restart };
            let answer = manager.containers().update(request).await.map_err(refused)?;
            for warning in answer.into_inner().warnings {
                report::line(&format!("WARNING: {warning}"));
            }
            Ok(name)
        }
    })
    .await
}

fn resources(args: &UpdateArgs) -> Resources {
    Resources {
        memory_bytes: args.memory.unwrap_or_default(),
        memory_swap_bytes: args.memory_swap.unwrap_or_default(),
        memory_reservation_bytes: args.memory_reservation.unwrap_or_default(),
        nano_cpus: args.cpus.unwrap_or_default(),
        cpu_shares: args.cpu_shares.unwrap_or_default(),
        cpu_period_us: args.cpu_period.unwrap_or_default(),
        cpu_quota_us: args.cpu_quota.unwrap_or_default(),
        cpu_realtime_period_us: args.cpu_rt_period.unwrap_or_default(),
        cpu_realtime_runtime_us: args.cpu_rt_runtime.unwrap_or_default(),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight.unwrap_or_default().into(),
        ..Resources::default()
    }
}
