//! What may be asked of a process in which state.
//!
//! ```text
//! created ──start──> running <──resume── paused
//!    │                  │  └───pause──────^ │
//!    └──────exit────> stopped <────exit─────┘ ──delete──> gone
//! ```
//!
//! The refusals are containerd's shim's, word by word, because its users know them; they say of
//! which class they are, where that one says "unknown".

use crate::ttrpc::{Failure, Kind};

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Created,
    Running,
    Pausing,
    Paused,
    Stopped,
    /// Deleted while somebody still had hold of it.
    Deleted,
}

/// What is asked of a container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Start,
    Pause,
    Resume,
    Exec,
    Checkpoint,
    Update,
    Delete,
}

/// Whether a request may be tried; if not, why.
pub(super) fn check(state: State, request: Request) -> Result<(), Failure> {
    use Request as R;
    use State as S;
    let refusal = match (state, request) {
        (S::Created, R::Pause) => "cannot pause task in created state",
        (S::Created, R::Resume) => "cannot resume task in created state",
        (S::Created, R::Checkpoint) => "cannot checkpoint a task in created state",
        (S::Running | S::Pausing, R::Start) => "cannot start a running process",
        (S::Running | S::Pausing, R::Resume) => "cannot resume a running process",
        (S::Running | S::Pausing, R::Delete) => "cannot delete a running process",
        (S::Pausing | S::Paused, R::Pause) => "cannot pause a paused container",
        (S::Paused, R::Start) => "cannot start a paused process",
        (S::Paused, R::Delete) => "cannot delete a paused process",
        (S::Pausing | S::Paused, R::Exec) => "cannot exec in a paused state",
        (S::Stopped, R::Start) => "cannot start a stopped process",
        (S::Stopped, R::Pause) => "cannot pause a stopped container",
        (S::Stopped, R::Resume) => "cannot resume a stopped container",
        (S::Stopped, R::Exec) => "cannot exec in a stopped state",
        (S::Stopped, R::Checkpoint) => "cannot checkpoint a stopped container",
        (S::Stopped, R::Update) => "cannot update a stopped container",
        (S::Deleted, R::Delete) => {
            let text = "cannot delete a deleted process: not found";
            return Err(Failure::new(Kind::NotFound, text));
        }
        (S::Deleted, R::Start) => "cannot start a deleted process",
        (S::Deleted, R::Pause) => "cannot pause a deleted process",
        (S::Deleted, R::Resume) => "cannot resume a deleted process",
        (S::Deleted, R::Exec) => "cannot exec in a deleted state",
        (S::Deleted, R::Checkpoint) => "cannot checkpoint a deleted process",
        (S::Deleted, R::Update) => "cannot update a deleted process",
        (S::Created, R::Start | R::Exec | R::Update | R::Delete)
        | (S::Running, R::Pause | R::Exec | R::Checkpoint | R::Update)
        | (S::Pausing, R::Checkpoint | R::Update)
        | (S::Paused, R::Resume | R::Checkpoint | R::Update)
        | (S::Stopped, R::Delete) => return Ok(()),
    };
    Err(Failure::new(Kind::FailedPrecondition, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_sense_is_tried() {
        use Request::*;
        let all = [Start, Pause, Resume, Exec, Checkpoint, Update, Delete];
        for (state, allowed) in [
            (State::Created, &[Start, Exec, Update, Delete][..]),
            (State::Running, &[Pause, Exec, Checkpoint, Update]),
            (State::Pausing, &[Checkpoint, Update]),
            (State::Paused, &[Resume, Checkpoint, Update]),
            (State::Stopped, &[Delete]),
            (State::Deleted, &[]),
        ] {
            for request in all {
                let allowed = allowed.contains(&request);
                assert_eq!(check(state, request).is_ok(), allowed, "{state:?} {request:?}");
            }
        }
    }

    #[test]
    fn what_is_gone_is_not_found() {
        let failure = check(State::Deleted, Request::Delete).unwrap_err();
        assert_eq!(failure.kind, Kind::NotFound);
    }
}
