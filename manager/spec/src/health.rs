//! Health checks.

use hull_specs_api::v1;
use hull_specs_image::config::Health as ImageHealth;

use crate::error::{Result, must};

/// The shortest time of a health check, as docker has it.
const MINIMUM_NS: i128 = 1_000_000;

fn nanoseconds(duration: &prost_types::Duration) -> i128 {
    i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
}

fn duration(nanoseconds: i64) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
    (nanoseconds != 0)
        .then_some(prost_types::Duration { seconds: nanoseconds / 1_000_000_000, nanos })
}

/// Field by field: what was asked for, else the image's.
pub(crate) fn merge(asked: Option<v1::Health>, image: Option<&ImageHealth>) -> Option<v1::Health> {
    let Some(image) = image else { return asked };
    let asked = asked.unwrap_or_default();
    let retries = u32::try_from(image.retries).unwrap_or(0);
    Some(v1::Health {
        test: if asked.test.is_empty() { image.test.clone() } else { asked.test },
        interval: asked.interval.or(duration(image.interval)),
        timeout: asked.timeout.or(duration(image.timeout)),
        start_period: asked.start_period.or(duration(image.start_period)),
        start_interval: asked.start_interval.or(duration(image.start_interval)),
        retries: if asked.retries == 0 { retries } else { asked.retries },
    })
}

pub(crate) fn check(health: &v1::Health) -> Result<()> {
    for (name, time) in [
        ("Interval", &health.interval),
        ("Timeout", &health.timeout),
        ("StartPeriod", &health.start_period),
        ("StartInterval", &health.start_interval),
    ] {
        let time = time.as_ref().map_or(0, nanoseconds);
        must!(time == 0 || time >= MINIMUM_NS, "{name} in Healthcheck cannot be less than 1ms");
    }
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE") => Ok(()),
        Some("CMD" | "CMD-SHELL") => {
            must!(health.test.len() > 1, "the health check has no command");
            Ok(())
        }
        Some(other) => {
            must!(false, "Unknown healthcheck type '{other}' (expected 'CMD')");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(test: &[&str], interval_ns: i64) -> v1::Health {
        v1::Health {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            interval: duration(interval_ns),
            ..Default::default()
        }
    }

    #[test]
    fn what_was_asked_for_hides_the_images_field_by_field() {
        let image = ImageHealth {
            test: vec!["CMD".into(), "a".into()],
            interval: 1_500_000_000,
            retries: 2,
            ..Default::default()
        };
        let merged = merge(Some(health(&[], 7_000_000_000)), Some(&image)).unwrap();
        assert_eq!(merged.test, image.test);
        assert_eq!((merged.interval.unwrap().seconds, merged.retries), (7, 2));
        assert_eq!(merge(None, Some(&image)).unwrap().interval.unwrap().nanos, 500_000_000);
        assert_eq!(merge(None, None), None);
    }

    #[test]
    fn times_and_kinds_are_checked() {
        for (test, interval, error) in [
            (&["CMD", "a"][..], 0, None),
            (&["NONE"], 1_000_000, None),
            (&[], 0, None),
            (&["CMD", "a"], 999_999, Some("Interval in Healthcheck cannot be less than 1ms")),
            (
                &["CMD", "a"],
                -1_000_000_000,
                Some("Interval in Healthcheck cannot be less than 1ms"),
            ),
            (&["CMD"], 0, Some("the health check has no command")),
            (&["curl"], 0, Some("Unknown healthcheck type 'curl' (expected 'CMD')")),
        ] {
            let error_now = check(&health(test, interval)).err().map(|e| e.to_string());
            assert_eq!(error_now.as_deref(), error, "{test:?} {interval}");
        }
    }
}
