//! A host, containers and a runtime of the test's own.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hull_manager_cni::{Addition, Attachment, Cni, Network, Settings};
use hull_manager_core::Result;
use hull_runtime_sys::namespace;
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// What the test's thread runs in.
pub(crate) struct Lab {
    pub(crate) directory: TempDir,
    pub(crate) settings: Settings,
    runtime: tokio::runtime::Runtime,
}

/// Runs a test on a host of its own; false: it can't be run here.
pub(crate) fn lab(test: impl FnOnce(&Lab)) {
    if hull_runtime_sys::process::effective_uid() != 0 || !Path::new(REFERENCE).is_dir() {
        let required = std::env::var("HULL_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "root and Debian's package containernetworking-plugins are required");
        eprintln!("skipped: needs root and Debian's package containernetworking-plugins");
        return;
    }
    namespace::unshare(libc::CLONE_NEWNET).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(directory.path().join("records"));
    settings.path = vec![directory.path().join("plugins"), REFERENCE.into()];
    fs::create_dir(&settings.path[0]).unwrap();
    // All in this thread, whose namespace the plugins inherit.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    test(&Lab { directory, settings, runtime });
}

impl Lab {
    pub(crate) fn cni(&self) -> Cni {
        Cni::open(self.settings.clone()).unwrap()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn add(&self, network: &Network, attachment: Attachment) -> Result<Addition> {
        self.wait(self.cni().add(network, attachment))
    }

    pub(crate) fn check(&self, network: &Network, container: &str) -> Result<()> {
        self.wait(self.cni().check(&network.name, container, "eth0"))
    }

    pub(crate) fn del(&self, network: &Network, container: &str) -> Result<()> {
        self.wait(self.cni().del(&network.name, container, "eth0"))
    }

    /// A plugin that is a shell script.
    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let path = self.settings.path[0].join(name);
        // Never open for writing while another test's thread forks: "text file busy".
        let new = self.directory.path().join(name);
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        run("cp", &[new.to_str().unwrap(), path.to_str().unwrap()]);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The records that there are.
    pub(crate) fn records(&self) -> usize {
        fs::read_dir(&self.settings.records).unwrap().count()
    }
}

/// A container's network namespace, as a file that lives as long as this.
pub(crate) struct Container {
    namespace: File,
}

impl Container {
    pub(crate) fn new() -> Self {
        let namespace = thread::spawn(|| {
            namespace::unshare(libc::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self { namespace: namespace.join().unwrap() }
    }

    pub(crate) fn attachment(&self, id: &str) -> Attachment {
        Attachment {
            container_id: id.into(),
            netns: format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into(),
            interface: "eth0".into(),
            ..Attachment::default()
        }
    }

    /// Does something inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace::setns(&self.namespace, libc::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    pub(crate) fn ip(&self, words: &[&str]) -> String {
        self.inside(|| run("ip", words))
    }

    /// A server that says who it is and to whom it speaks, as long as the process lives.
    pub(crate) fn greet(&self, port: u16, greeting: &'static str) {
        let listener = self.inside(|| TcpListener::bind(("::", port)).unwrap());
        thread::spawn(move || {
            use std::io::Write as _;
            while let Ok((mut stream, _)) = listener.accept() {
                drop(stream.write_all(greeting.as_bytes()));
            }
        });
    }
}

/// What a server says; none: it can't be reached.
pub(crate) fn greeting(address: &str) -> Option<String> {
    use std::io::Read as _;
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The output of a program that must succeed.
pub(crate) fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn network(text: Value) -> Network {
    Network::parse(text.to_string().as_bytes()).unwrap()
}

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        thread::sleep(Duration::from_millis(10));
    }
}
