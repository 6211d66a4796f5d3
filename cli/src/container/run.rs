//! `hull run`: create, attach, start, wait.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hull_specs_api::v1::{
    AttachOpen, AttachRequest, AttachResponse, KillContainerRequest, StartContainerRequest,
    WaitContainerRequest, attach_request, attach_response, wait_container_request::Condition,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::create;
use crate::{
    args::{container::RunArgs, options::ContainerArgs},
    connect::Manager,
    failure::{Failure, is_unreachable, of_start, refused},
    terminal::{
        detach::Keys,
        output::print,
        session::{End, Part, Session, check_tty},
        signals,
    },
};

/// Runs; the exit code is the container's.
pub(crate) async fn run(manager: &Manager, args: &RunArgs) -> Result<u8> {
    let streams = Streams::of(args)?;
    let keys = Keys::of(args.detach_keys.as_deref(), args.container.tty, &manager.config_dir);
    let keys = keys.map_err(of_start)?;
    check_tty(streams.stdin, args.container.tty)?;
    let mut options = create::lower(&args.container).map_err(of_start)?;
    if args.detach {
        options.stdin_once = false;
    }
    let id = create::container(manager, &args.container, options).await.map_err(of_start)?;
    if args.detach || !streams.any() {
        start(manager, &id).await.map_err(of_start)?;
        print(&format!("{id}\n"))?;
        return Ok(0);
    }
    let attached = Attached {
        part: Part {
            stdin: streams.stdin,
            tty: args.container.tty,
            keys,
            redraw: false,
            proxy: args.sig_proxy,
        },
        removed: args.container.rm,
    };
    let session = open(manager, &id, &streams).await.map_err(of_start)?;
    let ended = attached.start_and_wait(manager, &id, session).await;
    // That the manager is gone has the code of what it could not do any more.
    ended.map_err(|error| if is_unreachable(&error) { of_start(error) } else { error })
}

/// The streams that are attached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Streams {
    fn of(args: &RunArgs) -> Result<Self> {
        let ContainerArgs { attach, interactive, .. } = &args.container;
        if args.detach {
            if !attach.is_empty() {
                let message = "conflicting options: cannot specify both --attach and --detach";
                return Err(Failure { code: 1, message: message.to_owned() }.into());
            }
            return Ok(Self { stdin: false, stdout: false, stderr: false });
        }
        if attach.is_empty() {
            return Ok(Self { stdin: *interactive, stdout: true, stderr: true });
        }
        let said: BTreeSet<_> = attach.iter().map(String::as_str).collect();
        Ok(Self {
            stdin: said.contains("stdin"),
            stdout: said.contains("stdout"),
            stderr: said.contains("stderr"),
        })
    }

    fn any(&self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// Attaches, before or after the start: when this returns, no output is missed any more.
pub(crate) async fn open(
    manager: &Manager,
    id: &str,
    streams: &Streams,
) -> Result<Session<AttachRequest>> {
    let (requests, receiver) = mpsc::channel(4);
    let open = AttachOpen {
        container: id.to_owned(),
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        logs: false,
    };
    let open = AttachRequest { message: Some(attach_request::Message::Open(open)) };
    if requests.send(open).await.is_err() {
        bail!("the manager does not listen");
    }
    let mut responses = manager
        .containers()
        .attach(ReceiverStream::new(receiver))
        .await
        .map_err(refused)?
        .into_inner();
    match responses.message().await.map_err(refused)? {
        Some(AttachResponse { message: Some(attach_response::Message::Attached(_)) }) => {}
        _ => bail!("the manager did not attach"),
    }
    Ok(Session { requests, responses })
}

/// Starts a container.
pub(crate) async fn start(manager: &Manager, id: &str) -> Result<()> {
    let request = StartContainerRequest { container: id.to_owned() };
    manager.containers().start(request).await.map_err(refused)?;
    Ok(())
}

/// An attached start.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) part: Part,
    /// The container removes itself: it is over when it is gone.
    pub(crate) removed: bool,
}

impl Attached {
    /// Starts, carries the streams, and gives the exit code.
    pub(crate) async fn start_and_wait(
        self,
        manager: &Manager,
        id: &str,
        session: Session<AttachRequest>,
    ) -> Result<u8> {
        let signals = self.part.proxy.then(signals::forwarded).transpose()?;
        start(manager, id).await.map_err(of_start)?;
        if let Some(signals) = signals {
            forward(manager, id, signals);
        }
        match session.run(self.part).await? {
            End::Detached => Ok(0),
            End::Ended(Some(code)) if !self.removed => Ok(exit_code(code)),
            End::Ended(code) => wait(manager, id, self.removed, code).await,
        }
    }
}

/// Waits until a container is over. The code of its end comes with its streams, which were open
/// before the start: however short it lived, and though nobody knows it any more, the code is
/// there. `code` is none only if the streams were cut off.
pub(crate) async fn wait(
    manager: &Manager,
    id: &str,
    removed: bool,
    code: Option<i32>,
) -> Result<u8> {
    let condition = if removed { Condition::Removed } else { Condition::NotRunning };
    let request = WaitContainerRequest { container: id.to_owned(), condition: condition.into() };
    match manager.containers().wait(request).await {
        Ok(response) => {
            let response = response.into_inner();
            if !response.error.is_empty() {
                bail!("error waiting for container: {}", response.error);
            }
            Ok(exit_code(code.unwrap_or(response.exit_code)))
        }
        Err(status) => match code {
            // Gone already.
            Some(code) if status.code() == tonic::Code::NotFound => Ok(exit_code(code)),
            _ => Err(refused(status)),
        },
    }
}

/// Gives signals to the container as they come. It may have ended: then they are nobody's.
pub(crate) fn forward(manager: &Manager, id: &str, mut signals: mpsc::Receiver<i32>) {
    let mut client = manager.containers();
    let id = id.to_owned();
    tokio::spawn(async move {
        while let Some(number) = signals.recv().await {
            let request =
                KillContainerRequest { container: id.clone(), signal: number.to_string() };
            let _ = client.kill(request).await;
        }
    });
}

/// A container's exit code as ours.
pub(crate) fn exit_code(code: i32) -> u8 {
    code.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, container, parse::parse};

    #[test]
    fn streams_are_those_that_were_said() {
        let streams = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            match parse(&words).map(|cli| cli.command) {
                Ok(Command::Container(container::Command::Run(args))) => Streams::of(&args),
                other => panic!("{line}: {other:?}"),
            }
        };
        let of = |stdin, stdout, stderr| Streams { stdin, stdout, stderr };
        for (line, expected) in [
            ("hull run a", of(false, true, true)),
            ("hull run -i a", of(true, true, true)),
            ("hull run -d -i a", of(false, false, false)),
            ("hull run -a stderr -a STDIN a", of(true, false, true)),
        ] {
            assert_eq!(streams(line).unwrap(), expected, "{line}");
        }
        let conflict = "conflicting options: cannot specify both --attach and --detach";
        assert_eq!(streams("hull run -d -a stdout a").unwrap_err().to_string(), conflict);
        assert_eq!((exit_code(3), exit_code(256), exit_code(-1)), (3, 0, 255));
    }
}
