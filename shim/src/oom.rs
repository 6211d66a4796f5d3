//! Being told when the kernel kills a process of a container for want of memory, and what can
//! be said about it afterwards.
//!
//! A watch is opened before the container's program starts, and holds descriptors, not names:
//! a cgroup that is removed, and another made by its name, cannot be mistaken for it.
//!
//! What stays readable when the cgroup is gone is not the same. The files give nothing any
//! more (`ENODEV`), so their counts are those of the last look; look at the exit of the first
//! process, before the runtime removes the cgroup. v1's eventfd keeps what it was told, and the
//! removal itself adds one to it, which is taken off again.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use anyhow::{Context, Result};
use hull_runtime_sys::{event, process::Exit};
use serde::{Deserialize, Serialize};

use crate::{cgroup::Cgroup, stats::Keyed};

/// The file is a few lines of "key value".
const FILE_LIMIT_BYTES: usize = 4096;

/// Whom the kernel killed, as far as it can be told from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Oom {
    /// Nobody.
    #[default]
    None,
    /// A process of the container, but not the one that has exited.
    Child,
    /// The process that has exited.
    Main,
}

/// Who was killed, by how the main process ended and how many kills there were. `killed_by_us`
/// says that we have sent it SIGKILL: then its death says nothing about memory.
pub(crate) fn verdict(exit: Exit, kills: u64, killed_by_us: bool) -> Oom {
    match exit {
        _ if kills == 0 => Oom::None,
        Exit::Signal(libc::SIGKILL) if !killed_by_us => Oom::Main,
        // A shell that reports a child's death by exit code 137 was not killed itself.
        _ => Oom::Child,
    }
}

/// A watch on one container's memory.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What becomes readable: an eventfd on v1, an inotify instance on v2.
    events: File,
    /// `memory.oom_control` or `memory.events`.
    counters: File,
    counts: Counts,
    /// What [`Watch::kills`] has learnt and [`Watch::take`] has not yet told.
    untold: u64,
}

/// What is known of the kills. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// `oom_kill` when the watch was opened, and when it was last read (kernel 4.13). On v2 it
    /// counts the processes of this cgroup and all below it, on v1 of this cgroup alone.
    first: u64,
    last: u64,
    v1: Option<Notified>,
}

/// What v1's eventfd has told. It speaks before the kill; also for a kill in a cgroup below or
/// above, and for being out of memory where killing is disabled. So it is evidence only when
/// the counter cannot be read any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notified {
    /// Notifications that no look at the counter has explained.
    unexplained: u64,
    /// Whether the one notification of the removal has been taken off.
    removed: bool,
}

impl Watch {
    /// Begins to watch; `None` where memory is not controlled.
    ///
    /// # Errors
    /// The memory controller refuses, or descriptors are short.
    pub(crate) fn open(cgroup: &Cgroup) -> Result<Option<Self>> {
        let Some(dir) = cgroup.dir("memory") else { return Ok(None) };
        match cgroup {
            Cgroup::V1(_) => Self::open_v1(dir).map(Some),
            Cgroup::V2(_) => Self::open_v2(dir),
        }
    }

    fn open_v1(dir: &Path) -> Result<Self> {
        let counters = open(&dir.join("memory.oom_control"))?;
        let events = event::eventfd()?;
        let control = dir.join("cgroup.event_control");
        let request = format!("{} {}", events.as_raw_fd(), counters.as_raw_fd());
        std::fs::write(&control, request)
            .with_context(|| format!("register for memory events in {}", control.display()))?;
        let first = kills_in(&counters).unwrap_or(0);
        let counts = Counts { first, last: first, v1: Some(Notified::default()) };
        Ok(Self { events: File::from(events), counters, counts, untold: 0 })
    }

    fn open_v2(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("memory.events");
        if !path.exists() {
            return Ok(None);
        }
        let counters = open(&path)?;
        // Before the watch begins: a kill in between is then found by the next look.
        let first = kills_in(&counters).unwrap_or(0);
        // Not poll(2) on the file itself: kernfs calls it readable at all times.
        let events = event::inotify()?;
        event::watch_modifications(&events, &path)?;
        let counts = Counts { first, last: first, v1: None };
        Ok(Some(Self { events: File::from(events), counters, counts, untold: 0 }))
    }

    /// Becomes readable when something has happened.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The number of times that the container was out of memory since this was last asked. If
    /// it is not 0, containerd's shim publishes one TaskOOM: on v1 for each notification of the
    /// eventfd, on v2 when `oom_kill` has risen. Ask it when [`Watch::fd`] is readable, and
    /// after [`Watch::kills`]. Never blocks.
    pub(crate) fn take(&mut self) -> u64 {
        self.look();
        std::mem::take(&mut self.untold)
    }

    /// All kills since the watch was opened. Ask it when the first process has been reaped and
    /// before the runtime is told to remove the cgroup: that look is the one that is sure.
    pub(crate) fn kills(&mut self) -> u64 {
        if self.look() {
            self.counts.explain();
        }
        self.counts.kills()
    }

    /// Whether the counter could still be read.
    fn look(&mut self) -> bool {
        let notified = self.drain();
        let counted = kills_in(&self.counters);
        let news = self.counts.update(notified, counted);
        self.untold = self.untold.saturating_add(news);
        counted.is_some()
    }

    /// Empties the descriptor; on v1, the notifications that were in it.
    fn drain(&mut self) -> u64 {
        // An eventfd's number, or several inotify events, whose text says nothing of use.
        let mut buffer = [0; 512];
        loop {
            match self.events.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(8) if self.counts.v1.is_some() => {
                    let number = buffer.first_chunk().copied().unwrap_or_default();
                    return u64::from_ne_bytes(number);
                }
                Ok(1..) if self.counts.v1.is_none() => {}
                _ => return 0,
            }
        }
    }
}

impl Counts {
    /// Takes in what the eventfd told and what the file says, if it still says something;
    /// returns what is news.
    fn update(&mut self, told: u64, counted: Option<u64>) -> u64 {
        let risen = counted.unwrap_or(0).saturating_sub(self.last);
        self.last += risen;
        let Some(notified) = &mut self.v1 else { return risen };
        let mut told = told;
        // The removal's own notification can come later than the files' end. Until it does,
        // one too few is told; never one too many.
        if told > 0 && counted.is_none() && !notified.removed {
            notified.removed = true;
            told -= 1;
        }
        notified.unexplained = notified.unexplained.saturating_add(told);
        told
    }

    /// The counter was read after the processes' end: it has counted what was told.
    fn explain(&mut self) {
        if let Some(notified) = &mut self.v1 {
            notified.unexplained = 0;
        }
    }

    fn kills(self) -> u64 {
        let unexplained = self.v1.map_or(0, |notified| notified.unexplained);
        // With the counter still there, `unexplained` is what `last` has counted or will.
        (self.last - self.first).max(unexplained)
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

/// The count of kills; `None` when the cgroup is gone.
fn kills_in(counters: &File) -> Option<u64> {
    let mut buffer = [0; FILE_LIMIT_BYTES];
    let length = counters.read_at(&mut buffer, 0).ok()?;
    let text = String::from_utf8_lossy(buffer.get(..length)?);
    Some(Keyed(&text).get("oom_kill"))
}

#[cfg(test)]
mod tests;
