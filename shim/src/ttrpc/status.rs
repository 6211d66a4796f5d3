//! How a request fails, in the classes that containerd tells apart.

use containerd_shim_protos::ttrpc::proto::{Code, Status};
use protobuf::EnumOrUnknown;

use crate::log;

/// The class of a failure. containerd makes its own errors of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidArgument,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    DeadlineExceeded,
    ResourceExhausted,
    Unimplemented,
    /// Everything else: containerd shows the text alone.
    Unknown,
}

/// A request that failed, and the sentence that the user reads.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn status(self) -> Status {
        let code = match self.kind {
            Kind::InvalidArgument => Code::INVALID_ARGUMENT,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::AlreadyExists => Code::ALREADY_EXISTS,
            Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
            Kind::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
            Kind::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
            Kind::Unimplemented => Code::UNIMPLEMENTED,
            Kind::Unknown => Code::UNKNOWN,
        };
        Status { code: EnumOrUnknown::new(code), message: self.message, ..Status::default() }
    }
}

impl From<anyhow::Error> for Failure {
    /// The whole chain, as one sentence.
    fn from(error: anyhow::Error) -> Self {
        Self::new(Kind::Unknown, log::sentence(&error))
    }
}

impl From<hull_runtime_sys::Error> for Failure {
    fn from(error: hull_runtime_sys::Error) -> Self {
        Self::new(Kind::Unknown, error.to_string())
    }
}

impl From<protobuf::Error> for Failure {
    fn from(error: protobuf::Error) -> Self {
        Self::new(Kind::InvalidArgument, format!("the request cannot be read: {error}"))
    }
}
