//! The contestants: each by its own command line, as a person calls it.

use std::time::Duration;

use hull_integration::Invocation;
use hull_integration::engine::{Docker, Hull, Podman, Site, busybox_archive, stock};

/// Longer than any command of a loaded machine.
const LIMIT: Duration = Duration::from_secs(900);

/// An engine and how its command line is called.
pub(crate) enum Engine {
    Hull(Hull),
    Docker(Docker),
    Podman(Podman),
}

impl Engine {
    /// All of them, hull first.
    pub(crate) fn all() -> Vec<Self> {
        let podman = Podman::with_runtime(&stock("runc"));
        podman.call(&["import", busybox_archive(), "busybox"]).limit(LIMIT).run().ok();
        vec![Self::Hull(Hull::start()), Self::Docker(Docker::start()), Self::Podman(podman)]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hull(_) => "hull",
            Self::Docker(_) => "docker",
            Self::Podman(_) => "podman",
        }
    }

    pub(crate) fn site(&self) -> &Site {
        match self {
            Self::Hull(hull) => hull.site(),
            Self::Docker(docker) => docker.site(),
            Self::Podman(podman) => podman.site(),
        }
    }

    /// What runs all the time; podman has nothing.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        match self {
            Self::Hull(hull) => vec![hull.pid()],
            Self::Docker(docker) => docker.pids().to_vec(),
            Self::Podman(_) => Vec::new(),
        }
    }

    pub(crate) fn call(&self, args: &[&str]) -> Invocation {
        match self {
            Self::Hull(hull) => hull.call(args),
            Self::Docker(docker) => docker.call(args),
            Self::Podman(podman) => podman.call(args),
        }
        .limit(LIMIT)
    }

    /// `run` or `create` of busybox with what makes them comparable.
    pub(crate) fn start(&self, verb: &str, options: &[&str], words: &[&str]) -> Invocation {
        let mut args = vec![verb, "--network", "none"];
        match self {
            Self::Hull(_) | Self::Podman(_) => {}
            Self::Docker(_) => args.extend(["--runtime", "runc"]),
        }
        args.extend(options);
        args.push("busybox");
        args.extend(words);
        self.call(&args)
    }

    /// `pull` from a registry on this machine that speaks no TLS.
    pub(crate) fn pull(&self, image: &str) -> Invocation {
        match self {
            Self::Hull(_) | Self::Docker(_) => self.call(&["pull", image]),
            Self::Podman(_) => self.call(&["pull", "--tls-verify=false", image]),
        }
    }
}
