//! A process of a container: its first one, or one that was exec'd.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
    time::SystemTime,
};

use futures_util::lock::Mutex;
use hull_runtime_sys::process::Exit;

use super::state::State;
use crate::{
    exit_record::ExitRecord,
    reactor::Signal,
    stdio::{Io, Stdio},
};

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// The exit code, or 128 + the signal; 255 for a process that never ran.
    pub(super) status: u32,
    pub(super) at: SystemTime,
}

/// What the shim knows of a process.
pub(super) struct Process {
    /// Empty for the container's first process.
    pub(super) exec_id: String,
    pub(super) stdio: Stdio,
    /// The process object of an exec, for the runtime.
    pub(super) spec: Vec<u8>,
    pub(super) state: Cell<State>,
    /// 0 until it is known.
    pub(super) pid: Cell<i32>,
    pub(super) pidfd: RefCell<Option<OwnedFd>>,
    /// In clock ticks after boot; with the pid, it names the process on disk.
    pub(super) start_time: Cell<u64>,
    pub(super) io: RefCell<Option<Rc<Io>>>,
    /// No more clients will write to its stdin; said perhaps before it was started.
    pub(super) stdin_closed: Cell<bool>,
    pub(super) started_at: Cell<Option<SystemTime>>,
    pub(super) ended: Cell<Option<Ended>>,
    /// We have sent it `SIGKILL`.
    pub(super) killed: Cell<bool>,
    /// Held while it is started, so that nobody hears of its end before its beginning.
    pub(super) gate: Mutex<()>,
    /// The record of its end, while the disk refuses it.
    pub(super) unwritten: RefCell<Option<ExitRecord>>,
    /// Nothing more is to be written of its end that could not be before.
    pub(super) written: Signal,
    /// It has ended, and its status can be had.
    pub(super) exited: Signal,
    /// Its end has been published, or it never ran.
    pub(super) settled: Signal,
}

impl Process {
    pub(super) fn new(exec_id: &str, stdio: Stdio, spec: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            exec_id: exec_id.to_owned(),
            stdio,
            spec,
            state: Cell::new(State::Created),
            pid: Cell::new(0),
            pidfd: RefCell::default(),
            start_time: Cell::default(),
            io: RefCell::default(),
            stdin_closed: Cell::default(),
            started_at: Cell::default(),
            ended: Cell::default(),
            killed: Cell::default(),
            gate: Mutex::new(()),
            unwritten: RefCell::default(),
            written: Signal::default(),
            exited: Signal::default(),
            settled: Signal::default(),
        })
    }

    pub(super) fn is_first(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// It runs or is about to: its end will be published.
    pub(super) fn is_live(&self) -> bool {
        self.started_at.get().is_some() && !self.settled.is_raised()
    }

    pub(super) fn finish(&self, exit: Exit, at: SystemTime) {
        let status = u32::try_from(exit.shell_code()).unwrap_or(255);
        self.ended.set(Some(Ended { status, at }));
        self.state.set(State::Stopped);
        self.exited.raise();
    }

    pub(super) fn pid(&self) -> u32 {
        u32::try_from(self.pid.get()).unwrap_or(0)
    }
}
