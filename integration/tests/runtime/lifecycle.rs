//! create, start, state, kill, delete and what each refuses.

use std::time::Duration;

use hull_integration::{Bundle, Container, tests, wait_until};

tests![a_container_is_created_started_killed_and_deleted];

fn a_container_is_created_started_killed_and_deleted() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    container.kill("TERM").ok();
    wait_until("stopped", Duration::from_secs(5), || container.status() == "stopped");
    container.delete().ok();
    container.command("state", &[]).fails_with("container does not exist");
    container.assert_gone();
}
