//! `hull-runtime`: an OCI container runtime with runc's command line.
#![forbid(unsafe_code)]

mod attachment;
mod cgroup;
mod cli;
mod container;
mod criu;
mod hooks;
mod idmap;
mod init;
mod log;
mod namespace;
mod net_devices;
mod own_binary;
mod process;
mod report;
mod request;
mod resctrl;
mod rootfs;
mod seccomp;
mod spec;

#[global_allocator]
static ALLOCATOR: hull_runtime_sys::arena::Arena = hull_runtime_sys::arena::Arena::new();

fn main() -> std::process::ExitCode {
    cli::main()
}
