//! What a shim sees of containerd: bundles, the events' socket, and calls.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use containerd_shim_protos::protobuf::Message;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::rpc::{self, Options};
use super::stdio::make_fifo;
use super::{
    Bootstrap, Client, EventServer, Io, Launch, SOON, StartReply, Stream, TaskPlan, Version, shim,
};
use crate::engine::{Site, containerd, mounts_below, runtime_path};
use crate::wait::poll;
use crate::{Bundle, note};

/// The root file system of every container, below one overlay each.
static ROOT: LazyLock<Bundle> = LazyLock::new(Bundle::new);

/// The test's own containerd, as far as shims know.
#[derive(Debug)]
pub struct Host {
    site: Site,
    events: EventServer,
    bootstrap: Bootstrap,
    shims: Mutex<Vec<Started>>,
}

/// A container whose shim was started, and not yet ended.
#[derive(Debug)]
pub(super) struct Started {
    launch: Launch,
    reply: StartReply,
    pid: i32,
    log: Option<Stream>,
}

impl Host {
    /// Makes one; its shims are started as the containerd in use does it.
    pub fn new() -> Self {
        Self::with_bootstrap(Bootstrap::of_containerd())
    }

    /// Makes one whose shims are started in a certain way.
    pub fn with_bootstrap(bootstrap: Bootstrap) -> Self {
        let site = Site::new();
        let events = EventServer::start(&site.path("containerd.sock.ttrpc"));
        Self { site, events, bootstrap, shims: Mutex::default() }
    }

    /// The private places.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What was published.
    pub fn events(&self) -> &EventServer {
        &self.events
    }

    /// A container about to be made, whose program is a line of shell.
    pub fn shell(&self, id: &str, script: &str) -> TaskPlan<'_> {
        TaskPlan::new(self, id, &["sh", "-c", script])
    }

    /// The runtime's directory of states.
    pub fn runtime_root(&self) -> String {
        self.site.path("runtime")
    }

    /// Named pipes of a new name for the output, and for the input if asked for.
    pub fn pipes(&self, stdin: bool) -> Io {
        let base = self.fifo_base();
        let make = |name: &str| {
            let path = format!("{base}-{name}");
            make_fifo(&path);
            path
        };
        let stdin = if stdin { make("stdin") } else { String::new() };
        Io { stdin, stdout: make("stdout"), stderr: make("stderr"), terminal: false }
    }

    /// Named pipes of a new name for a terminal.
    pub fn console(&self) -> Io {
        let pipes = self.pipes(true);
        fs::remove_file(&pipes.stderr).expect("it was just made");
        Io { stderr: String::new(), terminal: true, ..pipes }
    }

    fn fifo_base(&self) -> String {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        format!("{}/{}", self.site.make("fifos"), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    /// The configuration that every container starts from.
    pub(super) fn configuration(&self, id: &str, args: &[&str]) -> Value {
        let mut config = ROOT.config.clone();
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.site.cgroup()));
        config
    }

    /// The overlay over the common root.
    pub fn overlay(&self, id: &str) -> rpc::Mount {
        let (upper, work) =
            (self.site.make(&format!("upper/{id}")), self.site.make(&format!("work/{id}")));
        let lower = ROOT.rootfs();
        rpc::Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec![
                format!("lowerdir={}", lower.display()),
                format!("upperdir={upper}"),
                format!("workdir={work}"),
            ],
            ..rpc::Mount::default()
        }
    }

    /// What `-address` and the rest would be for a container.
    pub fn launch(&self, id: &str) -> Launch {
        let options = Options {
            binary_name: runtime_path().to_owned(),
            root: self.runtime_root(),
            ..Options::default()
        };
        Launch {
            bootstrap: self.bootstrap,
            namespace: "test".to_owned(),
            id: id.to_owned(),
            bundle: self.site.path(&format!("bundles/{id}")),
            address: self.site.path("containerd.sock"),
            options,
            debug: false,
            socket_directory: None,
            preludes: Vec::new(),
        }
    }

    /// Makes a bundle on disk.
    pub fn make_bundle(&self, id: &str, config: &Value) {
        self.site.make(&format!("bundles/{id}/rootfs"));
        self.site.make(&format!("bundles/{id}/work"));
        self.site.write(&format!("bundles/{id}/config.json"), &config.to_string());
        make_fifo(&self.site.path(&format!("bundles/{id}/log")));
    }

    /// Starts the shim of a container and connects to it.
    #[track_caller]
    pub fn start_shim(&self, launch: Launch) -> (StartReply, Client) {
        let log = Stream::follow(format!("{}/log", launch.bundle));
        let reply = StartReply::of(&launch.start().ok());
        let client = Client::connect(&reply.address, reply.version);
        let request = rpc::ConnectRequest { id: launch.id.clone(), ..Default::default() };
        let answer: rpc::ConnectResponse =
            client.call("Connect", &request).expect("a shim tells its process id");
        let pid = i32::try_from(answer.shim_pid).expect("process ids are positive");
        self.lock().push(Started { launch, reply: reply.clone(), pid, log: Some(log) });
        (reply, client)
    }

    /// Connects to the shim of a sandbox for a container of it, as containerd 2.3 does: it
    /// runs nothing.
    #[track_caller]
    pub(super) fn join_shim(&self, launch: Launch, sandbox: &str) -> Client {
        let log = Stream::follow(format!("{}/log", launch.bundle));
        let (reply, pid) = self.with(sandbox, |started| (started.reply.clone(), started.pid));
        let client = Client::connect(&reply.address, Version::V3);
        self.lock().push(Started { launch, reply, pid, log: Some(log) });
        client
    }

    /// The process id of a container's shim.
    #[track_caller]
    pub fn shim_pid(&self, id: &str) -> i32 {
        self.with(id, |started| started.pid)
    }

    /// What `start` answered for a container.
    #[track_caller]
    pub fn reply(&self, id: &str) -> StartReply {
        self.with(id, |started| started.reply.clone())
    }

    /// What the shim of a container has logged.
    #[track_caller]
    pub fn shim_log(&self, id: &str) -> String {
        self.with(id, Started::said)
    }

    /// Stops to read what the shim of a container logs, as a containerd that died.
    #[track_caller]
    pub fn stop_reading_log(&self, id: &str) {
        let mut shims = self.lock();
        let started = shims.iter_mut().find(|started| started.launch.id == id);
        started.unwrap_or_else(|| panic!("no shim was started for {id}")).log = None;
    }

    /// Kills a container's shim.
    #[track_caller]
    pub fn kill_shim(&self, id: &str) {
        let pid = self.shim_pid(id);
        signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the shim lives");
        crate::wait_until("the end of the shim", SOON, || ended(pid));
    }

    /// Runs the shim's `delete` for a container, whose shim is gone.
    #[track_caller]
    pub fn delete_after_shim(&self, id: &str) -> rpc::DeleteResponse {
        let output = self.with(id, |started| started.launch.delete()).ok();
        let raw = fs::read(&output.stdout_file).expect("it was just written");
        let answer = rpc::DeleteResponse::parse_from_bytes(&raw)
            .unwrap_or_else(|error| panic!("no answer ({error}): {}", output.transcript()));
        let started = self.take(id);
        let last = !self.lock().iter().any(|other| other.pid == started.pid);
        let socket = started.reply.socket();
        // containerd's own shim leaves it.
        if last && !(shim().reference && fs::remove_file(socket).is_ok()) {
            assert!(!socket.exists(), "{} is left", socket.display());
        }
        assert_eq!(remove_bundle(&started), None);
        answer
    }

    /// Tells a container's shim to end, and waits until it and its socket are gone. The
    /// last container of a shim ends it; before, only the container is forgotten.
    #[track_caller]
    pub fn shut_down(&self, id: &str) {
        let started = self.take(id);
        let last = !self.lock().iter().any(|other| other.pid == started.pid);
        ask_to_end(&started);
        let left = remove_bundle(&started).or_else(|| last.then(|| await_end(&started)).flatten());
        assert_eq!(left, None);
    }

    /// Waits until the shim of a container is gone, which has a reason to end.
    #[track_caller]
    pub fn await_end_of(&self, id: &str) {
        let started = self.take(id);
        assert_eq!(await_end(&started).or_else(|| remove_bundle(&started)), None);
    }

    #[track_caller]
    fn take(&self, id: &str) -> Started {
        let mut shims = self.lock();
        let at = shims.iter().position(|started| started.launch.id == id);
        shims.remove(at.unwrap_or_else(|| panic!("no shim was started for {id}")))
    }

    fn with<T>(&self, id: &str, read: impl FnOnce(&Started) -> T) -> T {
        let shims = self.lock();
        let started = shims.iter().find(|started| started.launch.id == id);
        read(started.unwrap_or_else(|| panic!("no shim was started for {id}")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Started>> {
        self.shims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Started {
    fn said(&self) -> String {
        self.log.as_ref().map(Stream::text).unwrap_or_default()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks a shim to end. It does so when it has no container any more.
fn ask_to_end(started: &Started) {
    let client = Client::connect(&started.reply.address, started.reply.version);
    let request = rpc::ShutdownRequest { id: started.launch.id.clone(), ..Default::default() };
    // The connection may close before the answer is out.
    let _ = client.call::<_, rpc::Empty>("Shutdown", &request);
}

/// Removes a bundle, as containerd does. Gives what is wrong.
fn remove_bundle(started: &Started) -> Option<String> {
    let bundle = Path::new(&started.launch.bundle);
    let mount = mounts_below(bundle).first().map(|point| format!("mount {}", point.display()));
    if mount.is_none() {
        fs::remove_dir_all(bundle).expect("it is ours, and holds no mount");
    }
    mount
}

/// Waits until a shim and its socket are gone. Gives what is wrong.
fn await_end(started: &Started) -> Option<String> {
    if poll(SOON, || ended(started.pid).then_some(())).is_none() {
        return Some(format!("the shim of {} does not end", started.launch.id));
    }
    let socket = started.reply.socket();
    // It forgets it when the bundle of the container that it was started for is gone, or
    // when it was told where to put it.
    if shim().containerd_2 {
        let _ = fs::remove_file(socket);
    }
    let gone = poll(SOON, || (!socket.exists()).then_some(()));
    gone.is_none().then(|| format!("socket {}", socket.display()))
}

/// Whether a process is gone, or only waited for.
pub fn ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Ends whatever still runs in a container, as a user would who has lost patience.
fn destroy(started: &Started) {
    if UnixStream::connect(started.reply.socket()).is_err() {
        return;
    }
    let client = Client::connect(&started.reply.address, started.reply.version);
    let id = started.launch.id.clone();
    let kill = rpc::KillRequest { id: id.clone(), signal: 9, all: true, ..Default::default() };
    let wait = rpc::WaitRequest { id: id.clone(), ..Default::default() };
    let delete = rpc::DeleteRequest { id, ..Default::default() };
    if client.call::<_, rpc::Empty>("Kill", &kill).is_ok() {
        let _ = client.call::<_, rpc::WaitResponse>("Wait", &wait);
    }
    let _ = client.call::<_, rpc::DeleteResponse>("Delete", &delete);
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut left = Vec::new();
        let shims = std::mem::take(&mut *self.lock());
        if std::thread::panicking() {
            for started in &shims {
                let log = started.said();
                note(&format!("the shim of {} says:\n{log}", started.launch.id));
            }
        }
        for started in &shims {
            containerd::attempt(&mut left, || destroy(started));
        }
        for (at, started) in shims.iter().enumerate() {
            left.extend(remove_bundle(started));
            if shims[at + 1..].iter().any(|other| other.pid == started.pid) {
                continue;
            }
            if ended(started.pid) {
                left.push(format!("the shim of {} ended on its own", started.launch.id));
                continue;
            }
            let end = || {
                ask_to_end(started);
                await_end(started)
            };
            let complaint = containerd::attempt(&mut left, end);
            left.extend(complaint.flatten());
        }
        // The readers would keep the site's file system busy.
        drop(shims);
        self.events.go_away();
        left.extend(containerd::runtime_states(&self.runtime_root()));
        left.extend(self.site.clear(&[], |_| false));
        containerd::report(&shim().banner, &left);
    }
}
