//! The name service for real: containers and the host are network namespaces of each test's own;
//! those who ask are busybox, the C library, and a client that says exactly what it sends.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod answers;
mod forwarding;
mod lab;
mod limits;
mod restart;
