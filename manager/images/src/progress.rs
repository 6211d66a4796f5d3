//! Telling a person who waits.

use std::time::{Duration, Instant};

use hull_specs_api::v1::{Progress, progress::Phase};

/// At most so often for one thing.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where reports go. What can't be taken at once is left out: the next one says more.
pub(crate) type Report = std::sync::Arc<dyn Fn(Progress) + Send + Sync>;

/// The progress of one thing.
#[derive(Clone)]
pub(crate) struct Meter {
    report: Report,
    id: String,
    total: u64,
    last: Option<(Phase, Instant)>,
}

impl Meter {
    pub(crate) fn new(report: &Report, id: impl Into<String>, total: u64) -> Self {
        Self { report: report.clone(), id: id.into(), total, last: None }
    }

    /// It is in this phase, and so far.
    pub(crate) fn tell(&mut self, phase: Phase, current: u64) {
        let now = Instant::now();
        let recent = self.last.is_some_and(|(last, at)| last == phase && now - at < INTERVAL);
        if !recent {
            self.last = Some((phase, now));
            self.say(phase, current, "");
        }
    }

    /// With a sentence.
    pub(crate) fn say(&self, phase: Phase, current: u64, message: &str) {
        (self.report)(progress(&self.id, phase, current, self.total, message));
    }
}

/// A report.
pub(crate) fn progress(
    id: &str,
    phase: Phase,
    current: u64,
    total: u64,
    message: &str,
) -> Progress {
    Progress {
        id: id.to_owned(),
        phase: phase.into(),
        current_bytes: current,
        total_bytes: total,
        message: message.to_owned(),
    }
}
