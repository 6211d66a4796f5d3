//! Events for containerd: kept in order until it has taken them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::PathBuf,
    rc::Rc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use containerd_shim_protos::{
    events::task,
    shim::{event::Envelope, events::ForwardRequest},
    topics,
};
use protobuf::{
    Message, MessageField,
    well_known_types::{any::Any, timestamp::Timestamp},
};

use crate::{
    log,
    reactor::{self, Signal},
    ttrpc::Client,
};

/// The most events that are kept. A container that starts and ends processes while containerd
/// is away makes three for each; beyond this the oldest are dropped and counted.
const MAX_QUEUE: usize = 16_384;

/// How long containerd may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the first pause after a failure is, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// An event of the task service: its topic.
pub(crate) trait Event: Message {
    const TOPIC: &'static str;
}

macro_rules! topics {
    ($($event:ident => $topic:ident),* $(,)?) => {
        $(impl Event for task::$event {
            const TOPIC: &'static str = topics::$topic;
        })*
    };
}

topics! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
    TaskCheckpointed => TASK_CHECKPOINTED_EVENT_TOPIC,
}

/// A time as protobuf has it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// Sends events to containerd, one after the other.
pub(crate) struct Publisher {
    namespace: String,
    address: PathBuf,
    queue: RefCell<VecDeque<Vec<u8>>>,
    dropped: Cell<u64>,
    running: Cell<bool>,
    /// Ends the pause after a failure.
    hurry: RefCell<Signal>,
    /// Raised whenever the queue has become empty.
    empty: RefCell<Signal>,
}

impl Publisher {
    /// `address` is containerd's ttrpc socket; empty if nobody wants events.
    pub(crate) fn new(namespace: &str, address: &str) -> Rc<Self> {
        let address = address.strip_prefix("unix://").unwrap_or(address);
        Rc::new(Self {
            namespace: namespace.to_owned(),
            address: address.into(),
            queue: RefCell::default(),
            dropped: Cell::new(0),
            running: Cell::new(false),
            hurry: RefCell::default(),
            empty: RefCell::default(),
        })
    }

    /// Puts an event at the end of the queue.
    pub(crate) fn publish<E: Event>(self: &Rc<Self>, event: &E) {
        if self.address.as_os_str().is_empty() {
            return;
        }
        let bytes = match self.encode(event) {
            Ok(bytes) => bytes,
            Err(error) => {
                return log::error(&format!(
                    "{} cannot be sent: {}",
                    E::TOPIC,
                    log::sentence(&error)
                ));
            }
        };
        let mut queue = self.queue.borrow_mut();
        if queue.len() == MAX_QUEUE {
            queue.pop_front();
            self.dropped.set(self.dropped.get() + 1);
        }
        queue.push_back(bytes);
        if !self.running.replace(true) {
            self.empty.replace(Signal::default());
            let publisher = Rc::clone(self);
            reactor::spawn(async move { publisher.send_all().await });
        }
    }

    fn encode<E: Event>(&self, event: &E) -> Result<Vec<u8>> {
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: format!("containerd.events.{}", E::NAME),
                value: event.write_to_bytes()?,
                ..Any::default()
            }),
            ..Envelope::default()
        };
        let request =
            ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        Ok(request.write_to_bytes()?)
    }

    async fn send_all(&self) {
        let mut client = None;
        let mut pause = PAUSES.0;
        loop {
            let Some(event) = self.queue.borrow().front().cloned() else { break };
            match self.send(&mut client, event).await {
                Ok(()) => {
                    self.queue.borrow_mut().pop_front();
                    pause = PAUSES.0;
                }
                Err(error) => {
                    if pause == PAUSES.0 {
                        log::error(&format!(
                            "an event waits to be sent: {}",
                            log::sentence(&error)
                        ));
                    }
                    client = None;
                    let hurry = Signal::default();
                    self.hurry.replace(hurry.clone());
                    reactor::within(pause, hurry.wait()).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        let dropped = self.dropped.take();
        if dropped > 0 {
            log::error(&format!("{dropped} events were dropped while containerd was away"));
        }
        self.running.set(false);
        self.empty.borrow().raise();
    }

    async fn send(&self, client: &mut Option<Client>, event: Vec<u8>) -> Result<()> {
        let client = match client {
            Some(client) => client,
            None => client.insert(
                Client::connect(&self.address)
                    .with_context(|| format!("cannot reach {}", self.address.display()))?,
            ),
        };
        client.call(SERVICE, "Forward", event, LIMIT).await.map(drop)
    }

    /// Tries again now: somebody has come.
    pub(crate) fn hurry(&self) {
        self.hurry.borrow().raise();
    }

    /// Waits until every event has been taken.
    pub(crate) async fn flush(&self) {
        if self.running.get() {
            let empty = self.empty.borrow().clone();
            empty.wait().await;
        }
    }
}
