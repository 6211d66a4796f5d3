//! ttrpc: containerd's small RPC protocol over a unix socket, for one thread.
//!
//! The `ttrpc` crate gives the messages; its servers are a pool of threads or tokio, either of
//! which would be most of an idle shim's memory. What is left for us is a header of ten bytes
//! and who waits for what.
//!
//! Limits, each with a test: a message is at most 4 MiB (the protocol's own limit); 256
//! connections; 4,096 requests of a connection in work; 8 MiB of answers that a connection
//! does not take. A peer is root or the user that the shim runs as.

mod client;
mod frame;
mod server;
mod status;

pub(crate) use client::Client;
pub(crate) use server::{Call, Service, serve};
pub(crate) use status::{Failure, Kind};
