//! One thread that waits for everything: tasks, descriptors, timers.
//!
//! A shim spends its life waiting, and there are many shims; so there is no thread but the
//! first, and no timer that ticks. Tasks are futures in `futures_executor`'s local pool; this
//! module adds what wakes them: an epoll instance and a list of deadlines. While nothing
//! happens the process sleeps in epoll_wait without a time limit.
//!
//! Everything is reached through a thread-local value, made by [`run`].

mod children;
mod source;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_executor::{LocalPool, LocalSpawner};
use futures_util::{future::Either, task::LocalSpawnExt};
use hull_runtime_sys::epoll::Epoll;

pub(crate) use children::{Expected, expect_children, reap, wait_for};
pub(crate) use source::Source;

thread_local! {
    static REACTOR: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

struct Reactor {
    epoll: Epoll,
    spawner: LocalSpawner,
    sources: RefCell<source::Table>,
    deadlines: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_timer: Cell<u64>,
    children: children::Table,
}

/// The thread's reactor. There is one whenever a task runs.
fn current() -> Rc<Reactor> {
    REACTOR.with_borrow(|reactor| reactor.clone()).expect("a reactor runs whenever a task does")
}

/// Runs `main`, and the tasks it starts, until it ends; the others are dropped then.
///
/// # Errors
/// Those of epoll.
pub(crate) fn run<T: 'static>(main: impl Future<Output = T> + 'static) -> Result<T> {
    let mut pool = LocalPool::new();
    let reactor = Rc::new(Reactor {
        epoll: Epoll::new()?,
        spawner: pool.spawner(),
        sources: RefCell::default(),
        deadlines: RefCell::default(),
        next_timer: Cell::new(0),
        children: children::Table::default(),
    });
    REACTOR.set(Some(Rc::clone(&reactor)));
    let result = Rc::new(RefCell::new(None));
    let place = Rc::clone(&result);
    spawn(async move {
        let value = main.await;
        *place.borrow_mut() = Some(value);
    });
    let mut found = Vec::new();
    loop {
        pool.run_until_stalled();
        if let Some(value) = result.borrow_mut().take() {
            drop(pool);
            REACTOR.set(None);
            return Ok(value);
        }
        reactor.epoll.wait(reactor.timeout_ms(), &mut found)?;
        reactor.wake_sources(&found);
        reactor.wake_timers();
    }
}

/// Starts a task.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    // The pool outlives every task, so it takes every task.
    current().spawner.spawn_local(task).expect("the pool is there whenever a task runs");
}

impl Reactor {
    /// Until the next deadline, rounded up; -1 when there is none.
    fn timeout_ms(&self) -> i32 {
        let deadlines = self.deadlines.borrow();
        let Some(((first, _), _)) = deadlines.first_key_value() else { return -1 };
        let left = first.saturating_duration_since(Instant::now());
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    }

    fn wake_timers(&self) {
        let now = (Instant::now(), u64::MAX);
        let mut deadlines = self.deadlines.borrow_mut();
        let later = deadlines.split_off(&now);
        let due = std::mem::replace(&mut *deadlines, later);
        drop(deadlines);
        due.into_values().for_each(Waker::wake);
    }
}

/// A future that is ready once its time has come.
pub(crate) struct Sleep {
    at: Instant,
    id: Option<u64>,
}

/// Waits for `duration`.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    Sleep { at: Instant::now() + duration, id: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let reactor = current();
        let id = *self
            .id
            .get_or_insert_with(|| reactor.next_timer.replace(reactor.next_timer.get() + 1));
        reactor.deadlines.borrow_mut().insert((self.at, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            REACTOR.with_borrow(|reactor| {
                if let Some(reactor) = reactor {
                    reactor.deadlines.borrow_mut().remove(&(self.at, id));
                }
            });
        }
    }
}

/// What `future` gives, or nothing if `limit` passes first.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    match futures_util::future::select(future, sleep(limit)).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// Something that happens once, and everybody who waits learns of it.
#[derive(Clone, Default)]
pub(crate) struct Signal(Rc<SignalState>);

#[derive(Default)]
struct SignalState {
    raised: Cell<bool>,
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Signal {
    /// It has happened.
    pub(crate) fn raise(&self) {
        self.0.raised.set(true);
        self.0.waiting.take().into_values().for_each(Waker::wake);
    }

    /// Whether it has happened.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.raised.get()
    }

    /// Waits until it has happened.
    pub(crate) fn wait(&self) -> Raised {
        Raised { state: Rc::clone(&self.0), id: None }
    }
}

/// A future that is ready once a [`Signal`] is raised.
pub(crate) struct Raised {
    state: Rc<SignalState>,
    id: Option<u64>,
}

impl Future for Raised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.state.raised.get() {
            return Poll::Ready(());
        }
        let state = Rc::clone(&self.state);
        let id = *self.id.get_or_insert_with(|| state.next.replace(state.next.get() + 1));
        state.waiting.borrow_mut().insert(id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.state.waiting.borrow_mut().remove(&id);
        }
    }
}

/// What `future` gives, or nothing if the signal comes first.
pub(crate) async fn unless<F: Future>(signal: &Signal, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    match futures_util::future::select(future, signal.wait()).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn tasks_wait_for_descriptors_and_for_time() {
        let (reader, writer) = hull_runtime_sys::fd::pipe().unwrap();
        hull_runtime_sys::fd::set_nonblocking(&reader, true).unwrap();
        let read = run(async move {
            let reader = Source::new(reader);
            spawn(async move {
                sleep(Duration::from_millis(5)).await;
                hull_runtime_sys::fd::write_all(&writer, b"late").unwrap();
                sleep(Duration::from_millis(5)).await;
            });
            let mut buffer = [0; 16];
            let n = reader.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..n], b"late");
            reader.read(&mut buffer).await.unwrap()
        });
        assert_eq!(read.unwrap(), 0);
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let (reader, _writer): (OwnedFd, OwnedFd) = hull_runtime_sys::fd::pipe().unwrap();
        hull_runtime_sys::fd::set_nonblocking(&reader, true).unwrap();
        let result = run(async move {
            let reader = Source::new(reader);
            within(Duration::from_millis(3), reader.readable()).await.is_none()
        });
        assert!(result.unwrap());
    }

    #[test]
    fn a_signal_reaches_everybody_who_waits() {
        let count = run(async {
            let signal = Signal::default();
            let count = Rc::new(Cell::new(0));
            let done = Signal::default();
            for _ in 0..3 {
                let (signal, count, done) = (signal.clone(), Rc::clone(&count), done.clone());
                spawn(async move {
                    signal.wait().await;
                    count.set(count.get() + 1);
                    if count.get() == 3 {
                        done.raise();
                    }
                });
            }
            sleep(Duration::from_millis(1)).await;
            signal.raise();
            done.wait().await;
            count.get()
        });
        assert_eq!(count.unwrap(), 3);
    }
}
