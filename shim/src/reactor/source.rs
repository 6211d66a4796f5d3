//! Descriptors that a task can wait for.

use std::{
    cell::Cell,
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use hull_runtime_sys::{Result, epoll::Readiness, fd};

use super::{Reactor, current};

/// Who waits for what, by token.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<u64, Waiting>,
    next: u64,
}

#[derive(Default)]
struct Waiting {
    read: Option<Waker>,
    write: Option<Waker>,
    hang_up: Option<Waker>,
}

impl Waiting {
    /// Hang-ups are always reported.
    fn readiness(&self) -> Readiness {
        Readiness { readable: self.read.is_some(), writable: self.write.is_some() }
    }
}

/// Which way data goes, or whether it goes at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
    HangUp,
}

/// A non-blocking descriptor that a task can wait for. For each direction one task at a time
/// may wait.
pub(crate) struct Source {
    fd: OwnedFd,
    token: u64,
    watched: Cell<bool>,
}

impl Source {
    /// Takes a descriptor over, which must be non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let reactor = current();
        let mut table = reactor.sources.borrow_mut();
        table.next += 1;
        let token = table.next;
        table.entries.insert(token, Waiting::default());
        Self { fd, token, watched: Cell::new(false) }
    }

    /// Waits until a read would not block.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn readable(&self) -> impl Future<Output = Result<()>> {
        Ready { source: self, direction: Direction::Read, asked: false }
    }

    /// Waits until a write would not block.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn writable(&self) -> impl Future<Output = Result<()>> {
        Ready { source: self, direction: Direction::Write, asked: false }
    }

    /// Waits until the other side can neither send nor receive. Nobody may wait to read
    /// meanwhile: the end of what can be read would be taken for it.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn hung_up(&self) -> impl Future<Output = Result<()>> {
        Ready { source: self, direction: Direction::HangUp, asked: false }
    }

    /// read(2), when there is something; 0 is the end.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match fd::read(&self.fd, buffer) {
                Err(error) if error.errno() == libc::EAGAIN => self.readable().await?,
                result => return result,
            }
        }
    }

    /// write(2), until everything is written.
    ///
    /// # Errors
    /// Those of write(2); a part may be written.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match fd::write(&self.fd, bytes) {
                Err(error) if error.errno() == libc::EAGAIN => self.writable().await?,
                result => bytes = &bytes[result?..],
            }
        }
        Ok(())
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Without a reactor its epoll instance is gone, and this with it.
        super::REACTOR.with_borrow(|reactor| {
            if let Some(reactor) = reactor {
                reactor.sources.borrow_mut().entries.remove(&self.token);
                if self.watched.get() {
                    let _ = reactor.epoll.remove(&self.fd);
                }
            }
        });
    }
}

struct Ready<'a> {
    source: &'a Source,
    direction: Direction,
    asked: bool,
}

impl Future for Ready<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let reactor = current();
        let mut table = reactor.sources.borrow_mut();
        let waiting = table.entries.entry(self.source.token).or_default();
        let slot = match self.direction {
            Direction::Read => &mut waiting.read,
            Direction::Write => &mut waiting.write,
            Direction::HangUp => &mut waiting.hang_up,
        };
        // The event takes the waker out; if it is gone, the event has come.
        if self.asked && slot.is_none() {
            return Poll::Ready(Ok(()));
        }
        *slot = Some(context.waker().clone());
        let what = waiting.readiness();
        self.asked = true;
        let (fd, token) = (&self.source.fd, self.source.token);
        let result = if self.source.watched.get() {
            reactor.epoll.arm(fd, token, what)
        } else {
            reactor.epoll.add(fd, token, what)
        };
        match result {
            // A regular file: it never blocks.
            Err(error) if error.errno() == libc::EPERM => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) => {
                self.source.watched.set(true);
                Poll::Pending
            }
        }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if self.asked {
            super::REACTOR.with_borrow(|reactor| {
                let Some(reactor) = reactor else { return };
                if let Some(waiting) =
                    reactor.sources.borrow_mut().entries.get_mut(&self.source.token)
                {
                    match self.direction {
                        Direction::Read => waiting.read = None,
                        Direction::Write => waiting.write = None,
                        Direction::HangUp => waiting.hang_up = None,
                    }
                }
            });
        }
    }
}

impl Reactor {
    pub(super) fn wake_sources(&self, found: &[(u64, Readiness)]) {
        let mut wakers = Vec::new();
        {
            let mut table = self.sources.borrow_mut();
            for (token, what) in found {
                let Some(waiting) = table.entries.get_mut(token) else { continue };
                if what.readable {
                    wakers.extend(waiting.read.take());
                }
                if what.writable {
                    wakers.extend(waiting.write.take());
                }
                if what.readable && what.writable {
                    wakers.extend(waiting.hang_up.take());
                }
                // One report disarms all; whoever still waits arms it again.
                let left = waiting.read.as_ref().or(waiting.write.as_ref());
                wakers.extend(left.or(waiting.hang_up.as_ref()).cloned());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}
