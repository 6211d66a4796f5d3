//! The sandbox service, as containerd 2 calls it for its sandboxer "shim".
//!
//! A sandbox is what groups containers: while it is there, the shim is, with or without
//! containers, and every container of the shim is in it. containerd then makes them without
//! running `start`, and deletes them without asking for an end. A shim has at most one sandbox;
//! a shim without one serves containers as ever.
//!
//! [`state`] says what may be asked when, [`request`] what a sandbox can be, [`mod@members`] what
//! `delete` finds of it. containerd publishes the sandbox's events itself.

mod members;
mod request;
mod state;

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use containerd_shim_protos::{sandbox_api as api, types::platform::Platform};
use hull_runtime_sys::process;
use protobuf::MessageField;

use self::state::{Request, State};
use crate::{
    cgroup, events,
    reactor::Signal,
    service::{parse, reply},
    task::Shim,
    ttrpc::{Call, Failure, Kind},
};

pub(crate) use members::list as members;

/// The service's name.
pub(crate) const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// A group of containers.
pub(crate) struct Sandbox {
    id: String,
    bundle: PathBuf,
    state: Cell<State>,
    created_at: SystemTime,
    exited_at: Cell<Option<SystemTime>>,
    /// It is stopped.
    exited: Signal,
}

impl Sandbox {
    fn check(&self, request: Request) -> Result<(), Failure> {
        state::check(&self.id, self.state.get(), request)
    }

    /// Whether a container may be made or started.
    ///
    /// # Errors
    /// The sandbox is not started, or stopped.
    pub(crate) fn admit(&self) -> Result<(), Failure> {
        self.check(Request::Use)
    }

    /// Whether the shim has to stay for it.
    pub(crate) fn keeps_shim(&self) -> bool {
        self.state.get() != State::Gone
    }

    /// Notes a container on disk before anything of it is made.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn add(&self, id: &str, bundle: &Path) -> Result<()> {
        members::add(&self.bundle, id, bundle)
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        members::remove(&self.bundle, id)
    }
}

/// Answers a request.
pub(crate) async fn answer(shim: Rc<Shim>, call: Call) -> Result<Vec<u8>, Failure> {
    let payload = call.payload.as_slice();
    match call.method.as_str() {
        "CreateSandbox" => reply(create(&shim, &parse(payload)?)?),
        "StartSandbox" => reply(start(&shim, &parse(payload)?)?),
        "Platform" => reply(platform(&shim, &parse(payload)?)?),
        "StopSandbox" => reply(stop(&shim, parse(payload)?).await?),
        "WaitSandbox" => reply(wait(&shim, parse(payload)?).await?),
        "SandboxStatus" => reply(status(&shim, &parse(payload)?)?),
        "PingSandbox" => reply(ping(&shim, &parse(payload)?)?),
        "ShutdownSandbox" => reply(shut_down(&shim, parse(payload)?).await?),
        "SandboxMetrics" => reply(metrics(&shim, &parse(payload)?)?),
        method => Err(Failure::new(Kind::Unimplemented, format!("method {method}"))),
    }
}

/// The sandbox of that name, if it can be asked for that.
fn find(shim: &Shim, id: &str, request: Request) -> Result<Rc<Sandbox>, Failure> {
    let sandbox = shim.sandbox().filter(|sandbox| sandbox.id == id);
    let sandbox = sandbox.ok_or_else(|| state::missing(id))?;
    sandbox.check(request)?;
    Ok(sandbox)
}

fn create(
    shim: &Shim,
    request: &api::CreateSandboxRequest,
) -> Result<api::CreateSandboxResponse, Failure> {
    if let Some(sandbox) = shim.sandbox().filter(|sandbox| sandbox.keeps_shim()) {
        let text = format!("sandbox {}: already exists", sandbox.id);
        return Err(Failure::new(Kind::AlreadyExists, text));
    }
    request::check(request)?;
    shim.set_sandbox(Sandbox {
        id: request.sandbox_id.clone(),
        bundle: request.bundle_path.clone().into(),
        state: Cell::new(State::Created),
        created_at: SystemTime::now(),
        exited_at: Cell::new(None),
        exited: Signal::default(),
    });
    Ok(api::CreateSandboxResponse::default())
}

fn start(
    shim: &Shim,
    request: &api::StartSandboxRequest,
) -> Result<api::StartSandboxResponse, Failure> {
    let sandbox = find(shim, &request.sandbox_id, Request::Start)?;
    sandbox.state.set(State::Ready);
    Ok(api::StartSandboxResponse {
        pid: own_pid(),
        created_at: MessageField::some(events::timestamp(sandbox.created_at)),
        ..Default::default()
    })
}

/// The process that is there for as long as the sandbox is.
fn own_pid() -> u32 {
    u32::try_from(process::id()).unwrap_or(0)
}

fn platform(shim: &Shim, request: &api::PlatformRequest) -> Result<api::PlatformResponse, Failure> {
    find(shim, &request.sandbox_id, Request::Look)?;
    let platform = Platform {
        os: "linux".into(),
        architecture: architecture(std::env::consts::ARCH).into(),
        ..Platform::default()
    };
    Ok(api::PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
}

/// An architecture as images name it, by Rust's name for it.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        same => same,
    }
}

async fn stop(
    shim: &Shim,
    request: api::StopSandboxRequest,
) -> Result<api::StopSandboxResponse, Failure> {
    let sandbox = find(shim, &request.sandbox_id, Request::Stop)?;
    end(shim, &sandbox, Duration::from_secs(request.timeout_secs.into())).await?;
    Ok(api::StopSandboxResponse::default())
}

/// Ends what runs in it. Can be called again, also meanwhile.
async fn end(shim: &Shim, sandbox: &Sandbox, grace: Duration) -> Result<(), Failure> {
    if sandbox.exited.is_raised() {
        return Ok(());
    }
    sandbox.state.set(State::Stopping);
    shim.end_all(grace).await?;
    if !sandbox.exited.is_raised() {
        sandbox.state.set(State::Stopped);
        sandbox.exited_at.set(Some(SystemTime::now()));
        sandbox.exited.raise();
    }
    Ok(())
}

async fn wait(
    shim: &Shim,
    request: api::WaitSandboxRequest,
) -> Result<api::WaitSandboxResponse, Failure> {
    let sandbox = find(shim, &request.sandbox_id, Request::Look)?;
    sandbox.exited.wait().await;
    Ok(api::WaitSandboxResponse {
        // It had no process that could have failed.
        exit_status: 0,
        exited_at: sandbox.exited_at.get().map(events::timestamp).into(),
        ..Default::default()
    })
}

fn status(
    shim: &Shim,
    request: &api::SandboxStatusRequest,
) -> Result<api::SandboxStatusResponse, Failure> {
    let sandbox = find(shim, &request.sandbox_id, Request::Look)?;
    let mut response = api::SandboxStatusResponse {
        sandbox_id: sandbox.id.clone(),
        pid: own_pid(),
        state: sandbox.state.get().name().into(),
        created_at: MessageField::some(events::timestamp(sandbox.created_at)),
        exited_at: sandbox.exited_at.get().map(events::timestamp).into(),
        ..Default::default()
    };
    if request.verbose {
        let containers = serde_json::Value::from(shim.container_ids()).to_string();
        response.info.insert("containers".into(), containers);
    }
    Ok(response)
}

fn ping(shim: &Shim, request: &api::PingRequest) -> Result<api::PingResponse, Failure> {
    find(shim, &request.sandbox_id, Request::Ping)?;
    Ok(api::PingResponse::default())
}

/// Ends the shim, once its last container is deleted: until then it keeps their exit statuses.
async fn shut_down(
    shim: &Shim,
    request: api::ShutdownSandboxRequest,
) -> Result<api::ShutdownSandboxResponse, Failure> {
    // containerd asks this, too, of a shim that has just refused to make the sandbox.
    if shim.sandbox().is_some() {
        let sandbox = find(shim, &request.sandbox_id, Request::Shutdown)?;
        end(shim, &sandbox, Duration::ZERO).await?;
        sandbox.state.set(State::Gone);
    }
    shim.end_if_idle();
    Ok(api::ShutdownSandboxResponse::default())
}

fn metrics(
    shim: &Shim,
    request: &api::SandboxMetricsRequest,
) -> Result<api::SandboxMetricsResponse, Failure> {
    let sandbox = find(shim, &request.sandbox_id, Request::Look)?;
    let Some(total) = cgroup::total(&shim.cgroups())? else {
        let text =
            format!("sandbox {} has no container whose cgroup counts: not found", sandbox.id);
        return Err(Failure::new(Kind::NotFound, text));
    };
    let mut response = api::SandboxMetricsResponse::default();
    let metric = response.metrics.mut_or_insert_default();
    metric.timestamp = MessageField::some(events::timestamp(SystemTime::now()));
    metric.id.clone_from(&sandbox.id);
    metric.data = MessageField::some(total);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_have_the_names_of_images() {
        for (rust, image) in [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")] {
            assert_eq!(architecture(rust), image);
        }
    }
}
