//! The client against registries: Debian's docker-registry, and scripted ones that are hostile.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod credentials;
mod debian;
mod failures;
mod lab;
mod mirrors;
mod sample;
mod transfer;
mod trust;

/// A settings' default with short times, for servers on this machine.
fn settings() -> hull_manager_registry::Settings {
    use std::time::Duration;
    hull_manager_registry::Settings {
        limits: hull_manager_registry::Limits {
            connect: Duration::from_secs(5),
            backoff: Duration::from_millis(10),
            // Less than a registry asks for in these tests and is given.
            backoff_max: Duration::from_secs(2),
            ..Default::default()
        },
        ..Default::default()
    }
}
