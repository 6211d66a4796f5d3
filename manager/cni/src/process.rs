//! Executing a plugin: found by its base name, with a small environment, within limits.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::spawn;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::answer::Ended;

/// A longer answer is refused.
const MAX_OUTPUT: usize = 1024 * 1024;
/// As much of standard error is kept: its end.
const MAX_COMPLAINT: usize = 4096;
/// After its end a plugin's answer is there, or a process that it left behind holds the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// Finds a plugin's file. `kind` is a checked file name.
pub(crate) fn find(kind: &str, directories: &[PathBuf]) -> Result<PathBuf> {
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let found =
        directories.iter().map(|directory| directory.join(kind)).find(|path| executable(path));
    found.ok_or_else(|| {
        let searched: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        Error::not_found(format!("plugin {kind} not found in {}", searched.join(":")))
    })
}

/// Executes a plugin to its end, at most `limit` long.
pub(crate) async fn execute(
    path: &Path,
    environment: &[(&'static str, String)],
    request: &[u8],
    limit: Duration,
) -> Result<Ended> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = std::process::Command::new(path);
    // None goes on behind the back of who finds, after our end, what it was at. The thread that
    // starts it is of the runtime that drives it, and ends with that.
    spawn::kill_with_parent(&mut command);
    let mut child = Command::from(command)
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it executes can be ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .about(format!("plugin {name}"))?;
    let group = child.id();
    if let Ok(result) = timeout(limit, converse(&mut child, request)).await {
        return result.map_err(|error| Error::from(error).context(format!("plugin {name}")));
    }
    if let Some(group) = group.and_then(|pid| i32::try_from(pid).ok()) {
        // It is not yet waited for, so the number is still its own.
        drop(hull_runtime_sys::process::kill(-group, libc::SIGKILL));
    }
    child.wait().await.about(format!("plugin {name}"))?;
    Err(Error::new(
        hull_manager_core::ErrorKind::DeadlineExceeded,
        format!("plugin {name} took longer than {} s and was killed", limit.as_secs_f64()),
    ))
}

async fn converse(child: &mut Child, request: &[u8]) -> anyhow::Result<Ended> {
    let input = child.stdin.take();
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        anyhow::bail!("no pipes");
    };
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let status = {
        let reading =
            async { tokio::join!(all(stdout, &mut output), end(stderr, &mut complaint)).0 };
        let waiting = async {
            write(input, request).await?;
            child.wait().await
        };
        tokio::pin!(reading, waiting);
        // What it has written before its end is read, but nobody waits for a process that it
        // left behind.
        let status: ExitStatus = tokio::select! {
            status = &mut waiting => {
                if let Ok(read) = timeout(DRAIN, &mut reading).await {
                    read?;
                }
                status?
            }
            read = &mut reading => {
                read?;
                waiting.await?
            }
        };
        status
    };
    use std::os::unix::process::ExitStatusExt as _;
    Ok(Ended {
        code: status.code(),
        signal: status.signal(),
        output,
        complaint: String::from_utf8_lossy(&complaint).into_owned(),
    })
}

/// A plugin may end without having read its request.
async fn write(input: Option<ChildStdin>, request: &[u8]) -> io::Result<()> {
    let Some(mut input) = input else { return Ok(()) };
    match input.write_all(request).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Everything, up to the limit.
async fn all(mut pipe: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let length = pipe.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if into.len() + length > MAX_OUTPUT {
            anyhow::bail!("an answer of over {MAX_OUTPUT} bytes");
        }
        into.extend_from_slice(&buffer[..length]);
    }
}

/// The end of what is said.
async fn end(mut pipe: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..length]);
        let surplus = into.len().saturating_sub(MAX_COMPLAINT);
        into.drain(..surplus);
    }
}
