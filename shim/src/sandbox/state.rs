//! What may be asked of a sandbox in which state.
//!
//! ```text
//! created ──start──> ready ──stop──> stopping ──> stopped ──shutdown──> gone
//!    └──────────────stop─────────────────^
//! ```
//!
//! Nothing else ends a sandbox: it has no process of its own.

use crate::ttrpc::{Failure, Kind};

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Created,
    Ready,
    /// Its containers are being ended.
    Stopping,
    Stopped,
    /// containerd is done with it; its shim stays only for containers that are not deleted.
    Gone,
}

/// What is asked of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Start,
    /// Make or start a container in it.
    Use,
    Ping,
    Stop,
    Shutdown,
    /// Its state, its end, its numbers.
    Look,
}

impl State {
    /// The CRI's name, which containerd passes on.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ready => "SANDBOX_READY",
            Self::Created | Self::Stopping | Self::Stopped | Self::Gone => "SANDBOX_NOTREADY",
        }
    }
}

/// Whether a request may be tried; if not, why.
pub(super) fn check(id: &str, state: State, request: Request) -> Result<(), Failure> {
    use Request as R;
    use State as S;
    let refusal = match (state, request) {
        (S::Gone, R::Start | R::Use | R::Ping | R::Stop | R::Look) => return Err(missing(id)),
        (S::Created, R::Use | R::Ping) => "is not started",
        (S::Ready, R::Start) => "is started already",
        (S::Stopping | S::Stopped, R::Start | R::Use | R::Ping) => "is stopped",
        (S::Created, R::Start)
        | (S::Ready, R::Use | R::Ping)
        | (S::Created | S::Ready | S::Stopping | S::Stopped, R::Stop | R::Look)
        | (_, R::Shutdown) => return Ok(()),
    };
    Err(Failure::new(Kind::FailedPrecondition, format!("sandbox {id} {refusal}")))
}

/// The answer for a sandbox that this shim does not have.
pub(super) fn missing(id: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("sandbox {id}: not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_sense_is_tried() {
        use Request::*;
        let all = [Start, Use, Ping, Stop, Shutdown, Look];
        for (state, allowed) in [
            (State::Created, &[Start, Stop, Shutdown, Look][..]),
            (State::Ready, &[Use, Ping, Stop, Shutdown, Look]),
            (State::Stopping, &[Stop, Shutdown, Look]),
            (State::Stopped, &[Stop, Shutdown, Look]),
            (State::Gone, &[Shutdown]),
        ] {
            for request in all {
                let allowed = allowed.contains(&request);
                assert_eq!(check("s", state, request).is_ok(), allowed, "{state:?} {request:?}");
            }
        }
    }

    #[test]
    fn a_refusal_is_of_the_class_that_containerd_asks_for() {
        let failure = check("s", State::Stopped, Request::Use).unwrap_err();
        assert_eq!(failure.kind, Kind::FailedPrecondition);
        assert_eq!(failure.message, "sandbox s is stopped");
        // containerd takes this one for "nothing left to stop".
        assert_eq!(check("s", State::Gone, Request::Stop).unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn only_a_started_sandbox_is_ready() {
        for state in [State::Created, State::Stopping, State::Stopped, State::Gone] {
            assert_eq!(state.name(), "SANDBOX_NOTREADY");
        }
        assert_eq!(State::Ready.name(), "SANDBOX_READY");
    }
}
