//! hull or docker: tests of what both promise drive one of them, by the same words.
//!
//! `HULL_ENGINE=docker` proves the tests on Debian's docker.

use std::ops::Deref;

use super::{Client, Docker, Hull, Lab, SLEEPER, Site};
use crate::{Output, SOON, wait_until};

const NO_NETWORK: &[&str] = &["--network", "none"];

/// The engine under test, with the image `busybox`.
#[derive(Debug)]
pub enum Engine {
    /// Ours.
    Hull(Hull),
    /// The reference.
    Docker(Docker),
}

/// Whether the suite drives the reference.
pub fn reference() -> bool {
    match std::env::var("HULL_ENGINE").as_deref() {
        Ok("docker") => true,
        Ok("hull" | "") | Err(_) => false,
        Ok(other) => panic!("HULL_ENGINE={other} is not hull or docker"),
    }
}

impl Engine {
    /// Starts the engine that `HULL_ENGINE` names.
    #[track_caller]
    pub fn start() -> Self {
        match reference() {
            true => Self::Docker(Docker::start()),
            false => Self::Hull(Hull::start()),
        }
    }

    /// Starts it with its networks on the host of a lab.
    #[track_caller]
    pub fn start_in(lab: &Lab) -> Self {
        match reference() {
            true => Self::Docker(Docker::start_in(lab)),
            false => Self::Hull(Hull::start_in(lab, &[])),
        }
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        match self {
            Self::Hull(hull) => hull.site(),
            Self::Docker(docker) => docker.site(),
        }
    }

    /// Kills the daemon and starts it again; the containers live on.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        match self {
            Self::Hull(hull) => hull.crash_and_restart(),
            Self::Docker(docker) => docker.crash_and_restart(),
        }
    }

    /// Runs a line of shell in a new busybox container, and removes it.
    #[track_caller]
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        self.deref().shell(&[NO_NETWORK, options].concat(), script)
    }

    /// Starts a line of shell in a new busybox container, and leaves it there.
    #[track_caller]
    pub fn detach(&self, name: &str, options: &[&str], script: &str) {
        self.deref().detach(name, &[NO_NETWORK, options].concat(), script);
    }

    /// A container that runs until it is told to end.
    #[track_caller]
    pub fn sleeper(&self, name: &str, options: &[&str]) {
        self.detach(name, options, SLEEPER);
        let first = self.inspect(name, "{{.State.Pid}}");
        wait_until("the program catches SIGTERM", SOON, || {
            let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
            let pid = if options.contains(&"--init") {
                read(format!("/proc/{first}/task/{first}/children"))
            } else {
                first.clone()
            };
            let status = read(format!("/proc/{}/status", pid.trim()));
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            caught.is_some_and(|mask| mask & (1 << (libc::SIGTERM - 1)) != 0)
        });
    }
}

impl Deref for Engine {
    type Target = Client;

    fn deref(&self) -> &Client {
        match self {
            Self::Hull(hull) => hull,
            Self::Docker(docker) => docker,
        }
    }
}
