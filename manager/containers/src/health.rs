//! Health checks: a command that is run in the container now and then, while there is a check.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hull_manager_core::{Error, Result, name};
use hull_specs_api::v1;
use tokio::{io::AsyncReadExt as _, net::unix::pipe, task::JoinHandle};

use crate::{Inner, exec::output_fifo, handle::Handle, shim::Streams, state::Ask};

/// docker's, where the check says nothing.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// So many results are kept, and so much of each output.
const MAX_RESULTS: usize = 5;
const MAX_OUTPUT: u64 = 4096;

/// A check with all its times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// None where there is nothing to check.
    fn of(options: &v1::ContainerOptions) -> Option<Self> {
        let health = options.health.as_ref()?;
        let (kind, rest) = health.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
            _ => return None,
        };
        let time = |given: Option<prost_types::Duration>, default| {
            let given = given.and_then(|given| Duration::try_from(given).ok());
            given.filter(|given| !given.is_zero()).unwrap_or(default)
        };
        Some(Self {
            command,
            interval: time(health.interval, INTERVAL),
            timeout: time(health.timeout, TIMEOUT),
            start_period: time(health.start_period, Duration::ZERO),
            start_interval: time(health.start_interval, START_INTERVAL),
            retries: if health.retries == 0 { RETRIES } else { health.retries },
        })
    }

    /// Until the next probe.
    fn pause(&self, running: Duration, status: &str) -> Duration {
        if status == "starting" && running < self.start_period {
            self.start_interval.min(self.interval)
        } else {
            self.interval
        }
    }
}

/// The state after a probe. Pure.
fn after(
    mut state: v1::HealthState,
    probe: v1::HealthProbe,
    check: &Check,
    running: Duration,
) -> v1::HealthState {
    if probe.exit_code == 0 {
        state.failing_streak = 0;
        state.status = "healthy".into();
    } else {
        let forgiven = state.status == "starting" && running < check.start_period;
        if !forgiven {
            state.failing_streak += 1;
            if state.failing_streak >= check.retries {
                state.status = "unhealthy".into();
            }
        }
    }
    state.log.push(probe);
    let surplus = state.log.len().saturating_sub(MAX_RESULTS);
    state.log.drain(..surplus);
    state
}

/// The task that checks; dropped, it ends.
pub(crate) struct Checker(JoinHandle<()>);

impl Drop for Checker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checker {
    /// Starts checking a container that runs, if it has a check.
    pub(crate) fn start(inner: &Arc<Inner>, handle: &Arc<Handle>) -> Option<Self> {
        let Some(check) = Check::of(&handle.record().effective) else {
            handle.set_health(None);
            return None;
        };
        handle
            .set_health(Some(v1::HealthState { status: "starting".into(), ..Default::default() }));
        let (inner, handle) = (Arc::clone(inner), Arc::clone(handle));
        Some(Self(tokio::spawn(async move { run(&inner, &handle, &check).await })))
    }
}

async fn run(inner: &Arc<Inner>, handle: &Arc<Handle>, check: &Check) {
    let begun = tokio::time::Instant::now();
    loop {
        let state = handle.health().unwrap_or_default();
        tokio::time::sleep(check.pause(begun.elapsed(), &state.status)).await;
        if handle.now().status == v1::Status::Paused {
            handle.until(|now| now.status != v1::Status::Paused).await;
            continue;
        }
        let start = SystemTime::now();
        let (exit_code, output) = match probe(inner, handle, check).await {
            Ok(result) => result,
            Err(error) => (-1, error.to_string()),
        };
        let probe = v1::HealthProbe {
            start: Some(start.into()),
            end: Some(SystemTime::now().into()),
            exit_code,
            output,
        };
        let before = state.status.clone();
        let state = after(state, probe, check, begun.elapsed());
        if state.status != before {
            let action = format!("health_status: {}", state.status);
            inner.event(&handle.record(), &action, &[]);
        }
        handle.set_health(Some(state));
    }
}

/// Ends and removes an exec when the probe is given up at any point.
struct Cleanup {
    shim: crate::shim::Shim,
    id: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (shim, id) = (self.shim.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            // Most have ended.
            let _ = shim.kill(&id, libc::SIGKILL).await;
            let _ = shim.wait(&id).await;
            let _ = shim.delete(&id).await;
        });
    }
}

async fn probe(inner: &Arc<Inner>, handle: &Handle, check: &Check) -> Result<(i32, String)> {
    let shim = handle.shim(Ask::Exec, &handle.id)?;
    let request = v1::CreateExecRequest { command: check.command.clone(), ..Default::default() };
    let process = inner.exec_process(&handle.id, &request)?;
    let process = serde_json::to_vec(&process)
        .map_err(|cause| Error::internal("the process").because(cause))?;
    let id = name::random_id()?;
    let (fifo, path, reader) = output_fifo(&shim.bundle, &id)?;
    let streams = Streams { stdout: path.clone(), stderr: path, ..Streams::default() };
    shim.exec(&id, process, streams).await?;
    let cleanup = Cleanup { shim: shim.clone(), id: id.clone() };
    shim.start(&id).await?;
    let ended = tokio::time::timeout(check.timeout, async {
        let (ended, output) = tokio::join!(shim.wait(&id), read(reader));
        ended.map(|ended| (i32::try_from(ended.status).unwrap_or(255), output))
    });
    let result = match ended.await {
        Ok(result) => result,
        Err(_) => Ok((-1, format!("Health check exceeded timeout ({:?})", check.timeout))),
    };
    drop((cleanup, fifo));
    result
}

/// The beginning of the output; the rest is read, and thrown away.
async fn read(mut reader: pipe::Receiver) -> String {
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        let room = usize::try_from(MAX_OUTPUT).unwrap_or(0).saturating_sub(output.len());
        output.extend_from_slice(buffer.get(..n.min(room)).unwrap_or_default());
    }
    String::from_utf8_lossy(&output).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check {
            command: vec!["true".into()],
            interval: INTERVAL,
            timeout: TIMEOUT,
            start_period: Duration::from_secs(20),
            start_interval: START_INTERVAL,
            retries: 2,
        }
    }

    fn run(codes: &[(i32, u64)]) -> Vec<(String, u32)> {
        let mut state = v1::HealthState { status: "starting".into(), ..Default::default() };
        codes
            .iter()
            .map(|(exit_code, second)| {
                let probe = v1::HealthProbe { exit_code: *exit_code, ..Default::default() };
                state = after(state.clone(), probe, &check(), Duration::from_secs(*second));
                assert!(state.log.len() <= MAX_RESULTS);
                (state.status.clone(), state.failing_streak)
            })
            .collect()
    }

    #[test]
    fn states_are_dockers() {
        let s = |status: &str, streak| (status.to_owned(), streak);
        assert_eq!(run(&[(0, 1)]), [s("healthy", 0)]);
        // Failures in the start period count for nothing.
        assert_eq!(
            run(&[(1, 1), (1, 10), (1, 21), (1, 50), (0, 80)]),
            [
                s("starting", 0),
                s("starting", 0),
                s("starting", 1),
                s("unhealthy", 2),
                s("healthy", 0)
            ]
        );
        // After a success they do, also within it.
        assert_eq!(run(&[(0, 1), (1, 2), (1, 3)])[2], s("unhealthy", 2));
        run(&[(0, 1); 9]);
    }

    #[test]
    fn a_check_has_dockers_defaults() {
        let health = |test: &[&str]| v1::ContainerOptions {
            health: Some(v1::Health {
                test: test.iter().map(|word| (*word).to_owned()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(Check::of(&health(&["NONE"])).is_none());
        assert!(Check::of(&health(&[])).is_none());
        let shell = Check::of(&health(&["CMD-SHELL", "exit 1"])).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "exit 1"]);
        assert_eq!((shell.interval, shell.retries), (INTERVAL, 3));
        assert_eq!(check().pause(Duration::ZERO, "starting"), START_INTERVAL);
        assert_eq!(check().pause(Duration::ZERO, "healthy"), INTERVAL);
        assert_eq!(check().pause(Duration::from_secs(30), "starting"), INTERVAL);
    }
}
