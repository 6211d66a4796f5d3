//! `--health-*` and `--no-healthcheck`.

use hull_specs_api::v1;

use super::duration;

/// What was said about health.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given<'a> {
    pub(crate) disabled: bool,
    pub(crate) command: Option<&'a str>,
    /// In nanoseconds, as all below; 0: not said.
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    pub(crate) start_period: i64,
    pub(crate) start_interval: i64,
    pub(crate) retries: i64,
}

/// The health check, if any was said.
pub(crate) fn lower(given: &Given<'_>) -> Result<Option<v1::Health>, String> {
    let spans = [
        ("--health-interval", given.interval),
        ("--health-timeout", given.timeout),
        ("--health-start-period", given.start_period),
        ("--health-start-interval", given.start_interval),
        ("--health-retries", given.retries),
    ];
    let said = given.command.is_some() || spans.iter().any(|(_, value)| *value != 0);
    if given.disabled {
        if said {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(v1::Health { test: vec!["NONE".to_owned()], ..v1::Health::default() }));
    }
    if let Some((option, _)) = spans.iter().find(|(_, value)| *value < 0) {
        return Err(format!("{option} cannot be negative"));
    }
    let span = |value| (value != 0).then(|| duration::message(value));
    Ok(said.then(|| v1::Health {
        test: given
            .command
            .filter(|command| !command.is_empty())
            .map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()])
            .unwrap_or_default(),
        interval: span(given.interval),
        timeout: span(given.timeout),
        start_period: span(given.start_period),
        start_interval: span(given.start_interval),
        retries: u32::try_from(given.retries).unwrap_or(u32::MAX),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        assert_eq!(lower(&Given::default()), Ok(None));
        let given = Given { command: Some("true"), interval: 5_000_000_000, ..Given::default() };
        let health = lower(&given).unwrap().unwrap();
        assert_eq!(health.test, ["CMD-SHELL", "true"]);
        assert_eq!(health.interval.unwrap().seconds, 5);
        let none = lower(&Given { disabled: true, ..Given::default() }).unwrap().unwrap();
        assert_eq!(none.test, ["NONE"]);
        assert!(lower(&Given { disabled: true, ..given }).is_err());
        let negative = Given { timeout: -1, ..Given::default() };
        assert_eq!(lower(&negative).unwrap_err(), "--health-timeout cannot be negative");
    }
}
