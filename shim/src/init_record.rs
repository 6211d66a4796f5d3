//! Which process a container's first one is, on disk while it runs: what whoever comes after a
//! killed shim needs to take the container over, or to end it, without hitting a stranger that
//! has its number now.

use std::{ffi::CStr, fs, os::fd::OwnedFd, path::Path, time::SystemTime};

use anyhow::{Context, Result, ensure};
use hull_runtime_sys::process;
use serde::{Deserialize, Serialize};

use crate::bundle_file::{self, Durability, Version, timestamp};

const FILE: &CStr = c"init.json";

/// Most that is read, in bytes. A record is some 300.
const LIMIT_BYTES: usize = 16 << 10;

/// How long a killed process may take to end.
const END_LIMIT_MS: i32 = 10_000;

/// A container's first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InitRecord {
    pub(crate) version: Version,
    pub(crate) container_id: String,
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub(crate) start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`: of which boot.
    pub(crate) boot_id: String,
    /// When the runtime had made it.
    #[serde(with = "timestamp")]
    pub(crate) created_at: SystemTime,
    /// When its program was started; null until then.
    #[serde(with = "timestamp::option")]
    pub(crate) started_at: Option<SystemTime>,
}

impl InitRecord {
    /// The record of a process that was just made.
    ///
    /// # Errors
    /// This boot has no name.
    pub(crate) fn new(container_id: &str, pid: i32, start_time: u64) -> Result<Self> {
        Ok(Self {
            version: Version,
            container_id: container_id.to_owned(),
            pid,
            start_time,
            boot_id: boot_id()?,
            created_at: SystemTime::now(),
            started_at: None,
        })
    }

    /// # Errors
    /// Those of the disk; the record that was there is unchanged.
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("encode the record of the first process")?;
        bundle_file::write(bundle, FILE, &text, Durability::Volatile)
            .with_context(|| format!("write {FILE:?} in {}", bundle.display()))
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// It is not one of ours.
    pub(crate) fn read(bundle: &Path) -> Result<Option<Self>> {
        let read = || -> Result<Option<Self>> {
            let text = bundle_file::read(bundle, FILE, LIMIT_BYTES)?;
            Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
        };
        read().with_context(|| format!("read {FILE:?} in {}", bundle.display()))
    }

    /// A descriptor of the process, if it is this one and lives.
    fn open(&self) -> Option<OwnedFd> {
        let pidfd = process::pidfd(self.pid).ok()?;
        // Looked at after the pidfd was opened: if it is this process now, then the descriptor
        // is of this process, too.
        let now = Stat::of(self.pid)?;
        let is_it = now.start_time == self.start_time && boot_id().ok()? == self.boot_id;
        (is_it && !now.has_ended).then_some(pidfd)
    }

    /// Kills the process, if it lives, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) fn end(&self) -> Result<()> {
        let Some(pidfd) = self.open() else { return Ok(()) };
        match process::send_signal(&pidfd, libc::SIGKILL) {
            Err(error) if error.errno() != libc::ESRCH => return Err(error.into()),
            _ => {}
        }
        let ended = process::wait_readable(&pidfd, END_LIMIT_MS)?;
        ensure!(ended, "process {} runs on {END_LIMIT_MS} ms after it was killed", self.pid);
        Ok(())
    }
}

fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    Ok(text.trim_end().to_owned())
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) has_ended: bool,
    pub(crate) parent: i32,
    /// In clock ticks after boot.
    pub(crate) start_time: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // Field 2 is the name in parentheses and may hold anything, also ") ".
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22.
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Self { has_ended: matches!(state, "Z" | "X"), parent, start_time })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        process::Command,
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;

    fn record() -> InitRecord {
        InitRecord {
            version: Version,
            container_id: "c1".into(),
            pid: 4711,
            start_time: 123_456,
            boot_id: "b-1".into(),
            created_at: UNIX_EPOCH + Duration::new(1_795_255_872, 123_456_789),
            started_at: None,
        }
    }

    #[test]
    fn the_file_is_what_a_manager_reads() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(InitRecord::read(dir.path()).unwrap(), None);
        record().write(dir.path()).unwrap();
        let path = dir.path().join("init.json");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            r#"{"version":1,"containerId":"c1","pid":4711,"startTime":123456,"bootId":"b-1","#
                .to_owned()
                + r#""createdAt":"2026-11-21T10:11:12.123456789Z","startedAt":null}"#
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let started = InitRecord { started_at: Some(UNIX_EPOCH), ..record() };
        started.write(dir.path()).unwrap();
        assert_eq!(InitRecord::read(dir.path()).unwrap(), Some(started));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(":1,", ":2,")).unwrap();
        let error = format!("{:#}", InitRecord::read(dir.path()).unwrap_err());
        assert!(error.contains("unknown version 2"), "{error}");
    }

    #[test]
    fn only_the_process_itself_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = Stat::of(pid).unwrap().start_time;
        let it = InitRecord::new("c1", pid, start_time).unwrap();
        for other in [
            InitRecord { start_time: start_time - 1, ..it.clone() },
            InitRecord { boot_id: "another".into(), ..it.clone() },
        ] {
            other.end().unwrap();
            assert!(it.open().is_some(), "{other:?}");
        }
        it.end().unwrap();
        assert_eq!(it.open().map(drop), None, "it has ended, though nobody has waited for it");
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        it.end().unwrap();
    }

    #[test]
    fn a_name_full_of_parentheses_hides_nothing() {
        let rest = "3 5 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        let parse = |state: &str| Stat::parse(format!("7 (a) Z (b) {state} {rest}").as_bytes());
        let expected = Stat { has_ended: false, parent: 3, start_time: 4242 };
        assert_eq!(parse("S"), Some(expected));
        assert_eq!(parse("Z"), Some(Stat { has_ended: true, ..expected }));
        for bad in ["", "7 (a", "7 (a) S 3", "7 (a) S x 5 5"] {
            assert_eq!(Stat::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
