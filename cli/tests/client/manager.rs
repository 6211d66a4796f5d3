//! A manager that pretends: its containers do what their command says.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use hull_specs_api::v1::{self, attach_request, attach_response, start_exec_request};
use tokio::sync::{mpsc, watch};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// The id of every container.
pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const DEADLINE: Duration = Duration::from_secs(20);

/// What it was asked, as lines.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Log {
    fn add(&self, line: String) {
        self.lines.lock().expect("not poisoned").push(line);
        self.changed.notify_all();
    }
}

/// A running one, with a directory of its own.
pub(crate) struct Manager {
    directory: tempfile::TempDir,
    log: Arc<Log>,
    /// Dropped, it ends.
    _runtime: tokio::runtime::Runtime,
}

impl Manager {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let log = Arc::new(Log::default());
        let socket = directory.path().join("hull.sock");
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(socket).expect("a socket")
        };
        let (started, _) = watch::channel(false);
        let (exit, _) = watch::channel(None);
        let fake = Fake {
            log: log.clone(),
            command: Arc::default(),
            pulled: Arc::default(),
            started: Arc::new(started),
            exit: Arc::new(exit),
        };
        let server = tonic::transport::Server::builder()
            .add_service(v1::containers_server::ContainersServer::new(fake.clone()))
            .add_service(v1::images_server::ImagesServer::new(fake))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self { directory, log, _runtime: runtime }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("hull.sock")
    }

    /// Waits until it was asked this.
    pub(crate) fn wait_for(&self, line: &str) {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.log.lines.lock().expect("not poisoned");
        while !lines.iter().any(|known| known == line) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {line:?} in {lines:?}");
            lines = self.log.changed.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }
}

#[derive(Clone)]
struct Fake {
    log: Arc<Log>,
    command: Arc<Mutex<Vec<String>>>,
    pulled: Arc<Mutex<bool>>,
    started: Arc<watch::Sender<bool>>,
    exit: Arc<watch::Sender<Option<i32>>>,
}

type Out = mpsc::Sender<Result<v1::AttachResponse, Status>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a client sends to a process.
enum Input {
    Bytes(Vec<u8>),
    Close,
    Resize(v1::TerminalSize),
}

fn cannot_run(command: &[String]) -> Option<Status> {
    match command.first().map(String::as_str) {
        Some("nosuch") => {
            Some(Status::not_found("exec: \"nosuch\": executable file not found in $PATH"))
        }
        Some("denied") => Some(Status::failed_precondition("exec: \"/etc\": permission denied")),
        _ => None,
    }
}

fn response(message: attach_response::Message) -> Result<v1::AttachResponse, Status> {
    Ok(v1::AttachResponse { message: Some(message) })
}

impl Fake {
    /// Does what the command says: its exit code.
    async fn perform(
        &self,
        command: &[String],
        out: &Out,
        input: &mut mpsc::Receiver<Input>,
    ) -> i32 {
        use attach_response::Message::{Stderr, Stdout};
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["exit", code] => {
                let _ = out.send(response(Stdout(b"out\n".to_vec()))).await;
                let _ = out.send(response(Stderr(b"err\n".to_vec()))).await;
                code.parse().expect("a number")
            }
            ["breaks"] => {
                let _ = out.send(Err(Status::internal("broken"))).await;
                1
            }
            ["cat"] => loop {
                match input.recv().await {
                    Some(Input::Bytes(bytes)) => {
                        let _ = out.send(response(Stdout(bytes))).await;
                    }
                    Some(Input::Resize(size)) => {
                        self.log.add(format!("size {}x{}", size.columns, size.rows));
                    }
                    Some(Input::Close) | None => break 0,
                }
            },
            _ => {
                let mut exit = self.exit.subscribe();
                exit.wait_for(Option::is_some).await.expect("it is held").unwrap_or(0)
            }
        }
    }
}

macro_rules! containers {
    (unary { $($unary:ident($request:ident) -> $response:ident,)* }
     streams { $($stream:ident($stream_request:ident) -> $name:ident = $item:ident,)* }) => {
        #[tonic::async_trait]
        impl v1::containers_server::Containers for Fake {
            $(async fn $unary(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented(stringify!($unary)))
            })*

            $(type $name = Answers<v1::$item>;

            async fn $stream(&self, _: Request<v1::$stream_request>) -> Result<Response<Self::$name>, Status> {
                Err(Status::unimplemented(stringify!($stream)))
            })*

            async fn create(
                &self,
                request: Request<v1::CreateContainerRequest>,
            ) -> Result<Response<v1::CreateContainerResponse>, Status> {
                let options = request.into_inner().options.unwrap_or_default();
                let pulled = *self.pulled.lock().expect("not poisoned");
                if options.image == "missing" || (options.image == "pullable" && !pulled) {
                    return Err(Status::not_found(format!("No such image: {}:latest", options.image)));
                }
                *self.command.lock().expect("not poisoned") = options.command;
                self.started.send_replace(false);
                self.exit.send_replace(None);
                Ok(Response::new(v1::CreateContainerResponse { id: ID.into(), warnings: Vec::new() }))
            }

            async fn start(
                &self,
                _: Request<v1::StartContainerRequest>,
            ) -> Result<Response<v1::StartContainerResponse>, Status> {
                let command = self.command.lock().expect("not poisoned").clone();
                if let Some(status) = cannot_run(&command) {
                    return Err(status);
                }
                self.started.send_replace(true);
                self.log.add("start".into());
                Ok(Response::new(v1::StartContainerResponse {}))
            }

            async fn wait(
                &self,
                _: Request<v1::WaitContainerRequest>,
            ) -> Result<Response<v1::WaitContainerResponse>, Status> {
                let mut exit = self.exit.subscribe();
                let code = exit.wait_for(Option::is_some).await.expect("it is held").unwrap_or(0);
                Ok(Response::new(v1::WaitContainerResponse { exit_code: code, error: String::new() }))
            }

            async fn kill(
                &self,
                request: Request<v1::KillContainerRequest>,
            ) -> Result<Response<v1::KillContainerResponse>, Status> {
                let signal = request.into_inner().signal;
                self.log.add(format!("kill {signal}"));
                self.exit.send_replace(signal.parse::<i32>().ok().map(|number| 128 + number));
                Ok(Response::new(v1::KillContainerResponse {}))
            }

            async fn remove(
                &self,
                request: Request<v1::RemoveContainerRequest>,
            ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
                match request.into_inner().container.as_str() {
                    "missing" => Err(Status::not_found("No such container: missing")),
                    _ => Ok(Response::new(v1::RemoveContainerResponse {})),
                }
            }

            async fn list(
                &self,
                _: Request<v1::ListContainersRequest>,
            ) -> Result<Response<v1::ListContainersResponse>, Status> {
                let of = v1::Container { id: ID.into(), name: "evil\u{1b}[31m".into(), ..v1::Container::default() };
                Ok(Response::new(v1::ListContainersResponse { containers: vec![of] }))
            }

            type AttachStream = Answers<v1::AttachResponse>;

            async fn attach(
                &self,
                request: Request<Streaming<v1::AttachRequest>>,
            ) -> Result<Response<Self::AttachStream>, Status> {
                let mut requests = request.into_inner();
                let Some(attach_request::Message::Open(open)) =
                    requests.message().await?.and_then(|request| request.message)
                else {
                    return Err(Status::invalid_argument("open comes first"));
                };
                let (out, answers) = mpsc::channel(16);
                let (send, mut input) = mpsc::channel(16);
                tokio::spawn(async move {
                    while let Some(Ok(request)) = requests.next().await {
                        use attach_request::Message;
                        let input = match request.message {
                            Some(Message::Stdin(bytes)) => Input::Bytes(bytes),
                            Some(Message::Resize(size)) => Input::Resize(size),
                            _ => Input::Close,
                        };
                        if send.send(input).await.is_err() {
                            return;
                        }
                    }
                });
                let fake = self.clone();
                tokio::spawn(async move {
                    let _ = out.send(response(attach_response::Message::Attached(v1::Attached { tty: false }))).await;
                    let mut started = fake.started.subscribe();
                    let _ = started.wait_for(|started| *started).await;
                    let command = fake.command.lock().expect("not poisoned").clone();
                    let (all, mut pieces) = mpsc::channel(16);
                    let performed = tokio::spawn({
                        let fake = fake.clone();
                        async move { fake.perform(&command, &all, &mut input).await }
                    });
                    while let Some(piece) = pieces.recv().await {
                        use attach_response::Message::Stderr;
                        let is_error = matches!(&piece, Ok(v1::AttachResponse { message: Some(Stderr(_)) }));
                        if open.stderr || !is_error {
                            let _ = out.send(piece).await;
                        }
                    }
                    let code = performed.await.unwrap_or(1);
                    fake.exit.send_replace(Some(code));
                    let ended = v1::Ended { exit_code: None };
                    let _ = out.send(response(attach_response::Message::Ended(ended))).await;
                });
                Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
            }

            async fn create_exec(
                &self,
                request: Request<v1::CreateExecRequest>,
            ) -> Result<Response<v1::CreateExecResponse>, Status> {
                *self.command.lock().expect("not poisoned") = request.into_inner().command;
                Ok(Response::new(v1::CreateExecResponse { exec_id: "e".into() }))
            }

            type StartExecStream = Answers<v1::AttachResponse>;

            async fn start_exec(
                &self,
                request: Request<Streaming<v1::StartExecRequest>>,
            ) -> Result<Response<Self::StartExecStream>, Status> {
                let first = request.into_inner().message().await?.and_then(|request| request.message);
                if !matches!(first, Some(start_exec_request::Message::Open(_))) {
                    return Err(Status::invalid_argument("open comes first"));
                }
                let command = self.command.lock().expect("not poisoned").clone();
                if let Some(status) = cannot_run(&command) {
                    return Err(status);
                }
                let (out, answers) = mpsc::channel(16);
                let (_closed, mut input) = mpsc::channel(1);
                let fake = self.clone();
                tokio::spawn(async move {
                    let code = fake.perform(&command, &out, &mut input).await;
                    let ended = v1::Ended { exit_code: Some(code) };
                    let _ = out.send(response(attach_response::Message::Ended(ended))).await;
                });
                Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
            }

            async fn copy_in(
                &self,
                _: Request<Streaming<v1::CopyInRequest>>,
            ) -> Result<Response<v1::CopyInResponse>, Status> {
                Err(Status::unimplemented("copy_in"))
            }
        }
    };
}

containers! {
    unary {
        stop(StopContainerRequest) -> StopContainerResponse,
        restart(RestartContainerRequest) -> RestartContainerResponse,
        pause(PauseContainerRequest) -> PauseContainerResponse,
        unpause(UnpauseContainerRequest) -> UnpauseContainerResponse,
        rename(RenameContainerRequest) -> RenameContainerResponse,
        update(UpdateContainerRequest) -> UpdateContainerResponse,
        inspect(InspectContainerRequest) -> InspectContainerResponse,
        prune(PruneContainersRequest) -> PruneContainersResponse,
        resize_terminal(ResizeTerminalRequest) -> ResizeTerminalResponse,
        inspect_exec(InspectExecRequest) -> Exec,
        top(TopRequest) -> TopResponse,
        why(WhyRequest) -> WhyResponse,
        stat_path(StatPathRequest) -> PathStat,
        diff(DiffRequest) -> DiffResponse,
    }
    streams {
        logs(LogsRequest) -> LogsStream = LogEntry,
        stats(StatsRequest) -> StatsStream = StatsResponse,
        copy_out(CopyOutRequest) -> CopyOutStream = CopyOutResponse,
        export(ExportRequest) -> ExportStream = ExportResponse,
        commit(CommitRequest) -> CommitStream = CommitResponse,
    }
}

macro_rules! images {
    (unary { $($unary:ident($request:ident) -> $response:ident,)* }
     streams { $($stream:ident($stream_request:ty) -> $name:ident = $item:ident,)* }) => {
        #[tonic::async_trait]
        impl v1::images_server::Images for Fake {
            $(async fn $unary(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented(stringify!($unary)))
            })*

            $(type $name = Answers<v1::$item>;

            async fn $stream(&self, _: Request<$stream_request>) -> Result<Response<Self::$name>, Status> {
                Err(Status::unimplemented(stringify!($stream)))
            })*

            type PullStream = Answers<v1::PullResponse>;

            async fn pull(&self, request: Request<v1::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
                use v1::pull_response::Event;
                let reference = request.into_inner().reference;
                *self.pulled.lock().expect("not poisoned") = true;
                let step = v1::Progress {
                    id: "layer".into(),
                    phase: v1::progress::Phase::Complete.into(),
                    ..v1::Progress::default()
                };
                let pulled = v1::Pulled { reference: format!("docker.io/library/{reference}:latest"), ..v1::Pulled::default() };
                let events = [Event::Progress(step), Event::Pulled(pulled)];
                let events = events.map(|event| Ok(v1::PullResponse { event: Some(event) }));
                Ok(Response::new(Box::pin(tokio_stream::iter(events))))
            }
        }
    };
}

images! {
    unary {
        list(ListImagesRequest) -> ListImagesResponse,
        inspect(InspectImageRequest) -> InspectImageResponse,
        history(ImageHistoryRequest) -> ImageHistoryResponse,
        tag(TagImageRequest) -> TagImageResponse,
        remove(RemoveImageRequest) -> RemoveImageResponse,
        prune(PruneImagesRequest) -> PruneImagesResponse,
        search(SearchRequest) -> SearchResponse,
        check_credentials(CheckCredentialsRequest) -> CheckCredentialsResponse,
    }
    streams {
        push(v1::PushRequest) -> PushStream = PushResponse,
        save(v1::SaveRequest) -> SaveStream = SaveResponse,
        load(Streaming<v1::LoadRequest>) -> LoadStream = LoadResponse,
        import(Streaming<v1::ImportRequest>) -> ImportStream = ImportResponse,
    }
}
