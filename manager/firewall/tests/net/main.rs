//! The packet filter in networks of namespaces, and the ports of the host.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod attacks;
mod changes;
mod lab;
mod nftables;
mod ports;
