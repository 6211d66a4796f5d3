//! `containerd-shim-hull-v2`: stays with a container. It holds its standard streams, reaps
//! it, keeps its exit status, and answers containerd's task API over ttrpc.
#![forbid(unsafe_code)]

mod args;
mod bootstrap;
mod bundle_file;
mod cgroup;
mod cleanup;
mod events;
mod exit_record;
mod info;
mod init_record;
mod log;
mod mountinfo;
#[cfg(test)]
mod mutants;
mod oom;
mod options;
mod output;
mod program;
mod reactor;
mod rootfs;
mod runtime;
mod sandbox;
mod serve;
mod service;
mod stats;
mod stdio;
mod task;
mod ttrpc;

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use args::{Action, Args};

/// What `-h` prints.
const USAGE: &str = "\
containerd-shim-hull-v2: a containerd shim (runtime io.containerd.hull.v2)

containerd runs it; there is nothing here for people but:
  containerd-shim-hull-v2 -v       print the version
  containerd-shim-hull-v2 -info    print what it can do, as protobuf
containerd runs it in a container's bundle:
  containerd-shim-hull-v2 -namespace NS -id ID -address SOCKET start|delete
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {}", info::NAME, log::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::parse(std::env::args_os().skip(1))?;
    if args.debug {
        log::enable_debug();
    }
    let output = match args.action {
        Action::Start => return bootstrap::start(&args),
        Action::Delete => cleanup::delete(&args)?,
        Action::Compress => return output::compress_file(&args.file),
        Action::Info => info::info()?,
        Action::Version => {
            format!("containerd-shim-hull-v2:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")).into()
        }
        Action::Help => USAGE.into(),
    };
    let mut stdout = std::io::stdout();
    stdout.write_all(&output)?;
    Ok(stdout.flush()?)
}
