//! containerd, and `ctr` to talk to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::daemon::Daemon;
pub(crate) use super::site::{attempt, report};
use super::{Site, Terminal, command, oci_layout, runtime_path, stock};
use crate::{Output, note};

/// The image that every test has.
pub const IMAGE: &str = "localhost/busybox:latest";

/// Which containerd is started, and what it finds.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// A directory with `containerd` and `ctr`, instead of Debian's.
    pub directory: Option<PathBuf>,
    /// Programs that it finds by a name, before those of its PATH.
    pub programs: Vec<(String, PathBuf)>,
}

/// A containerd of the test's own, with the image [`IMAGE`].
#[derive(Debug)]
pub struct Containerd {
    site: Site,
    setup: Setup,
    daemon: Option<Daemon>,
}

impl Containerd {
    /// Starts Debian's.
    pub fn start() -> Self {
        Self::start_with(Setup::default())
    }

    /// Starts one.
    pub fn start_with(setup: Setup) -> Self {
        let site = Site::new();
        let programs = PathBuf::from(site.make("bin"));
        for (name, target) in &setup.programs {
            symlink(target, programs.join(name)).expect("the site is writable");
        }
        let daemon = Some(setup.start(&site));
        let containerd = Self { site, setup, daemon };
        containerd.ctr(&["images", "import", oci_layout()]).ok();
        containerd
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Kills containerd and starts it again; its shims live on.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.come_back();
    }

    /// Kills containerd.
    pub fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.crash();
        }
    }

    /// Asks containerd to end, and waits for it.
    #[track_caller]
    pub fn stop(&mut self) {
        let complaint = self.daemon.take().and_then(|mut daemon| daemon.stop());
        assert_eq!(complaint, None);
    }

    /// Starts it again on the same places.
    #[track_caller]
    pub fn come_back(&mut self) {
        self.daemon = Some(self.setup.start(&self.site));
    }

    /// Its socket.
    pub fn socket(&self) -> String {
        socket(&self.site)
    }

    /// A command of ctr, as words.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        let fifos = self.site.path("fifos");
        let mut words = vec![self.setup.program("ctr"), "--address".to_owned(), socket(&self.site)];
        let mut all: Vec<&str> = args.to_vec();
        let (at, fifo_option) = match args {
            ["run", ..] => (1, true),
            ["tasks", "exec" | "start" | "attach", ..] => (2, args[1] != "attach"),
            _ => (0, false),
        };
        if fifo_option {
            all.splice(at..at, ["--fifo-dir", &*fifos]);
        }
        words.extend(all.into_iter().map(str::to_owned));
        words
    }

    /// Runs a command of ctr.
    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> Output {
        command(&self.words(args)).run()
    }

    /// The words of `ctr run` for a container of the image.
    pub fn run_words(&self, id: &str, options: &[&str], args: &[&str]) -> Vec<String> {
        let (root, cgroup) = (self.runtime_root(), format!("{}/{id}", self.site.cgroup()));
        let mut all = vec!["run", "--runc-binary", runtime_path(), "--runc-root", &root];
        all.extend(["--cgroup", &cgroup]);
        all.extend(options);
        // With a configuration the image is not named.
        if !options.contains(&"--config") {
            all.push(IMAGE);
        }
        all.push(id);
        all.extend(args);
        self.words(&all)
    }

    /// Runs a line of shell in a new container, and removes it.
    #[track_caller]
    pub fn shell(&self, id: &str, options: &[&str], script: &str) -> Output {
        let options = [&["--rm"], options].concat();
        command(&self.run_words(id, &options, &["sh", "-c", script])).run()
    }

    /// Starts a line of shell in a new container, and leaves it there.
    #[track_caller]
    pub fn detach(&self, id: &str, options: &[&str], script: &str) {
        let options = [&["--detach"], options].concat();
        command(&self.run_words(id, &options, &["sh", "-c", script])).run().ok();
    }

    /// Runs a command in a running container.
    #[track_caller]
    pub fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> Output {
        let mut all = vec!["tasks", "exec", "--exec-id", exec_id, id];
        all.extend(args);
        self.ctr(&all)
    }

    /// Runs `ctr run` on a terminal.
    #[track_caller]
    pub fn terminal(&self, words: &[String]) -> Terminal {
        Terminal::start(words)
    }

    /// The state of a task, as ctr calls it.
    #[track_caller]
    pub fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(&["tasks", "list"]).ok();
        list.lines().into_iter().find_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next() == Some(id)).then(|| fields.nth(1).unwrap_or_default().to_owned())
        })
    }

    /// Where the runtime keeps its state: containerd adds its own namespace.
    pub fn runtime_root(&self) -> String {
        self.site.path("runtime")
    }

    /// The bundle that containerd made for a container.
    pub fn bundle(&self, id: &str) -> String {
        self.site.path(&format!("state/io.containerd.runtime.v2.task/default/{id}"))
    }
}

/// The socket of the containerd of a site.
pub(super) fn socket(site: &Site) -> String {
    site.path("containerd.sock")
}

/// Starts Debian's containerd in a site.
pub(super) fn start_daemon(site: &Site) -> Daemon {
    Setup::default().start(site)
}

impl Setup {
    fn program(&self, name: &str) -> String {
        match &self.directory {
            Some(directory) => directory.join(name).to_str().expect("the path is text").to_owned(),
            None => stock(name),
        }
    }

    fn start(&self, site: &Site) -> Daemon {
        self.program("containerd-shim-runc-v2");
        // Without these plugins it keeps to its places, and starts in a tenth of a second.
        // The last four are what containerd 2 made of the first.
        let configuration = format!(
            "version = 2\n\
             root = \"{root}\"\n\
             state = \"{state}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\",\n\
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\",\n\
             \"io.containerd.podsandbox.controller.v1.local\", \"io.containerd.nri.v1.nri\"]\n\
             [grpc]\n\
             address = \"{socket}\"\n",
            root = site.make("content"),
            state = site.make("state"),
            socket = socket(site),
        );
        let configuration = site.write("containerd.toml", &configuration);
        let path = std::env::var("PATH").unwrap_or_default();
        let path = match &self.directory {
            Some(directory) => format!("{}:{path}", directory.display()),
            None => path,
        };
        let path = format!("PATH={}:{path}", site.path("bin"));
        let words =
            [stock("env"), path, self.program("containerd"), "--config".to_owned(), configuration];
        Daemon::start(&words, &site.path("containerd.log"), &socket(site))
    }
}

/// The directories of containers that a runtime still keeps below a root with one
/// directory a namespace.
pub(crate) fn runtime_states(root: &str) -> Vec<String> {
    let list = |path: &Path| -> Vec<_> {
        fs::read_dir(path)
            .map(|all| all.flatten().map(|one| one.path()).collect())
            .unwrap_or_default()
    };
    list(Path::new(root))
        .iter()
        .flat_map(|namespace| list(namespace))
        .map(|path| format!("state {}", path.display()))
        .collect()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let mut left = Vec::new();
        attempt(&mut left, || {
            for id in self.ctr(&["tasks", "list", "--quiet"]).ok().lines() {
                // Its own exit code is that of the task.
                self.ctr(&["tasks", "delete", "--force", id]);
            }
            for id in self.ctr(&["containers", "list", "--quiet"]).ok().lines() {
                self.ctr(&["containers", "delete", id]).ok();
            }
        });
        left.extend(runtime_states(&self.runtime_root()));
        if let Some(mut daemon) = self.daemon.take() {
            if std::thread::panicking() {
                note(&format!("containerd says:\n{}", daemon.tail()));
            }
            left.extend(daemon.stop());
        }
        left.extend(self.site.clear(&[], |_| false));
        report("containerd", &left);
    }
}
