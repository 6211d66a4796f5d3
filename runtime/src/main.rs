//! `hull-runtime`: an OCI container runtime with runc's command line.
#![forbid(unsafe_code)]

mod cgroup;
mod process;
mod request;
mod rootfs;
mod seccomp;

fn main() {}
