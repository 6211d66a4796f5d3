//! `exec`: further processes in a container.

mod list;
mod recover;
mod session;

use std::{fs, sync::Arc};

use hull_manager_core::{Error, ErrorKind, Result, error::IoContext as _, name};
use hull_manager_spec as spec;
use hull_specs_api::v1::{self, attach_response, start_exec_request::Message};
use hull_specs_oci as oci;
use tokio::sync::mpsc;

use self::{list::Exec, session::Session};
pub(crate) use self::{list::Execs, session::output_fifo};
use crate::{
    Answers, Containers, Inner, Messages,
    attach::{self, ANSWERS},
    filesystem::Purpose,
    prepare,
    record::Record,
    shim::Shim,
    state::Ask,
};

/// The exit code of an exec whose shim was killed with it.
const KILLED: i32 = 137;

impl Inner {
    /// The process that is asked for, in a container that runs.
    pub(crate) fn exec_process(
        &self,
        id: &str,
        request: &v1::CreateExecRequest,
    ) -> Result<oci::Process> {
        let path = self.bundle(id).join(prepare::CONFIG);
        let text = fs::read(&path).about(path.display())?;
        let config: oci::Spec = serde_json::from_slice(&text)
            .map_err(|cause| Error::internal(path.display()).because(cause))?;
        let user = match request.user.as_str() {
            "" => None,
            user => {
                let (root, _) = self.root(id, Purpose::Look)?;
                let record = self.find(id)?.record();
                Some(prepare::resolve_user(&root, user, &record.effective.group_add)?)
            }
        };
        let available = self.settings().defaults.host.capabilities;
        spec::process(request, &config, user, available).map_err(Error::invalid)
    }

    /// The same, as the runtime takes it.
    fn exec_json(&self, id: &str, request: &v1::CreateExecRequest) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.exec_process(id, request)?)
            .map_err(|cause| Error::internal("the process").because(cause))
    }

    /// Waits for the end of an exec, and notes it before the shim forgets it.
    async fn watch_exec(self: Arc<Self>, record: Arc<Record>, exec: Arc<Exec>, shim: Shim) {
        let result = shim.wait(&exec.id).await;
        let code = result.map_or(KILLED, |end| i32::try_from(end.status).unwrap_or(255));
        self.execs.end(&exec, Some(code));
        let code = code.to_string();
        self.event(&record, "exec_die", &[("execID", &exec.id), ("exitCode", &code)]);
        // Its streams end with this at the latest.
        if let Err(error) = shim.delete(&exec.id).await
            && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable)
        {
            tracing::warn!(exec = %exec.id, %error, "not deleted");
        }
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// In docker's words.
    pub async fn create_exec(
        &self,
        request: v1::CreateExecRequest,
    ) -> Result<v1::CreateExecResponse> {
        let handle = self.find(&request.container)?;
        handle.shim(Ask::Exec, &request.container)?;
        let process = self.0.exec_json(&handle.id, &request)?;
        let id = name::random_id()?;
        let command = request.command.join(" ");
        self.0.execs.add(&id, &handle.id, request, process)?;
        let action = format!("exec_create: {command}");
        self.0.event(&handle.record(), &action, &[("execID", &id)]);
        Ok(v1::CreateExecResponse { exec_id: id })
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such exec instance: …`.
    pub async fn inspect_exec(&self, request: v1::InspectExecRequest) -> Result<v1::Exec> {
        let exec = self.0.execs.find(&request.exec_id)?;
        let state = exec.now();
        Ok(v1::Exec {
            id: exec.id.clone(),
            container_id: exec.container.clone(),
            running: state.is_running(),
            exit_code: state.exit_code,
            pid: state.pid,
            options: Some(exec.request.clone()),
        })
    }

    /// As in containers.proto. The first message is `open`.
    ///
    /// # Errors
    /// In docker's words; the runtime's sentence.
    pub async fn start_exec(
        &self,
        mut messages: Messages<v1::StartExecRequest>,
    ) -> Result<Answers<v1::AttachResponse>> {
        let first = messages.recv().await.and_then(|message| message.message);
        let Some(Message::Open(open)) = first else {
            return Err(Error::invalid("the first message of an exec must be open"));
        };
        let exec = self.0.execs.find(&open.exec_id)?;
        let handle = self.find(&exec.container)?;
        let shim = handle.shim(Ask::Exec, &exec.container)?;
        let size = open.size.as_ref().map(attach::size).transpose()?;
        let process = match exec.take_prepared() {
            Some(process) => process,
            // Of an earlier manager.
            None => self.0.exec_json(&exec.container, &exec.request)?,
        };
        self.0.execs.begin(&exec)?;
        let command = exec.request.command.join(" ");
        let record = handle.record();
        let started = async {
            let session = Session::open(&exec, &shim, open.detach)?;
            shim.exec(&exec.id, process, session.streams.clone()).await?;
            let pid = shim.start(&exec.id).await?;
            self.0.execs.change(&exec, |state| state.pid = pid)?;
            Ok(session)
        };
        let session = match started.await {
            Ok(session) => session,
            Err(error) => {
                self.0.execs.end(&exec, Some(start_failed(&error)));
                // It was made in the shim, but for a failure of its making.
                let _ = shim.delete(&exec.id).await;
                return Err(error);
            }
        };
        self.0.event(&record, &format!("exec_start: {command}"), &[("execID", &exec.id)]);
        if let Some((columns, rows)) = size.filter(|_| exec.request.tty) {
            // It may have ended.
            let _ = shim.resize(&exec.id, columns.into(), rows.into()).await;
        }
        let watching = Arc::clone(&self.0);
        tokio::spawn(watching.watch_exec(record, Arc::clone(&exec), shim.clone()));
        let (answers, answered) = mpsc::channel(ANSWERS);
        let attached = attach_response::Message::Attached(v1::Attached { tty: exec.request.tty });
        // The receiver is ours yet.
        let _ = answers.send(Ok(v1::AttachResponse { message: Some(attached) })).await;
        if !open.detach {
            tokio::spawn(session.relay(exec, shim, messages, answers));
        }
        Ok(answered)
    }
}

/// docker's exit code of an exec that could not be started.
fn start_failed(error: &Error) -> i32 {
    let text = error.to_string();
    let found = ["executable file not found", "no such file or directory"];
    if found.iter().any(|phrase| text.contains(phrase)) { 127 } else { 126 }
}
