//! The record of a process's end, on disk before anyone is told of it: why it ended, for the
//! manager to show, and the exit code, for whoever asks after the shim is gone.
//!
//! Whoever reads finds a whole record or none, also after a power cut: see [`bundle_file`].

use std::{
    ffi::CString,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use hull_runtime_sys::process::Exit;
use hull_specs_oci::ExecId;
use serde::{Deserialize, Serialize};

use crate::{
    bundle_file::{self, Durability, Version, timestamp},
    oom::Oom,
};

/// The most that is read. A record that [`write()`] makes is smaller: its texts are cut to the
/// limits below, and JSON makes at most six bytes of one.
const LIMIT_BYTES: usize = 256 << 10;
const MAX_LINES: usize = 20;
const MAX_LINE_BYTES: usize = 1 << 10;
const MAX_ERROR_BYTES: usize = 8 << 10;

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    /// It called exit.
    #[serde(rename = "exited")]
    Exited,
    /// A signal ended it.
    #[serde(rename = "signaled")]
    Signaled,
    /// The kernel ended it for want of memory.
    #[serde(rename = "oom-killed")]
    OomKilled,
    /// It never ran; `runtimeError` says why.
    #[serde(rename = "start-failed")]
    StartFailed,
    /// Nobody was there to see it.
    #[serde(rename = "unknown: the shim was killed")]
    Unknown,
}

impl Reason {
    /// The reason of an end that was seen.
    pub(crate) fn of(exit: Exit, oom: Oom) -> Self {
        match exit {
            Exit::Code(_) => Self::Exited,
            Exit::Signal(_) if oom == Oom::Main => Self::OomKilled,
            Exit::Signal(_) => Self::Signaled,
        }
    }
}

/// How a process ended. Times on the wall are RFC 3339 with nanoseconds, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExitRecord {
    pub(crate) version: Version,
    pub(crate) container_id: String,
    /// Empty for the container's first process.
    pub(crate) exec_id: String,
    /// 0 where it never ran.
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub(crate) start_time: u64,
    /// One of these two, if the end was seen.
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// What containerd is told: the exit code, or 128 and the signal.
    pub(crate) shell_code: u32,
    #[serde(with = "timestamp")]
    pub(crate) exited_at: SystemTime,
    #[serde(rename = "runTimeNs", with = "nanoseconds")]
    pub(crate) run_time: Duration,
    pub(crate) reason: Reason,
    pub(crate) oom: Oom,
    /// Processes of the container that were killed for want of memory while this one ran.
    pub(crate) oom_kills: u64,
    pub(crate) peak_memory_bytes: Option<u64>,
    /// What the runtime said when it failed.
    pub(crate) runtime_error: Option<String>,
    /// Clients of the attach socket that were disconnected because they were too slow.
    pub(crate) dropped_clients: u64,
    /// Bytes of output that could not be written to their file until then.
    #[serde(default)]
    pub(crate) lost_output_bytes: u64,
    /// The last lines of output, oldest first.
    pub(crate) last_lines: Vec<String>,
}

mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

/// The name of a record's file in a container's own directory. Exec ids come from outside; only
/// checked ones make a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(CString);

impl FileName {
    /// Of the record of the container's first process, or of an exec in it.
    pub(crate) fn of(exec: Option<&ExecId>) -> Self {
        // The separator is a letter that no id has.
        let exec = exec.map(|exec| format!("@{exec}")).unwrap_or_default();
        Self(CString::new(format!("exit{exec}.json")).expect("ids hold no NUL"))
    }
}

/// Writes a record into the directory `dir`, in place of one that is there, such that it is on
/// the disk when this returns. Texts that are too long are cut; of the lines the last are kept.
///
/// # Errors
/// No space, and other failures of the disk. The record that was there is unchanged, unless
/// the last step, the sync of the directory, failed.
pub(crate) fn write(dir: &Path, name: &FileName, record: &ExitRecord) -> Result<()> {
    let text = serde_json::to_vec(&cut(record)).context("encode the exit record")?;
    bundle_file::write(dir, &name.0, &text, Durability::Synced)
        .with_context(|| format!("write the exit record in {}", dir.display()))
}

/// Reads a record; `None` if there is none.
///
/// # Errors
/// It is not one of ours: of another version, too large, not a regular file.
pub(crate) fn read(dir: &Path, name: &FileName) -> Result<Option<ExitRecord>> {
    let read = || -> Result<Option<ExitRecord>> {
        let text = bundle_file::read(dir, &name.0, LIMIT_BYTES)?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    };
    read().with_context(|| format!("read the exit record in {}", dir.display()))
}

/// Removes a record, and what a write that was cut off has left. That there is none is well.
pub(crate) fn remove(dir: &Path, name: &FileName) -> Result<()> {
    bundle_file::remove(dir, &name.0)
        .with_context(|| format!("remove the exit record in {}", dir.display()))
}

/// The record with its texts within their limits.
fn cut(record: &ExitRecord) -> ExitRecord {
    let lines = &record.last_lines;
    let kept = lines.get(lines.len().saturating_sub(MAX_LINES)..).unwrap_or_default();
    ExitRecord {
        last_lines: kept.iter().map(|line| start(line, MAX_LINE_BYTES)).collect(),
        runtime_error: record.runtime_error.as_deref().map(|text| start(text, MAX_ERROR_BYTES)),
        ..record.clone()
    }
}

/// The first `limit` bytes of a text, or a few less, so that no letter is cut.
fn start(text: &str, limit: usize) -> String {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
