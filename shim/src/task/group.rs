//! The containers of a shim as a whole: what its sandbox asks for.

use std::{rc::Rc, time::Duration};

use containerd_shim_protos::api;

use super::{Shim, container::Container};
use crate::{
    cgroup::Cgroup,
    log, reactor,
    sandbox::Sandbox,
    ttrpc::{Failure, Kind},
};

/// How long containers may take to end after they were killed. What the kernel holds (a dead
/// network file system) can hold a process for ever.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Shim {
    pub(crate) fn sandbox(&self) -> Option<Rc<Sandbox>> {
        self.sandbox.borrow().clone()
    }

    pub(crate) fn set_sandbox(&self, sandbox: Sandbox) {
        self.begun.set(true);
        self.sandbox.replace(Some(Rc::new(sandbox)));
    }

    /// Whether a container may be made or started, as far as the sandbox goes, if there is one.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        self.sandbox().map_or(Ok(()), |sandbox| sandbox.admit())
    }

    /// A container is gone for good.
    pub(super) fn forget(&self, id: &str) {
        let Some(sandbox) = self.sandbox() else { return };
        if let Err(error) = sandbox.remove(id) {
            log::error(&format!("{id}: {}", log::sentence(&error)));
        }
        // Nobody asks for the end of a shim that had a sandbox once more.
        if !sandbox.keeps_shim() {
            self.end_if_idle();
        }
    }

    pub(crate) fn container_ids(&self) -> Vec<String> {
        self.containers.borrow().keys().cloned().collect()
    }

    /// The cgroups of all containers.
    pub(crate) fn cgroups(&self) -> Vec<Rc<Cgroup>> {
        let containers = self.containers.borrow();
        containers.values().filter_map(|container| container.cgroup.borrow().clone()).collect()
    }

    /// Ends all containers: by `SIGTERM`, if they are given time, and then by `SIGKILL`. No new
    /// ones may come meanwhile but those that are being created.
    ///
    /// # Errors
    /// One could not be signalled, or does not end.
    pub(crate) async fn end_all(&self, grace: Duration) -> Result<(), Failure> {
        self.all_created().await;
        let containers: Vec<_> = self.containers.borrow().values().cloned().collect();
        if !grace.is_zero() {
            self.signal_all(&containers, libc::SIGTERM).await?;
            if reactor::within(grace, all_ended(&containers)).await.is_some() {
                return Ok(());
            }
        }
        self.signal_all(&containers, libc::SIGKILL).await?;
        let ended = reactor::within(KILL_LIMIT, all_ended(&containers)).await;
        ended.ok_or_else(|| {
            let text = format!("containers run on {KILL_LIMIT:?} after they were killed");
            Failure::new(Kind::DeadlineExceeded, text)
        })
    }

    /// Waits until no container is being created.
    pub(super) async fn all_created(&self) {
        while !self.creating.borrow().is_empty() {
            let created = self.created.borrow().clone();
            created.wait().await;
        }
    }

    async fn signal_all(&self, containers: &[Rc<Container>], signal: i32) -> Result<(), Failure> {
        for container in containers {
            // One that is being started is one that runs or not.
            drop(container.first.gate.lock().await);
            if !has_process(container) {
                continue;
            }
            let (id, signal) = (container.id.clone(), signal.unsigned_abs());
            match self.kill(api::KillRequest { id, signal, ..Default::default() }).await {
                Err(failure) if failure.kind != Kind::NotFound => return Err(failure),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether its end is still to come. A container that is to be restored has no process yet.
fn has_process(container: &Container) -> bool {
    container.first.pid.get() != 0 && !container.first.settled.is_raised()
}

async fn all_ended(containers: &[Rc<Container>]) {
    for container in containers {
        if has_process(container) {
            container.first.settled.wait().await;
        }
    }
}
