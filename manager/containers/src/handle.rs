//! A container as everybody but its owner sees it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use hull_manager_core::{Error, Result};
use hull_specs_api::v1::{self, Status};
use tokio::sync::{RwLock, mpsc, oneshot, watch};

use crate::{
    network::Attached,
    record::Record,
    shim::Shim,
    state::{self, Ask, Verdict, Whose},
};

/// Requests that wait for one owner; who comes then waits to be let in.
pub(crate) const QUEUE: usize = 32;

/// What is derived of a container, and told to whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// 0 where none runs.
    pub(crate) pid: u32,
    /// Ends that were seen since the manager came up.
    pub(crate) exits: u64,
    /// Of the last of them; a restart does not take it back.
    pub(crate) exit_code: i32,
    /// Nothing of its last run is left: all its output is on disk.
    pub(crate) settled: bool,
    /// There is no such container any more.
    pub(crate) gone: bool,
}

impl State {
    /// Whether nothing of its last run is to be taken away any more: who was told that a
    /// container has ended can use its ports and remove its networks.
    pub(crate) fn is_done(self) -> bool {
        self.settled || self.is_live()
    }

    pub(crate) fn is_live(self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// What the owner is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Start,
    Signal {
        signal: i32,
        why: Why,
    },
    Pause {
        /// By the manager itself, and not for longer.
        for_commit: bool,
    },
    Unpause,
    Rename(String),
    Connect(Box<v1::EndpointOptions>),
    Disconnect {
        network: String,
        force: bool,
    },
    Relink,
    Update {
        resources: Option<Box<v1::Resources>>,
        restart: Option<v1::RestartPolicy>,
    },
    Remove {
        force: bool,
        volumes: bool,
    },
}

/// What a signal is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// `kill`.
    Kill,
    /// `stop`, and what follows its time-out.
    Stop,
    /// `restart`: what would follow the end does not.
    Restart,
    /// The manager ends: nobody has stopped the container.
    Shutdown,
}

/// A request with the way back.
pub(crate) struct Order {
    pub(crate) request: Request,
    /// As the caller called the container.
    pub(crate) called: String,
    pub(crate) answer: oneshot::Sender<Result<Verdict>>,
}

pub(crate) struct Handle {
    pub(crate) id: String,
    record: Mutex<Arc<Record>>,
    pub(crate) state: watch::Sender<State>,
    shim: Mutex<Option<Shim>>,
    orders: mpsc::Sender<Order>,
    health: Mutex<Option<v1::HealthState>>,
    attached: Mutex<Option<Arc<Attached>>>,
    /// Clients that came before the start.
    pub(crate) attaching: crate::attach::Waiting,
    /// Held by whoever looks into the root, and by a start alone: two mounts of one overlay
    /// would not see each other's changes.
    pub(crate) root: Arc<RwLock<()>>,
}

impl Handle {
    pub(crate) fn new(record: Record, status: Status) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(QUEUE);
        let state = State { status, pid: 0, exits: 0, exit_code: 0, settled: true, gone: false };
        let handle = Self {
            id: record.id().to_owned(),
            record: Mutex::new(Arc::new(record)),
            state: watch::Sender::new(state),
            shim: Mutex::new(None),
            orders,
            health: Mutex::new(None),
            attached: Mutex::new(None),
            attaching: crate::attach::Waiting::default(),
            root: Arc::default(),
        };
        (Arc::new(handle), queue)
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&lock(&self.record))
    }

    pub(crate) fn set_record(&self, record: Record) {
        *lock(&self.record) = Arc::new(record);
    }

    pub(crate) fn now(&self) -> State {
        *self.state.borrow()
    }

    pub(crate) fn set_shim(&self, shim: Option<Shim>) {
        *lock(&self.shim) = shim;
    }

    pub(crate) fn set_health(&self, health: Option<v1::HealthState>) {
        *lock(&self.health) = health;
    }

    pub(crate) fn health(&self) -> Option<v1::HealthState> {
        lock(&self.health).clone()
    }

    /// What networks give to it while it runs.
    pub(crate) fn attached(&self) -> Option<Arc<Attached>> {
        lock(&self.attached).clone()
    }

    pub(crate) fn set_attached(&self, attached: Option<Attached>) {
        *lock(&self.attached) = attached.map(Arc::new);
    }

    /// The shim of a container of which this may be asked.
    pub(crate) fn shim(&self, ask: Ask, called: &str) -> Result<Shim> {
        self.judge(ask, called)?;
        let missing = || Error::conflict(format!("Container {} is not running", self.id));
        lock(&self.shim).clone().ok_or_else(missing)
    }

    pub(crate) fn judge(&self, ask: Ask, called: &str) -> Result<Verdict> {
        let record = self.record();
        let whose = Whose { id: &self.id, name: record.name(), called };
        state::judge(self.now().status, ask, whose)
    }

    /// Asks the owner, and waits for what it says. It goes on also if nobody waits any more.
    pub(crate) async fn order(&self, request: Request, called: &str) -> Result<Verdict> {
        let (answer, answered) = oneshot::channel();
        let order = Order { request, called: called.to_owned(), answer };
        let gone = |_| Error::not_found(format!("No such container: {called}"));
        self.orders.send(order).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }

    /// Waits until `holds`, or until the container is gone.
    pub(crate) async fn until(&self, mut holds: impl FnMut(State) -> bool) -> State {
        let mut states = self.state.subscribe();
        // The sender is ours.
        match states.wait_for(|state| state.gone || holds(*state)).await {
            Ok(state) => *state,
            Err(_) => self.now(),
        }
    }

    /// As it is shown.
    pub(crate) fn container_state(&self) -> v1::ContainerState {
        let (record, state) = (self.record(), self.now());
        let facts = &record.facts;
        let ended = facts.ended.as_ref();
        let live = state.is_live();
        v1::ContainerState {
            status: state.status.into(),
            pid: state.pid,
            exit_code: ended.filter(|_| !live).map_or(0, |ended| ended.exit_code),
            oom_killed: ended.is_some_and(|ended| ended.oom_killed),
            error: facts.error.clone(),
            started: facts.started.map(Into::into),
            finished: ended.filter(|_| facts.started.is_some()).map(|ended| ended.at.into()),
            restart_count: facts.restarts,
            health: self.health(),
        }
    }

    /// When it was made, to the nanosecond: what lists are sorted by.
    pub(crate) fn created(&self) -> SystemTime {
        let record = self.record();
        let created = record.container.created;
        created.and_then(|time| time.try_into().ok()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// A panic of one holder leaves what is guarded as it was: it is only ever replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
