//! `exec`: further processes in a container, over FIFOs in its bundle.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hull_manager_core::{Error, ErrorKind, Result, error::IoContext as _, name};
use hull_manager_spec as spec;
use hull_runtime_sys::{
    fd::{AT_FDCWD, mkfifoat},
    path::c_path,
};
use hull_specs_api::v1::{self, attach_response, start_exec_request::Message};
use hull_specs_oci as oci;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    sync::{mpsc, watch},
};

use crate::{
    Answers, Containers, Inner, Messages,
    attach::{self, ANSWERS, Funnel, Stream, funnel},
    prepare,
    shim::{Shim, Streams},
    state::Ask,
};

/// Of one container; the oldest that have ended are forgotten.
const MAX_EXECS: usize = 512;

/// What is read of a FIFO at once.
const BLOCK: usize = 32 << 10;

/// One further process.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container: String,
    request: v1::CreateExecRequest,
    /// As the runtime takes it.
    process: Vec<u8>,
    /// Its place in the order of creation.
    number: u64,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Somebody has asked for its start.
    begun: bool,
    pid: u32,
    running: bool,
    exit_code: Option<i32>,
}

/// All of them, by id.
#[derive(Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Arc<Exec>>>);

impl Execs {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Arc<Exec>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Exec>> {
        let missing = || Error::not_found(format!("No such exec instance: {id}"));
        self.with(|all| all.get(id).cloned()).ok_or_else(missing)
    }

    pub(crate) fn of(&self, container: &str) -> Vec<String> {
        self.with(|all| {
            all.values()
                .filter(|exec| exec.container == container)
                .map(|exec| exec.id.clone())
                .collect()
        })
    }

    /// Forgets those of a container that is removed.
    pub(crate) fn forget(&self, container: &str) {
        self.with(|all| all.retain(|_, exec| exec.container != container));
    }

    fn add(&self, exec: Exec) -> Result<()> {
        self.with(|all| {
            let own = all.values().filter(|other| other.container == exec.container);
            if own.clone().count() >= MAX_EXECS {
                let ended = own.filter(|other| {
                    let state = *other.state.borrow();
                    state.begun && !state.running
                });
                let oldest = ended.min_by_key(|other| other.number).map(|other| other.id.clone());
                let Some(oldest) = oldest else {
                    return Err(Error::exhausted(format!(
                        "container {} has {MAX_EXECS} execs",
                        exec.container
                    )));
                };
                all.remove(&oldest);
            }
            all.insert(exec.id.clone(), Arc::new(exec));
            Ok(())
        })
    }
}

/// A FIFO for the output of an exec that nobody is attached to: it, its path, and its reader.
pub(crate) fn output_fifo(bundle: &Path, id: &str) -> Result<(Fifos, String, pipe::Receiver)> {
    let mut fifos = Fifos::new(bundle, id);
    let (path, reader) = fifos.reader("out")?;
    Ok((fifos, path, reader))
}

/// The FIFOs of one exec. Dropped, they are removed.
pub(crate) struct Fifos {
    base: PathBuf,
    names: Vec<PathBuf>,
}

impl Fifos {
    fn new(bundle: &Path, id: &str) -> Self {
        Self { base: bundle.join(format!("exec-{id}")), names: Vec::new() }
    }

    fn make(&mut self, suffix: &str) -> Result<PathBuf> {
        let path = self.base.with_extension(suffix);
        let name = c_path(&path).map_err(anyhow::Error::new)?;
        mkfifoat(AT_FDCWD, &name, 0o600).map_err(anyhow::Error::new)?;
        self.names.push(path.clone());
        Ok(path)
    }

    /// One to read from. It is opened before its writer, so that nothing is lost.
    fn reader(&mut self, suffix: &str) -> Result<(String, pipe::Receiver)> {
        let path = self.make(suffix)?;
        let reader = pipe::OpenOptions::new().open_receiver(&path).about(path.display())?;
        Ok((path.to_string_lossy().into_owned(), reader))
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        for path in &self.names {
            // With the bundle they are gone already.
            let _ = fs::remove_file(path);
        }
    }
}

impl Inner {
    /// The process that is asked for, in a container that runs.
    pub(crate) fn exec_process(
        &self,
        id: &str,
        request: &v1::CreateExecRequest,
    ) -> Result<oci::Process> {
        let path = self.bundle(id).join(prepare::CONFIG);
        let text = fs::read(&path).about(path.display())?;
        let config: oci::Spec = serde_json::from_slice(&text)
            .map_err(|cause| Error::internal(path.display()).because(cause))?;
        let user = match request.user.as_str() {
            "" => None,
            user => {
                let root = self.root(id)?;
                Some(prepare::resolve_user(&root, user, &[])?)
            }
        };
        let available = self.settings().defaults.host.capabilities;
        spec::process(request, &config, user, available).map_err(Error::invalid)
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn create_exec(
        &self,
        request: v1::CreateExecRequest,
    ) -> Result<v1::CreateExecResponse> {
        let handle = self.find(&request.container)?;
        handle.shim(Ask::Exec, &request.container)?;
        let process = self.0.exec_process(&handle.id, &request)?;
        let process = serde_json::to_vec(&process)
            .map_err(|cause| Error::internal("the process").because(cause))?;
        let id = name::random_id()?;
        let command = request.command.join(" ");
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        self.0.execs.add(Exec {
            id: id.clone(),
            container: handle.id.clone(),
            request,
            process,
            number: NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            state: watch::Sender::new(State::default()),
        })?;
        let action = format!("exec_create: {command}");
        self.0.event(&handle.record(), &action, &[("execID", &id)]);
        Ok(v1::CreateExecResponse { exec_id: id })
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such exec instance: …`.
    pub async fn inspect_exec(&self, request: v1::InspectExecRequest) -> Result<v1::Exec> {
        let exec = self.0.execs.find(&request.exec_id)?;
        let state = *exec.state.borrow();
        Ok(v1::Exec {
            id: exec.id.clone(),
            container_id: exec.container.clone(),
            running: state.running,
            exit_code: state.exit_code,
            pid: state.pid,
            options: Some(exec.request.clone()),
        })
    }

    /// As in containers.proto. The first message is `open`.
    ///
    /// # Errors
    /// In docker's words; the runtime's sentence.
    pub async fn start_exec(
        &self,
        mut messages: Messages<v1::StartExecRequest>,
    ) -> Result<Answers<v1::AttachResponse>> {
        let first = messages.recv().await.and_then(|message| message.message);
        let Some(Message::Open(open)) = first else {
            return Err(Error::invalid("the first message of an exec must be open"));
        };
        let exec = self.0.execs.find(&open.exec_id)?;
        let handle = self.find(&exec.container)?;
        let shim = handle.shim(Ask::Exec, &exec.container)?;
        let begun = exec.state.send_if_modified(|state| !std::mem::replace(&mut state.begun, true));
        if !begun {
            return Err(Error::conflict(format!("exec {} has already been started", exec.id)));
        }
        let size = open.size.as_ref().map(attach::size).transpose()?;
        let mut session = Session::open(&exec, &shim, open.detach)?;
        let command = exec.request.command.join(" ");
        let record = handle.record();
        if let Err(error) = session.start(&exec, &shim).await {
            exec.state.send_modify(|state| {
                state.running = false;
                state.exit_code = Some(start_failed(&error));
            });
            // It was made in the shim, but for a failure of its making.
            let _ = shim.delete(&exec.id).await;
            return Err(error);
        }
        self.0.event(&record, &format!("exec_start: {command}"), &[("execID", &exec.id)]);
        if let Some((columns, rows)) = size.filter(|_| exec.request.tty) {
            // It may have ended.
            let _ = shim.resize(&exec.id, columns.into(), rows.into()).await;
        }
        let (inner, ending, ended) = (Arc::clone(&self.0), Arc::clone(&exec), shim.clone());
        tokio::spawn(async move {
            let result = ended.wait(&ending.id).await;
            let code = result.map_or(137, |end| i32::try_from(end.status).unwrap_or(255));
            ending.state.send_modify(|state| {
                state.running = false;
                state.exit_code = Some(code);
            });
            let code = code.to_string();
            inner.event(&record, "exec_die", &[("execID", &ending.id), ("exitCode", &code)]);
            // Its streams end with this at the latest.
            if let Err(error) = ended.delete(&ending.id).await
                && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable)
            {
                tracing::warn!(exec = %ending.id, %error, "not deleted");
            }
        });
        let (answers, answered) = mpsc::channel(ANSWERS);
        let attached = attach_response::Message::Attached(v1::Attached { tty: exec.request.tty });
        // The receiver is ours yet.
        let _ = answers.send(Ok(v1::AttachResponse { message: Some(attached) })).await;
        if !open.detach {
            tokio::spawn(session.relay(exec, shim, messages, answers));
        }
        Ok(answered)
    }
}

impl Inner {
    /// Execs of a manager that is no more: nobody can be attached to them, but they must not wait
    /// for a reader, and their ends are taken.
    pub(crate) fn forsake_execs(&self, shim: &Shim) {
        let names = crate::bundle::names(&shim.bundle).unwrap_or_default();
        for name in names {
            let Some((id, "out" | "err" | "in")) =
                name.strip_prefix("exec-").and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            let (path, id, shim) = (shim.bundle.join(&name), id.to_owned(), shim.clone());
            tokio::spawn(async move {
                if name.ends_with(".out") || name.ends_with(".err") {
                    if let Ok(mut reader) = pipe::OpenOptions::new().open_receiver(&path) {
                        let mut buffer = vec![0; BLOCK];
                        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
                    }
                } else {
                    // Its client is gone.
                    let _ = shim.close_stdin(&id).await;
                }
                let _ = shim.wait(&id).await;
                // One of its streams does it, the others find it done.
                let _ = shim.delete(&id).await;
                let _ = fs::remove_file(&path);
            });
        }
    }
}

/// docker's exit code of an exec that could not be started.
fn start_failed(error: &Error) -> i32 {
    let text = error.to_string();
    let found = ["executable file not found", "no such file or directory"];
    if found.iter().any(|phrase| text.contains(phrase)) { 127 } else { 126 }
}

/// The streams of one exec.
struct Session {
    _fifos: Fifos,
    streams: Streams,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Session {
    fn open(exec: &Exec, shim: &Shim, detach: bool) -> Result<Self> {
        let mut fifos = Fifos::new(&shim.bundle, &exec.id);
        let mut streams = Streams { terminal: exec.request.tty, ..Streams::default() };
        let (mut stdout, mut stderr) = (None, None);
        if !detach {
            let (path, reader) = fifos.reader("out")?;
            (streams.stdout, stdout) = (path, Some(reader));
            if !exec.request.tty {
                let (path, reader) = fifos.reader("err")?;
                (streams.stderr, stderr) = (path, Some(reader));
            }
            if exec.request.stdin {
                streams.stdin = fifos.make("in")?.to_string_lossy().into_owned();
            }
        }
        Ok(Self { _fifos: fifos, streams, stdout, stderr })
    }

    async fn start(&mut self, exec: &Exec, shim: &Shim) -> Result<()> {
        shim.exec(&exec.id, exec.process.clone(), self.streams.clone()).await?;
        let pid = shim.start(&exec.id).await?;
        exec.state.send_modify(|state| {
            state.pid = pid;
            state.running = true;
        });
        Ok(())
    }

    /// Carries until the process has ended and all its output is sent, or the client leaves.
    async fn relay(
        self,
        exec: Arc<Exec>,
        shim: Shim,
        messages: Messages<v1::StartExecRequest>,
        answers: mpsc::Sender<Result<v1::AttachResponse>>,
    ) {
        let ending = Arc::clone(&exec);
        let (funnel, emptying) = funnel(answers, async move {
            let mut states = ending.state.subscribe();
            let state = states.wait_for(|state| state.exit_code.is_some()).await;
            Ok(state.ok().and_then(|state| state.exit_code))
        });
        let emptying = tokio::spawn(emptying);
        let typing =
            tokio::spawn(type_in(self.streams.stdin.clone(), exec.id.clone(), shim, messages));
        let outputs = [(Stream::Stdout, self.stdout), (Stream::Stderr, self.stderr)];
        let carried = outputs.map(|(stream, reader)| carry(stream, reader, funnel.clone(), &exec));
        tokio::select! {
            _ = futures_util::future::join_all(carried) => {}
            () = funnel.gone() => {}
        }
        typing.abort();
        drop(funnel);
        // It ends when the client has taken all, or leaves.
        let _ = emptying.await;
    }
}

async fn carry(stream: Stream, reader: Option<pipe::Receiver>, funnel: Funnel, exec: &Exec) {
    let Some(mut reader) = reader else { return };
    loop {
        let mut buffer = Vec::with_capacity(BLOCK);
        // A FIFO that cannot be read has ended, too.
        if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
        let mut states = exec.state.subscribe();
        let over = async { drop(states.wait_for(|state| state.exit_code.is_some()).await) };
        if funnel.put(stream, buffer, over).await.is_err() {
            return;
        }
    }
}

/// Carries what the client types.
async fn type_in(
    stdin: String,
    exec: String,
    shim: Shim,
    mut messages: Messages<v1::StartExecRequest>,
) {
    let mut writer = None;
    if !stdin.is_empty() {
        // The shim has it open.
        writer = pipe::OpenOptions::new().open_sender(&stdin).ok();
    }
    while let Some(message) = messages.recv().await {
        match message.message {
            Some(Message::Stdin(bytes)) => {
                if let Some(open) = &mut writer
                    && open.write_all(&bytes).await.is_err()
                {
                    // The process reads no more.
                    writer = None;
                }
            }
            Some(Message::CloseStdin(_)) => break,
            Some(Message::Resize(size)) if attach::size(&size).is_ok() => {
                // It may have ended.
                let _ = shim.resize(&exec, size.columns, size.rows).await;
            }
            _ => {}
        }
    }
    if writer.take().is_some() {
        // Its reader learns the end when nobody holds the FIFO any more.
        let _ = shim.close_stdin(&exec).await;
    }
    while let Some(message) = messages.recv().await {
        if let Some(Message::Resize(size)) = message.message
            && attach::size(&size).is_ok()
        {
            let _ = shim.resize(&exec, size.columns, size.rows).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(number: u64, state: State) -> Exec {
        Exec {
            id: format!("e{number}"),
            container: "c".into(),
            request: v1::CreateExecRequest::default(),
            process: Vec::new(),
            number,
            state: watch::Sender::new(state),
        }
    }

    #[test]
    fn only_ended_ones_make_room_and_the_oldest_first() {
        let execs = Execs::default();
        let running = State { begun: true, running: true, ..State::default() };
        let ended = State { begun: true, exit_code: Some(0), ..State::default() };
        for number in 0..MAX_EXECS as u64 {
            let state = if number == 5 || number == 9 { ended } else { running };
            execs.add(exec(number, state)).unwrap();
        }
        execs.add(exec(1000, running)).unwrap();
        assert!(execs.find("e5").is_err() && execs.find("e9").is_ok());
        execs.add(exec(1001, running)).unwrap();
        assert!(execs.add(exec(1002, running)).is_err());
        execs.forget("c");
        assert!(execs.of("c").is_empty());
    }
}
