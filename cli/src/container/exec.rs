//! `hull exec`.

use anyhow::{Result, bail};
use hull_specs_api::v1::{
    CreateExecRequest, InspectExecRequest, StartExecOpen, StartExecRequest, start_exec_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::run::exit_code;
use crate::{
    args::container::ExecArgs,
    connect::Manager,
    failure::{FAILED, Failure, is_unreachable, of_start, refused},
    options::container::variables,
    terminal::{
        detach::Keys,
        raw,
        session::{End, Part, Session, check_tty},
    },
};

/// Runs a command in a container; the exit code is the command's.
pub(crate) async fn exec(manager: &Manager, args: &ExecArgs) -> Result<u8> {
    let keys = Keys::of(args.detach_keys.as_deref(), args.tty, &manager.config_dir)?;
    let stdin = args.interactive && !args.detach;
    check_tty(stdin, args.tty)?;
    let Some((container, command)) = args.words.split_first() else { bail!("no container") };
    let request = CreateExecRequest {
        container: container.clone(),
        command: command.to_vec(),
        env: variables(&args.env_file, &args.env)?,
        working_dir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        tty: args.tty,
        stdin,
        privileged: args.privileged,
    };
    let mut client = manager.containers();
    let id = client.create_exec(request).await.map_err(refused)?.into_inner().exec_id;
    let open = StartExecOpen {
        exec_id: id.clone(),
        detach: args.detach,
        size: if args.tty { raw::size() } else { None },
    };
    let (requests, receiver) = mpsc::channel(4);
    let open = StartExecRequest { message: Some(start_exec_request::Message::Open(open)) };
    if requests.send(open).await.is_err() {
        bail!("the manager does not listen");
    }
    let responses = client.start_exec(ReceiverStream::new(receiver)).await;
    let responses = responses.map_err(|status| of_exec(refused(status)))?.into_inner();
    if args.detach {
        let mut responses = responses;
        while responses.message().await.map_err(|status| of_exec(refused(status)))?.is_some() {}
        return Ok(0);
    }
    let session = Session { requests, responses };
    // Signals stay ours: docker forwards none to an exec.
    let part = Part { stdin, tty: args.tty, keys, redraw: false, proxy: false };
    match session.run(part).await.map_err(of_exec)? {
        End::Detached => bail!("read escape sequence"),
        End::Ended(Some(code)) => Ok(exit_code(code)),
        End::Ended(None) => {
            let request = InspectExecRequest { exec_id: id };
            let exec = client.inspect_exec(request).await.map_err(refused)?.into_inner();
            exec.exit_code.map(exit_code).ok_or_else(|| Failure::quiet(1))
        }
    }
}

/// The code of what cannot be executed; 1 for any other failure.
fn of_exec(error: anyhow::Error) -> anyhow::Error {
    if is_unreachable(&error) {
        return error;
    }
    match of_start(error).downcast::<Failure>() {
        Ok(Failure { code: FAILED, message }) => Failure { code: 1, message }.into(),
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}
