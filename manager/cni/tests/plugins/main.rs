//! CNI plugins executed for real: Debian's reference plugins, and some that misbehave. The host is
//! a network namespace of each test's own, which ends with the test's thread.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod faults;
mod lab;
mod reference;
