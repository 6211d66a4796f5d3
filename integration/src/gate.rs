//! Gates: a test that this machine or this peer cannot run says so and is counted.
//!
//! Three kinds, kept apart in the totals. `require!` is about the machine and is fatal
//! when `HULL_REQUIRE_ALL=1`. `peer_lacks!` is about a reference implementation that
//! is older than the feature. `weak_peer!` is the control of an attack: where the
//! reference is known to be weak, the attack has to work. The last two never apply to
//! hull-runtime.

use std::panic;

/// Why a test ended without a verdict.
#[derive(Debug)]
pub enum NotRun {
    /// The machine lacks something.
    Missing(String),
    /// The driven peer lacks the feature.
    PeerLacks(String),
    /// The driven peer is known to be weak, and the attack worked on it.
    Control(String),
}

/// Ends the running test without a verdict.
pub fn not_run(why: NotRun) -> ! {
    // Not a panic: the hook, which reports failures, must not see it.
    panic::resume_unwind(Box::new(why))
}

/// Ends the test as not run, with a reason, unless the condition holds.
#[macro_export]
macro_rules! require {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            $crate::not_run($crate::NotRun::Missing(format!($($reason)+)));
        }
    };
}

/// Ends the test as not applicable when the driven runtime is the named peer, of at
/// most the named version: `peer_lacks!("runc 1.1", "rro is newer")` holds for every
/// 1.1.x; `peer_lacks!("crun", ...)` for every crun.
#[macro_export]
macro_rules! peer_lacks {
    ($peer:expr, $($reason:tt)+) => {
        if $crate::runtime().is_at_most($peer) {
            $crate::not_run($crate::NotRun::PeerLacks(format!("{}: {}", $peer, format!($($reason)+))));
        }
    };
}

/// Judges an attack. On the named peer, of at most the named version, it has to have
/// worked, or the attack proves nothing; on every other runtime it must not have.
#[macro_export]
macro_rules! weak_peer {
    ($peer:expr, $advisory:expr, $worked:expr, $($evidence:tt)+) => {{
        let worked: bool = $worked;
        if $crate::runtime().is_at_most($peer) {
            assert!(worked, "{} is open to {}, yet the attack failed: {}", $peer, $advisory, format!($($evidence)+));
            $crate::not_run($crate::NotRun::Control(format!("{} on {}", $advisory, $peer)));
        }
        assert!(!worked, "{}: {}", $advisory, format!($($evidence)+));
    }};
}
