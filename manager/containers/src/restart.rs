//! When a container that has ended is started again. Pure.

use std::time::Duration;

use hull_specs_api::v1::{RestartPolicy, restart_policy::Name};

/// The first pause before a restart, and the longest; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A run of this length was a success: the next pause is the first again.
const LONG_RUN: Duration = Duration::from_secs(10);

/// The pauses between the runs of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    last: Duration,
}

impl Backoff {
    /// How long to pause after a run of this length.
    pub(crate) fn next(&mut self, run: Duration) -> Duration {
        self.last = match self.last {
            _ if run >= LONG_RUN => PAUSES.0,
            Duration::ZERO => PAUSES.0,
            last => (last * 2).min(PAUSES.1),
        };
        self.last
    }
}

/// What is known when a policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion {
    pub(crate) exit_code: i32,
    /// The user has stopped it since it was last started by one.
    pub(crate) stopped_by_user: bool,
    /// Restarts by the policy until now.
    pub(crate) restarts: u32,
    /// The manager comes up, rather than that the process has just ended.
    pub(crate) at_boot: bool,
}

/// Whether the policy starts the container again.
pub(crate) fn wants(policy: Option<&RestartPolicy>, occasion: Occasion) -> bool {
    let Some(policy) = policy else { return false };
    match policy.name() {
        Name::No => false,
        // What `stop` has ended stays so until the manager comes up anew.
        Name::Always => occasion.at_boot || !occasion.stopped_by_user,
        Name::UnlessStopped => !occasion.stopped_by_user,
        Name::OnFailure => {
            let may = policy.max_retries == 0 || occasion.restarts < policy.max_retries;
            occasion.exit_code != 0 && !occasion.stopped_by_user && may
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_a_long_run_resets_them() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[10..], [60_000, 60_000]);
        assert_eq!(backoff.next(LONG_RUN), PAUSES.0);
        assert_eq!(backoff.next(short), PAUSES.0 * 2);
    }

    #[test]
    fn policies_answer_as_dockers() {
        let policy = |name: Name, max_retries| RestartPolicy { name: name.into(), max_retries };
        let end = |exit_code, stopped_by_user, restarts, at_boot| Occasion {
            exit_code,
            stopped_by_user,
            restarts,
            at_boot,
        };
        for (policy, occasion, expected) in [
            (policy(Name::No, 0), end(1, false, 0, false), false),
            (policy(Name::No, 0), end(1, false, 0, true), false),
            (policy(Name::Always, 0), end(0, false, 99, false), true),
            (policy(Name::Always, 0), end(0, true, 0, false), false),
            (policy(Name::Always, 0), end(0, true, 0, true), true),
            (policy(Name::UnlessStopped, 0), end(0, false, 0, true), true),
            (policy(Name::UnlessStopped, 0), end(0, true, 0, true), false),
            (policy(Name::UnlessStopped, 0), end(0, true, 0, false), false),
            (policy(Name::OnFailure, 0), end(0, false, 0, false), false),
            (policy(Name::OnFailure, 0), end(1, false, 50, false), true),
            (policy(Name::OnFailure, 2), end(1, false, 1, false), true),
            (policy(Name::OnFailure, 2), end(1, false, 2, false), false),
            (policy(Name::OnFailure, 2), end(1, true, 0, true), false),
        ] {
            assert_eq!(wants(Some(&policy), occasion), expected, "{policy:?} {occasion:?}");
        }
        assert!(!wants(None, end(1, false, 0, false)));
    }
}
