//! `NOTIFY_SOCKET`: a container that says when it is ready.

use std::os::unix::net::UnixDatagram;

use hull_integration::{
    Bundle, Container, Invocation, Output, SOON, peer_lacks, tests, wait_until,
};

tests![
    a_detached_run_returns_once_the_container_is_ready,
    start_returns_once_the_container_is_ready,
    a_foreground_run_is_the_process_to_watch,
    a_foreground_run_ends_with_a_program_that_is_never_ready,
    start_returns_when_the_container_ends_before_it_is_ready,
    a_container_that_waits_to_be_ready_can_be_deleted,
    a_container_created_without_a_socket_is_not_started_with_one,
    the_containers_socket_cannot_be_replaced,
];

/// A container that is ready when the file `/tmp/go` is there, and the caller's socket.
struct Service {
    container: Container,
    socket: UnixDatagram,
    path: String,
}

impl Service {
    fn new(script: &str) -> Self {
        peer_lacks!("crun", "it names no process to watch");
        let container = Container::new(Bundle::shell(script));
        let path = container.root().join("caller.sock").display().to_string();
        let socket = UnixDatagram::bind(&path).expect("the directory is writable");
        socket.set_read_timeout(Some(SOON)).expect("a socket has a time limit");
        Self { container, socket, path }
    }

    fn late() -> Self {
        Self::new(
            "until [ -e /tmp/go ]; do sleep 0.02; done; \
             /probe notify STATUS=starting READY=1 STATUS=up; \
             trap 'exit 4' TERM; echo > /tmp/sent; while :; do sleep 0.02; done",
        )
    }

    fn with(&self, invocation: Invocation) -> Invocation {
        invocation.env("NOTIFY_SOCKET", &self.path)
    }

    fn create(&self) {
        self.with(self.container.with_bundle(&["create"])).run().ok();
    }

    fn start(&self) -> Invocation {
        self.with(self.container.invoke(&["start", &self.container.id]))
    }

    fn is_running(&self) -> bool {
        let state = self.container.command("state", &[]);
        state.code() == Some(0) && state.json()["status"] == "running"
    }

    fn go(&self) {
        std::fs::write(self.container.bundle.path("/tmp/go"), "").expect("the root is writable");
    }

    /// Whatever else has arrived; a barrier ends with its being read.
    fn rest(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .map(|message| String::from_utf8_lossy(&message).into_owned())
            .collect()
    }

    /// What arrives: two lines, from whoever passes them on.
    fn heard(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.len() < 2 {
            let mut buffer = [0; 4096];
            let n = self.socket.recv(&mut buffer).expect("a message within the limit");
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

/// Whether the runtime still waits is seen while the container runs.
fn waits_then_tells(service: &Service, command: Invocation) -> Output {
    let mut running = command.start();
    wait_until("the container to run", SOON, || service.is_running());
    assert!(!running.ended(), "the runtime waits until the container is ready");
    service.go();
    let lines = service.heard();
    assert_eq!(lines, ["READY=1".to_owned(), format!("MAINPID={}", service.container.pid())]);
    let mut rest = Vec::new();
    wait_until("the runtime to end", SOON, || {
        rest.extend(service.rest());
        running.ended()
    });
    // runc has it since 1.2.
    assert!(rest.iter().all(|message| message == "BARRIER=1"), "{rest:?}");
    let output = running.wait();
    service.container.stop();
    service.container.delete().ok();
    output
}

fn a_detached_run_returns_once_the_container_is_ready() {
    let service = Service::late();
    let command = service.with(service.container.with_bundle(&["run", "--detach"]));
    waits_then_tells(&service, command).ok();
    service.container.assert_gone();
}

fn start_returns_once_the_container_is_ready() {
    let service = Service::late();
    service.create();
    waits_then_tells(&service, service.start()).ok();
    service.container.assert_gone();
}

fn a_foreground_run_is_the_process_to_watch() {
    let service = Service::late();
    let running = service.with(service.container.with_bundle(&["run"])).start();
    service.go();
    assert_eq!(service.heard(), ["READY=1".to_owned(), format!("MAINPID={}", running.pid())]);
    let sent = service.container.bundle.path("/tmp/sent");
    wait_until("the container's own words to be sent", SOON, || sent.exists());
    // It is still there for its container.
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().exits(4);
}

fn a_foreground_run_ends_with_a_program_that_is_never_ready() {
    peer_lacks!("runc", "it waits for ever");
    let service = Service::new("/probe notify STATUS=READY=1; exit 5");
    service.with(service.container.with_bundle(&["run"])).run().exits(5);
    assert!(service.rest().is_empty(), "nothing was said");
}

fn start_returns_when_the_container_ends_before_it_is_ready() {
    let service = Service::new("/probe notify STATUS=starting; exit 1");
    service.create();
    service.start().run().ok();
    assert_eq!(service.container.status(), "stopped");
}

fn a_container_that_waits_to_be_ready_can_be_deleted() {
    let service = Service::late();
    service.create();
    let running = service.start().start();
    wait_until("the container to run", SOON, || service.is_running());
    service.container.delete_force().ok();
    running.wait();
    service.container.assert_gone();
}

fn a_container_created_without_a_socket_is_not_started_with_one() {
    let service = Service::late();
    service.container.create().ok();
    service.start().run().fails();
    assert_eq!(service.container.status(), "created");
}

fn the_containers_socket_cannot_be_replaced() {
    let service = Service::new(
        "rm /run/notify/notify.sock && exit 9; echo > /run/notify/x && exit 9; \
         /probe notify READY=1",
    );
    let output = service.with(service.container.with_bundle(&["run"])).run().ok();
    assert_eq!(output.lines(), ["{\"notify\":0}"]);
    assert_eq!(service.heard().len(), 2);
}
