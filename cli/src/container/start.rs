//! `hull start`.

use anyhow::{Result, bail};
use hull_specs_api::v1::InspectContainerRequest;

use super::run::{self, Attached, Streams};
use crate::{
    args::container::StartArgs,
    connect::Manager,
    failure::{Failure, is_unreachable, refused},
    report,
    terminal::{
        detach::Keys,
        output::print,
        session::{Part, check_tty},
    },
};

/// Starts; with `-a` or `-i` one container, whose exit code is ours.
pub(crate) async fn start(manager: &Manager, args: &StartArgs) -> Result<u8> {
    if args.attach || args.interactive {
        return attached(manager, args).await;
    }
    let mut failed = Vec::new();
    for name in &args.containers {
        match run::start(manager, name).await {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) if is_unreachable(&error) => return Err(error),
            Err(error) => {
                report::error(&error);
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    let message = format!("failed to start containers: {}", failed.join(", "));
    Err(Failure { code: 1, message }.into())
}

async fn attached(manager: &Manager, args: &StartArgs) -> Result<u8> {
    let [name] = args.containers.as_slice() else {
        bail!("you cannot start and attach multiple containers at once");
    };
    let request = InspectContainerRequest { container: name.clone(), size: false };
    let answer = manager.containers().inspect(request).await.map_err(refused)?.into_inner();
    let container = answer.container.unwrap_or_default();
    let options = container.options.unwrap_or_default();
    let stdin = args.interactive && options.open_stdin;
    check_tty(stdin, options.tty)?;
    let keys = Keys::of(args.detach_keys.as_deref(), options.tty, &manager.config_dir)?;
    let streams = Streams { stdin, stdout: true, stderr: true };
    let session = run::open(manager, &container.id, &streams).await?;
    let attached = Attached {
        part: Part { stdin, tty: options.tty, keys, redraw: false, proxy: !options.tty },
        removed: options.auto_remove,
    };
    attached.start_and_wait(manager, &container.id, session).await
}
