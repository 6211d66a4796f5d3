//! Children: who has ended, and who wants to know.
//!
//! The shim is a subreaper, so it is the parent of the container's first process, of processes
//! that were exec'd, and of whatever they leave behind. A pid is only good for asking while
//! its process is not reaped, and only this module reaps.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Poll, Waker},
};

use anyhow::Result;
use hull_runtime_sys::{
    process::{self, Exit},
    signal,
};

use super::{Source, current};

#[derive(Default)]
pub(super) struct Table {
    waiting: RefCell<HashMap<i32, Slot>>,
    /// Ends that nobody waits for yet, while somebody may come to. (A runtime says the pid of
    /// a container after it has started it; the container can have ended by then.)
    unclaimed: RefCell<Vec<(i32, Exit)>>,
    expecting: Cell<usize>,
}

#[derive(Default)]
struct Slot {
    exit: Option<Exit>,
    waker: Option<Waker>,
}

/// While this lives, ends of unknown children are kept.
pub(crate) struct Expected(());

/// To be called before a child can come to be whose pid is learned later.
pub(crate) fn expect_children() -> Rc<Expected> {
    let reactor = current();
    reactor.children.expecting.set(reactor.children.expecting.get() + 1);
    Rc::new(Expected(()))
}

impl Drop for Expected {
    fn drop(&mut self) {
        super::REACTOR.with_borrow(|reactor| {
            let Some(reactor) = reactor else { return };
            let table = &reactor.children;
            table.expecting.set(table.expecting.get() - 1);
            if table.expecting.get() == 0 {
                table.unclaimed.take();
            }
        });
    }
}

/// How the child `pid` ends. From this call on its end is kept for the caller; the pid must
/// have been learned while `_expected` lived.
pub(crate) fn wait_for(_expected: &Expected, pid: i32) -> impl Future<Output = Exit> + use<> {
    let reactor = current();
    let table = &reactor.children;
    let mut unclaimed = table.unclaimed.borrow_mut();
    // The last one: earlier ones had the number before.
    let exit = unclaimed.iter().rposition(|(ended, _)| *ended == pid);
    let exit = exit.map(|index| unclaimed.remove(index).1);
    table.waiting.borrow_mut().insert(pid, Slot { exit, waker: None });
    std::future::poll_fn(move |context| {
        let reactor = current();
        let mut waiting = reactor.children.waiting.borrow_mut();
        let slot = waiting.entry(pid).or_default();
        match slot.exit {
            Some(exit) => {
                waiting.remove(&pid);
                Poll::Ready(exit)
            }
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
}

/// Reaps for ever, and tells `other` of signals that are not `SIGCHLD`. Every signal must be
/// blocked.
///
/// # Errors
/// Those of signalfd(2).
pub(crate) async fn reap(mut other: impl FnMut(i32)) -> Result<()> {
    let signals = Source::new(signal::descriptor()?);
    loop {
        while let Some(received) = signal::next(&signals)? {
            if received.signal != libc::SIGCHLD {
                other(received.signal);
            }
        }
        let reactor = current();
        while let Some((pid, exit)) = process::reap_any()? {
            reactor.children.ended(pid, exit);
        }
        signals.readable().await?;
    }
}

impl Table {
    fn ended(&self, pid: i32, exit: Exit) {
        if let Some(slot) = self.waiting.borrow_mut().get_mut(&pid) {
            slot.exit = Some(exit);
            slot.waker.take().into_iter().for_each(Waker::wake);
        } else if self.expecting.get() > 0 {
            self.unclaimed.borrow_mut().push((pid, exit));
        }
    }
}
