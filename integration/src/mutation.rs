//! Deterministic mutations of a configuration.
