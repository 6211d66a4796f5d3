//! `hull attach`.

use anyhow::{Result, bail};
use hull_specs_api::v1::{InspectContainerRequest, Status};

use super::run::{self, Streams};
use crate::{
    args::container::AttachArgs,
    connect::Manager,
    failure::refused,
    terminal::{
        detach::Keys,
        session::{End, Part, check_tty},
        signals,
    },
};

/// Attaches until the container ends, whose exit code is ours, or the person leaves.
pub(crate) async fn attach(manager: &Manager, args: &AttachArgs) -> Result<u8> {
    let mut client = manager.containers();
    let request = InspectContainerRequest { container: args.container.clone(), size: false };
    let answer = client.inspect(request).await.map_err(refused)?.into_inner();
    let container = answer.container.unwrap_or_default();
    match container.state.clone().unwrap_or_default().status() {
        Status::Running => {}
        Status::Paused => bail!("You cannot attach to a paused container, unpause it first"),
        Status::Restarting => {
            bail!("You cannot attach to a restarting container, wait until it is running");
        }
        _ => bail!("You cannot attach to a stopped container, start it first"),
    }
    let options = container.options.unwrap_or_default();
    let stdin = !args.no_stdin && options.open_stdin;
    check_tty(stdin, options.tty)?;
    let keys = Keys::of(args.detach_keys.as_deref(), options.tty, &manager.config_dir)?;
    let streams = Streams { stdin, stdout: true, stderr: true };
    let proxy = args.sig_proxy && !options.tty;
    let signals = proxy.then(signals::forwarded).transpose()?;
    let session = run::open(manager, &container.id, &streams).await?;
    if let Some(signals) = signals {
        run::forward(manager, &container.id, signals);
    }
    match session.run(Part { stdin, tty: options.tty, keys, redraw: true, proxy }).await? {
        // In docker's words and with its code: here a detached client has not ended well.
        End::Detached => bail!("read escape sequence"),
        End::Ended(Some(code)) => Ok(run::exit_code(code)),
        End::Ended(None) => run::wait(manager, &container.id, false, None).await,
    }
}
