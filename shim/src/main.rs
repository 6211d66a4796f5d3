//! `containerd-shim-hull-v2`: stays with a container. It holds its standard streams, reaps
//! it, keeps its exit status, and answers containerd's task API over ttrpc.
#![forbid(unsafe_code)]

mod options;
mod reactor;
mod runtime;
mod stdio;
mod ttrpc;

fn main() {}
