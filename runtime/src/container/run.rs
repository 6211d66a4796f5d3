//! `run`: create, start, stay until the end, delete; or with `--detach` only the first two.

use anyhow::Result;
use hull_runtime_sys as sys;

use super::{create, delete, foreground, notify, plan, start};
use crate::{
    attachment,
    init::Message,
    request::{Global, Run},
};

/// Runs a container; returns its exit code, or 0 when detached.
pub(crate) fn run(global: &Global, request: &Run) -> Result<i32> {
    let detach = request.create.attachment.detach;
    let prepared = plan::prepare(global, &request.create, create::Waits::ForUs)?;
    let attached =
        attachment::attach(&request.create.attachment, prepared.process.terminal, detach)?;
    if !detach {
        if !request.no_subreaper {
            sys::process::set_subreaper(true)?;
        }
        // Before the process is made, so that no signal to pass on is missed; the process
        // unblocks them for itself.
        sys::signal::block_all()?;
    }
    let mut launched =
        create::launch(global, &request.create, &prepared, attached, create::Waits::ForUs)?;
    let hooks = prepared.spec.hooks.clone().unwrap_or_default();
    let mut listener = None;
    let started = launched
        .attached
        .finish(&launched.pidfd, launched.pid())
        .and_then(|()| {
            let caller = prepared.notify.clone();
            listener = caller.map(|c| notify::Listener::bind(&launched.dir, c)).transpose()?;
            Ok(())
        })
        .and_then(|()| launched.channel.send(&Message::Go))
        .and_then(|()| match launched.channel.receive()? {
            None => Ok(()),
            Some(Message::Error(text)) => Err(anyhow::anyhow!(text)),
            Some(other) => {
                anyhow::bail!("unexpected message {other:?} from the container's process")
            }
        })
        .and_then(|()| start::after_start(&launched.record, &hooks));
    if let Err(error) = started {
        return Err(launched.undo(error));
    }
    let pid = launched.pid();
    launched.release();
    if detach {
        if let Some(listener) = listener {
            listener.wait(&launched.pidfd, pid)?;
        }
        return Ok(0);
    }
    let reap = !request.no_subreaper;
    let code = foreground::wait(pid, &launched.pidfd, &mut launched.attached, reap, listener);
    if request.keep {
        return code;
    }
    // Also when waiting failed: what runs without us watching is ended.
    if code.is_err() {
        delete::end(&launched.record)?;
    }
    let (dir, record) = launched.into_parts();
    delete::destroy_ended(dir, &record, Some(&prepared.spec))?;
    code
}
