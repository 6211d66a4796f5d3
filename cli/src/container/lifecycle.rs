//! Commands that ask for one thing of each container.

use anyhow::{Result, bail};
use hull_specs_api::v1::{
    KillContainerRequest, PauseContainerRequest, RemoveContainerRequest, RenameContainerRequest,
    RestartContainerRequest, StopContainerRequest, UnpauseContainerRequest, WaitContainerRequest,
    wait_container_request::Condition,
};

use crate::{
    args::container::{KillArgs, NamesArgs, RenameArgs, RmArgs, StopArgs},
    connect::Manager,
    each::each,
    failure::{is_not_found, refused},
    report,
};

fn seconds(timeout: Option<i32>) -> Option<prost_types::Duration> {
    timeout.map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 })
}

macro_rules! ask {
    ($manager:expr, $call:ident, $request:expr) => {
        $manager.containers().$call($request).await.map_err(refused)
    };
}

/// `stop`.
pub(crate) async fn stop(manager: &Manager, args: StopArgs) -> Result<u8> {
    let (timeout, signal) = (seconds(args.timeout), args.signal.unwrap_or_default());
    each(&args.containers, |name| {
        let signal = signal.clone();
        async move {
            ask!(manager, stop, StopContainerRequest { container: name.clone(), timeout, signal })?;
            Ok(name)
        }
    })
    .await
}

/// `restart`.
pub(crate) async fn restart(manager: &Manager, args: StopArgs) -> Result<u8> {
    let (timeout, signal) = (seconds(args.timeout), args.signal.unwrap_or_default());
    each(&args.containers, |name| {
        let signal = signal.clone();
        async move {
            let request = RestartContainerRequest { container: name.clone(), timeout, signal };
            ask!(manager, restart, request)?;
            Ok(name)
        }
    })
    .await
}

/// `kill`.
pub(crate) async fn kill(manager: &Manager, args: KillArgs) -> Result<u8> {
    let signal = args.signal.unwrap_or_default();
    each(&args.containers, |name| {
        let signal = signal.clone();
        async move {
            ask!(manager, kill, KillContainerRequest { container: name.clone(), signal })?;
            Ok(name)
        }
    })
    .await
}

/// `pause`.
pub(crate) async fn pause(manager: &Manager, args: NamesArgs) -> Result<u8> {
    each(&args.containers, |name| async move {
        ask!(manager, pause, PauseContainerRequest { container: name.clone() })?;
        Ok(name)
    })
    .await
}

/// `unpause`.
pub(crate) async fn unpause(manager: &Manager, args: NamesArgs) -> Result<u8> {
    each(&args.containers, |name| async move {
        ask!(manager, unpause, UnpauseContainerRequest { container: name.clone() })?;
        Ok(name)
    })
    .await
}

/// `wait`.
pub(crate) async fn wait(manager: &Manager, args: NamesArgs) -> Result<u8> {
    each(&args.containers, |container| async move {
        let condition = Condition::NotRunning.into();
        let answer = ask!(manager, wait, WaitContainerRequest { container, condition })?;
        let answer = answer.into_inner();
        if !answer.error.is_empty() {
            bail!("error waiting for container: {}", answer.error);
        }
        Ok(answer.exit_code.to_string())
    })
    .await
}

/// `rm`. With `-f`, one that is not there is told and no failure.
pub(crate) async fn remove(manager: &Manager, args: RmArgs) -> Result<u8> {
    if args.link {
        bail!("rm --link is not supported: hull has no links");
    }
    let (force, volumes) = (args.force, args.volumes);
    each(&args.containers, |name| async move {
        let name = name.trim_matches('/').to_owned();
        let request = RemoveContainerRequest { container: name.clone(), force, volumes };
        match ask!(manager, remove, request) {
            Ok(_) => Ok(name),
            Err(error) if force && is_not_found(&error) => {
                report::error(&error);
                Ok(String::new())
            }
            Err(error) => Err(error),
        }
    })
    .await
}

/// `rename`.
pub(crate) async fn rename(manager: &Manager, args: RenameArgs) -> Result<u8> {
    let request = RenameContainerRequest { container: args.container, name: args.name };
    ask!(manager, rename, request)?;
    Ok(0)
}
