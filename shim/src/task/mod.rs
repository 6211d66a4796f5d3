//! The task service: containers and their processes, as containerd asks for them.
//!
//! `containerd.task.v2.Task` and `containerd.task.v3.Task` are the same messages under two
//! names. Each request is a task of its own; operations on a container as a whole take turns
//! (`Container::lock`), and nothing else waits for anything but its own runtime's run.
//!
//! One file an operation: [`create`], [`start`], [`exit`] (what follows a process's end),
//! [`delete`], [`control`] (everything else), [`group`] (all containers at once).

mod container;
mod control;
mod create;
mod delete;
mod exit;
mod group;
mod process;
mod start;
mod state;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
};

use containerd_shim_protos::{api, types::task::Status};
use hull_specs_oci::{ContainerId, ExecId};
use protobuf::{EnumOrUnknown, Message, MessageField};

use self::{container::Container, state::State};
use crate::{
    events::{self, Publisher},
    reactor::Signal,
    sandbox::Sandbox,
    service::{parse, reply},
    ttrpc::{Call, Failure, Kind},
};

pub(crate) use container::Config;
pub(crate) use create::{PID_FILE, ROOTFS, read_pid};

/// A shim's containers, and what it answers.
pub(crate) struct Shim {
    pub(crate) namespace: String,
    pub(crate) events: Rc<Publisher>,
    /// Raised when the shim is to end.
    pub(crate) shutdown: Signal,
    containers: RefCell<BTreeMap<String, Rc<Container>>>,
    /// Containers that are being created, with their bundles.
    creating: RefCell<BTreeMap<String, PathBuf>>,
    /// A container or a sandbox has been asked for.
    begun: Cell<bool>,
    /// Raised, and replaced, whenever one of those has been created, or not.
    created: RefCell<Signal>,
    /// What containerd has made of the shim, if it calls the sandbox service.
    sandbox: RefCell<Option<Rc<Sandbox>>>,
}

/// The names of the task service.
pub(crate) const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

impl Shim {
    pub(crate) fn new(namespace: &str, events: Rc<Publisher>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            events,
            shutdown: Signal::default(),
            containers: RefCell::default(),
            creating: RefCell::default(),
            begun: Cell::new(false),
            created: RefCell::default(),
            sandbox: RefCell::default(),
        }
    }

    fn container(&self, id: &str) -> Result<Rc<Container>, Failure> {
        let missing = || Failure::new(Kind::NotFound, "container not created: not found");
        self.containers.borrow().get(id).cloned().ok_or_else(missing)
    }

    /// Answers a request to the task service.
    pub(crate) async fn answer(self: Rc<Self>, call: Call) -> Result<Vec<u8>, Failure> {
        let payload = call.payload.as_slice();
        match call.method.as_str() {
            "Create" => reply(self.create(parse(payload)?).await?),
            "Start" => reply(self.start(parse(payload)?).await?),
            "Delete" => reply(self.delete(parse(payload)?).await?),
            "State" => reply(self.state(&parse(payload)?)?),
            "Wait" => reply(self.wait(parse(payload)?).await?),
            "Exec" => reply(self.exec(parse(payload)?)?),
            "Kill" => reply(self.kill(parse(payload)?).await?),
            "Pids" => reply(self.pids(parse(payload)?).await?),
            "Pause" => reply(self.pause(parse(payload)?).await?),
            "Resume" => reply(self.resume(parse(payload)?).await?),
            "Checkpoint" => reply(self.checkpoint(parse(payload)?).await?),
            "Update" => reply(self.update(parse(payload)?).await?),
            "ResizePty" => reply(self.resize_pty(&parse(payload)?)?),
            "CloseIO" => reply(self.close_io(&parse(payload)?)?),
            "Stats" => reply(self.stats(&parse(payload)?)?),
            "Connect" => reply(self.connect(&parse(payload)?)),
            "Shutdown" => reply(self.shut_down(parse(payload)?).await),
            method => Err(Failure::new(Kind::Unimplemented, format!("method {method}"))),
        }
    }

    fn state(&self, request: &api::StateRequest) -> Result<api::StateResponse, Failure> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let status = match container.state_of(&process) {
            State::Created => Status::CREATED,
            State::Running => Status::RUNNING,
            State::Pausing => Status::PAUSING,
            State::Paused => Status::PAUSED,
            State::Stopped | State::Deleted => Status::STOPPED,
        };
        let ended = process.ended.get();
        let id = if process.is_first() { &container.id } else { &process.exec_id };
        Ok(api::StateResponse {
            id: id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: EnumOrUnknown::new(status),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: ended.map(|ended| events::timestamp(ended.at)).into(),
            exec_id: process.exec_id.clone(),
            ..Default::default()
        })
    }

    async fn wait(&self, request: api::WaitRequest) -> Result<api::WaitResponse, Failure> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        process.exited.wait().await;
        let ended = process.ended.get();
        Ok(api::WaitResponse {
            exit_status: ended.map_or(255, |ended| ended.status),
            exited_at: ended.map(|ended| events::timestamp(ended.at)).into(),
            ..Default::default()
        })
    }

    fn connect(&self, request: &api::ConnectRequest) -> api::ConnectResponse {
        // Whoever asks this has just come, perhaps back.
        self.events.hurry();
        api::ConnectResponse {
            shim_pid: u32::try_from(hull_runtime_sys::process::id()).unwrap_or(0),
            task_pid: self.container(&request.id).map_or(0, |container| container.first.pid()),
            ..Default::default()
        }
    }

    /// Waits for what is being made, as the reference does: only then is it known whether the
    /// shim has a container.
    async fn shut_down(&self, _request: api::ShutdownRequest) -> api::Empty {
        self.all_created().await;
        self.end_if_idle();
        api::Empty::default()
    }

    /// Whether a container or a sandbox was ever asked for.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Ends the shim, unless it has a container or a sandbox.
    pub(crate) fn end_if_idle(&self) {
        let kept = self.sandbox().is_some_and(|sandbox| sandbox.keeps_shim());
        if !kept && self.containers.borrow().is_empty() && self.creating.borrow().is_empty() {
            self.shutdown.raise();
        }
    }
}

/// A container's id becomes a word of command lines and part of file names.
pub(crate) fn container_id(text: &str) -> Result<(), Failure> {
    match text.parse::<ContainerId>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Kind::InvalidArgument, error.to_string())),
    }
}

fn exec_id(text: &str) -> Result<ExecId, Failure> {
    text.parse().map_err(|error: hull_specs_oci::InvalidId| {
        Failure::new(Kind::InvalidArgument, error.to_string())
    })
}

/// An optional message as protobuf has it.
fn field<M: Message>(message: M) -> MessageField<M> {
    MessageField::some(message)
}
