//! Deleting: a container that has ended, or an exec.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result};
use containerd_shim_protos::{api, events::task::TaskDelete};
use hull_specs_oci::ExecId;

use super::{
    Shim,
    container::Container,
    exit, field,
    process::{Ended, Process},
    state::{self, Request, State},
};
use crate::{events, exit_record, exit_record::FileName, log, reactor, rootfs, ttrpc::Failure};

/// How long output may take to be carried after the process's end. What a process has left
/// running can hold it open for ever.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

impl Shim {
    pub(super) async fn delete(
        self: &Rc<Self>,
        request: api::DeleteRequest,
    ) -> Result<api::DeleteResponse, Failure> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.is_first() {
            self.delete_container(&container).await?;
        } else {
            delete_exec(&container, &process).await?;
        }
        let ended = process.ended.get();
        Ok(api::DeleteResponse {
            pid: process.pid(),
            exit_status: status(ended),
            exited_at: ended.map(|ended| events::timestamp(ended.at)).into(),
            ..Default::default()
        })
    }

    async fn delete_container(self: &Rc<Self>, container: &Rc<Container>) -> Result<(), Failure> {
        let _turn = container.lock.lock().await;
        let process = &container.first;
        state::check(process.state.get(), Request::Delete)?;
        if process.state.get() == State::Stopped {
            drain(process).await;
        }
        match container.run(&["delete", &container.id]).await {
            Ok(_) => {}
            // A runtime removes a container itself when it is checkpointed.
            Err(error) if format!("{error:#}").contains("does not exist") => {}
            Err(error) => return Err(error.context("failed to delete task").into()),
        }
        if process.pid.get() != 0 {
            // One that was created and never started has just been killed.
            reactor::within(DRAIN_LIMIT, process.settled.wait()).await;
        }
        close(process).await;
        if let Err(error) = exit::write_again(container, process) {
            log::error(&format!(
                "{}: the exit is not on disk: {}",
                container.id,
                log::sentence(&error)
            ));
            exit::forget_unwritten(process);
        }
        if let Some(rootfs) = &container.rootfs {
            rootfs::unmount_all(rootfs).context("failed rootfs umount")?;
        }
        process.state.set(State::Deleted);
        self.containers.borrow_mut().remove(&container.id);
        self.forget(&container.id);
        let ended = process.ended.get();
        self.events.publish(&TaskDelete {
            container_id: container.id.clone(),
            pid: process.pid(),
            exit_status: status(ended),
            exited_at: ended.map(|ended| field(events::timestamp(ended.at))).unwrap_or_default(),
            ..TaskDelete::default()
        });
        Ok(())
    }
}

async fn delete_exec(container: &Rc<Container>, process: &Rc<Process>) -> Result<(), Failure> {
    let _gate = process.gate.lock().await;
    state::check(process.state.get(), Request::Delete)?;
    drain(process).await;
    close(process).await;
    process.state.set(State::Deleted);
    container.execs.borrow_mut().remove(&process.exec_id);
    exit::forget_unwritten(process);
    // Checked when the exec was added.
    if let Ok(id) = process.exec_id.parse::<ExecId>()
        && let Err(error) = exit_record::remove(&container.bundle, &FileName::of(Some(&id)))
    {
        log::error(&format!("{}: {}", container.id, log::sentence(&error)));
    }
    Ok(())
}

fn status(ended: Option<Ended>) -> u32 {
    ended.map_or(0, |ended| ended.status)
}

async fn drain(process: &Process) {
    let io = process.io.borrow().clone();
    if let Some(io) = io
        && reactor::within(DRAIN_LIMIT, io.drained()).await.is_none()
    {
        log::error(&format!("output is still open {DRAIN_LIMIT:?} after its process's end"));
    }
}

async fn close(process: &Process) {
    let io = process.io.take();
    if let Some(io) = io {
        io.close().await;
    }
}
