//! What goes wrong: the shim is killed, containerd is away, somebody talks nonsense.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use hull_integration::shim::rpc::{self, Status};
use hull_integration::shim::{Client, Host, SLEEPER, SOON, Task, frame, shim, time};
use hull_integration::{reference_lacks, tests, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

tests![
    a_running_container_is_cleaned_up_after_its_shim,
    a_created_container_is_cleaned_up_after_its_shim,
    a_paused_container_is_cleaned_up_after_its_shim,
    a_stopped_container_is_cleaned_up_after_its_shim,
    a_pod_is_cleaned_up_after_its_shim,
    cleaning_up_twice_harms_nothing,
    a_shim_goes_on_after_the_signals_of_a_shutdown,
    events_of_the_time_without_containerd_are_delivered,
    a_containerd_that_does_not_answer_holds_nothing_up,
    a_shim_goes_on_when_nobody_reads_its_log,
    nonsense_on_a_connection_harms_no_other,
    a_caller_that_goes_away_harms_no_other,
    many_connections_are_served,
];

pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Kills the shim of a container and has the shim's own `delete` clean up.
#[track_caller]
fn clean_up(host: &Host, task: Task<'_>) {
    let (id, pid) = (task.id().to_owned(), task.pid);
    let before = SystemTime::now();
    host.kill_shim(&id);
    drop(task);
    let answer = host.delete_after_shim(&id);
    assert_eq!(answer.exit_status, 137, "{answer}");
    assert_eq!(answer.pid, pid, "{answer}");
    let at = answer.exited_at.as_ref().and_then(time);
    assert!(at.is_some_and(|at| at >= before && at <= SystemTime::now()), "{answer}");
    assert!(!alive(pid), "{pid} lives on");
    assert!(host.site().cgroup_directories(&id).is_empty());
    assert!(!Path::new(&format!("{}/test/{id}", host.runtime_root())).exists());
}

fn a_running_container_is_cleaned_up_after_its_shim() {
    let host = Host::new();
    let task = host.shell("one", "sleep 1000 & sleep 1000 & wait").start();
    let process = task.exec("first", SLEEPER);
    let pid = process.start();
    drop(process);
    clean_up(&host, task);
    assert!(!alive(pid), "{pid} lives on");
    assert_eq!(host.shell("one", "exit 3").start().finish().status, 3);
}

fn a_created_container_is_cleaned_up_after_its_shim() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).create();
    clean_up(&host, task);
}

fn a_paused_container_is_cleaned_up_after_its_shim() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    task.try_pause().expect("it runs");
    clean_up(&host, task);
}

fn a_stopped_container_is_cleaned_up_after_its_shim() {
    let host = Host::new();
    let task = host.shell("one", "exit 3").start();
    assert_eq!(task.wait().status, 3);
    let pid = task.pid;
    host.kill_shim("one");
    drop(task);
    let answer = host.delete_after_shim("one");
    assert_eq!(answer.pid, pid);
    // Its real end was known, and containerd's own shim forgets it.
    if !shim().reference {
        assert_eq!(answer.exit_status, 3, "{answer}");
    }
}

fn a_pod_is_cleaned_up_after_its_shim() {
    let host = Host::new();
    let member = |id: &str| {
        host.shell(id, SLEEPER).annotation("io.kubernetes.cri.sandbox-id", "sandbox").start()
    };
    let pids = [member("sandbox").pid, member("first").pid, member("second").pid];
    host.kill_shim("sandbox");
    for (id, pid) in ["second", "sandbox", "first"].into_iter().zip([pids[2], pids[0], pids[1]]) {
        let answer = host.delete_after_shim(id);
        assert_eq!((answer.exit_status, answer.pid), (137, pid), "{answer}");
        assert!(!alive(pid), "{pid} lives on");
    }
}

fn cleaning_up_twice_harms_nothing() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    host.kill_shim("one");
    drop(task);
    host.launch("one").delete().ok();
    host.delete_after_shim("one");
}

fn a_shim_goes_on_after_the_signals_of_a_shutdown() {
    reference_lacks!("it ends, and its containers lose their streams and their exit codes");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let shim = Pid::from_raw(host.shim_pid("one"));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        kill(shim, signal).expect("it lives");
        assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()), "after {signal}");
    }
    task.terminate();
    assert_eq!(task.finish().status, 7);
}

fn events_of_the_time_without_containerd_are_delivered() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    host.events().wait("one", "/tasks/start");
    host.events().go_away();
    assert_eq!(task.run("first", "exit 5").0, 5);
    task.try_pause().expect("it runs");
    task.try_resume().expect("it is paused");
    task.terminate();
    let exit = task.wait();
    host.events().come_back();
    let told = host.events().wait_where("the container's end", |event| {
        event.topic == "/tasks/exit" && event.exec.is_empty()
    });
    assert_eq!((told.status, told.exited_at), (7, exit.at));
    let all = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
    ];
    wait_until("all are delivered", SOON, || host.events().topics("one").len() >= all.len());
    let mut seen = host.events().topics("one");
    // containerd's own shim delivers them, and in any order.
    if shim().reference {
        let mut sorted = all;
        sorted.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, sorted);
    } else {
        assert_eq!(seen, all);
    }
    task.finish();
}

fn a_containerd_that_does_not_answer_holds_nothing_up() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    host.events().wait("one", "/tasks/start");
    {
        let _stalled = host.events().stall();
        for number in 0..20 {
            let script = format!("exit {number}");
            assert_eq!(task.run("same", &script).0, number);
        }
        assert_eq!(task.status(), Status::RUNNING);
    }
    host.events()
        .wait_where("the last exit", |event| event.topic == "/tasks/exit" && event.status == 19);
    task.kill(9);
    task.finish();
}

fn a_shim_goes_on_when_nobody_reads_its_log() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    host.stop_reading_log("one");
    for number in 0..5 {
        // Something to complain of.
        let process = task.exec_with(&format!("case-{number}"), host.pipes(false), &["absent"]);
        process.try_start().expect_err("there is no such program");
        assert_eq!(task.run("same", "echo served"), (0, "served\n".to_owned()));
    }
    task.terminate();
    assert_eq!(task.finish().status, 7);
}

fn nonsense_on_a_connection_harms_no_other() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    let connect = || UnixStream::connect(reply.socket()).expect("it listens");
    let frame = |length: u32, kind: u8, body: &[u8]| frame(length, 1, kind, body);
    let nonsense: [&[u8]; 8] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &frame(u32::MAX, 1, b""),
        &frame(5 << 20, 1, b"begun"),
        &frame(4, 1, b"\xff\xff\xff\xff"),
        &frame(0, 1, b""),
        &frame(4, 77, b"what"),
        &frame(100, 1, b"cut short"),
    ];
    let mut held = Vec::new();
    for bytes in nonsense {
        let mut stream = connect();
        // The other end may have closed before all of it is written.
        let _ = stream.write_all(bytes);
        held.push(stream);
        let mut stream = connect();
        let _ = stream.write_all(bytes);
        drop(stream);
        assert_eq!(task.status(), Status::RUNNING, "after {bytes:?}");
    }
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
    drop(held);
    task.kill(9);
    task.finish();
}

fn a_caller_that_goes_away_harms_no_other() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    let pid = host.shim_pid("one");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let before = descriptors();
    for _ in 0..20 {
        // Asks to wait, and is gone before there is an answer.
        let client = Client::connect(&reply.address, reply.version);
        let request = rpc::WaitRequest { id: "one".to_owned(), ..Default::default() };
        let short = std::time::Duration::from_millis(1);
        client.call_within::<_, rpc::WaitResponse>(short, "Wait", &request).expect_err("it runs");
    }
    wait_until("the connections are closed", SOON, || descriptors() <= before + 1);
    task.terminate();
    assert_eq!(task.finish().status, 7);
}

fn many_connections_are_served() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    let connect = || UnixStream::connect(reply.socket());
    let held: Vec<_> = (0..100).filter_map(|_| connect().ok()).collect();
    assert_eq!(task.status(), Status::RUNNING);
    let client = Client::connect(&reply.address, reply.version);
    let request = rpc::StateRequest { id: "one".to_owned(), ..Default::default() };
    client.call::<_, rpc::StateResponse>("State", &request).expect("a new one is served too");
    drop(held);
    task.kill(9);
    task.finish();
}
