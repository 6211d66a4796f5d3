//! Waiting for a condition: the only place of the harness that sleeps.

use std::env;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what takes a moment on an idle machine. Only a failure waits it
/// out, so it is meant for the busiest.
pub const SOON: Duration = Duration::from_secs(60);

/// How many times longer than elsewhere everything may take: emulated machines are slow.
pub(crate) fn patience() -> u32 {
    static TIMES: LazyLock<u32> = LazyLock::new(|| match env::var("HULL_PATIENCE") {
        Ok(text) => text.parse().expect("HULL_PATIENCE is a number"),
        Err(_) => 1,
    });
    *TIMES
}

/// Waits until `condition` gives a value; panics, naming `what`, at the deadline.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    poll(limit, condition).unwrap_or_else(|| panic!("{what}: did not happen within {limit:?}"))
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Asks for a value again and again, until there is one or the time is over.
pub(crate) fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit * patience();
    let mut pause = Duration::from_millis(1);
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= deadline {
            return value;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
