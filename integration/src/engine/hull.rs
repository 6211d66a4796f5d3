//! hulld on places of its own, and the hull command line to talk to it.

use std::ops::Deref;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::daemon::Daemon;
use super::site::{attempt, report};
use super::{Client, Lab, Side, Site, busybox_archive, runtime_path, stock};
use crate::{cgroup, note};

/// A hulld of the test's own, with the image `busybox`.
#[derive(Debug)]
pub struct Hull {
    site: Site,
    daemon: Option<Daemon>,
    flags: Vec<String>,
    client: Client,
    /// Words before hulld's that put it somewhere else.
    place: Vec<String>,
    networks: Networks,
}

/// Whether it makes networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Networks {
    Yes,
    /// In the machine's own namespace hulld makes no link, no route and no rule.
    No,
}

/// The name of the runtime under test.
const OWN_RUNTIME: &str = "hull";

const HIDE_UNIFIED: &str = "umount /sys/fs/cgroup/unified && exec \"$@\"";

/// The value of `--exec-opt` with which systemd makes the cgroups.
pub const SYSTEMD_CGROUPS: &str = "native.cgroupdriver=systemd";

/// The data root, in the site.
const DATA: &str = "data";

const WITHOUT_NETWORKS: &str = r#""bridge":"none","iptables":false,"ip-forward":false,"#;

impl Hull {
    /// Starts one with the image.
    #[track_caller]
    pub fn start() -> Self {
        let hull = Self::start_empty(&[]);
        hull.run(&["import", busybox_archive(), "busybox"]).ok();
        hull
    }

    /// Starts one without any image, with further flags.
    #[track_caller]
    pub fn start_empty(flags: &[&str]) -> Self {
        Self::make(flags, Vec::new(), None, Networks::No)
    }

    /// Starts one with the image where crun works (it refuses a hybrid layout of cgroups whose v2
    /// tree has a controller), which is also told of it by the name `other`.
    #[track_caller]
    pub fn start_with_crun() -> Self {
        let place = match cgroup::layout() {
            cgroup::Layout::Hybrid => {
                let words = ["unshare", "--mount", "sh", "-c", HIDE_UNIFIED, "sh"];
                words.map(str::to_owned).to_vec()
            }
            _ => Vec::new(),
        };
        let [own, crun] =
            [format!("{OWN_RUNTIME}={}", runtime_path()), format!("other={}", stock("crun"))];
        let flags = ["--add-runtime", &own, "--add-runtime", &crun];
        let hull = Self::make(&flags, place, None, Networks::No);
        hull.run(&["import", busybox_archive(), "busybox"]).ok();
        hull
    }

    /// Starts one with the image, and its data root on a file system of its own of so many
    /// mebibytes.
    #[track_caller]
    pub fn start_small(data_mib: u32, flags: &[&str]) -> Self {
        let hull = Self::make(flags, Vec::new(), Some(data_mib), Networks::No);
        hull.run(&["import", busybox_archive(), "busybox"]).ok();
        hull
    }

    /// Starts one with the image and its networks on the host of a lab, with further flags.
    #[track_caller]
    pub fn start_in(lab: &Lab, flags: &[&str]) -> Self {
        let hull = Self::make(flags, lab.words(Side::Host), None, Networks::Yes);
        hull.run(&["import", busybox_archive(), "busybox"]).ok();
        hull
    }

    #[track_caller]
    fn make(flags: &[&str], place: Vec<String>, data_mib: Option<u32>, networks: Networks) -> Self {
        let site = Site::new();
        if let Some(size) = data_mib {
            let options = format!("mode=711,size={size}m");
            let data = site.make(DATA);
            mount(Some("hull"), data.as_str(), Some("tmpfs"), MsFlags::empty(), Some(&*options))
                .expect("the suite is root");
        }
        // A key that is given twice is refused.
        let of_flags = flags.contains(&"--add-runtime");
        configure(&site, networks, if of_flags { &[] } else { &[OWN_RUNTIME] });
        let words = vec![
            program("HULL_CLI", "hull"),
            "--config".to_owned(),
            site.make("client"),
            "--host".to_owned(),
            format!("unix://{}", socket(&site)),
        ];
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let daemon = Some(start_daemon(&site, &place, &flags));
        Self { site, daemon, flags, client: Client::new(words), place, networks }
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The socket of hulld.
    pub fn socket(&self) -> String {
        socket(&self.site)
    }

    /// hulld's process.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("hulld runs").pid()
    }

    /// Kills hulld; the containers live on.
    pub fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.crash();
        }
    }

    /// Starts hulld again after [`Self::crash`].
    #[track_caller]
    pub fn restart(&mut self) {
        self.daemon = Some(start_daemon(&self.site, &self.place, &self.flags));
    }

    /// Writes the configuration anew, with the runtime under test by these names too.
    pub fn configure(&self, runtimes: &[&str]) {
        configure(&self.site, self.networks, &[&[OWN_RUNTIME], runtimes].concat());
    }

    /// Writes the configuration anew, and has hulld read it.
    pub fn reload(&self, runtimes: &[&str]) {
        self.configure(runtimes);
        let pid = i32::try_from(self.pid()).expect("process ids are positive");
        signal::kill(Pid::from_raw(pid), Signal::SIGHUP).expect("hulld runs");
    }

    /// Kills hulld and starts it again.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// Asks hulld to end, and starts it again.
    #[track_caller]
    pub fn stop_and_restart(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            assert_eq!(daemon.stop(), None, "hulld ends when asked");
        }
        self.restart();
    }

    /// The words that start hulld.
    pub fn daemon_words(&self) -> Vec<String> {
        daemon_words(&self.site, &self.place, &self.flags)
    }
}

impl Deref for Hull {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A program that `make` has built; tests are told by a variable where.
#[track_caller]
pub fn program(variable: &str, name: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} must name {name}; `make` sets it"))
}

fn configure(site: &Site, networks: Networks, runtimes: &[&str]) {
    let runtimes: Vec<String> = runtimes
        .iter()
        .map(|name| format!("{name:?}: {{\"path\": {:?}}}", runtime_path()))
        .collect();
    let networks = if networks == Networks::No { WITHOUT_NETWORKS } else { "" };
    let runtimes = match runtimes.as_slice() {
        [] => String::new(),
        _ => format!("\"runtimes\": {{{}}},", runtimes.join(", ")),
    };
    let rest = format!("{networks}{runtimes}");
    site.write("daemon.json", &format!("{{{}}}", rest.trim_end_matches(',')));
}

fn socket(site: &Site) -> String {
    site.path("hull.sock")
}

fn daemon_words(site: &Site, place: &[String], flags: &[String]) -> Vec<String> {
    let mut words = place.to_vec();
    words.extend([
        program("HULL_HULLD", "hulld"),
        "--config-file".to_owned(),
        site.path("daemon.json"),
        "--data-root".to_owned(),
        site.path(DATA),
        "--exec-root".to_owned(),
        site.path("exec"),
        "--socket".to_owned(),
        socket(site),
        "--cgroup-parent".to_owned(),
        match flags.iter().any(|flag| flag == SYSTEMD_CGROUPS) {
            true => site.slice(),
            false => site.cgroup(),
        },
        "--shim-path".to_owned(),
        program("HULL_SHIM_PROGRAM", "containerd-shim-hull-v2"),
        "--init-path".to_owned(),
        program("HULL_INIT", "hull-init"),
    ]);
    words.extend_from_slice(flags);
    words
}

fn start_daemon(site: &Site, place: &[String], flags: &[String]) -> Daemon {
    Daemon::start(&daemon_words(site, place, flags), &site.path("hulld.log"), &socket(site))
}

impl Drop for Hull {
    fn drop(&mut self) {
        let mut left = Vec::new();
        if self.daemon.is_none() {
            attempt(&mut left, || self.restart());
        }
        attempt(&mut left, || {
            for id in self.run(&["ps", "--all", "--quiet"]).ok().lines() {
                self.run(&["rm", "--force", "--volumes", id]).ok();
            }
        });
        if let Some(mut daemon) = self.daemon.take() {
            if std::thread::panicking() {
                note(&format!("hulld says:\n{}", daemon.tail()));
            }
            left.extend(daemon.stop());
        }
        // Mounted by start_small only.
        left.extend(self.site.clear(&[DATA], |_| false));
        report("hulld", &left);
    }
}
