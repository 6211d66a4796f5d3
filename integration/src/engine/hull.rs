//! hulld on places of its own, and the hull command line to talk to it.

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::daemon::Daemon;
use super::site::{attempt, report};
use super::{Lab, Side, Site, Terminal, busybox_archive, command, runtime_path};
use crate::{Invocation, Output, note};

/// A hulld of the test's own, with the image `busybox`.
#[derive(Debug)]
pub struct Hull {
    site: Site,
    daemon: Option<Daemon>,
    flags: Vec<String>,
    words: Vec<String>,
    /// Words before hulld's that put it on a lab's host.
    place: Vec<String>,
}

/// In the machine's own namespace hulld makes no link, no route and no rule.
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
        Self::make(flags, Vec::new())
    }

    /// Starts one with the image and its networks on the host of a lab, with further flags.
    #[track_caller]
    pub fn start_in(lab: &Lab, flags: &[&str]) -> Self {
        let hull = Self::make(flags, lab.words(Side::Host));
        hull.run(&["import", busybox_archive(), "busybox"]).ok();
        hull
    }

    #[track_caller]
    fn make(flags: &[&str], place: Vec<String>) -> Self {
        let site = Site::new();
        configure(&site, &place, &[]);
        let words = vec![
            program("HULL_CLI", "hull"),
            "--config".to_owned(),
            site.make("client"),
            "--host".to_owned(),
            format!("unix://{}", socket(&site)),
        ];
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let daemon = Some(start_daemon(&site, &place, &flags));
        Self { site, daemon, flags, words, place }
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

    /// Writes the configuration anew, with the runtime under test by these names too, and has
    /// hulld read it.
    pub fn reload(&self, runtimes: &[&str]) {
        configure(&self.site, &self.place, runtimes);
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

    /// A command of hull, as words.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        let mut words = self.words.clone();
        words.extend(args.iter().map(|&word| word.to_owned()));
        words
    }

    /// A command of hull, not yet run.
    pub fn call(&self, args: &[&str]) -> Invocation {
        command(&self.words(args))
    }

    /// Runs a command of hull.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.call(args).run()
    }

    /// Runs a command of hull on a terminal.
    #[track_caller]
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.words(args))
    }
}

/// A program that `make` has built; tests are told by a variable where.
#[track_caller]
pub fn program(variable: &str, name: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} must name {name}; `make` sets it"))
}

fn configure(site: &Site, place: &[String], runtimes: &[&str]) {
    let names = ["hull"].iter().chain(runtimes);
    let runtimes: Vec<String> =
        names.map(|name| format!("{name:?}: {{\"path\": {:?}}}", runtime_path())).collect();
    let networks = if place.is_empty() { WITHOUT_NETWORKS } else { "" };
    let runtimes = runtimes.join(", ");
    site.write("daemon.json", &format!("{{{networks}\"runtimes\": {{{runtimes}}}}}"));
}

fn socket(site: &Site) -> String {
    site.path("hull.sock")
}

fn start_daemon(site: &Site, place: &[String], flags: &[String]) -> Daemon {
    let mut words = place.to_vec();
    words.extend([
        program("HULL_HULLD", "hulld"),
        "--config-file".to_owned(),
        site.path("daemon.json"),
        "--data-root".to_owned(),
        site.path("data"),
        "--exec-root".to_owned(),
        site.path("exec"),
        "--socket".to_owned(),
        socket(site),
        "--cgroup-parent".to_owned(),
        site.cgroup(),
        "--shim-path".to_owned(),
        program("HULL_SHIM_PROGRAM", "containerd-shim-hull-v2"),
        "--init-path".to_owned(),
        program("HULL_INIT", "hull-init"),
    ]);
    words.extend_from_slice(flags);
    Daemon::start(&words, &site.path("hulld.log"), &socket(site))
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
        left.extend(self.site.clear(&[], |_| false));
        report("hulld", &left);
    }
}
