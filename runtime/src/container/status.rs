//! What state a container is in, from what can be seen.
//!
//! ```text
//!            mkdir          record written,         start             exit
//!  (nothing) -----> creating -----------> created -------> running --------> stopped
//!                      |   first process waits   |            | ^ freezer
//!                      +---- killed -> stopped   +- kill ->   paused
//! ```
//! Nothing here is remembered: a process lives if its pidfd says so and its start time is
//! the recorded one; it waits for `start` if it still holds its end of the start FIFO.

use std::fs;

use anyhow::Result;
use hull_runtime_sys as sys;
use hull_specs_oci::Status;

use super::{
    record::{Phase, ProcessIdentity, Record},
    store::Dir,
};

/// The FIFO on which a created container waits.
pub(crate) const START_FIFO: &std::ffi::CStr = c"exec.fifo";

/// What was seen of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) phase: Phase,
    pub(crate) alive: bool,
    pub(crate) waits_for_start: bool,
    pub(crate) frozen: bool,
}

/// The state that these observations mean.
pub(crate) fn judge(seen: Seen) -> Status {
    match seen {
        Seen { alive: false, .. } => Status::Stopped,
        Seen { phase: Phase::Creating, .. } => Status::Creating,
        Seen { frozen: true, .. } => Status::Paused,
        Seen { waits_for_start: true, .. } => Status::Created,
        _ => Status::Running,
    }
}

/// Looks at the container.
pub(crate) fn observe(dir: &Dir, record: &Record) -> Result<Status> {
    let alive = record.init.as_ref().is_some_and(|init| init.open().is_some());
    let frozen = alive && crate::cgroup::Cgroup::open(&record.cgroup).is_frozen().unwrap_or(false);
    let waits_for_start = alive && waits_for_start(dir);
    Ok(judge(Seen { phase: record.phase, alive, waits_for_start, frozen }))
}

fn waits_for_start(dir: &Dir) -> bool {
    // Opening for writing without waiting succeeds only while somebody has the FIFO open
    // for reading: the container's first process before its exec.
    sys::fd::openat(&dir.fd, START_FIFO, libc::O_WRONLY | libc::O_NONBLOCK, 0).is_ok()
}

impl ProcessIdentity {
    /// The identity of a live process.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let (start_time, _) = stat(pid)
            .ok_or_else(|| anyhow::anyhow!("process {pid} ended before it could be recorded"))?;
        Ok(Self { pid, start_time, boot_id: boot_id() })
    }

    /// A descriptor of the process, if it is this one and lives.
    pub(crate) fn open(&self) -> Option<std::os::fd::OwnedFd> {
        let pidfd = sys::process::pidfd(self.pid).ok()?;
        // Looked at after the pidfd was opened: if it is the recorded process now, then
        // the descriptor is of that process too.
        let (start_time, state) = stat(self.pid)?;
        let lives = !matches!(state, b'Z' | b'X');
        (lives && start_time == self.start_time && boot_id() == self.boot_id).then_some(pidfd)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim_end().to_owned())
        .unwrap_or_default()
}

/// The start time and the state letter from /proc/PID/stat.
fn stat(pid: i32) -> Option<(u64, u8)> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &[u8]) -> Option<(u64, u8)> {
    // The second field is the command in parentheses and may hold anything, also ") ".
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The state is field 3; the start time is field 22.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((start_time, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: Seen =
        Seen { phase: Phase::Created, alive: true, waits_for_start: false, frozen: false };

    #[test]
    fn each_state_has_its_signs() {
        for (seen, status) in [
            (ALIVE, Status::Running),
            (Seen { waits_for_start: true, ..ALIVE }, Status::Created),
            (Seen { frozen: true, ..ALIVE }, Status::Paused),
            (Seen { phase: Phase::Creating, waits_for_start: true, ..ALIVE }, Status::Creating),
            (Seen { alive: false, frozen: true, waits_for_start: true, ..ALIVE }, Status::Stopped),
            (Seen { alive: false, phase: Phase::Creating, ..ALIVE }, Status::Stopped),
        ] {
            assert_eq!(judge(seen), status, "{seen:?}");
        }
    }

    #[test]
    fn a_command_full_of_parentheses_does_not_hide_the_start_time() {
        let line = b"7 (a) R 1 (b)) S 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(line), Some((4711, b'S')));
        assert_eq!(parse_stat(b"7 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_is_alive_and_a_changed_start_time_is_another() {
        let mut me = ProcessIdentity::of(sys::process::id()).unwrap();
        assert!(me.open().is_some());
        me.start_time += 1;
        assert!(me.open().is_none());
    }
}
