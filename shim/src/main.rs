//! `containerd-shim-hull-v2`: stays with a container. It holds its standard streams, reaps
//! it, keeps its exit status, and answers containerd's task API over ttrpc.
#![forbid(unsafe_code)]

mod reactor;

fn main() {}
