//! Lines that go on to the host's log at once: to syslog or to journald.
//!
//! A line is handed over before more is read from the container, so that a shim that is killed
//! has lost nothing of it (of a line that has only begun, its bytes are in `FILE.partial`, from
//! where they come into the file). With `mode=non-blocking` lines wait in memory instead, up to
//! `max-buffer-size`; what is more is dropped and counted, and the container never waits.
//!
//! A receiver that refuses is tried again at once by a new connection, then with the next
//! output; meanwhile messages are dropped, as dockerd does. dockerd waits without end for one
//! that takes nothing; here that lasts [`peer::Limits::stall`].

mod journald;
mod options;
mod peer;
mod syslog;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::SystemTime,
};

use anyhow::{Context, Result};
use futures_util::lock::Mutex;

use super::{Stream, batch::Batch, entry::Form, lines::Lines};
use crate::reactor::{self, Signal};

pub(super) use journald::push_field;
pub(super) use options::Given;
pub(crate) use options::Options;
use peer::{Limits, Peer};
pub(super) use syslog::{Syslog, severity};

/// The way of one container's lines to the host's log.
pub(crate) struct Forward {
    form: Form,
    lines: RefCell<[Lines; 2]>,
    peer: Rc<Mutex<Peer>>,
    /// Where lines wait that the container does not wait for.
    queue: Option<Rc<Queue>>,
}

impl Forward {
    /// Connects to the receiver.
    ///
    /// # Errors
    /// If it is not there.
    pub(crate) async fn open(options: &Options) -> Result<Self> {
        let mut peer = Peer::new(options.address.clone(), Limits::default());
        peer.connect().await.context("failed to initialize logging driver")?;
        let peer = Rc::new(Mutex::new(peer));
        let queue = options.buffer_bytes.map(|limit| Queue::start(limit, Rc::clone(&peer)));
        let lines = RefCell::new(Stream::BOTH.map(Lines::new));
        Ok(Self { form: options.form.clone(), lines, peer, queue })
    }

    /// Hands over the lines that end in `bytes`.
    pub(crate) async fn put(&self, stream: Stream, bytes: &[u8], now: SystemTime) {
        let frame = self.form.frame(stream, now);
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut batch = Batch::default();
            rest = self.lines.borrow_mut()[stream as usize].feed(
                rest,
                &self.form,
                (now, &frame),
                &mut batch,
            );
            self.deliver(batch).await;
        }
    }

    /// Hands over what has no line end, and waits for what is queued: the stream has ended.
    pub(crate) async fn end(&self, stream: Stream, now: SystemTime) {
        let mut batch = Batch::default();
        self.lines.borrow_mut()[stream as usize].finish(&self.form, now, &mut batch);
        self.deliver(batch).await;
        if let Some(queue) = &self.queue {
            queue.until_empty().await;
        }
    }

    async fn deliver(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        match &self.queue {
            None => self.peer.lock().await.deliver(&batch).await,
            Some(queue) => queue.push(batch),
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.gone.raise();
        }
    }
}

/// Messages that wait, and the task that hands them over.
struct Queue {
    limit: usize,
    batches: RefCell<VecDeque<Batch>>,
    bytes: Cell<usize>,
    dropped: Cell<u64>,
    /// Replaced by a new one each time the task waits for it.
    filled: RefCell<Signal>,
    /// Replaced by a new one each time it is raised.
    emptied: RefCell<Signal>,
    is_idle: Cell<bool>,
    gone: Signal,
}

impl Queue {
    fn start(limit: usize, peer: Rc<Mutex<Peer>>) -> Rc<Self> {
        let queue = Rc::new(Self {
            limit,
            batches: RefCell::default(),
            bytes: Cell::new(0),
            dropped: Cell::new(0),
            filled: RefCell::default(),
            emptied: RefCell::default(),
            is_idle: Cell::new(true),
            gone: Signal::default(),
        });
        let (task, gone) = (Rc::clone(&queue), queue.gone.clone());
        reactor::spawn(async move {
            reactor::unless(&gone, task.empty(&peer)).await;
        });
        queue
    }

    /// As dockerd: a message that is alone is taken whatever its size is.
    fn push(&self, mut batch: Batch) {
        let room = self.limit.saturating_sub(self.bytes.get());
        let mut kept = batch.whole_entries(room);
        if kept == 0 && self.bytes.get() == 0 {
            kept = batch.entry_end(1);
        }
        self.dropped.set(self.dropped.get() + batch.entries_after(kept));
        batch.truncate(kept);
        if !batch.is_empty() {
            self.bytes.set(self.bytes.get() + kept);
            self.batches.borrow_mut().push_back(batch);
            self.is_idle.set(false);
            self.filled.borrow().raise();
        }
    }

    async fn empty(&self, peer: &Mutex<Peer>) {
        loop {
            let first = self.batches.borrow_mut().pop_front();
            if let Some(batch) = first {
                let mut peer = peer.lock().await;
                peer.lose(self.dropped.take(), "more than max-buffer-size waits");
                peer.deliver(&batch).await;
                self.bytes.set(self.bytes.get() - batch.bytes.len());
            } else {
                let filled = Signal::default();
                self.filled.replace(filled.clone());
                self.is_idle.set(true);
                self.emptied.take().raise();
                filled.wait().await;
            }
        }
    }

    async fn until_empty(&self) {
        while !self.is_idle.get() {
            let emptied = self.emptied.borrow().clone();
            emptied.wait().await;
        }
    }
}

#[cfg(test)]
mod tests;
