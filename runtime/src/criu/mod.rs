//! CRIU (criu.org), which saves processes to files and brings them back: the program
//! `criu swrk FD` on one side of a packet socket, this module on the other.
//!
//! The messages are protocol buffers, encoded and read here, in `wire` and `message`. The
//! crate for this, rust-criu, can't ask for what `checkpoint` and `restore` promise: it has
//! no parent image, page server, lazy pages, feature check, external or joined namespaces,
//! cgroup roots, empty namespaces, cgroup mode, configuration file or LSM options, and it
//! notifies a bare `fn`, which has no container to act on (version 0.6.1). It would add
//! 115 kB to the program, measured with the release profile, of which most is the crate
//! protobuf and the messages that nobody here sends.
//!
//! CRIU runs as root and trusts its images: whoever can write a checkpoint can choose what
//! a restored process is and may do. What this runtime itself takes from an image directory
//! is one file of names of pipes (see `images`), checked and never used as a path. Mounts,
//! devices, hooks, namespaces and limits of a restored container are its bundle's.
//!
//! Not here: what is asked of CRIU for a container (`container::checkpoint` and
//! `container::restore`).

mod images;
mod message;
mod wire;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;

use crate::log;

pub(crate) use images::{Descriptors, Images, descriptors_of};
pub(crate) use message::{CgroupMode, Features, Kind, Options, Version};

use message::{Response, notified, request};
use wire::Message;

/// The longest message that is taken from CRIU, in bytes; its own are below a hundred.
const MAX_MESSAGE_BYTES: usize = 40 << 10;

/// The oldest version that can be asked for its version.
pub(crate) const OLDEST: Version = Version(30_000);

/// What CRIU says on its way.
#[derive(Debug)]
pub(crate) struct Notice<'a> {
    /// CRIU's name for the stage.
    pub(crate) stage: &'a str,
    /// The process that it is about.
    pub(crate) pid: Option<i32>,
    /// A descriptor that came along.
    pub(crate) fd: Option<OwnedFd>,
}

/// What becomes the standard streams of CRIU, and so of a process that it restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    Ours,
    Null,
}

/// A running `criu swrk`.
pub(crate) struct Session {
    criu: Child,
    socket: OwnedFd,
}

impl Session {
    /// Starts CRIU. The `passed` descriptors have the same numbers there as here.
    pub(crate) fn start(streams: Streams, passed: &[BorrowedFd<'_>]) -> Result<Self> {
        let (ours, theirs) = sys::socket::packet_pair()?;
        let stream = || match streams {
            Streams::Ours => Stdio::inherit(),
            Streams::Null => Stdio::null(),
        };
        // Nothing else that we hold or were given; this process has one thread, so that
        // nobody can start another program in between.
        sys::fd::cloexec_from(3)?;
        for fd in passed.iter().copied().chain([std::os::fd::AsFd::as_fd(&theirs)]) {
            sys::fd::place(fd, fd.as_raw_fd())?;
        }
        let criu = Command::new("criu")
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn();
        sys::fd::cloexec_from(3)?;
        let criu = criu.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!("criu is not installed: no directory of PATH has a program of that name")
            }
            _ => anyhow!(error).context("cannot run criu"),
        })?;
        Ok(Self { criu, socket: ours })
    }

    /// CRIU's process id.
    pub(crate) fn pid(&self) -> Result<i32> {
        i32::try_from(self.criu.id()).context("impossible process id")
    }

    /// Lets CRIU do one thing, and waits until it has ended. An error of `notice` stops it.
    pub(crate) fn carry_out(
        mut self,
        kind: Kind,
        options: &Options,
        notice: &mut dyn FnMut(Notice<'_>) -> Result<()>,
    ) -> Result<()> {
        log::debug(format!("asking criu to {}: {options:?}", kind.name()));
        let done = self.send(&request(kind, Some(options), None)).and_then(|()| {
            loop {
                let mut buffer = vec![0; MAX_MESSAGE_BYTES];
                let (response, fds) = self.receive(&mut buffer)?;
                match response.kind {
                    Some(Kind::Notify) => {
                        let (stage, pid) = response.notify.context("criu notified of nothing")?;
                        log::debug(format!("criu is at {stage}"));
                        notice(Notice { stage, pid, fd: fds.into_iter().next() })?;
                        self.send(&notified())?;
                    }
                    Some(answered) if answered == kind => return Ok(()),
                    _ => bail!("criu answered something else than what it was asked"),
                }
            }
        });
        let Self { criu, socket } = &mut self;
        // The end of the conversation: CRIU undoes what it has not finished, and ends.
        let (end, _) = sys::socket::packet_pair()?;
        drop(std::mem::replace(socket, end));
        let status = criu.wait().context("cannot wait for criu")?;
        done?;
        // After a pre-dump it waits for the dump, which is another process's here, and
        // takes the end of the conversation for a failure.
        if !status.success() && kind != Kind::PreDump {
            bail!("criu failed: {status}");
        }
        Ok(())
    }

    fn send(&self, message: &Message) -> Result<()> {
        sys::socket::send(&self.socket, message.bytes(), &[]).context("cannot talk to criu")
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<(Response<'a>, Vec<OwnedFd>)> {
        let (length, fds) =
            sys::socket::receive(&self.socket, buffer).context("cannot hear from criu")?;
        if length == 0 {
            bail!("criu ended without an answer");
        }
        let response = Response::parse(&buffer[..length])?;
        if !response.success {
            let kind = response.kind.map_or("unknown", Kind::name);
            let why = response.message.map(str::trim_end).map(crate::process::one_line);
            let why = why.map(|text| format!(": {text}")).unwrap_or_default();
            bail!("criu failed: type {kind} errno {}{why}", response.errno);
        }
        Ok((response, fds))
    }

    /// Asks one question that needs no container.
    fn ask(mut self, message: &Message, buffer: &mut [u8]) -> Result<(Option<Version>, Features)> {
        let answer = self.send(message).and_then(|()| {
            let (response, _) = self.receive(buffer)?;
            Ok((response.version, response.features))
        });
        drop(self.socket);
        self.criu.wait().context("cannot wait for criu")?;
        answer
    }
}

/// Which CRIU is installed.
pub(crate) fn version() -> Result<Version> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let (version, _) = Session::start(Streams::Null, &[])?
        .ask(&request(Kind::Version, None, None), &mut buffer)
        .context("CRIU version check failed")?;
    version.context("CRIU version check failed: criu told no version")
}

/// Fails if CRIU or the kernel lacks one of these.
pub(crate) fn require_features(wanted: Features) -> Result<()> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let (_, have) = Session::start(Streams::Null, &[])?
        .ask(&request(Kind::FeatureCheck, None, Some(wanted)), &mut buffer)
        .context("CRIU feature check failed")?;
    let missing: Vec<_> = [
        ("MemTrack", wanted.mem_track && !have.mem_track),
        ("LazyPages", wanted.lazy_pages && !have.lazy_pages),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    if !missing.is_empty() {
        bail!("criu is missing features: [{}]", missing.join(" "));
    }
    Ok(())
}

impl Version {
    /// Fails if CRIU is older than that.
    pub(crate) fn require(self, oldest: Self) -> Result<()> {
        if self < oldest {
            bail!("CRIU version {} must be {} or higher", self.0, oldest.0);
        }
        Ok(())
    }
}
