//! The end of containerd that takes events.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task as wire;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::ttrpc::{Request, Response};

use super::SOON;
use super::wire::{RESPONSE, message_frame, read_frame};
use crate::wait_for;

/// One published event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `/tasks/create` and so on.
    pub topic: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The message's type.
    pub kind: String,
    /// The container.
    pub container: String,
    /// The exec, or nothing.
    pub exec: String,
    /// The process.
    pub pid: u32,
    /// The exit status.
    pub status: u32,
    /// When the process ended.
    pub exited_at: Option<SystemTime>,
    /// When the event happened.
    pub at: Option<SystemTime>,
    /// The fields that only few events have, as text.
    pub text: String,
}

#[derive(Debug, Default)]
struct Inbox {
    events: Mutex<Vec<Event>>,
    /// By the number of their descriptors.
    open: Mutex<BTreeMap<RawFd, UnixStream>>,
    closed: AtomicBool,
    /// Held by whoever wants no answer to be given.
    answers: Mutex<()>,
}

/// A server of containerd's events service, which can go away and come back.
#[derive(Debug)]
pub struct EventServer {
    path: String,
    inbox: Arc<Inbox>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl EventServer {
    /// Listens on a path.
    pub fn start(path: &str) -> Self {
        let server =
            Self { path: path.to_owned(), inbox: Arc::default(), acceptor: Mutex::default() };
        server.come_back();
        server
    }

    /// Closes every connection and the socket, as a crash of containerd does.
    pub fn go_away(&self) {
        self.inbox.closed.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if let Some(acceptor) = lock(&self.acceptor).take() {
            let _ = acceptor.join();
        }
        let _ = std::fs::remove_file(&self.path);
        for stream in std::mem::take(&mut *lock(&self.inbox.open)).into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again.
    pub fn come_back(&self) {
        let listener = UnixListener::bind(&self.path).expect("the site is writable");
        self.inbox.closed.store(false, Ordering::SeqCst);
        let inbox = Arc::clone(&self.inbox);
        *lock(&self.acceptor) = Some(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if inbox.closed.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(copy) = stream.try_clone() else { return };
                let number = copy.as_raw_fd();
                lock(&inbox.open).insert(number, copy);
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    serve(stream, &inbox);
                    lock(&inbox.open).remove(&number);
                });
            }
        }));
    }

    /// Takes no event until the guard is gone, and does not close the connections either.
    pub fn stall(&self) -> MutexGuard<'_, ()> {
        lock(&self.inbox.answers)
    }

    /// Everything that was published, in the order in which it came.
    pub fn all(&self) -> Vec<Event> {
        lock(&self.inbox.events).clone()
    }

    /// The topics of a container's events, in the order in which they came.
    pub fn topics(&self, container: &str) -> Vec<String> {
        let events = lock(&self.inbox.events);
        events
            .iter()
            .filter(|one| one.container == container)
            .map(|one| one.topic.clone())
            .collect()
    }

    /// Waits for an event of a container.
    #[track_caller]
    pub fn wait(&self, container: &str, topic: &str) -> Event {
        self.wait_where(topic, |event| event.container == container && event.topic == topic)
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait_where(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        wait_for(&format!("the event {what}"), SOON, || {
            lock(&self.inbox.events).iter().find(|event| wanted(event)).cloned()
        })
    }
}

impl Drop for EventServer {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: UnixStream, inbox: &Inbox) {
    while let Some((number, body)) = read_frame(&mut stream) {
        let Ok(request) = Request::parse_from_bytes(&body) else { return };
        let _answering = lock(&inbox.answers);
        if inbox.closed.load(Ordering::SeqCst) {
            return;
        }
        let forward = ForwardRequest::parse_from_bytes(&request.payload).unwrap_or_default();
        if stream.write_all(&message_frame(number, RESPONSE, &Response::new())).is_err() {
            return;
        }
        // Seen only once it is answered: an event without an answer comes again.
        lock(&inbox.events).push(decode(&forward));
    }
}

fn decode(forward: &ForwardRequest) -> Event {
    let envelope = &forward.envelope;
    let mut event = Event {
        topic: envelope.topic.clone(),
        namespace: envelope.namespace.clone(),
        kind: envelope.event.type_url.rsplit('/').next().unwrap_or_default().to_owned(),
        at: envelope.timestamp.as_ref().and_then(time),
        ..Event::default()
    };
    let value = &envelope.event.value;
    match event.kind.as_str() {
        "containerd.events.TaskCreate" => {
            let body = parse::<wire::TaskCreate>(value);
            event.text = format!("{} {}", body.bundle, body.io.stdout);
            (event.container, event.pid) = (body.container_id, body.pid);
        }
        "containerd.events.TaskStart" => {
            let body = parse::<wire::TaskStart>(value);
            (event.container, event.pid) = (body.container_id, body.pid);
        }
        "containerd.events.TaskExit" => {
            let body = parse::<wire::TaskExit>(value);
            event.exited_at = body.exited_at.as_ref().and_then(time);
            // The first process is named by the container's id.
            event.exec = if body.id == body.container_id { String::new() } else { body.id };
            (event.container, event.pid, event.status) =
                (body.container_id, body.pid, body.exit_status);
        }
        "containerd.events.TaskDelete" => {
            let body = parse::<wire::TaskDelete>(value);
            event.exited_at = body.exited_at.as_ref().and_then(time);
            event.exec = body.id;
            (event.container, event.pid, event.status) =
                (body.container_id, body.pid, body.exit_status);
        }
        "containerd.events.TaskExecAdded" => {
            let body = parse::<wire::TaskExecAdded>(value);
            (event.container, event.exec) = (body.container_id, body.exec_id);
        }
        "containerd.events.TaskExecStarted" => {
            let body = parse::<wire::TaskExecStarted>(value);
            (event.container, event.exec, event.pid) = (body.container_id, body.exec_id, body.pid);
        }
        "containerd.events.TaskCheckpointed" => {
            let body = parse::<wire::TaskCheckpointed>(value);
            (event.container, event.text) = (body.container_id, body.checkpoint);
        }
        // The others hold the container's id in field 1, and nothing else.
        _ => event.container = parse::<wire::TaskOOM>(value).container_id,
    }
    event
}

fn parse<M: Message>(bytes: &[u8]) -> M {
    M::parse_from_bytes(bytes).unwrap_or_default()
}

/// A time of the wire. Zero is no time.
pub fn time(stamp: &Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(stamp.seconds).ok().filter(|seconds| *seconds > 0)?;
    let nanos = u32::try_from(stamp.nanos).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos))
}
