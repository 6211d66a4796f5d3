//! The engines, each on a host of its own, as they are delivered: with their proxies.

use std::fs::File;
use std::time::Duration;

use hull_integration::Invocation;
use hull_integration::engine::{Docker, Hull, Lab, Podman, Side, stock};

/// Longer than any command of a loaded machine.
const LIMIT: Duration = Duration::from_secs(900);

enum Engine {
    Hull(Hull),
    Docker(Docker),
    Podman(Podman),
}

/// An engine and its host.
pub(crate) struct Contestant {
    // Before its host, which ends last.
    engine: Engine,
    pub(crate) lab: Lab,
}

impl Contestant {
    /// All of them, hull first.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::hull(), Self::docker(), Self::podman()]
    }

    pub(crate) fn hull() -> Self {
        let lab = Lab::start();
        Self { engine: Engine::Hull(Hull::start_in(&lab, &[])), lab }
    }

    fn docker() -> Self {
        let lab = Lab::start();
        Self { engine: Engine::Docker(Docker::start_with_proxies_in(&lab)), lab }
    }

    fn podman() -> Self {
        let lab = Lab::start();
        Self { engine: Engine::Podman(Podman::start_in(&lab, &stock("runc"))), lab }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.engine {
            Engine::Hull(_) => "hull",
            Engine::Docker(_) => "docker",
            Engine::Podman(_) => "podman",
        }
    }

    /// The daemon that answers containers' questions; podman starts one of its own for that.
    pub(crate) fn name_server(&self) -> Option<u32> {
        match &self.engine {
            Engine::Hull(hull) => Some(hull.pid()),
            Engine::Docker(docker) => Some(docker.pids()[0]),
            Engine::Podman(_) => None,
        }
    }

    pub(crate) fn call(&self, args: &[&str]) -> Invocation {
        match &self.engine {
            Engine::Hull(hull) => hull.call(args),
            Engine::Docker(docker) => docker.call(args),
            Engine::Podman(podman) => podman.call(args),
        }
        .limit(LIMIT)
    }

    /// `run` of busybox in the default network, or in the one that the options say.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Invocation {
        let mut args = vec!["run"];
        match self.engine {
            Engine::Hull(_) => {}
            Engine::Docker(_) => args.extend(["--runtime", "runc"]),
            // The harness has it without a network, unless told otherwise.
            Engine::Podman(_) => args.extend(["--network", "bridge"]),
        }
        args.extend(options);
        args.push("busybox");
        args.extend(words);
        self.call(&args)
    }

    /// Starts a container that does nothing; its network namespace and its address.
    pub(crate) fn rest(&self, name: &str, options: &[&str]) -> (File, String) {
        let options = [&["--detach", "--name", name], options].concat();
        self.run(&options, &["sleep", "1000000"]).run().ok();
        let inspect = |format| {
            let output = self.call(&["inspect", "--format", format, name]).run().ok();
            output.text().to_owned()
        };
        let pid = inspect("{{.State.Pid}}");
        let address = inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        (File::open(format!("/proc/{pid}/ns/net")).expect("the container runs"), address)
    }

    pub(crate) fn remove(&self, name: &str) {
        self.call(&["rm", "--force", name]).run().ok();
    }

    /// A namespace of the lab.
    pub(crate) fn side(&self, side: Side) -> File {
        File::open(self.lab.file(side)).expect("it is pinned")
    }
}
