//! What is asked of containers and processes while they are there.

use std::{ffi::OsStr, fs, path::PathBuf, rc::Rc};

use anyhow::{Context, Result};
use containerd_shim_protos::{
    api,
    events::task::{TaskCheckpointed, TaskPaused, TaskResumed},
    shim::oci::{CheckpointOptions, ProcessDetails},
    types::task::ProcessInfo,
};
use hull_runtime_sys::process;
use protobuf::{Message, well_known_types::any::Any};

use super::{
    Shim,
    container::Container,
    field,
    process::Process,
    state::{self, Request, State},
};
use crate::{
    log,
    ttrpc::{Failure, Kind},
};

impl Shim {
    pub(super) async fn pause(&self, request: api::PauseRequest) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let _turn = container.lock.lock().await;
        let state = &container.first.state;
        state::check(state.get(), Request::Pause)?;
        state.set(State::Pausing);
        let paused = container.run(&["pause", &container.id]).await;
        // It may have ended meanwhile.
        if state.get() == State::Pausing {
            state.set(if paused.is_ok() { State::Paused } else { State::Running });
        }
        paused.context("OCI runtime pause failed")?;
        self.events.publish(&TaskPaused { container_id: request.id, ..TaskPaused::default() });
        Ok(api::Empty::default())
    }

    pub(super) async fn resume(&self, request: api::ResumeRequest) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let _turn = container.lock.lock().await;
        let state = &container.first.state;
        state::check(state.get(), Request::Resume)?;
        container.run(&["resume", &container.id]).await.context("OCI runtime resume failed")?;
        if state.get() == State::Paused {
            state.set(State::Running);
        }
        self.events.publish(&TaskResumed { container_id: request.id, ..TaskResumed::default() });
        Ok(api::Empty::default())
    }

    pub(super) async fn kill(&self, request: api::KillRequest) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let target = container.process(&request.exec_id)?;
        if request.signal == libc::SIGKILL as u32 {
            target.killed.set(true);
        }
        if target.is_first() {
            kill_first(&container, &request).await?;
        } else {
            kill_exec(&target, request.signal)?;
        }
        Ok(api::Empty::default())
    }

    pub(super) async fn update(
        &self,
        request: api::UpdateTaskRequest,
    ) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let _turn = container.lock.lock().await;
        state::check(container.first.state.get(), Request::Update)?;
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        let words = ["update", "--resources", "-", &container.id].map(OsStr::new);
        let updated = container.runtime.run(&container.log(), &resources, &words).await;
        updated.context("OCI runtime update failed")?;
        Ok(api::Empty::default())
    }

    pub(super) async fn checkpoint(
        &self,
        request: api::CheckpointTaskRequest,
    ) -> Result<api::Empty, Failure> {
        let container = self.container(&request.id)?;
        let _turn = container.lock.lock().await;
        state::check(container.first.state.get(), Request::Checkpoint)?;
        let options = match request.options.as_ref() {
            Some(any) => CheckpointOptions::parse_from_bytes(&any.value)?,
            None => CheckpointOptions::default(),
        };
        let own = container.bundle.join("work").join("criu-work");
        let work = match options.work_path.as_str() {
            "" => own.clone(),
            path => PathBuf::from(path),
        };
        let work_text = work.to_string_lossy();
        let words = checkpoint_words(&container.id, &request.path, &work_text, &options);
        let result = container.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        if let Err(error) = result {
            // What criu says is kept where containerd points its users to.
            let dump = container.bundle.join("criu-dump.log");
            let _ = fs::copy(work.join("dump.log"), &dump);
            let text = format!("{error:#}");
            let first = text.lines().next().unwrap_or_default();
            let text = format!("{first} path= {}", dump.display());
            return Err(Failure::new(Kind::Unknown, text));
        }
        if options.work_path.is_empty()
            && let Err(error) = fs::remove_dir_all(&own)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::error(&format!("cannot remove {}: {error}", own.display()));
        }
        self.events.publish(&TaskCheckpointed {
            container_id: request.id,
            checkpoint: request.path,
            ..TaskCheckpointed::default()
        });
        Ok(api::Empty::default())
    }

    pub(super) async fn pids(
        self: &Rc<Self>,
        request: api::PidsRequest,
    ) -> Result<api::PidsResponse, Failure> {
        let container = self.container(&request.id)?;
        let log = container.bundle.join("ps-log.json");
        let words = ["ps", "--format", "json", &container.id].map(OsStr::new);
        let output = container.runtime.run(&log, b"", &words).await;
        let _ = fs::remove_file(&log);
        // containerd 2.x throws a task away that has no process when it comes back; what has
        // ended and is not deleted still has its first one's exit to tell.
        let stopped = container.first.state.get() == State::Stopped;
        let pids = match output {
            Err(_) if stopped => None,
            output => serde_json::from_slice::<Option<Vec<u32>>>(&output?)
                .context("cannot read the runtime's list of processes")?,
        };
        let mut pids = pids.unwrap_or_default();
        if stopped && pids.is_empty() {
            pids.push(container.first.pid());
        }
        let execs = container.execs.borrow();
        let info = |pid: u32| -> Result<ProcessInfo, Failure> {
            let exec = execs.values().find(|process| process.pid() == pid);
            let details = exec.map(|process| details(&process.exec_id)).transpose()?;
            Ok(ProcessInfo { pid, info: details.into(), ..ProcessInfo::default() })
        };
        let processes = pids.into_iter().map(info).collect::<Result<_, _>>()?;
        Ok(api::PidsResponse { processes, ..Default::default() })
    }

    pub(super) fn stats(&self, request: &api::StatsRequest) -> Result<api::StatsResponse, Failure> {
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup.borrow().clone();
        let missing = || Failure::new(Kind::NotFound, "cgroup does not exist: not found");
        let metrics = cgroup.ok_or_else(missing)?.metrics()?;
        Ok(api::StatsResponse { stats: field(metrics), ..Default::default() })
    }

    pub(super) fn resize_pty(
        &self,
        request: &api::ResizePtyRequest,
    ) -> Result<api::Empty, Failure> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if process.state.get() == State::Stopped && !process.is_first() {
            return Err(Failure::new(Kind::Unknown, "cannot resize a stopped container"));
        }
        let size = |cells: u32| {
            let text = format!("a terminal of {cells} rows or columns is too large");
            u16::try_from(cells).map_err(|_| Failure::new(Kind::InvalidArgument, text))
        };
        let (rows, columns) = (size(request.height)?, size(request.width)?);
        if let Some(io) = process.io.borrow().as_ref() {
            io.resize(rows, columns)?;
        }
        Ok(api::Empty::default())
    }

    pub(super) fn close_io(&self, request: &api::CloseIORequest) -> Result<api::Empty, Failure> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        process.stdin_closed.set(true);
        if let Some(io) = process.io.borrow().as_ref() {
            io.close_stdin();
        }
        Ok(api::Empty::default())
    }
}

/// The answer to a signal for what is no more, as containerd expects it.
fn finished() -> Failure {
    Failure::new(Kind::NotFound, "process already finished: not found")
}

async fn kill_first(container: &Container, request: &api::KillRequest) -> Result<(), Failure> {
    let signal = request.signal.to_string();
    let stopped = matches!(container.first.state.get(), State::Stopped | State::Deleted);
    if stopped && !request.all {
        return Err(finished());
    }
    let mut words = vec!["kill"];
    if request.all {
        words.push("--all");
    }
    words.extend([container.id.as_str(), &signal]);
    let log = container.bundle.join("kill-log.json");
    let words: Vec<&OsStr> = words.into_iter().map(OsStr::new).collect();
    let killed = container.runtime.run(&log, b"", &words).await;
    let _ = fs::remove_file(&log);
    let Err(error) = killed else { return Ok(()) };
    let text = format!("{error:#}");
    let lower = text.to_lowercase();
    let gone = ["os: process already finished", "container not running", "no such process"];
    Err(if gone.iter().any(|phrase| lower.contains(phrase)) {
        finished()
    } else if text.contains("does not exist") {
        Failure::new(Kind::NotFound, "no such container: not found")
    } else {
        Failure::new(Kind::Unknown, format!("unknown error after kill: {text}"))
    })
}

fn kill_exec(target: &Process, signal: u32) -> Result<(), Failure> {
    if matches!(target.state.get(), State::Stopped | State::Deleted) {
        return Err(finished());
    }
    let pidfd = target.pidfd.borrow();
    let Some(pidfd) = pidfd.as_ref() else {
        let text = "process not created: failed precondition";
        return Err(Failure::new(Kind::FailedPrecondition, text));
    };
    let signal = i32::try_from(signal)
        .map_err(|_| Failure::new(Kind::InvalidArgument, format!("signal {signal} is unknown")))?;
    match process::send_signal(pidfd, signal) {
        Err(error) if error.errno() == libc::ESRCH => Err(finished()),
        result => Ok(result?),
    }
}

fn details(exec_id: &str) -> Result<Any, Failure> {
    let details = ProcessDetails { exec_id: exec_id.to_owned(), ..ProcessDetails::default() };
    let type_url = "containerd.runc.v1.ProcessDetails".to_owned();
    Ok(Any { type_url, value: details.write_to_bytes()?, ..Any::default() })
}

fn checkpoint_words(id: &str, image: &str, work: &str, options: &CheckpointOptions) -> Vec<String> {
    let mut words = vec!["checkpoint".to_owned()];
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            words.extend([name.to_owned(), value.to_owned()]);
        }
    };
    option("--image-path", image);
    option("--work-path", work);
    option("--parent-path", &options.image_path);
    option("--manage-cgroups-mode", &options.cgroups_mode);
    for namespace in &options.empty_namespaces {
        option("--empty-ns", namespace);
    }
    for (name, on) in [
        ("--tcp-established", options.open_tcp),
        ("--ext-unix-sk", options.external_unix_sockets),
        ("--shell-job", options.terminal),
        ("--file-locks", options.file_locks),
        ("--leave-running", !options.exit),
    ] {
        if on {
            words.push(name.to_owned());
        }
    }
    words.push(id.to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_asked_for_in_the_runtimes_words() {
        let options = CheckpointOptions { exit: true, open_tcp: true, ..Default::default() };
        assert_eq!(
            checkpoint_words("c", "/image", "/work", &options),
            [
                "checkpoint",
                "--image-path",
                "/image",
                "--work-path",
                "/work",
                "--tcp-established",
                "c"
            ]
        );
        let words = checkpoint_words("c", "", "/w", &CheckpointOptions::default());
        assert_eq!(words, ["checkpoint", "--work-path", "/w", "--leave-running", "c"]);
    }
}
