//! The task service, as containerd calls it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::protobuf::{Enum, Message};
use containerd_shim_protos::ttrpc::Request;

pub use containerd_shim_protos::ttrpc::Code;

use super::SOON;
use super::connection::Connection;
use crate::note;

/// Messages of the task service.
pub mod rpc {
    pub use containerd_shim_protos::api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        Mount, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    };
    pub use containerd_shim_protos::cgroups::metrics::Metrics as MetricsV1;
    pub use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
    pub use containerd_shim_protos::protobuf::well_known_types::any::Any;
    pub use containerd_shim_protos::protobuf::{Message, MessageDyn};
    pub use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
    pub use containerd_shim_protos::shim::oci::{CheckpointOptions, Options, ProcessDetails};
    pub use containerd_shim_protos::types::introspection::RuntimeInfo;
}

/// The two names under which the same service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What containerd 1 calls.
    V2,
    /// What containerd 2 calls.
    V3,
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its code; none when the connection failed.
    pub code: Option<Code>,
    /// Its text.
    pub message: String,
}

/// A connection to a shim.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Arc<Connection>,
    service: String,
}

impl Client {
    /// Connects to the address that `start` gave.
    #[track_caller]
    pub fn connect(address: &str, version: Version) -> Self {
        let connection = Connection::open(address.trim_start_matches("unix://"))
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        let service = match version {
            Version::V2 => "containerd.task.v2.Task",
            Version::V3 => "containerd.task.v3.Task",
        };
        Self { connection: Arc::new(connection), service: service.to_owned() }
    }

    /// The same connection, to another service.
    #[must_use]
    pub fn service(&self, name: &str) -> Self {
        Self { connection: Arc::clone(&self.connection), service: name.to_owned() }
    }

    /// Calls a method.
    pub fn call<Q: Message + Display, A: Message + Display>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, Refusal> {
        self.call_within(SOON, method, request)
    }

    /// Calls a method and waits so long for its answer.
    pub fn call_within<Q: Message + Display, A: Message + Display>(
        &self,
        limit: Duration,
        method: &str,
        request: &Q,
    ) -> Result<A, Refusal> {
        let message = Request {
            service: self.service.clone(),
            method: method.to_owned(),
            payload: request.write_to_bytes().expect("a message can be written"),
            timeout_nano: i64::try_from(limit.as_nanos()).expect("a short time"),
            ..Request::default()
        };
        let result = match self.connection.call(&message, limit) {
            Ok(response) => match response.status.into_option() {
                Some(status) if status.code.value() != Code::OK.value() => Err(Refusal {
                    code: Some(status.code.enum_value_or(Code::UNKNOWN)),
                    message: status.message,
                }),
                _ => Ok(A::parse_from_bytes(&response.payload).expect("the right message")),
            },
            Err(message) => Err(Refusal { code: None, message }),
        };
        if !matches!(method, "State" | "Pids" | "Stats") {
            let answer = match &result {
                Ok(answer) => format!("{answer}"),
                Err(refusal) => format!("{refusal:?}"),
            };
            note(&format!("{method}({request}) -> {answer}"));
        }
        result
    }
}
