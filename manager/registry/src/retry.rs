//! When to try again, and how long to wait before. Pure, but for the dice.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use crate::settings::Limits;

/// Content that came since the last failures makes up for one of them.
const PROGRESS_BYTES: u64 = 8 << 20;

/// The failures that are still borne.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    retries: u32,
    failures: u32,
    progress_bytes: u64,
    /// A failure came that is borne once.
    is_strained: bool,
}

impl Patience {
    /// For so many failures in a row.
    pub(crate) fn new(retries: u32) -> Self {
        Self { retries, failures: 0, progress_bytes: 0, is_strained: false }
    }

    /// Content came. One byte is no progress: a stranger could make us connect without end.
    pub(crate) fn progress(&mut self, bytes: u64) {
        self.progress_bytes += bytes;
        while self.progress_bytes >= PROGRESS_BYTES {
            self.progress_bytes -= PROGRESS_BYTES;
            self.failures = self.failures.saturating_sub(1);
            self.is_strained = false;
        }
    }

    /// Whether a failure may be borne of which a second one says that there will be a third.
    pub(crate) fn once(&mut self) -> bool {
        !std::mem::replace(&mut self.is_strained, true)
    }

    /// How long to wait after one more failure; nothing if that was one too many, or the
    /// registry wants us to wait longer than we do. `dice` is in 0..1.
    pub(crate) fn wait(
        &mut self,
        limits: &Limits,
        asked: Option<Duration>,
        dice: f64,
    ) -> Option<Duration> {
        if self.failures >= self.retries {
            return None;
        }
        let longest = limits.backoff.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        match asked {
            Some(asked) => (asked <= limits.backoff_max).then_some(asked.max(limits.backoff / 2)),
            // At least half of it: whoever is overloaded gains nothing from haste.
            None => Some(longest.min(limits.backoff_max).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)),
        }
    }
}

/// A number in 0..1, different in each process and each time: many machines that failed at once
/// must not come back at once.
pub(crate) fn dice() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Whether an answer may be another one later.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
pub(crate) fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let limits = Limits {
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(3),
            ..Limits::default()
        };
        let mut patience = Patience::new(3);
        let mut waits = Vec::new();
        while let Some(wait) = patience.wait(&limits, None, 1.0) {
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 3]);
        patience.progress(PROGRESS_BYTES - 1);
        assert_eq!(patience.wait(&limits, None, 0.0), None);
        patience.progress(1);
        assert_eq!(patience.wait(&limits, None, 0.0), Some(Duration::from_millis(1500)));
        let mut patience = Patience::new(3);
        let two = Duration::from_secs(2);
        assert_eq!(patience.wait(&limits, Some(two), 0.0), Some(two));
        assert_eq!(patience.wait(&limits, Some(two * 2), 0.0), None);
        assert!(patience.once() && !patience.once());
        patience.progress(PROGRESS_BYTES);
        assert!(patience.once());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(asked(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert!((0.0..=1.0).contains(&dice()));
    }
}
