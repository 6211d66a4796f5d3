//! A container's shim, seen from the manager: making one, calling it, cleaning up after it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use containerd_shim_protos::{
    api,
    bootstrap_api::{BootstrapParams, BootstrapResult, Extension},
    shim::oci,
    shim_async::{Client, TaskClient},
    ttrpc::{self, context::Context},
};
use hull_manager_core::{Error, ErrorKind, Result, error::IoContext as _, name};
use hull_runtime_sys::fd;
use protobuf::{Message, MessageField, well_known_types::any::Any};

use crate::settings::Settings;

/// The namespace of all our shims: they are of one manager, told apart by their sockets' place.
const NAMESPACE: &str = "hull";

/// The file in a bundle with the shim's address.
const ADDRESS: &str = "address";

/// The file in a bundle that the shim's program has as its stdin, locked, while it works there.
const LOCK: &str = "lock";

/// How long the program may work in a bundle for a manager that was killed.
const WORK_LIMIT: Duration = Duration::from_secs(30);

/// What a shim may answer at its start, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// How long a shim may take for what does not wait for the container.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// The runtime's options as the shim takes them.
pub(crate) fn options(settings: &Settings, runtime: &str) -> Result<Any> {
    let known = settings.runtimes.get(runtime);
    let known = known
        .ok_or_else(|| Error::invalid(format!("unknown or invalid runtime name: {runtime}")))?;
    let options = oci::Options {
        binary_name: known.path.to_string_lossy().into_owned(),
        root: settings.exec_root.join("runtime").join(runtime).to_string_lossy().into_owned(),
        systemd_cgroup: settings.defaults.systemd_cgroups,
        ..oci::Options::default()
    };
    any("containerd.runc.v1.Options", &options)
}

pub(crate) fn any(name: &str, message: &impl Message) -> Result<Any> {
    let value = message.write_to_bytes().map_err(|cause| Error::internal(name).because(cause))?;
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() })
}

/// The program with the words that every action begins with.
fn command(settings: &Settings, id: &str, bundle: &Path, run: &str, action: &str) -> Command {
    let mut command = Command::new(&settings.shim);
    command
        .args(["-namespace", NAMESPACE, "-id", id, "-address"])
        // Makes the name of the socket, with the id: each run has its own, because the shim of the
        // last one may still be about to end.
        .arg(settings.exec_root.join("hull.sock").join(run))
        .arg("-bundle")
        .arg(bundle)
        .arg(action)
        .current_dir(bundle)
        // Nobody takes its events: it must not keep them.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What a terminal sends to the manager's group is not for the shim.
        .process_group(0);
    command
}

/// Starts a shim for a bundle, which need not be complete, and gives its address. Blocks for
/// some milliseconds.
pub(crate) fn launch(
    settings: &Settings,
    id: &str,
    bundle: &Path,
    options: &Any,
) -> Result<String> {
    let parameters = BootstrapParams {
        instance_id: id.to_owned(),
        namespace: NAMESPACE.to_owned(),
        socket_dir: Some(settings.exec_root.join("s").to_string_lossy().into_owned()),
        extensions: vec![Extension {
            value: MessageField::some(options.clone()),
            ..Extension::default()
        }],
        ..BootstrapParams::default()
    };
    let parameters = parameters
        .write_to_bytes()
        .map_err(|cause| Error::internal("the shim's parameters").because(cause))?;
    let command = command(settings, id, bundle, &name::random_id()?, "start");
    let answer = run(command, bundle, &parameters)
        .map_err(|error| error.context("cannot start the shim"))?;
    let answer = BootstrapResult::parse_from_bytes(&answer)
        .map_err(|cause| Error::internal("cannot read the shim's answer").because(cause))?;
    Ok(answer.address)
}

/// How a container ended, as the shim's `delete` says, after it removed everything of it.
/// Blocks for some milliseconds.
pub(crate) fn clean_up(settings: &Settings, id: &str, bundle: &Path) -> Result<()> {
    run(command(settings, id, bundle, "", "delete"), bundle, &[])
        .map(drop)
        .map_err(|error| error.context(format!("cannot clean up after the shim of {id}")))
}

/// Takes a bundle for the shim's program. A manager can be killed while one works there; that one
/// holds the lock by its stdin from the moment of its fork to its end, and is waited for. The shim
/// itself, a fork of it, has let go of its stdin before it serves.
fn claim(bundle: &Path) -> Result<File> {
    const PAUSE: Duration = Duration::from_millis(5);
    let path = bundle.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.about(path.display())?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < WORK_LIMIT => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::timed_out(format!(
                    "a shim's program still works in {} after {WORK_LIMIT:?}",
                    bundle.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error).about(path.display()),
        }
    }
}

/// Waits until no program works in a bundle for a manager that was killed. Blocks.
pub(crate) fn wait_for_others(bundle: &Path) -> Result<()> {
    claim(bundle).map(drop)
}

/// The manager has some descriptors for each published port. A child that it makes would get a
/// copy of each, and close each at its exec: milliseconds, where there are thousands.
fn run(command: Command, bundle: &Path, input: &[u8]) -> Result<Vec<u8>> {
    const FIRST_BEHIND_STDERR: u32 = 3;
    let apart = || {
        fd::leave_from(FIRST_BEHIND_STDERR)
            .map_err(|cause| Error::internal("a thread's descriptors").because(cause))?;
        run_here(command, bundle, input)
    };
    let ran = thread::scope(|scope| scope.spawn(apart).join());
    let (answer, said) = ran.map_err(|_| Error::internal("a thread panicked"))??;
    if !said.is_empty() {
        tracing::warn!("{said}");
    }
    Ok(answer)
}

/// What the program answers, and what it says beside.
fn run_here(mut command: Command, bundle: &Path, input: &[u8]) -> Result<(Vec<u8>, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut lock = claim(bundle)?;
    // It is there whole before the program is: that one could outlive us.
    lock.set_len(0)
        .and_then(|()| lock.write_all(input))
        .and_then(|()| lock.rewind())
        .about(&name)?;
    let mut child = command.stdin(lock).spawn().about(&name)?;
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut answer).about(&name)?;
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Not UTF-8: then there is nothing to show.
        let _ = stderr.take(MAX_ANSWER).read_to_string(&mut said);
    }
    let status = child.wait().about(&name)?;
    let said = said.trim();
    if !status.success() {
        let why = if said.is_empty() { status.to_string() } else { said.to_owned() };
        return Err(Error::internal(why));
    }
    Ok((answer, said.to_owned()))
}

/// The address that a shim has left in its bundle.
pub(crate) fn address(bundle: &Path) -> Option<String> {
    let text = std::fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What a shim says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Created,
    Running,
    Paused,
    Stopped,
}

/// How a process ended, as the shim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) at: Option<SystemTime>,
}

/// A connection to a container's shim.
#[derive(Clone)]
pub(crate) struct Shim {
    id: String,
    pub(crate) bundle: PathBuf,
    client: TaskClient,
}

/// The streams of a new process, as the shim takes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

impl Shim {
    pub(crate) async fn connect(id: &str, bundle: &Path, address: &str) -> Result<Self> {
        let client = Client::connect(address).await.map_err(|error| failure(id, error))?;
        Ok(Self { id: id.to_owned(), bundle: bundle.to_owned(), client: TaskClient::new(client) })
    }

    fn fail(&self, error: ttrpc::Error) -> Error {
        failure(&self.id, error)
    }

    pub(crate) async fn create(
        &self,
        rootfs: Vec<containerd_shim_protos::types::mount::Mount>,
        streams: Streams,
        options: Any,
    ) -> Result<u32> {
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            rootfs,
            terminal: streams.terminal,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            options: MessageField::some(options),
            ..api::CreateTaskRequest::default()
        };
        let answer = self.client.create(Context::default(), &request).await;
        Ok(answer.map_err(|error| self.fail(error))?.pid)
    }

    /// Starts the first process, or an exec.
    pub(crate) async fn start(&self, exec: &str) -> Result<u32> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::StartRequest::default()
        };
        let answer = self.client.start(Context::default(), &request).await;
        let answer = answer.map_err(|error| match exec {
            "" => self.fail(error),
            _ => overtaken(&self.id, self.fail(error)),
        });
        Ok(answer?.pid)
    }

    /// Answers when the process has ended, however long that takes.
    pub(crate) async fn wait(&self, exec: &str) -> Result<Ended> {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::WaitRequest::default()
        };
        let answer = self.client.wait(Context::default(), &request).await;
        let answer = answer.map_err(|error| self.fail(error))?;
        let at = answer.exited_at.into_option().and_then(|at| {
            let since =
                Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
            UNIX_EPOCH.checked_add(since)
        });
        Ok(Ended { status: answer.exit_status, at })
    }

    pub(crate) async fn state(&self, exec: &str) -> Result<(Liveness, u32)> {
        use containerd_shim_protos::types::task::Status;
        let request = api::StateRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::StateRequest::default()
        };
        let answer = self.client.state(limited(), &request).await;
        let answer = answer.map_err(|error| self.fail(error))?;
        let liveness = match answer.status.enum_value_or_default() {
            Status::RUNNING => Liveness::Running,
            Status::PAUSED | Status::PAUSING => Liveness::Paused,
            Status::STOPPED => Liveness::Stopped,
            Status::CREATED | Status::UNKNOWN => Liveness::Created,
        };
        Ok((liveness, answer.pid))
    }

    pub(crate) async fn kill(&self, exec: &str, signal: i32) -> Result<()> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            signal: signal.unsigned_abs(),
            ..api::KillRequest::default()
        };
        let answer = self.client.kill(limited(), &request).await;
        answer.map(drop).map_err(|error| self.fail(error))
    }

    pub(crate) async fn pause(&self) -> Result<()> {
        let request = api::PauseRequest { id: self.id.clone(), ..api::PauseRequest::default() };
        let answer = self.client.pause(limited(), &request).await;
        answer.map(drop).map_err(|error| overtaken(&self.id, self.fail(error)))
    }

    pub(crate) async fn resume(&self) -> Result<()> {
        let request = api::ResumeRequest { id: self.id.clone(), ..api::ResumeRequest::default() };
        let answer = self.client.resume(limited(), &request).await;
        answer.map(drop).map_err(|error| overtaken(&self.id, self.fail(error)))
    }

    /// `resources`: as JSON, as the runtime's `update` takes it.
    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<()> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: MessageField::some(Any { value: resources, ..Any::default() }),
            ..api::UpdateTaskRequest::default()
        };
        let answer = self.client.update(limited(), &request).await;
        answer.map(drop).map_err(|error| overtaken(&self.id, self.fail(error)))
    }

    pub(crate) async fn resize(&self, exec: &str, columns: u32, rows: u32) -> Result<()> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            width: columns,
            height: rows,
            ..api::ResizePtyRequest::default()
        };
        let answer = self.client.resize_pty(limited(), &request).await;
        answer.map(drop).map_err(|error| overtaken(&self.id, self.fail(error)))
    }

    /// `process`: as JSON.
    pub(crate) async fn exec(&self, exec: &str, process: Vec<u8>, streams: Streams) -> Result<()> {
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            terminal: streams.terminal,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            spec: MessageField::some(Any { value: process, ..Any::default() }),
            ..api::ExecProcessRequest::default()
        };
        let answer = self.client.exec(limited(), &request).await;
        answer.map(drop).map_err(|error| overtaken(&self.id, self.fail(error)))
    }

    /// No client will write to the process's stdin any more.
    pub(crate) async fn close_stdin(&self, exec: &str) -> Result<()> {
        let request = api::CloseIORequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            stdin: true,
            ..api::CloseIORequest::default()
        };
        let answer = self.client.close_io(limited(), &request).await;
        answer.map(drop).map_err(|error| self.fail(error))
    }

    pub(crate) async fn pids(&self) -> Result<Vec<u32>> {
        let request = api::PidsRequest { id: self.id.clone(), ..api::PidsRequest::default() };
        let answer = self.client.pids(limited(), &request).await;
        let answer = answer.map_err(|error| overtaken(&self.id, self.fail(error)))?;
        Ok(answer.processes.iter().map(|process| process.pid).collect())
    }

    /// The cgroup's numbers, in the form of cgroup v1 or v2.
    pub(crate) async fn stats(&self) -> Result<Any> {
        let request = api::StatsRequest { id: self.id.clone(), ..api::StatsRequest::default() };
        let answer = self.client.stats(limited(), &request).await;
        Ok(answer.map_err(|error| overtaken(&self.id, self.fail(error)))?.stats.unwrap_or_default())
    }

    /// Removes what has ended: an exec, or with the first process the container.
    pub(crate) async fn delete(&self, exec: &str) -> Result<()> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..api::DeleteRequest::default()
        };
        let answer = self.client.delete(limited(), &request).await;
        answer.map(drop).map_err(|error| self.fail(error))
    }

    /// The shim ends, if it has no container any more.
    pub(crate) async fn shut_down(&self) {
        let request =
            api::ShutdownRequest { id: self.id.clone(), ..api::ShutdownRequest::default() };
        // It may be gone before it has answered.
        let _ = self.client.shutdown(limited(), &request).await;
    }
}

fn limited() -> Context {
    ttrpc::context::with_duration(CALL_LIMIT)
}

/// A failure because the container is not any more what it was when it was asked about: it has
/// ended, or was unpaused, meanwhile. The runtimes' texts are those that other callers match on.
fn overtaken(id: &str, error: Error) -> Error {
    let text = error.to_string();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if has(&["container not paused"]) {
        Error::conflict(format!("Container {id} is not paused"))
    } else if has(&["cannot exec in a paused"]) {
        Error::conflict(format!("Container {id} is paused, unpause the container before exec"))
    } else if error.kind() == ErrorKind::Unavailable
        || has(&[
            "container not running",
            "container does not exist",
            "container not created",
            "in a stopped",
            "a stopped container",
            "a deleted process",
            "process was killed",
            "setns: no such process",
            "init process is not running",
        ])
    {
        Error::conflict(format!("Container {id} is not running"))
    } else {
        error
    }
}

/// What a caller is told of a call that failed: the shim's sentence, which is the runtime's.
fn failure(id: &str, error: ttrpc::Error) -> Error {
    use ttrpc::Code;
    let ttrpc::Error::RpcStatus(status) = error else {
        return Error::unavailable(format!("the shim of container {id} does not answer"))
            .because(anyhow::anyhow!("{error}"));
    };
    let kind = match status.code() {
        Code::NOT_FOUND => ErrorKind::NotFound,
        Code::INVALID_ARGUMENT => ErrorKind::InvalidArgument,
        Code::ALREADY_EXISTS => ErrorKind::AlreadyExists,
        Code::FAILED_PRECONDITION => ErrorKind::FailedPrecondition,
        Code::UNIMPLEMENTED => ErrorKind::Unimplemented,
        Code::DEADLINE_EXCEEDED => ErrorKind::DeadlineExceeded,
        Code::RESOURCE_EXHAUSTED => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, &status.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_meanwhile_is_said_in_dockers_words() {
        for (text, expected) in [
            ("OCI runtime resume failed: container not paused", "Container c is not paused"),
            ("OCI runtime pause failed: container not running", "Container c is not running"),
            ("exec failed: cannot exec in a stopped container", "Container c is not running"),
            ("exec failed: executable file not found", "exec failed: executable file not found"),
        ] {
            assert_eq!(overtaken("c", Error::internal(text)).message(), expected);
        }
        assert_eq!(overtaken("c", Error::unavailable("x")).kind(), ErrorKind::FailedPrecondition);
    }
}
