//! Signals by name.

use std::time::Duration;

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;

/// Until SIGKILL, where nobody says otherwise.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// `KILL`, `SIGKILL`, `9`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let number = hull_manager_spec::parse_signal(text).map_err(Error::invalid)?;
    i32::try_from(number).map_err(Error::invalid)
}

/// The signal that asks a container to end.
pub(crate) fn stop_signal(options: &v1::ContainerOptions) -> Result<i32> {
    match options.stop_signal.as_str() {
        "" => Ok(libc::SIGTERM),
        name => parse(name),
    }
}

/// How long it then has: the request's word, else the container's, else docker's. None: for ever.
pub(crate) fn stop_timeout(
    asked: Option<prost_types::Duration>,
    options: &v1::ContainerOptions,
) -> Option<Duration> {
    let Some(given) = asked.or(options.stop_timeout) else { return Some(STOP_TIMEOUT) };
    // A negative one cannot be converted.
    Duration::try_from(given).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_comes_before_the_container_and_that_before_the_default() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let own = |seconds| v1::ContainerOptions { stop_timeout: seconds, ..Default::default() };
        for (asked, of_container, expected) in [
            (None, None, Some(10)),
            (None, seconds(3), Some(3)),
            (seconds(1), seconds(3), Some(1)),
            (seconds(0), None, Some(0)),
            (seconds(-1), None, None),
            (None, seconds(-1), None),
        ] {
            let found = stop_timeout(asked, &own(of_container));
            assert_eq!(found, expected.map(Duration::from_secs), "{asked:?}");
        }
    }
}
