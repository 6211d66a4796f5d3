//! `containerd-shim-hull-v2`: stays with a container. It holds its standard streams, reaps
//! it, keeps its exit status, and answers containerd's task API over ttrpc.
#![forbid(unsafe_code)]

mod options;
mod reactor;
mod runtime;
mod stdio;
mod ttrpc;
#[allow(dead_code, reason = "the service that asks for metrics comes next")]
mod cgroup;
#[allow(dead_code, reason = "the service that reaps comes next")]
mod exit_record;
#[allow(dead_code, reason = "used by the modules that are")]
mod mountinfo;

#[allow(dead_code, reason = "the service that watches comes next")]
mod oom;
#[allow(dead_code, reason = "used by cgroup")]
mod stats;

fn main() {}
