//! Children: who has ended, and who wants to know.
//!
//! The shim is a subreaper, so it is the parent of the container's first process, of processes
//! that were exec'd, and of whatever they leave behind. A pid is only good for asking while
//! its process is not reaped, and only this module reaps.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
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
pub(crate) fn wait_for(_expected: &Expected, pid: i32) -> Ending {
    let reactor = current();
    let table = &reactor.children;
    let mut unclaimed = table.unclaimed.borrow_mut();
    // The last one: earlier ones had the number before.
    let exit = unclaimed.iter().rposition(|(ended, _)| *ended == pid);
    let exit = exit.map(|index| unclaimed.remove(index).1);
    table.waiting.borrow_mut().insert(pid, Slot { exit, waker: None });
    Ending { pid, told: false }
}

/// A future that is ready once a child has ended. Who drops it before no longer waits.
pub(crate) struct Ending {
    pid: i32,
    told: bool,
}

impl Future for Ending {
    type Output = Exit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Exit> {
        let reactor = current();
        let mut waiting = reactor.children.waiting.borrow_mut();
        let slot = waiting.entry(self.pid).or_default();
        match slot.exit {
            Some(exit) => {
                waiting.remove(&self.pid);
                self.told = true;
                Poll::Ready(exit)
            }
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Its slot would take the end of the next child of that number.
        super::REACTOR.with_borrow(|reactor| {
            if let Some(reactor) = reactor.as_ref().filter(|_| !self.told) {
                reactor.children.waiting.borrow_mut().remove(&self.pid);
            }
        });
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_no_longer_waits_does_not_take_the_end_from_who_does() {
        let exit = crate::reactor::run(async {
            let expected = expect_children();
            drop(wait_for(&expected, 7));
            current().children.ended(7, Exit::Code(3));
            super::super::within(Duration::from_millis(50), wait_for(&expected, 7)).await
        });
        assert_eq!(exit.unwrap(), Some(Exit::Code(3)));
    }
}
