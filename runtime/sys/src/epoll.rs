//! Waiting for many descriptors at once: epoll.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::{Error, Result, check, check_fd};

/// What to wait for, and what has happened. Errors and hang-ups are always reported, as both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
}

impl Readiness {
    fn bits(self) -> u32 {
        let mut bits = 0;
        if self.readable {
            bits |= libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP;
        }
        if self.writable {
            bits |= libc::EPOLLOUT;
        }
        bits as u32
    }

    fn of(bits: u32) -> Self {
        let both = bits & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        let reads = (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP) as u32;
        Self {
            readable: both || bits & reads != 0,
            writable: both || bits & libc::EPOLLOUT as u32 != 0,
        }
    }
}

/// An epoll instance. Each report disarms the descriptor until it is armed again
/// (`EPOLLONESHOT`): nobody is woken twice for what he knows.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// epoll_create1(2).
    pub fn new() -> Result<Self> {
        // SAFETY: the call takes no pointers.
        check_fd("epoll_create1", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into())
            .map(Self)
    }

    fn control(&self, operation: i32, fd: i32, token: u64, what: Readiness) -> Result<()> {
        let events = what.bits() | libc::EPOLLONESHOT as u32;
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for the call, which copies it.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) };
        check("epoll_ctl", result.into()).map(drop)
    }

    /// Watches a descriptor that is not watched yet.
    ///
    /// # Errors
    /// `EPERM` for a regular file, which never blocks; `EEXIST`.
    pub fn add(&self, fd: impl AsFd, token: u64, what: Readiness) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd().as_raw_fd(), token, what)
    }

    /// Arms a watched descriptor again.
    pub fn arm(&self, fd: impl AsFd, token: u64, what: Readiness) -> Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd().as_raw_fd(), token, what)
    }

    /// Watches a descriptor no longer.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd().as_raw_fd(), 0, Readiness::default())
    }

    /// Waits for at most `timeout_ms` (-1: for ever); gives each token and what happened.
    /// A signal that interrupts it is an empty answer.
    pub fn wait(&self, timeout_ms: i32, found: &mut Vec<(u64, Readiness)>) -> Result<()> {
        const AT_ONCE: usize = 32;
        found.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        // SAFETY: pointer and count describe `events`, which any bytes are valid for.
        let count = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), AT_ONCE as i32, timeout_ms)
        };
        match check("epoll_wait", count.into()) {
            Err(error) if error.errno() == libc::EINTR => return Ok(()),
            result => result?,
        };
        let count = usize::try_from(count).map_err(|_| Error::new("epoll_wait", libc::EINVAL))?;
        found.extend(events.iter().take(count).map(|e| (e.u64, Readiness::of(e.events))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_reported_once_until_it_is_armed_again() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = crate::fd::pipe().unwrap();
        let what = Readiness { readable: true, writable: false };
        epoll.add(&reader, 7, what).unwrap();
        let mut found = Vec::new();
        epoll.wait(0, &mut found).unwrap();
        assert_eq!(found, []);
        crate::fd::write_all(&writer, b"x").unwrap();
        epoll.wait(-1, &mut found).unwrap();
        assert_eq!(found, [(7, what)]);
        epoll.wait(0, &mut found).unwrap();
        assert_eq!(found, []);
        epoll.arm(&reader, 7, what).unwrap();
        drop(writer);
        epoll.wait(-1, &mut found).unwrap();
        assert_eq!(found, [(7, Readiness { readable: true, writable: true })]);
        epoll.remove(&reader).unwrap();
    }
}
