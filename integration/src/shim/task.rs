//! A container and its processes, as the task service shows them.

use std::ops::Deref;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::{Message, MessageField};
use serde_json::{Value, json};

use super::client::rpc::{self, Any};
use super::events::time;
use super::launch::any;
use super::{Client, Host, Input, Launch, Refusal, SOON, Stream};

/// Where the streams of a process go: paths of named pipes, or URIs.
#[derive(Clone, Debug, Default)]
pub struct Io {
    /// Standard input, or nothing.
    pub stdin: String,
    /// Standard output, or nothing.
    pub stdout: String,
    /// Standard error, or nothing.
    pub stderr: String,
    /// Whether they are one terminal.
    pub terminal: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The code, or 128 and the signal.
    pub status: u32,
    /// When.
    pub at: Option<SystemTime>,
}

/// A container about to be made.
#[derive(Debug)]
pub struct TaskPlan<'host> {
    host: &'host Host,
    /// What the bundle will hold.
    pub config: Value,
    /// How the shim will be started.
    pub launch: Launch,
    io: Option<Io>,
    unread: bool,
    checkpoint: String,
    root: Option<rpc::Mount>,
    sandbox: Option<String>,
}

impl<'host> TaskPlan<'host> {
    pub(super) fn new(host: &'host Host, id: &str, args: &[&str]) -> Self {
        let config = host.configuration(id, args);
        Self {
            host,
            config,
            launch: host.launch(id),
            io: None,
            unread: false,
            checkpoint: String::new(),
            root: None,
            sandbox: None,
        }
    }

    /// Changes the configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes what the user asks of the shim.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut rpc::Options)) -> Self {
        change(&mut self.launch.options);
        self
    }

    /// Puts an annotation into the configuration.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.config["annotations"][name] = json!(value);
        self
    }

    /// Gives it other streams than pipes for the output alone.
    #[must_use]
    pub fn io(mut self, io: Io) -> Self {
        self.config["process"]["terminal"] = json!(io.terminal);
        self.io = Some(io);
        self
    }

    /// Gives it pipes for all three streams.
    #[must_use]
    pub fn with_input(self) -> Self {
        let io = self.host.pipes(true);
        self.io(io)
    }

    /// Gives it a terminal.
    #[must_use]
    pub fn with_console(self) -> Self {
        let io = self.host.console();
        self.io(io)
    }

    /// Leaves reading its standard output to the test, which has to open it before.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Has it go on from what a checkpoint wrote.
    #[must_use]
    pub fn checkpoint(mut self, path: &str) -> Self {
        path.clone_into(&mut self.checkpoint);
        self
    }

    /// Gives it another root than the common one.
    #[must_use]
    pub fn root(mut self, mount: rpc::Mount) -> Self {
        self.root = Some(mount);
        self
    }

    /// Puts it into a sandbox, whose shim is asked for it.
    #[must_use]
    pub fn sandbox(mut self, id: &str) -> Self {
        self.sandbox = Some(id.to_owned());
        self
    }

    /// Starts the shim and makes the container, or gives the shim's error.
    #[track_caller]
    pub fn try_create(self) -> Result<Task<'host>, Refusal> {
        let Self { host, config, launch, io, unread, checkpoint, root, sandbox } = self;
        host.make_bundle(&launch.id, &config);
        let (id, bundle) = (launch.id.clone(), launch.bundle.clone());
        let options = any(&launch.options);
        let client = match &sandbox {
            Some(sandbox) => host.join_shim(launch, sandbox),
            None => host.start_shim(launch).1,
        };
        let io = io.unwrap_or_else(|| host.pipes(false));
        let init = Process::new(client, &id, "", io, unread);
        let request = rpc::CreateTaskRequest {
            id: id.clone(),
            bundle,
            rootfs: vec![root.unwrap_or_else(|| host.overlay(&id))],
            terminal: init.io.terminal,
            stdin: init.io.stdin.clone(),
            stdout: init.io.stdout.clone(),
            stderr: init.io.stderr.clone(),
            checkpoint,
            options: MessageField::some(options),
            ..Default::default()
        };
        let answer: rpc::CreateTaskResponse = init.client.call("Create", &request)?;
        Ok(Task { host, pid: answer.pid, init })
    }

    /// Starts the shim and makes the container.
    #[track_caller]
    pub fn create(self) -> Task<'host> {
        self.try_create().unwrap_or_else(|refusal| panic!("Create: {refusal:?}"))
    }

    /// Makes the container and starts its program.
    #[track_caller]
    pub fn start(self) -> Task<'host> {
        let task = self.create();
        task.init.start();
        task
    }
}

/// One process of a container. Its output is read from the beginning.
#[derive(Debug)]
pub struct Process {
    client: Client,
    id: String,
    exec_id: String,
    io: Io,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
}

/// A terminal, as its user sees it.
#[derive(Debug)]
pub struct Console<'process> {
    process: &'process Process,
    input: Input,
}

impl Process {
    fn new(client: Client, id: &str, exec_id: &str, io: Io, unread: bool) -> Self {
        let open = |path: &String| path.starts_with('/').then(|| Stream::collect(path));
        let stdout = if unread { None } else { open(&io.stdout) };
        let stderr = open(&io.stderr);
        Self { client, id: id.to_owned(), exec_id: exec_id.to_owned(), io, stdout, stderr }
    }

    /// Its connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where its streams go.
    pub fn paths(&self) -> &Io {
        &self.io
    }

    /// Its output.
    #[track_caller]
    pub fn stdout(&self) -> &Stream {
        self.stdout.as_ref().expect("the output is a pipe that is read")
    }

    /// Its complaints.
    #[track_caller]
    pub fn stderr(&self) -> &Stream {
        self.stderr.as_ref().expect("the error output is a pipe that is read")
    }

    /// Reads on from the output, after somebody stopped to.
    pub fn read_again(&mut self) {
        self.stdout = Some(Stream::collect(&self.io.stdout));
    }

    /// Stops to read the output.
    pub fn stop_reading(&mut self) {
        self.stdout = None;
    }

    /// Its input.
    #[track_caller]
    pub fn input(&self) -> Input {
        Input::open(&self.io.stdin)
    }

    /// Its terminal.
    #[track_caller]
    pub fn terminal(&self) -> Console<'_> {
        Console { process: self, input: self.input() }
    }

    /// Starts it, or gives the shim's error.
    pub fn try_start(&self) -> Result<u32, Refusal> {
        let (id, exec_id) = self.names();
        let request = rpc::StartRequest { id, exec_id, ..Default::default() };
        self.client.call("Start", &request).map(|answer: rpc::StartResponse| answer.pid)
    }

    /// Starts it and gives its process id.
    #[track_caller]
    pub fn start(&self) -> u32 {
        self.try_start().unwrap_or_else(|refusal| panic!("Start: {refusal:?}"))
    }

    /// Waits for its end, or gives the shim's error.
    pub fn try_wait(&self, limit: Duration) -> Result<Exit, Refusal> {
        let (id, exec_id) = self.names();
        let request = rpc::WaitRequest { id, exec_id, ..Default::default() };
        let answer: rpc::WaitResponse = self.client.call_within(limit, "Wait", &request)?;
        Ok(Exit { status: answer.exit_status, at: answer.exited_at.as_ref().and_then(time) })
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&self) -> Exit {
        self.try_wait(SOON).unwrap_or_else(|refusal| panic!("Wait: {refusal:?}"))
    }

    /// Sends it a signal, or gives the shim's error.
    pub fn try_kill(&self, signal: i32, all: bool) -> Result<(), Refusal> {
        let (id, exec_id) = self.names();
        let signal = u32::try_from(signal).expect("signals are positive");
        let request = rpc::KillRequest { id, exec_id, signal, all, ..Default::default() };
        self.client.call::<_, rpc::Empty>("Kill", &request).map(drop)
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn kill(&self, signal: i32) {
        self.try_kill(signal, false).unwrap_or_else(|refusal| panic!("Kill: {refusal:?}"));
    }

    /// Asks a [`SLEEPER`](super::SLEEPER) to end, once it can hear.
    #[track_caller]
    pub fn terminate(&self) {
        self.stdout().wait_for("ready");
        self.kill(15);
    }

    /// Deletes it, or gives the shim's error.
    pub fn try_delete(&self) -> Result<(u32, Exit), Refusal> {
        let (id, exec_id) = self.names();
        let request = rpc::DeleteRequest { id, exec_id, ..Default::default() };
        let answer: rpc::DeleteResponse = self.client.call("Delete", &request)?;
        let at = answer.exited_at.as_ref().and_then(time);
        Ok((answer.pid, Exit { status: answer.exit_status, at }))
    }

    /// Deletes it and gives how it ended.
    #[track_caller]
    pub fn delete(&self) -> Exit {
        self.try_delete().unwrap_or_else(|refusal| panic!("Delete: {refusal:?}")).1
    }

    /// Its state, or the shim's error.
    pub fn try_state(&self) -> Result<rpc::StateResponse, Refusal> {
        let (id, exec_id) = self.names();
        self.client.call("State", &rpc::StateRequest { id, exec_id, ..Default::default() })
    }

    /// Its state.
    #[track_caller]
    pub fn state(&self) -> rpc::StateResponse {
        self.try_state().unwrap_or_else(|refusal| panic!("State: {refusal:?}"))
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> rpc::Status {
        self.state().status.enum_value().expect("the status is a known one")
    }

    /// Says that nobody will write to its input any more, or gives the shim's error.
    pub fn try_close_input(&self) -> Result<(), Refusal> {
        let (id, exec_id) = self.names();
        let request = rpc::CloseIORequest { id, exec_id, stdin: true, ..Default::default() };
        self.client.call::<_, rpc::Empty>("CloseIO", &request).map(drop)
    }

    /// Says that nobody will write to its input any more.
    #[track_caller]
    pub fn close_input(&self) {
        self.try_close_input().unwrap_or_else(|refusal| panic!("CloseIO: {refusal:?}"));
    }

    /// Changes the size of its terminal, or gives the shim's error.
    pub fn try_resize(&self, width: u32, height: u32) -> Result<(), Refusal> {
        let (id, exec_id) = self.names();
        let request = rpc::ResizePtyRequest { id, exec_id, width, height, ..Default::default() };
        self.client.call::<_, rpc::Empty>("ResizePty", &request).map(drop)
    }

    fn names(&self) -> (String, String) {
        (self.id.clone(), self.exec_id.clone())
    }
}

impl Console<'_> {
    /// Types.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.input.write(text);
    }

    /// Waits until the text was shown, and gives everything that was.
    #[track_caller]
    pub fn read_until(&self, text: &str) -> String {
        self.process.stdout().wait_for(text)
    }
}

/// A container, seen as its first process.
#[derive(Debug)]
pub struct Task<'host> {
    host: &'host Host,
    /// The first process.
    pub init: Process,
    /// Its process id, by the answer to Create.
    pub pid: u32,
}

impl Deref for Task<'_> {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.init
    }
}

impl Task<'_> {
    /// Asks the shim for a container of the same id, or gives the shim's error.
    pub fn create_again(&self) -> Result<u32, Refusal> {
        let launch = self.host.launch(self.id());
        let request = rpc::CreateTaskRequest {
            id: launch.id,
            bundle: launch.bundle,
            options: MessageField::some(any(&launch.options)),
            ..Default::default()
        };
        let answer: Result<rpc::CreateTaskResponse, Refusal> = self.client.call("Create", &request);
        answer.map(|answer| answer.pid)
    }

    /// The options that its host's containers have, as they travel.
    pub fn options(&self) -> MessageField<Any> {
        MessageField::some(any(&self.host.launch(self.id()).options))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.init.id
    }

    /// Adds a process that is a line of shell; pipes for its output.
    #[track_caller]
    pub fn exec(&self, exec_id: &str, script: &str) -> Process {
        self.exec_with(exec_id, self.host.pipes(false), &["sh", "-c", script])
    }

    /// Adds a process with certain streams.
    #[track_caller]
    pub fn exec_with(&self, exec_id: &str, io: Io, args: &[&str]) -> Process {
        self.try_exec(exec_id, io, args).unwrap_or_else(|refusal| panic!("Exec: {refusal:?}"))
    }

    /// Adds a process, or gives the shim's error.
    pub fn try_exec(&self, exec_id: &str, io: Io, args: &[&str]) -> Result<Process, Refusal> {
        let mut spec = self.host.configuration(self.id(), args)["process"].take();
        spec["terminal"] = json!(io.terminal);
        self.try_exec_spec(exec_id, io, &spec)
    }

    /// Adds a process of a certain specification, or gives the shim's error.
    pub fn try_exec_spec(&self, exec_id: &str, io: Io, spec: &Value) -> Result<Process, Refusal> {
        let process = Process::new(self.client.clone(), self.id(), exec_id, io, false);
        let (id, exec_id) = process.names();
        let request = rpc::ExecProcessRequest {
            id,
            exec_id,
            terminal: process.io.terminal,
            stdin: process.io.stdin.clone(),
            stdout: process.io.stdout.clone(),
            stderr: process.io.stderr.clone(),
            spec: MessageField::some(json_any("Process", spec)),
            ..Default::default()
        };
        self.client.call::<_, rpc::Empty>("Exec", &request)?;
        Ok(process)
    }

    /// Runs a line of shell in the container to its end, and gives status and output.
    #[track_caller]
    pub fn run(&self, exec_id: &str, script: &str) -> (u32, String) {
        let process = self.exec(exec_id, script);
        process.start();
        let exit = process.wait();
        let output = process.stdout().to_end();
        assert_eq!(process.delete(), exit, "Wait and Delete tell the same");
        (exit.status, output)
    }

    /// Pauses it, or gives the shim's error.
    pub fn try_pause(&self) -> Result<(), Refusal> {
        let request = rpc::PauseRequest { id: self.id().to_owned(), ..Default::default() };
        self.client.call::<_, rpc::Empty>("Pause", &request).map(drop)
    }

    /// Resumes it, or gives the shim's error.
    pub fn try_resume(&self) -> Result<(), Refusal> {
        let request = rpc::ResumeRequest { id: self.id().to_owned(), ..Default::default() };
        self.client.call::<_, rpc::Empty>("Resume", &request).map(drop)
    }

    /// Changes its limits, or gives the shim's error.
    pub fn try_update(&self, resources: &Value) -> Result<(), Refusal> {
        let request = rpc::UpdateTaskRequest {
            id: self.id().to_owned(),
            resources: MessageField::some(json_any("LinuxResources", resources)),
            ..Default::default()
        };
        self.client.call::<_, rpc::Empty>("Update", &request).map(drop)
    }

    /// Its metrics, still packed.
    #[track_caller]
    pub fn stats(&self) -> Any {
        let request = rpc::StatsRequest { id: self.id().to_owned(), ..Default::default() };
        let answer: rpc::StatsResponse =
            self.client.call("Stats", &request).unwrap_or_else(|error| panic!("Stats: {error:?}"));
        answer.stats.into_option().expect("the answer has metrics")
    }

    /// Its processes with the exec that each is, if any.
    #[track_caller]
    pub fn pids(&self) -> Vec<(u32, Option<String>)> {
        let request = rpc::PidsRequest { id: self.id().to_owned(), ..Default::default() };
        let answer: rpc::PidsResponse =
            self.client.call("Pids", &request).unwrap_or_else(|error| panic!("Pids: {error:?}"));
        let exec = |info: &Any| {
            let details = rpc::ProcessDetails::parse_from_bytes(&info.value);
            details.expect("the details of a process").exec_id
        };
        let processes = answer.processes.iter();
        processes.map(|process| (process.pid, process.info.as_ref().map(exec))).collect()
    }

    /// Writes it to disk, or gives the shim's error.
    pub fn try_checkpoint(
        &self,
        path: &str,
        options: &rpc::CheckpointOptions,
    ) -> Result<(), Refusal> {
        let options = Any {
            type_url: "containerd.runc.v1.CheckpointOptions".to_owned(),
            value: options.write_to_bytes().expect("a message can be written"),
            ..Any::default()
        };
        let request = rpc::CheckpointTaskRequest {
            id: self.id().to_owned(),
            path: path.to_owned(),
            options: MessageField::some(options),
            ..Default::default()
        };
        self.client.call::<_, rpc::Empty>("Checkpoint", &request).map(drop)
    }

    /// What Connect tells: the process ids of shim and container.
    #[track_caller]
    pub fn connect(&self) -> (u32, u32) {
        let request = rpc::ConnectRequest { id: self.id().to_owned(), ..Default::default() };
        let answer: rpc::ConnectResponse =
            self.client.call("Connect", &request).unwrap_or_else(|error| panic!("{error:?}"));
        (answer.shim_pid, answer.task_pid)
    }

    /// Waits for its end, deletes it and ends its shim.
    #[track_caller]
    pub fn finish(self) -> Exit {
        let exit = self.wait();
        assert_eq!(self.delete(), exit, "Wait and Delete tell the same");
        self.host.shut_down(self.id());
        exit
    }
}

/// A document of the runtime specification, as containerd packs it.
fn json_any(kind: &str, value: &Value) -> Any {
    Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value: value.to_string().into_bytes(),
        ..Any::default()
    }
}
