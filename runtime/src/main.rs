//! `hull-runtime`: an OCI container runtime with runc's command line.
#![forbid(unsafe_code)]

mod cgroup;
mod cli;
mod container;
mod log;
mod report;
mod request;
mod rootfs;
mod seccomp;
mod time;

fn main() -> std::process::ExitCode {
    cli::main()
}
