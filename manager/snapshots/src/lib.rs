//! Snapshots: what is below a container, and what it changes.
#![forbid(unsafe_code)]
