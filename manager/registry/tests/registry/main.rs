//! The client against registries: Debian's docker-registry, and scripted ones that are hostile.
#![forbid(unsafe_code)]

mod debian;
mod sample;

/// A settings' default with short times, for servers on this machine.
fn settings() -> hull_manager_registry::Settings {
    use std::time::Duration;
    hull_manager_registry::Settings {
        limits: hull_manager_registry::Limits {
            connect: Duration::from_secs(10),
            backoff: Duration::from_millis(10),
            ..Default::default()
        },
        ..Default::default()
    }
}
