//! `delete`: what is left of a container whose shim is dead. containerd calls it in the bundle.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use containerd_shim_protos::api::DeleteResponse;
use hull_runtime_sys::{process, signal};
use protobuf::{Message, MessageField};

use crate::{
    args::Args,
    bootstrap,
    bundle_file::Version,
    events,
    exit_record::{self, ExitRecord, FileName, Reason},
    init_record::InitRecord,
    log,
    oom::Oom,
    options::RuntimeOptions,
    reactor, rootfs,
    runtime::Runtime,
    sandbox, stdio,
    task::{PID_FILE, ROOTFS, read_pid},
};

/// What containerd is told of a process whose end nobody saw: it has been killed.
const KILLED: u32 = 137;

/// Ends and removes everything, and gives the response for containerd, in protobuf. Can be
/// called again.
///
/// # Errors
/// Only of the bundle itself. What could not be removed is said on stderr, because containerd
/// removes the bundle in any case.
pub(crate) fn delete(args: &Args) -> Result<Vec<u8>> {
    let bundle = match args.bundle.as_os_str().is_empty() {
        true => std::env::current_dir().context("cannot tell the working directory")?,
        false => args.bundle.clone(),
    };
    for (id, bundle) in sandbox::members(&bundle)? {
        // Its bundle may be gone, and then so is it.
        if bundle.is_dir() {
            end(&Args { id, ..args.clone() }, &bundle)?;
        }
    }
    end(args, &bundle)
}

/// Does it for one bundle.
fn end(args: &Args, bundle: &Path) -> Result<Vec<u8>> {
    let seen = exit_record::read(bundle, &FileName::of(None)).unwrap_or_else(|error| {
        warn(&error);
        None
    });
    let init = InitRecord::read(bundle).unwrap_or_else(|error| {
        warn(&error);
        None
    });
    let pid = init.as_ref().map(|init| init.pid).or_else(|| read_pid(&bundle.join(PID_FILE)).ok());
    if let Err(error) = remove_container(args, bundle) {
        warn(&error);
    }
    // A runtime that is gone, or has forgotten the container, does not end it.
    if let Some(init) = &init
        && let Err(error) = init.end()
    {
        warn(&error);
    }
    if let Err(error) = rootfs::unmount_all(&bundle.join(ROOTFS)) {
        warn(&error);
    }
    if let Err(error) = stdio::finish_log(bundle) {
        warn(&error);
    }
    if let Err(error) = bootstrap::remove_dead_socket(bundle) {
        warn(&error);
    }
    let record = seen.unwrap_or_else(|| {
        let start_time = init.map_or(0, |init| init.start_time);
        let record = unseen(&args.id, pid.unwrap_or(0), start_time);
        if let Err(error) = exit_record::write(bundle, &FileName::of(None), &record) {
            warn(&error);
        }
        record
    });
    let response = DeleteResponse {
        pid: u32::try_from(record.pid).unwrap_or(0),
        exit_status: record.shell_code,
        exited_at: MessageField::some(events::timestamp(record.exited_at)),
        ..DeleteResponse::default()
    };
    Ok(response.write_to_bytes()?)
}

fn warn(error: &anyhow::Error) {
    eprintln!("containerd-shim-hull-v2: {}", log::sentence(error));
}

fn remove_container(args: &Args, bundle: &Path) -> Result<()> {
    // A sandbox's bundle, or one in which the runtime was never called.
    let Some(options) = RuntimeOptions::read(bundle)? else { return Ok(()) };
    let runtime = Runtime::find(
        &options.binary_name,
        &options.root,
        &args.namespace,
        options.systemd_cgroup,
    )?;
    // The container's processes become this one's children, and are reaped with it.
    signal::block_all()?;
    process::set_subreaper(true)?;
    let (id, log): (String, PathBuf) = (args.id.clone(), bundle.join("log.json"));
    let removed = reactor::run(async move {
        reactor::spawn(async {
            if let Err(error) = reactor::reap(|_| {}).await {
                warn(&error);
            }
        });
        let words = ["delete", "--force", &id].map(OsStr::new);
        runtime.run(&log, b"", &words).await
    })?;
    match removed {
        Err(error) if !format!("{error:#}").contains("does not exist") => {
            Err(error.context("failed to remove the container"))
        }
        _ => Ok(()),
    }
}

/// The record of an end that nobody saw.
fn unseen(id: &str, pid: i32, start_time: u64) -> ExitRecord {
    ExitRecord {
        version: Version,
        container_id: id.to_owned(),
        exec_id: String::new(),
        pid,
        start_time,
        exit_code: None,
        signal: None,
        shell_code: KILLED,
        exited_at: SystemTime::now(),
        run_time: Duration::ZERO,
        reason: Reason::Unknown,
        oom: Oom::None,
        oom_kills: 0,
        peak_memory_bytes: None,
        runtime_error: None,
        dropped_clients: 0,
        lost_output_bytes: 0,
        last_lines: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_saw_is_called_so() {
        let record = unseen("c", 7, 42);
        assert_eq!((record.shell_code, record.reason), (KILLED, Reason::Unknown));
        assert_eq!((record.exit_code, record.signal), (None, None));
    }
}
