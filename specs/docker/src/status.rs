//! The state of a container in Docker's words: one word, and the sentence of `docker ps`.

use std::time::SystemTime;

use hull_specs_api::v1::{ContainerState, Status};

use crate::{time, units};

/// `running`, `exited`, …
#[must_use]
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Unspecified | Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Removing => "removing",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`, …
#[must_use]
pub fn sentence(state: &ContainerState, now: SystemTime) -> String {
    let since = |at| units::span(time::age_seconds(at, now));
    let (started, finished) = (state.started.as_ref(), state.finished.as_ref());
    match state.status() {
        Status::Unspecified | Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(finished)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(finished))
        }
        Status::Paused => format!("Up {} (Paused)", since(started)),
        Status::Running => match state.health.as_ref().map(|health| health.status.as_str()) {
            None | Some("" | "none") => format!("Up {}", since(started)),
            Some("starting") => format!("Up {} (health: starting)", since(started)),
            Some(health) => format!("Up {} ({health})", since(started)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use hull_specs_api::v1::HealthState;

    use super::*;

    #[test]
    fn sentences_are_those_of_docker() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let state = ContainerState {
            started: at(700),
            finished: at(998),
            exit_code: 3,
            ..ContainerState::default()
        };
        for (status, health, text) in [
            (Status::Created, "", "Created"),
            (Status::Running, "", "Up 5 minutes"),
            (Status::Running, "starting", "Up 5 minutes (health: starting)"),
            (Status::Running, "healthy", "Up 5 minutes (healthy)"),
            (Status::Running, "unhealthy", "Up 5 minutes (unhealthy)"),
            (Status::Paused, "", "Up 5 minutes (Paused)"),
            (Status::Restarting, "", "Restarting (3) 2 seconds ago"),
            (Status::Exited, "", "Exited (3) 2 seconds ago"),
            (Status::Removing, "", "Removal In Progress"),
            (Status::Dead, "", "Dead"),
        ] {
            let health = HealthState { status: health.into(), ..HealthState::default() };
            let state =
                ContainerState { health: Some(health), status: status.into(), ..state.clone() };
            assert_eq!(sentence(&state, now), text);
        }
    }
}
