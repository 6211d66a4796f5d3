//! `hull-runtime`: an OCI container runtime with runc's command line.
#![forbid(unsafe_code)]

mod cgroup;
mod rootfs;
mod seccomp;

fn main() {}
