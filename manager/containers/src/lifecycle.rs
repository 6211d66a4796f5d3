//! Requests to a container's owner, and those that are several of them.

use std::{sync::Arc, time::Duration};

use hull_manager_core::{Error, Result, name};
use hull_specs_api::v1::{self, wait_container_request::Condition};

use crate::{
    Containers, attach,
    handle::{Handle, Request, State, Why},
    signal,
    state::{Ask, Verdict},
};

/// How long a process may take to end after SIGKILL before that is said.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Sends SIGKILL, and waits until nothing of the container's run is left.
async fn kill(handle: &Handle, why: Why, before: u64, called: &str) -> Result<()> {
    handle.order(Request::Signal { signal: libc::SIGKILL, why }, called).await?;
    let ended = handle.until(|state| is_over(state, before));
    tokio::time::timeout(KILL_LIMIT, ended).await.map(drop).map_err(|_| {
        let what = if why == Why::Kill { "Cannot kill" } else { "cannot stop" };
        Error::timed_out(format!(
            "{what} container: {called}: tried to kill container, but did not receive an exit event"
        ))
    })
}

/// Whether a run has ended since there were so many ends.
fn is_over(state: State, before: u64) -> bool {
    state.is_done() && (state.exits > before || !state.is_live())
}

/// Sends the signal, waits, and sends SIGKILL.
async fn stop(
    handle: &Handle,
    signal: i32,
    timeout: Option<Duration>,
    why: Why,
    called: &str,
) -> Result<()> {
    let before = handle.now().exits;
    let over = |state: State| is_over(state, before);
    if handle.order(Request::Signal { signal, why }, called).await? == Verdict::Nothing {
        return Ok(());
    }
    let ended = async {
        match timeout {
            Some(limit) => tokio::time::timeout(limit, handle.until(over)).await.is_ok(),
            None => {
                handle.until(over).await;
                true
            }
        }
    };
    if ended.await {
        return Ok(());
    }
    kill(handle, why, before, called).await
}

/// Stops it for `stop`, `restart` and the manager's end.
pub(crate) async fn stop_as_asked(
    handle: &Handle,
    asked_signal: &str,
    timeout: Option<prost_types::Duration>,
    why: Why,
    called: &str,
) -> Result<()> {
    let options = &handle.record().effective;
    let signal = match asked_signal {
        "" => signal::stop_signal(options)?,
        name => signal::parse(name)?,
    };
    let timeout = signal::stop_timeout(timeout, options);
    stop(handle, signal, timeout, why, called).await
}

/// Goes on also when the caller has left.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|cause| Error::internal("the request").because(cause))?
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// The runtime's sentence.
    pub async fn start(
        &self,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse> {
        let handle = self.find(&request.container)?;
        handle.order(Request::Start, &request.container).await?;
        Ok(v1::StartContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`; if it does not end.
    pub async fn stop(
        &self,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse> {
        let inner = Arc::clone(&self.0);
        whole(async move {
            let called = &request.container;
            let handle = inner.find(called)?;
            if handle.judge(Ask::Stop, called)? == Verdict::Do {
                stop_as_asked(&handle, &request.signal, request.timeout, Why::Stop, called).await?;
                inner.event(&handle.record(), "stop", &[]);
            }
            Ok(v1::StopContainerResponse {})
        })
        .await
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// As `stop` and `start`.
    pub async fn restart(
        &self,
        request: v1::RestartContainerRequest,
    ) -> Result<v1::RestartContainerResponse> {
        let inner = Arc::clone(&self.0);
        whole(async move {
            let called = &request.container;
            let handle = inner.find(called)?;
            if handle.judge(Ask::Stop, called)? == Verdict::Do {
                stop_as_asked(&handle, &request.signal, request.timeout, Why::Restart, called)
                    .await?;
                inner.event(&handle.record(), "stop", &[]);
            }
            handle.order(Request::Start, called).await?;
            inner.event(&handle.record(), "restart", &[]);
            Ok(v1::RestartContainerResponse {})
        })
        .await
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn kill(
        &self,
        request: v1::KillContainerRequest,
    ) -> Result<v1::KillContainerResponse> {
        let signal = match request.signal.as_str() {
            "" => libc::SIGKILL,
            name => signal::parse(name)?,
        };
        let (handle, called) = (self.find(&request.container)?, &request.container);
        if signal == libc::SIGKILL {
            // As docker: who has killed it may remove it. Of other signals nobody knows the effect.
            kill(&handle, Why::Kill, handle.now().exits, called).await?;
        } else {
            handle.order(Request::Signal { signal, why: Why::Kill }, called).await?;
        }
        Ok(v1::KillContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn pause(
        &self,
        request: v1::PauseContainerRequest,
    ) -> Result<v1::PauseContainerResponse> {
        self.find(&request.container)?
            .order(Request::Pause { for_commit: false }, &request.container)
            .await?;
        Ok(v1::PauseContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn unpause(
        &self,
        request: v1::UnpauseContainerRequest,
    ) -> Result<v1::UnpauseContainerResponse> {
        self.find(&request.container)?.order(Request::Unpause, &request.container).await?;
        Ok(v1::UnpauseContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`, also if it is removed while the next exit is waited for.
    pub async fn wait(
        &self,
        request: v1::WaitContainerRequest,
    ) -> Result<v1::WaitContainerResponse> {
        let handle = self.find(&request.container)?;
        let condition = request.condition();
        let before = handle.now().exits;
        let state = handle
            .until(|state| match condition {
                // One that its policy starts again has ended, too.
                Condition::NotRunning => {
                    let rests = !state.is_live() && state.status != v1::Status::Restarting;
                    (rests || state.exits > before) && state.is_done()
                }
                Condition::NextExit => state.exits > before && state.is_done(),
                Condition::Removed => state.gone,
            })
            .await;
        let record = handle.record();
        let stored = || record.facts.ended.as_ref().map_or(0, |ended| ended.exit_code);
        Ok(v1::WaitContainerResponse {
            // It may have been started again meanwhile.
            exit_code: if state.exits > before { state.exit_code } else { stored() },
            error: record.facts.error.clone(),
        })
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn rename(
        &self,
        request: v1::RenameContainerRequest,
    ) -> Result<v1::RenameContainerResponse> {
        let handle = self.find(&request.container)?;
        let name = request.name.trim_start_matches('/');
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        name::check_name("container", name)?;
        if handle.record().name() == name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        handle.order(Request::Rename(name.to_owned()), &request.container).await?;
        Ok(v1::RenameContainerResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// If it does not run, or the size is none.
    pub async fn resize_terminal(
        &self,
        request: v1::ResizeTerminalRequest,
    ) -> Result<v1::ResizeTerminalResponse> {
        let size = request.size.ok_or_else(|| Error::invalid("the terminal's size is missing"))?;
        attach::size(&size)?;
        let (handle, exec) = match request.exec_id.as_str() {
            "" => (self.find(&request.container)?, String::new()),
            id => {
                let exec = self.0.execs.find(id)?;
                (self.find(&exec.container)?, exec.id.clone())
            }
        };
        let shim = handle.shim(Ask::Resize, &request.container)?;
        shim.resize(&exec, size.columns, size.rows).await?;
        if exec.is_empty() {
            let (columns, rows) = (size.columns.to_string(), size.rows.to_string());
            self.0.event(&handle.record(), "resize", &[("height", &rows), ("width", &columns)]);
        }
        Ok(v1::ResizeTerminalResponse {})
    }
}
