//! Being told when the kernel kills a process of the container for want of memory.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

use super::{file, host::Mode, location::Location};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OomEvent {
    /// Memory ran out.
    Oom,
    /// The cgroup is gone, or no process is left in it; nothing will happen any more.
    Ended,
}

/// A descriptor to poll for reading, and how to understand it.
#[derive(Debug)]
pub(crate) struct OomNotifier {
    events: File,
    dir: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// An eventfd that the kernel signals on v1. `control` must stay open: closing it ends
    /// the registration.
    Eventfd { _control: File },
    /// An inotify instance on v2. The kernel touches `memory.events` for much else, such as
    /// reclaim above `memory.high`; only a higher count of kills is news.
    Inotify { memory: i32, population: i32, kills_seen: u64 },
}

impl AsFd for OomNotifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Begins to watch.
pub(super) fn watch(location: &Location) -> Result<OomNotifier> {
    let Some(dir) = location.dir("memory") else { bail!("memory controller missing") };
    let dir = dir.to_owned();
    if location.mode == Mode::V2 {
        // Counted before the watch begins: a kill in between is then not missed.
        let kills_seen = kills(location);
        let inotify = sys::event::inotify()?;
        let memory = sys::event::watch_modifications(&inotify, &dir.join("memory.events"))
            .context("unable to add inotify watch")?;
        // cgroupfs reports no removal, so the last process's end is what ends the watch.
        let population = sys::event::watch_modifications(&inotify, &dir.join("cgroup.events"))
            .context("unable to add inotify watch")?;
        let source = Source::Inotify { memory, population, kills_seen };
        return Ok(OomNotifier { events: File::from(inotify), dir, source });
    }
    let eventfd: OwnedFd = sys::event::eventfd()?;
    let path = dir.join("memory.oom_control");
    let control = File::open(&path).map_err(|e| file::error("open", &e, &path))?;
    let request = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
    file::write(&dir, "cgroup.event_control", &request)?;
    Ok(OomNotifier {
        events: File::from(eventfd),
        dir,
        source: Source::Eventfd { _control: control },
    })
}

impl OomNotifier {
    /// Takes what has arrived; call it when the descriptor is readable. Never blocks.
    pub(crate) fn read(&mut self) -> Result<Vec<OomEvent>> {
        // Room for several inotify events; names are not reported for watched files.
        let mut buffer = [0; 1024];
        let bytes = match self.events.read(&mut buffer) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            result => result.context("unable to read memory events")?,
        };
        Ok(match self.source {
            _ if bytes == 0 => Vec::new(),
            // The removal of the cgroup signals the eventfd too.
            Source::Eventfd { .. } if !self.dir.join("cgroup.event_control").exists() => {
                vec![OomEvent::Ended]
            }
            Source::Eventfd { .. } => vec![OomEvent::Oom],
            Source::Inotify { memory, population, ref mut kills_seen } => {
                let watches = watches(&buffer[..bytes]);
                let mut events = Vec::new();
                if watches.contains(&memory)
                    && let Some(kills) = kills_in(&self.dir).filter(|kills| *kills > *kills_seen)
                {
                    *kills_seen = kills;
                    events.push(OomEvent::Oom);
                }
                if watches.contains(&population) && !populated(&self.dir) {
                    events.push(OomEvent::Ended);
                }
                events
            }
        })
    }
}

fn kills_in(dir: &Path) -> Option<u64> {
    file::value_of(&file::read(dir, "memory.events").ok()?, "oom_kill")
}

fn populated(dir: &Path) -> bool {
    let text = file::read(dir, "cgroup.events").unwrap_or_default();
    file::value_of(&text, "populated").is_some_and(|populated| populated > 0)
}

/// The watch numbers in a buffer of `struct inotify_event`.
fn watches(mut bytes: &[u8]) -> Vec<i32> {
    const HEADER_BYTES: usize = 16;
    let mut found = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        found.push(i32::from_ne_bytes(word(0)));
        let name_bytes = u32::from_ne_bytes(word(12)) as usize;
        bytes = bytes.get(HEADER_BYTES + name_bytes..).unwrap_or_default();
    }
    found
}

/// How often the kernel has killed in this cgroup; 0 where it can't be told.
pub(super) fn kills(location: &Location) -> u64 {
    let name = if location.mode == Mode::V2 { "memory.events" } else { "memory.oom_control" };
    let text = location.dir("memory").and_then(|dir| file::read(dir, name).ok());
    text.and_then(|text| file::value_of(&text, "oom_kill")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_inotify_events() {
        let event = |watch: i32, name: &[u8]| {
            let mut bytes = watch.to_ne_bytes().to_vec();
            bytes.extend([0; 8]);
            bytes.extend(u32::try_from(name.len()).expect("short").to_ne_bytes());
            bytes.extend(name);
            bytes
        };
        let buffer = [event(1, b""), event(2, b"name\0\0\0\0"), event(3, b"")].concat();
        assert_eq!(watches(&buffer), [1, 2, 3]);
        assert_eq!(watches(&buffer[..20]), [1]);
        assert_eq!(watches(&[0xff; 16]), [-1], "a length beyond the buffer ends it");
    }
}
