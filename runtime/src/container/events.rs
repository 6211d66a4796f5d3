//! `events`: statistics at intervals, and out-of-memory kills as they happen.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hull_runtime_sys as sys;
use hull_specs_oci::Status;
use serde::Serialize;

use super::{Failure, find, status};
use crate::{
    cgroup::{Cgroup, OomEvent, Stats},
    request::{Events, Global},
};

/// One line of output, in runc's form (types/events.go).
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// Prints the container's statistics once, or with its out-of-memory kills until it ends.
pub(crate) fn events(
    global: &Global,
    request: &Events,
    print: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let (dir, record) = find(global, &request.id)?;
    if status::observe(&dir, &record)? == Status::Stopped {
        return Err(anyhow::anyhow!("container with id {} is not running", request.id));
    }
    let cgroup = Cgroup::open(&record.cgroup);
    let mut line = |kind, data| -> Result<()> {
        let event = Event { kind, id: request.id.as_str(), data };
        print(&serde_json::to_string(&event).context("cannot encode an event")?)
    };
    if request.once {
        return line("stats", Some(cgroup.stats()?));
    }
    let init = record.init.as_ref().and_then(|init| init.open()).ok_or(Failure::NotRunning)?;
    let mut oom = cgroup.oom_notifier()?;
    let interval = Duration::from_millis(request.interval_ms);
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, so that the wait does not end a moment early and then spin.
        let left_ms = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let ready = sys::process::wait_any(&[init.as_fd(), oom.as_fd()], left_ms)?;
        if ready[1] {
            for event in oom.read()? {
                match event {
                    OomEvent::Oom => line("oom", None)?,
                    OomEvent::Ended => return Ok(()),
                }
            }
        }
        if ready[0] {
            return Ok(());
        }
        if Instant::now() >= next {
            line("stats", Some(cgroup.stats()?))?;
            next = Instant::now() + interval;
        }
    }
}
