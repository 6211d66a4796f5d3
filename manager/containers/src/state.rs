//! What may be asked of a container in which state. Pure.
//!
//! ```text
//!                 ┌──────────── start ────────────┐
//! created ─start─> running <─unpause── paused     │
//!    │             │  ^ └──────pause─────^ │      │
//!    │             │  └─restarting         │      │
//!    │             │        ^  │ stop      │      │
//!    │             └─exit───┴──┴───────────┴─> exited
//!    └──────────────remove──> removing <──remove──┘
//! ```
//!
//! The refusals are docker's, word by word, because tools match on them.

use hull_manager_core::{Error, Result};
use hull_specs_api::v1::Status;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Start,
    Stop,
    Kill,
    Pause,
    Unpause,
    Remove {
        force: bool,
    },
    Rename,
    Update,
    /// Or disconnect.
    Connect,
    Exec,
    Attach,
    Top,
    Resize,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Do,
    /// It is so already.
    Nothing,
}

/// Whose state it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// As the caller called it.
    pub(crate) called: &'a str,
}

/// Whether a request may be tried; if not, why.
pub(crate) fn judge(status: Status, ask: Ask, whose: Whose<'_>) -> Result<Verdict> {
    use Status as S;
    let id = whose.id;
    let running = matches!(status, S::Running | S::Paused);
    let not_running = || format!("Container {id} is not running");
    let restarting =
        || format!("Container {id} is restarting, wait until the container is running");
    let refusal = match ask {
        Ask::Start => match status {
            S::Running => return Ok(Verdict::Nothing),
            S::Paused => "cannot start a paused container, try unpause instead".into(),
            S::Removing | S::Dead => "container is marked for removal and cannot be started".into(),
            _ => return Ok(Verdict::Do),
        },
        Ask::Stop => match status {
            S::Running | S::Paused | S::Restarting => return Ok(Verdict::Do),
            _ => return Ok(Verdict::Nothing),
        },
        Ask::Kill => match running {
            true => return Ok(Verdict::Do),
            false => format!("Cannot kill container: {}: {}", whose.called, not_running()),
        },
        Ask::Pause => match status {
            S::Running => return Ok(Verdict::Do),
            S::Paused => format!("Container {id} is already paused"),
            S::Restarting => restarting(),
            _ => not_running(),
        },
        Ask::Unpause => match status {
            S::Paused => return Ok(Verdict::Do),
            _ => format!("Container {id} is not paused"),
        },
        Ask::Remove { force } => {
            let why = match status {
                S::Removing => {
                    return Err(Error::conflict(format!(
                        "removal of container {} is already in progress",
                        whose.called
                    )));
                }
                _ if force => return Ok(Verdict::Do),
                S::Paused => "container is paused and must be unpaused first",
                S::Running => {
                    "container is running: stop the container before removing or force remove"
                }
                S::Restarting => {
                    "container is restarting: stop the container before removing or force remove"
                }
                _ => return Ok(Verdict::Do),
            };
            format!("cannot remove container \"/{}\": {why}", whose.name)
        }
        Ask::Rename | Ask::Update => match status {
            S::Removing | S::Dead => {
                let what = if ask == Ask::Rename { "renamed" } else { "updated" };
                format!("Container {id} is marked for removal and cannot be {what}")
            }
            _ => return Ok(Verdict::Do),
        },
        Ask::Connect => match status {
            S::Removing | S::Dead => format!(
                "Container {id} is marked for removal and cannot be connected or disconnected to the network"
            ),
            S::Restarting => restarting(),
            _ => return Ok(Verdict::Do),
        },
        Ask::Exec => match status {
            S::Running => return Ok(Verdict::Do),
            S::Paused => format!("Container {id} is paused, unpause the container before exec"),
            S::Restarting => restarting(),
            _ => not_running(),
        },
        Ask::Attach => match status {
            S::Paused => format!("Container {id} is paused, unpause the container before attach"),
            S::Restarting => restarting(),
            S::Removing | S::Dead => not_running(),
            _ => return Ok(Verdict::Do),
        },
        Ask::Top => match status {
            S::Running | S::Paused => return Ok(Verdict::Do),
            S::Restarting => restarting(),
            _ => not_running(),
        },
        Ask::Resize => match running {
            true => return Ok(Verdict::Do),
            false => not_running(),
        },
    };
    Err(Error::conflict(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: Whose<'static> = Whose { id: "f00", name: "web", called: "we" };
    const ALL: [Status; 7] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];

    fn done(ask: Ask) -> Vec<Status> {
        let may = |status: &Status| judge(*status, ask, WHOSE).is_ok_and(|v| v == Verdict::Do);
        ALL.into_iter().filter(may).collect()
    }

    #[test]
    fn each_request_has_its_states() {
        use Status::*;
        for (ask, states) in [
            (Ask::Start, &[Created, Restarting, Exited][..]),
            (Ask::Stop, &[Running, Paused, Restarting]),
            (Ask::Kill, &[Running, Paused]),
            (Ask::Pause, &[Running]),
            (Ask::Unpause, &[Paused]),
            (Ask::Remove { force: false }, &[Created, Exited, Dead]),
            (Ask::Remove { force: true }, &[Created, Running, Paused, Restarting, Exited, Dead]),
            (Ask::Rename, &[Created, Running, Paused, Restarting, Exited]),
            (Ask::Update, &[Created, Running, Paused, Restarting, Exited]),
            (Ask::Connect, &[Created, Running, Paused, Exited]),
            (Ask::Exec, &[Running]),
            (Ask::Attach, &[Created, Running, Exited]),
            (Ask::Top, &[Running, Paused]),
            (Ask::Resize, &[Running, Paused]),
        ] {
            assert_eq!(done(ask), states, "{ask:?}");
        }
    }

    #[test]
    fn what_is_so_already_is_no_error() {
        assert_eq!(judge(Status::Running, Ask::Start, WHOSE).unwrap(), Verdict::Nothing);
        for status in [Status::Created, Status::Exited, Status::Dead] {
            assert_eq!(judge(status, Ask::Stop, WHOSE).unwrap(), Verdict::Nothing);
        }
    }

    #[test]
    fn refusals_are_dockers() {
        for (status, ask, text) in [
            (Status::Exited, Ask::Kill, "Cannot kill container: we: Container f00 is not running"),
            (Status::Exited, Ask::Exec, "Container f00 is not running"),
            (
                Status::Paused,
                Ask::Exec,
                "Container f00 is paused, unpause the container before exec",
            ),
            (
                Status::Running,
                Ask::Remove { force: false },
                "cannot remove container \"/web\": container is running: \
                 stop the container before removing or force remove",
            ),
            (Status::Paused, Ask::Start, "cannot start a paused container, try unpause instead"),
            (Status::Running, Ask::Unpause, "Container f00 is not paused"),
        ] {
            assert_eq!(judge(status, ask, WHOSE).unwrap_err().message(), text);
        }
    }
}
