//! Failures in gRPC's form: the one place that maps kinds to codes.

use hull_manager_core::{Error, ErrorKind};
use tonic::{Code, Status};

/// What a client gets for a failure: its code, and its sentence as the message.
#[must_use]
pub fn status(error: Error) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    };
    if matches!(code, Code::Internal | Code::DataLoss) {
        tracing::error!("{error}");
    } else {
        tracing::debug!(?code, "{error}");
    }
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_kind_and_its_sentence() {
        let status = status(Error::not_found("No such container: x"));
        assert_eq!((status.code(), status.message()), (Code::NotFound, "No such container: x"));
    }
}
