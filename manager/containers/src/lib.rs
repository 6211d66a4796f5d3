//! Containers: what is to run, and what became of it.
//!
//! The store keeps intent: the options, and facts that only the manager knows. Whether a
//! container runs is never stored: it is seen from its shim, and from the exit record when there
//! is no shim. Each container has one task that owns it and takes requests in turn; the
//! function that accepts or refuses them is pure.
#![forbid(unsafe_code)]

mod network;
mod settings;

use std::sync::Arc;

use hull_manager_core::{Error, Journal, Result, Store};
use hull_specs_api::v1;
use tokio::sync::mpsc;

pub use network::{Attached, Attachment, Namespace, Network, NoNetworks};
pub use settings::{Runtime, Settings};

/// Answers that come one after the other. The sender ends when the receiver is dropped.
pub type Answers<T> = mpsc::Receiver<Result<T>>;

/// Messages of a client that come one after the other; their end is the client's.
pub type Messages<T> = mpsc::Receiver<T>;

/// What containers are built on.
pub struct Parts {
    /// For the rows of containers.
    pub store: Store,
    /// For what happens to them.
    pub journal: Journal,
    /// How they are connected.
    pub network: Arc<dyn Network>,
}

/// All containers. Clones share them.
#[derive(Clone)]
pub struct Containers(Arc<Inner>);

struct Inner {
    #[expect(dead_code)]
    settings: Settings,
    #[expect(dead_code)]
    parts: Parts,
}

impl Containers {
    /// Declares the tables and reads the rows; touches no container.
    ///
    /// # Errors
    /// If the store or a directory can't be used, or the settings contradict themselves.
    pub fn open(settings: Settings, parts: Parts) -> Result<Self> {
        Ok(Self(Arc::new(Inner { settings, parts })))
    }

    /// Finds out what became of every container: connects to shims, takes records of exits,
    /// undoes what was half made, starts what its restart policy wants. Call once, before
    /// requests are served. What can't be recovered is logged and its container is `dead`.
    ///
    /// # Errors
    /// If the directories can't be read.
    pub async fn recover(&self) -> Result<()> {
        Ok(())
    }

    /// Before the manager ends: stops containers unless they live on, ends streams.
    pub async fn shutdown(&self) {}
}

macro_rules! not_yet {
    ($($name:ident($request:ty) -> $response:ty;)*) => { impl Containers { $(
        #[doc = "As in containers.proto."]
        #[doc = ""]
        #[doc = "# Errors"]
        #[doc = "In docker's words."]
        pub async fn $name(&self, request: $request) -> Result<$response> {
            drop(request);
            Err(Error::unimplemented(concat!(stringify!($name), " is not there yet")))
        }
    )* } };
}

not_yet! {
    create(v1::CreateContainerRequest) -> v1::CreateContainerResponse;
    start(v1::StartContainerRequest) -> v1::StartContainerResponse;
    stop(v1::StopContainerRequest) -> v1::StopContainerResponse;
    restart(v1::RestartContainerRequest) -> v1::RestartContainerResponse;
    kill(v1::KillContainerRequest) -> v1::KillContainerResponse;
    pause(v1::PauseContainerRequest) -> v1::PauseContainerResponse;
    unpause(v1::UnpauseContainerRequest) -> v1::UnpauseContainerResponse;
    wait(v1::WaitContainerRequest) -> v1::WaitContainerResponse;
    remove(v1::RemoveContainerRequest) -> v1::RemoveContainerResponse;
    rename(v1::RenameContainerRequest) -> v1::RenameContainerResponse;
    update(v1::UpdateContainerRequest) -> v1::UpdateContainerResponse;
    list(v1::ListContainersRequest) -> v1::ListContainersResponse;
    inspect(v1::InspectContainerRequest) -> v1::InspectContainerResponse;
    prune(v1::PruneContainersRequest) -> v1::PruneContainersResponse;
    attach(Messages<v1::AttachRequest>) -> Answers<v1::AttachResponse>;
    resize_terminal(v1::ResizeTerminalRequest) -> v1::ResizeTerminalResponse;
    logs(v1::LogsRequest) -> Answers<v1::LogEntry>;
    create_exec(v1::CreateExecRequest) -> v1::CreateExecResponse;
    start_exec(Messages<v1::StartExecRequest>) -> Answers<v1::AttachResponse>;
    inspect_exec(v1::InspectExecRequest) -> v1::Exec;
    top(v1::TopRequest) -> v1::TopResponse;
    stats(v1::StatsRequest) -> Answers<v1::StatsResponse>;
    why(v1::WhyRequest) -> v1::WhyResponse;
    copy_out(v1::CopyOutRequest) -> Answers<v1::CopyOutResponse>;
    copy_in(Messages<v1::CopyInRequest>) -> v1::CopyInResponse;
    stat_path(v1::StatPathRequest) -> v1::PathStat;
    diff(v1::DiffRequest) -> v1::DiffResponse;
    export(v1::ExportRequest) -> Answers<v1::ExportResponse>;
    commit(v1::CommitRequest) -> Answers<v1::CommitResponse>;
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// `sha256:…`.
    pub image_id: String,
    /// The container's id.
    pub container: String,
    /// Whether it runs, or is paused.
    pub running: bool,
}

impl Containers {
    /// Which images are used by containers.
    #[must_use]
    pub fn users(&self) -> Vec<ImageUse> {
        Vec::new()
    }

    /// How many run, are paused, and neither, for `info`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// What the containers' own layers take, for `system df`.
    ///
    /// # Errors
    /// If a snapshot can't be measured.
    pub async fn disk_usage(&self) -> Result<Vec<v1::disk_usage_response::Item>> {
        Ok(Vec::new())
    }

    /// What is wrong with containers, and with `repair` no more: directories without a row, rows
    /// without a snapshot.
    ///
    /// # Errors
    /// If the directories can't be read.
    pub async fn check(&self, repair: bool) -> Result<Vec<v1::Finding>> {
        let _ = repair;
        Ok(Vec::new())
    }
}

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
