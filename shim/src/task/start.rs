//! Starting: the container's program, a restored container, an exec.

use std::{ffi::OsStr, fs, path::PathBuf, rc::Rc, time::SystemTime};

use anyhow::{Context, Result};
use containerd_shim_protos::{
    api,
    events::task::{TaskExecAdded, TaskExecStarted, TaskStart},
};
use hull_runtime_sys::process::Exit;

use super::{
    Shim,
    container::Container,
    create::PID_FILE,
    exec_id, exit,
    process::Process,
    state::{self, Request, State},
};
use crate::{
    bundle_file, log,
    stdio::Stdio,
    ttrpc::{Failure, Kind},
};

/// Most of an exec's process object, in bytes: it comes in one ttrpc message.
const MAX_PROCESS: usize = 4 << 20;

impl Shim {
    pub(super) async fn start(
        self: &Rc<Self>,
        request: api::StartRequest,
    ) -> Result<api::StartResponse, Failure> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let gate = process.gate.lock().await;
        if process.is_first() {
            self.start_first(&container).await?;
            let event = TaskStart {
                container_id: container.id.clone(),
                pid: process.pid(),
                ..TaskStart::default()
            };
            self.events.publish(&event);
        } else {
            self.start_exec(&container, &process).await?;
            let event = TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: process.exec_id.clone(),
                pid: process.pid(),
                ..TaskExecStarted::default()
            };
            self.events.publish(&event);
        }
        drop(gate);
        Ok(api::StartResponse { pid: process.pid(), ..Default::default() })
    }

    async fn start_first(self: &Rc<Self>, container: &Rc<Container>) -> Result<(), Failure> {
        let _turn = container.lock.lock().await;
        let process = &container.first;
        state::check(process.state.get(), Request::Start)?;
        self.admit()?;
        process.started_at.set(Some(SystemTime::now()));
        if container.checkpoint.is_empty() {
            let started = container.run(&["start", &container.id]).await;
            started.context("OCI runtime start failed")?;
            // It runs: that it is not noted must not hide that.
            if let Err(error) = container.note_first() {
                log::error(&format!("{}: {}", container.id, log::sentence(&error)));
            }
        } else {
            self.restore(container).await.context("OCI runtime restore failed")?;
        }
        process.state.set(State::Running);
        Ok(())
    }

    async fn restore(self: &Rc<Self>, container: &Rc<Container>) -> Result<()> {
        let work = match container.options.criu_work_path.as_str() {
            "" => container.bundle.join("work"),
            path => PathBuf::from(path),
        };
        let pid_file = container.bundle.join(PID_FILE);
        let mut words: Vec<&OsStr> =
            ["restore", "--detach", "--no-subreaper", "--image-path", &container.checkpoint]
                .map(OsStr::new)
                .into();
        words.extend([OsStr::new("--work-path"), work.as_os_str()]);
        words.extend([OsStr::new("--bundle"), container.bundle.as_os_str()]);
        self.begin(container, &container.first, words, &pid_file, &container.log()).await
    }

    pub(super) fn exec(
        self: &Rc<Self>,
        request: api::ExecProcessRequest,
    ) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let id = exec_id(&request.exec_id)?;
        if container.execs.borrow().contains_key(id.as_str()) {
            let text = format!("id {id}: already exists");
            return Err(Failure::new(Kind::AlreadyExists, text));
        }
        state::check(container.first.state.get(), Request::Exec)?;
        let spec = request.spec.map(|any| any.value).unwrap_or_default();
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = process_object(&spec, stdio.terminal)?;
        let process = Process::new(id.as_str(), stdio, spec);
        container.execs.borrow_mut().insert(id.to_string(), process);
        self.events.publish(&TaskExecAdded {
            container_id: container.id.clone(),
            exec_id: id.to_string(),
            ..TaskExecAdded::default()
        });
        Ok(api::Empty::default())
    }

    async fn start_exec(
        self: &Rc<Self>,
        container: &Rc<Container>,
        process: &Rc<Process>,
    ) -> Result<(), Failure> {
        state::check(process.state.get(), Request::Start)?;
        if container.over.get() {
            let text = format!(
                "container {} init process is not running: failed precondition",
                container.id
            );
            return Err(Failure::new(Kind::FailedPrecondition, text));
        }
        process.started_at.set(Some(SystemTime::now()));
        match self.exec_now(container, process).await {
            Ok(()) => {
                process.state.set(State::Running);
                Ok(())
            }
            Err(error) => {
                exit::failed(container, process, &error);
                Err(error.into())
            }
        }
    }

    async fn exec_now(
        self: &Rc<Self>,
        container: &Rc<Container>,
        process: &Rc<Process>,
    ) -> Result<()> {
        let file =
            |suffix: &str| container.bundle.join(format!("exec-{}{suffix}", process.exec_id));
        let (object, pid_file, log) = (file("-process.json"), file(".pid"), file("-log.json"));
        bundle_file::put(&object, &process.spec)?;
        let mut words: Vec<&OsStr> = ["exec", "--detach", "--process"].map(OsStr::new).into();
        words.push(object.as_os_str());
        let result = self
            .begin(container, process, words, &pid_file, &log)
            .await
            .context("OCI runtime exec failed");
        for file in [object, pid_file, log] {
            // The bundle's owner removes what is left of it.
            let _ = fs::remove_file(file);
        }
        result
    }
}

/// The process object for the runtime: what the caller sent, with the terminal that it asked
/// for beside it.
fn process_object(json: &[u8], terminal: bool) -> Result<Vec<u8>, Failure> {
    let invalid = |text: String| Failure::new(Kind::InvalidArgument, text);
    if json.len() > MAX_PROCESS {
        return Err(invalid(format!("a process object is at most {MAX_PROCESS} bytes long")));
    }
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)
        .map_err(|error| invalid(format!("cannot read the process object: {error}")))?;
    object.insert("terminal".into(), terminal.into());
    serde_json::to_vec(&object).map_err(|error| invalid(error.to_string()))
}

/// The end of a process that never ran, as callers see it.
pub(super) const NEVER_RAN: Exit = Exit::Code(255);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_object_keeps_what_it_holds_and_gets_its_terminal() {
        let object = process_object(br#"{"args":["a"],"new":{"x":1},"terminal":false}"#, true);
        let object: serde_json::Value = serde_json::from_slice(&object.unwrap()).unwrap();
        let expected = serde_json::json!({"args": ["a"], "new": {"x": 1}, "terminal": true});
        assert_eq!(object, expected);
        for bad in ["", "[]", "{", "null"] {
            let failure = process_object(bad.as_bytes(), false).unwrap_err();
            assert_eq!(failure.kind, Kind::InvalidArgument);
        }
    }
}
