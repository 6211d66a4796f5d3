//! The manager's own log: lines on standard error, for the journal or a person, or JSON.

use std::io::Write as _;

use anyhow::{Result, anyhow};
use tracing::Level;
use tracing_subscriber::{
    filter::LevelFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::config::Config;

/// Changes the level of the running log.
pub(crate) struct Handle(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl Handle {
    pub(crate) fn level(&self, level: Level) {
        // It fails only if the log is gone, and then there is nobody to tell.
        drop(self.0.reload(LevelFilter::from_level(level)));
    }
}

/// Begins to log.
///
/// # Errors
/// If somebody has begun already.
pub(crate) fn start(config: &Config) -> Result<Handle> {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(config.log_level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    let started = if config.log_json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines).try_init()
    };
    started.map_err(|error| anyhow!("start the log: {error}"))?;
    Ok(Handle(handle))
}

/// Why the manager did not start, or ended: one sentence on standard error.
pub(crate) fn last_words(error: &anyhow::Error) {
    drop(writeln!(std::io::stderr(), "hulld: {error:#}"));
}

/// An answer on standard output.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
