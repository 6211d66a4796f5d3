//! dockerd with a containerd of its own, and the docker command line to talk to it.

use std::ops::Deref;

use super::containerd::{self, runtime_states};
use super::daemon::Daemon;
use super::site::{attempt, report};
use super::{Client, Lab, Side, Site, busybox_archive, runtime_path, stock};
use crate::note;

/// The name under which dockerd is given the runtime.
pub const RUNTIME_NAME: &str = "under-test";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    None,
    Bridge,
    /// A bridge that leads out of the host of a lab: the words that put dockerd there.
    Lab(Vec<String>),
}

/// A dockerd of the test's own, with the image `busybox`.
#[derive(Debug)]
pub struct Docker {
    site: Site,
    network: Network,
    /// Whether published ports have proxies, as they do by dockerd's own default.
    proxies: bool,
    containerd: Daemon,
    daemon: Option<Daemon>,
    client: Client,
}

impl Docker {
    /// Starts one whose containers have no network.
    pub fn start() -> Self {
        Self::start_as(Network::None, false)
    }

    /// Starts one with dockerd's own bridge, in a network namespace that goes with it.
    pub fn start_with_bridge() -> Self {
        Self::start_as(Network::Bridge, false)
    }

    /// Starts one with its networks on the host of a lab.
    pub fn start_in(lab: &Lab) -> Self {
        Self::start_as(Network::Lab(lab.words(Side::Host)), false)
    }

    /// The same, with a proxy for each published port.
    pub fn start_with_proxies_in(lab: &Lab) -> Self {
        Self::start_as(Network::Lab(lab.words(Side::Host)), true)
    }

    fn start_as(network: Network, proxies: bool) -> Self {
        // Before there is anything that would be left.
        for program in ["containerd", "docker", "dockerd"] {
            stock(program);
        }
        let site = Site::new();
        let containerd = containerd::start_daemon(&site);
        let words = vec![
            stock("docker"),
            "--config".to_owned(),
            site.make("client"),
            "--host".to_owned(),
            format!("unix://{}", socket(&site)),
        ];
        let daemon = start_daemon(&site, &network, proxies);
        let client = Client::new(words);
        let docker = Self { site, network, proxies, containerd, daemon: Some(daemon), client };
        docker.run(&["import", busybox_archive(), "busybox"]).ok();
        docker
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Its two daemons: dockerd and containerd.
    pub fn pids(&self) -> [u32; 2] {
        [self.daemon.as_ref().expect("dockerd runs").pid(), self.containerd.pid()]
    }

    /// Kills dockerd and starts it again; containerd and the containers live on.
    pub fn crash_and_restart(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.crash();
        }
        let _ = std::fs::remove_file(self.site.path("docker.pid"));
        self.daemon = Some(start_daemon(&self.site, &self.network, self.proxies));
    }

    /// Where the runtime keeps its state, under a directory for containerd's namespace.
    pub fn runtime_root(&self) -> String {
        // dockerd has one for all runtimes, whatever their names are.
        self.site.path("exec/runtime-runc")
    }
}

impl Deref for Docker {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

fn socket(site: &Site) -> String {
    site.path("docker.sock")
}

fn start_daemon(site: &Site, network: &Network, proxies: bool) -> Daemon {
    stock("docker-init");
    let leads_out = matches!(network, Network::Lab(_));
    let mut configuration = serde_json::json!({
        "data-root": site.make("data"),
        "exec-root": site.make("exec"),
        "pidfile": site.path("docker.pid"),
        "hosts": [format!("unix://{}", socket(site))],
        "containerd": containerd::socket(site),
        "runtimes": { RUNTIME_NAME: { "path": runtime_path() } },
        "default-runtime": RUNTIME_NAME,
        "cgroup-parent": site.cgroup(),
        "iptables": *network != Network::None,
        "ip6tables": false,
        "ip-forward": leads_out,
        "ip-masq": leads_out,
        "userland-proxy": proxies,
        "storage-driver": "overlay2",
        "live-restore": true,
        // Its default is below /etc.
        "deprecated-key-path": site.path("key.json"),
    });
    let mut words = Vec::new();
    match network {
        Network::None => configuration["bridge"] = "none".into(),
        Network::Bridge => {
            // What it does to links, routes and filters is done to nobody else's.
            stock("iptables");
            let script = format!("{} link set lo up; exec \"$@\"", stock("ip"));
            let shell = ["--net", "sh", "-c", &script, "sh"].map(str::to_owned);
            words.push(stock("unshare"));
            words.extend(shell);
        }
        Network::Lab(place) => words.clone_from(place),
    }
    let configuration = site.write("daemon.json", &configuration.to_string());
    words.extend([stock("dockerd"), "--config-file".to_owned(), configuration]);
    Daemon::start(&words, &site.path("docker.log"), &socket(site))
}

impl Drop for Docker {
    fn drop(&mut self) {
        let mut left = Vec::new();
        attempt(&mut left, || {
            for id in self.run(&["ps", "--all", "--quiet"]).ok().lines() {
                self.run(&["rm", "--force", "--volumes", id]).ok();
            }
        });
        left.extend(runtime_states(&self.runtime_root()));
        if let Some(mut daemon) = self.daemon.take() {
            if std::thread::panicking() {
                note(&format!("dockerd says:\n{}", daemon.tail()));
            }
            left.extend(daemon.stop());
        }
        left.extend(self.containerd.stop());
        // The network namespace of containers without a network, and with live-restore
        // the bind mount of the data directory on itself, outlive dockerd.
        left.extend(self.site.clear(&["exec/netns/default", "data"], |_| false));
        report("docker", &left);
    }
}
