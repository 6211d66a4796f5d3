//! The shim below a real containerd, driven by ctr.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::engine::containerd::IMAGE;
use hull_integration::engine::{Containerd, Grpc, Setup, command, runtime_path};
use hull_integration::shim::{Code, SLEEPER, SOON, containerd_directory, rpc, shim};
use hull_integration::{Output, Running, reference_lacks, runtime, tests, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scale::count;

tests![
    containers_run_and_tell_their_exit_codes,
    the_shim_under_test_is_the_one_that_runs,
    containerd_finds_the_shim_by_its_own_name,
    containerd_takes_the_shim_by_its_path,
    a_program_that_cannot_be_run_says_why,
    a_task_is_signalled_and_deleted,
    execs_run_in_the_container,
    containers_and_execs_run_on_terminals,
    a_task_is_attached_to,
    a_paused_task_stands_still,
    metrics_are_shown,
    output_goes_to_a_file,
    events_are_seen_in_order,
    many_containers_run_at_once,
    a_container_outlives_a_restart_of_containerd,
    an_end_that_containerd_missed_is_known_afterwards,
    a_task_whose_shim_was_killed_is_reported_and_cleaned_up,
    containerd_is_killed_while_containers_start,
    containerd_is_killed_while_execs_run,
    containerd_is_killed_while_containers_are_signalled,
    containerd_is_killed_while_containers_are_paused,
    containerd_is_killed_while_containers_are_deleted,
];

/// containerd with the shim under test in the place of its own.
pub(crate) fn start() -> Containerd {
    let name = |name: &str| name.to_owned();
    let mut programs = vec![(name("containerd-shim-runc-v2"), shim().path.clone())];
    if !shim().reference {
        programs.push((name("containerd-shim-hull-v2"), shim().path.clone()));
        programs.push((name("hull-runtime"), runtime().program.clone()));
    }
    Containerd::start_with(Setup { directory: containerd_directory(), programs })
}

pub(crate) fn stopped(containerd: &Containerd, id: &str) -> bool {
    containerd.status(id).as_deref() == Some("STOPPED")
}

fn containers_run_and_tell_their_exit_codes() {
    let containerd = start();
    for code in [0, 1, 2, 127, 128, 137, 255] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let run = containerd.shell("one", &[], &script).exits(code).says("out");
        // containerd 2 has something to say about cgroup v1 first.
        assert!(run.stderr.trim().ends_with("err"), "{}", run.transcript());
    }
    let words = containerd.run_words("one", &["--rm"], &["head", "-n", "1"]);
    command(&words).stdin("typed\n").run().ok().says("typed");
    containerd.ctr(&["containers", "list", "--quiet"]).ok().says("");
}

fn the_shim_under_test_is_the_one_that_runs() {
    let containerd = start();
    containerd.detach("one", &[], SLEEPER);
    let shim_pid = shim_of(&containerd, "one");
    let program = fs::read_link(format!("/proc/{shim_pid}/exe")).expect("the shim lives");
    assert_eq!(program, fs::canonicalize(&shim().path).expect("it is there"));
    let root = format!("{}/default", containerd.runtime_root());
    let state = command(&[runtime_path(), "--root", &root, "state", "one"]).run().ok().json();
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], containerd.bundle("one"));
    let init = fs::read_to_string(format!("{}/init.pid", containerd.bundle("one")));
    assert_eq!(state["pid"].to_string(), init.expect("the shim keeps it in the bundle"));
}

/// The shim of a container: whoever has its id and this containerd on the command line.
#[track_caller]
fn shim_of(containerd: &Containerd, id: &str) -> i32 {
    wait_for("the shim of a container", SOON, || shims_of(containerd, id).pop())
}

fn shims_of(containerd: &Containerd, id: &str) -> Vec<i32> {
    let socket = containerd.socket();
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let has = |word: &str| words.contains(&word.as_bytes());
            // Ours is a fork of `start`, and not containerd's child.
            let other = has("delete") || has("start") && is_child_of_containerd(pid);
            (has(&socket) && has(id) && has("-namespace") && !other).then_some(pid)
        })
        .collect()
}

fn is_child_of_containerd(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    let name = fs::read_to_string(format!("/proc/{}/comm", parent.unwrap_or_default()));
    name.is_ok_and(|name| name.trim_end() == "containerd")
}

/// Where the shim of a container listens, by what containerd will read after a restart.
#[track_caller]
fn socket_of(containerd: &Containerd, id: &str) -> String {
    let read = |name: &str| fs::read_to_string(format!("{}/{name}", containerd.bundle(id)));
    let address = match read("bootstrap.json") {
        Ok(text) => {
            let value: serde_json::Value =
                serde_json::from_str(&text).expect("containerd wrote it");
            value["address"].as_str().expect("an address is text").to_owned()
        }
        Err(_) => read("address").expect("the shim keeps it in the bundle"),
    };
    address.trim_start_matches("unix://").to_owned()
}

fn by_runtime(containerd: &Containerd, name: &str) {
    // The runtime's own directory has the states of other tests too.
    let id = format!("named{}", containerd.site().cgroup().replace('/', "-"));
    let cgroup = format!("{}/{id}", containerd.site().cgroup());
    let words = ["run", "--rm", "--runtime", name, "--cgroup", &cgroup, IMAGE, &id];
    let script = ["sh", "-c", "echo $0 ran; exit 3", "it"];
    containerd.ctr(&[&words[..], &script].concat()).exits(3).says("it ran");
}

fn containerd_finds_the_shim_by_its_own_name() {
    let name = if shim().reference { "io.containerd.runc.v2" } else { "io.containerd.hull.v2" };
    by_runtime(&start(), name);
}

fn containerd_takes_the_shim_by_its_path() {
    by_runtime(&start(), shim().path.to_str().expect("the path is text"));
}

fn a_program_that_cannot_be_run_says_why() {
    let containerd = start();
    let cases = [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/file", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ];
    containerd.detach("lives", &[], SLEEPER);
    for (number, (program, reason)) in cases.into_iter().enumerate() {
        let words = containerd.run_words("fails", &["--rm"], &[program]);
        command(&words).run().exits(1).stderr_says(reason);
        let exec = containerd.exec("lives", &format!("exec-{number}"), &[program]);
        exec.exits(1).stderr_says(reason);
    }
    containerd.exec("lives", "after", &["true"]).ok();
}

fn a_task_is_signalled_and_deleted() {
    let containerd = start();
    containerd.detach("one", &[], SLEEPER);
    let refused = containerd.ctr(&["tasks", "delete", "one"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.transcript());
    let processes = containerd.ctr(&["tasks", "ps", "one"]).ok();
    let pid = fs::read_to_string(format!("{}/init.pid", containerd.bundle("one")));
    assert!(processes.stdout.contains(&pid.expect("it runs")), "{}", processes.transcript());
    terminate(&containerd, "one");
    wait_until("the task stops", SOON, || stopped(&containerd, "one"));
    let deleted = containerd.ctr(&["tasks", "delete", "one"]);
    deleted.stderr_says("exit with non-zero exit code 7");
    containerd.ctr(&["containers", "delete", "one"]).ok();
    containerd.shell("one", &[], "exit 3").exits(3);
}

/// Asks a sleeper to end. It may not yet have said what it does about that, and the
/// first process of a container hears only what it has asked for.
pub(crate) fn terminate(containerd: &Containerd, id: &str) {
    wait_until("the task hears the signal", SOON, || {
        let words = ["tasks", "kill", "--signal", "SIGTERM", id];
        containerd.ctr(&words).code() != Some(0) || stopped(containerd, id)
    });
}

fn execs_run_in_the_container() {
    let containerd = start();
    containerd.detach("one", &["--env", "A=b"], SLEEPER);
    let exec = |id: &str, script: &str| containerd.exec("one", id, &["sh", "-c", script]);
    // A moment for ctr, which stops to read at the end.
    exec("first", "echo $A; cat /proc/1/comm; sleep 0.2").ok().says("b\nsh");
    exec("second", "exit 5").exits(5);
    let detach = ["tasks", "exec", "--detach", "--exec-id", "later", "one", "touch", "/later"];
    containerd.ctr(&detach).ok();
    exec("wait", "until [ -e /later ]; do sleep 0.05; done").ok();
    let words = containerd.words(&["tasks", "exec", "--exec-id", "input", "one", "cat"]);
    command(&words).stdin("typed\n").run().ok().says("typed");
}

fn containers_and_execs_run_on_terminals() {
    let containerd = start();
    let words = containerd.run_words("one", &["--rm", "--tty"], &["sh"]);
    let mut terminal = containerd.terminal(&words);
    terminal.read_until("/ #");
    terminal.write("tty\n");
    terminal.read_until("/dev/pts/0");
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    let words = containerd.words(&["tasks", "exec", "--tty", "--exec-id", "shell", "one", "sh"]);
    let mut second = containerd.terminal(&words);
    second.read_until("/ #");
    second.write("until stty size | grep -q '50 101'; do sleep 0.05; done; echo resized\n");
    second.resize_until(50, "\r\nresized");
    second.write("exit 5\n");
    assert_eq!(second.exit_code(), Some(5));
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn a_task_is_attached_to() {
    let containerd = start();
    let script = "while read line; do echo got $line; [ $line = end ] && exit 6; done";
    let words = containerd.run_words("one", &["--tty"], &["sh", "-c", script]);
    let mut first = containerd.terminal(&words);
    first.write("first\n");
    first.read_until("got first");
    // The client goes away without a word; another comes.
    drop(first);
    let mut second = containerd.terminal(&containerd.words(&["tasks", "attach", "one"]));
    second.write("second\n");
    second.read_until("got second");
    second.write("end\n");
    assert_eq!(second.exit_code(), Some(6));
}

fn a_paused_task_stands_still() {
    let containerd = start();
    let shared = containerd.site().make("shared");
    let bind = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
    let script = "while :; do echo tick >> /shared/ticks; sleep 0.02; done";
    containerd.detach("one", &["--mount", &bind], script);
    let ticks = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    wait_until("the container ticks", SOON, || ticks() > 5);
    containerd.ctr(&["tasks", "pause", "one"]).ok();
    let before = ticks();
    assert_eq!(containerd.status("one").as_deref(), Some("PAUSED"));
    assert_eq!(ticks(), before, "it ticks though it is paused");
    containerd.ctr(&["tasks", "resume", "one"]).ok();
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    wait_until("the container ticks again", SOON, || ticks() > before);
}

fn metrics_are_shown() {
    let containerd = start();
    containerd.detach("one", &["--memory-limit", "67108864"], SLEEPER);
    let metrics = containerd.ctr(&["tasks", "metrics", "--format", "json", "one"]).ok();
    assert!(metrics.stdout.contains("67108864"), "{}", metrics.transcript());
}

fn output_goes_to_a_file() {
    let containerd = start();
    let path = containerd.site().path("one.log");
    let options = ["--log-uri", &*format!("file://{path}")];
    containerd.shell("one", &options, "echo out; echo err >&2; exit 4").exits(4);
    wait_until("both lines are there", SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("out\n") && text.contains("err\n")
    });
}

/// `ctr events`, once it hears.
fn listen(containerd: &Containerd) -> Running {
    let listening = command(&containerd.words(&["events"])).start();
    let mut number = 0;
    wait_until("events are heard", SOON, || {
        number += 1;
        let name = format!("heard-{number}");
        containerd.ctr(&["namespaces", "create", &name]).ok();
        listening.stdout().contains("heard-")
    });
    listening
}

fn events_are_seen_in_order() {
    let containerd = start();
    let listening = listen(&containerd);
    containerd.detach("one", &[], SLEEPER);
    containerd.exec("one", "first", &["sh", "-c", "exit 5"]).exits(5);
    containerd.ctr(&["tasks", "pause", "one"]).ok();
    containerd.ctr(&["tasks", "resume", "one"]).ok();
    containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", "one"]).ok();
    wait_until("the task stops", SOON, || stopped(&containerd, "one"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("137");
    let topics = || {
        let text = listening.stdout();
        let words = text.split_whitespace().filter(|word| word.starts_with("/tasks/"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the last is heard", SOON, || topics().contains(&"/tasks/delete".to_owned()));
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    // Deleting an exec may be told too.
    let mut seen = topics();
    seen.retain(|topic| expected.contains(&topic.as_str()));
    assert_eq!(seen.iter().filter(|topic| *topic != "/tasks/delete").count(), 8, "{seen:?}");
    assert_eq!(seen.last().map(String::as_str), Some("/tasks/delete"), "{seen:?}");
    seen.retain(|topic| topic != "/tasks/delete");
    assert_eq!(seen, expected[..8]);
}

fn many_containers_run_at_once() {
    let containerd = start();
    let containerd = &containerd;
    let script = |number: i32| format!("echo this is {number}; exit {number}");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let runs: Vec<_> = (1..=10)
            .map(|number| {
                let name = format!("run-{number}");
                scope.spawn(move || containerd.shell(&name, &[], &script(number)))
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("containerd answered")).collect()
    });
    for (number, output) in (1..).zip(outputs) {
        output.exits(number).says(&format!("this is {number}"));
    }
}

/// A container is found again, and everything works on it.
#[track_caller]
fn all_is_well(containerd: &Containerd, id: &str, round: u32) {
    assert_eq!(containerd.status(id).as_deref(), Some("RUNNING"));
    let mut attempt = 0;
    wait_until("the output of an exec arrives", SOON, || {
        // On a busy machine ctr stops to read before the last words.
        attempt += 1;
        let exec_id = format!("well-{round}-{attempt}");
        let script = ["sh", "-c", "echo served; exit 4"];
        containerd.exec(id, &exec_id, &script).exits(4).text() == "served"
    });
}

fn a_container_outlives_a_restart_of_containerd() {
    let mut containerd = start();
    let shared = containerd.site().make("shared");
    let bind = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
    let script = format!("(while :; do echo >> /shared/ticks; sleep 0.02; done) & {SLEEPER}");
    let log = containerd.site().path("one.log");
    let options = ["--mount", &*bind, "--log-uri", &*format!("file://{log}")];
    containerd.detach("one", &options, &script);
    let shim_pid = shim_of(&containerd, "one");
    let ticks = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    for round in 0..count("HULL_SHIM_CRASHES", 3) {
        match round % 2 {
            0 => containerd.crash(),
            _ => containerd.stop(),
        }
        let before = ticks();
        wait_until("the container goes on without containerd", SOON, || ticks() > before);
        containerd.come_back();
        all_is_well(&containerd, "one", round);
        assert_eq!(shim_of(&containerd, "one"), shim_pid);
    }
    terminate(&containerd, "one");
    wait_until("the task stops", SOON, || stopped(&containerd, "one"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 7");
    assert!(fs::read_to_string(&log).expect("it was written").contains("ready"));
}

fn an_end_that_containerd_missed_is_known_afterwards() {
    if shim().containerd_2 {
        reference_lacks!("containerd 2 throws away a shim that lists no process");
    }
    let mut containerd = start();
    let shared = containerd.site().make("shared");
    let bind = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
    let script = "until [ -e /shared/go ]; do sleep 0.02; done; exit 9";
    containerd.detach("one", &["--mount", &bind], script);
    let pid = fs::read_to_string(format!("{}/init.pid", containerd.bundle("one")));
    let pid = pid.expect("it runs");
    containerd.crash();
    fs::write(format!("{shared}/go"), "").expect("it is ours");
    wait_until("the container ends", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    });
    containerd.come_back();
    wait_until("the end is known", SOON, || stopped(&containerd, "one"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 9");
    assert_eq!(containerd.status("one"), None);
}

fn a_task_whose_shim_was_killed_is_reported_and_cleaned_up() {
    let containerd = start();
    let listening = listen(&containerd);
    let running = command(&containerd.run_words("one", &[], &["sh", "-c", SLEEPER])).start();
    wait_until("it runs", SOON, || running.stdout().contains("ready"));
    let pid = fs::read_to_string(format!("{}/init.pid", containerd.bundle("one")));
    let pid: i32 = pid.expect("it runs").trim().parse().expect("it is a number");
    let shim_pid = shim_of(&containerd, "one");
    let socket = socket_of(&containerd, "one");
    kill(Pid::from_raw(shim_pid), Signal::SIGKILL).expect("the shim lives");
    wait_until("the end is told", SOON, || {
        let text = listening.stdout();
        text.lines().any(|line| line.contains("/tasks/exit") && line.contains("137"))
    });
    wait_until("the container is gone", SOON, || {
        fs::metadata(format!("/proc/{pid}")).is_err() && containerd.status("one").is_none()
    });
    // Its client is told something, and does not wait for ever.
    assert_ne!(running.wait().code(), Some(0));
    wait_until("the bundle is gone", SOON, || fs::metadata(containerd.bundle("one")).is_err());
    // containerd's own shim leaves its socket.
    if !(shim().reference && fs::remove_file(&socket).is_ok()) {
        assert!(!Path::new(&socket).exists(), "{socket} is left");
    }
    containerd.ctr(&["containers", "delete", "one"]).ok();
    containerd.shell("one", &[], "exit 3").exits(3);
}

/// Kills containerd while something is done, at times spread over what it takes, and
/// expects to find a task that can be judged and removed, and its neighbour unharmed.
/// `running` is expected of a task that runs afterwards.
fn killed_while(
    prepare: impl Fn(&Containerd),
    act: impl Fn(&Containerd) -> Vec<String>,
    running: impl Fn(&Containerd, u32),
) -> Containerd {
    let mut containerd = start();
    containerd.detach("neighbour", &[], SLEEPER);
    // How long it takes undisturbed.
    prepare(&containerd);
    let started = Instant::now();
    command(&act(&containerd)).run();
    let whole = started.elapsed();
    remove(&containerd, "one");
    let rounds = count("HULL_SHIM_CRASHES", 3);
    for round in 0..rounds {
        prepare(&containerd);
        let acting = command(&act(&containerd)).limit(Duration::from_secs(20)).start();
        thread::sleep(whole * round / rounds);
        containerd.crash();
        // Without containerd the client gives up.
        drop(acting);
        containerd.come_back();
        all_is_well(&containerd, "neighbour", round);
        let status = containerd.status("one");
        let known = [None, Some("CREATED"), Some("RUNNING"), Some("STOPPED"), Some("PAUSED")];
        assert!(known.contains(&status.as_deref()), "round {round}: {status:?}");
        if status.as_deref() == Some("RUNNING") {
            running(&containerd, round);
        }
        remove(&containerd, "one");
    }
    terminate(&containerd, "neighbour");
    wait_until("the neighbour ends", SOON, || stopped(&containerd, "neighbour"));
    let deleted = containerd.ctr(&["tasks", "delete", "neighbour"]);
    deleted.stderr_says("exit with non-zero exit code 7");
    containerd
}

/// Removes a container in whatever state it is.
#[track_caller]
fn remove(containerd: &Containerd, id: &str) {
    wait_until("the task can be removed", SOON, || {
        containerd.ctr(&["tasks", "delete", "--force", id]);
        containerd.status(id).is_none()
    });
    // containerd may still know a task that it does not list, because its shim does not.
    let grpc = Grpc::new(&containerd.socket());
    let request = rpc::PidsRequest { id: id.to_owned(), ..Default::default() };
    wait_until("the task is forgotten", SOON, || {
        let path = "/containerd.services.tasks.v1.Tasks/Delete";
        let answer = grpc.call::<_, rpc::Empty>(path, &request, SOON);
        answer.is_err_and(|refused| refused.code == Some(Code::NOT_FOUND))
    });
    wait_until("the container can be removed", SOON, || {
        containerd.ctr(&["containers", "delete", id]);
        let list = containerd.ctr(&["containers", "list", "--quiet"]).ok();
        !list.lines().contains(&id)
    });
}

fn containerd_is_killed_while_containers_start() {
    let containerd = killed_while(
        |_| {},
        |containerd| containerd.run_words("one", &["--detach"], &["sh", "-c", SLEEPER]),
        |containerd, round| all_is_well(containerd, "one", round),
    );
    // A shim of containerd's own lives for ever when containerd died before it had a
    // container. Ours has to see that nobody will come.
    if shim().reference {
        for pid in shims_of(&containerd, "one") {
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the shim lives");
        }
    }
}

fn begin(containerd: &Containerd) {
    containerd.detach("one", &[], SLEEPER);
}

fn containerd_is_killed_while_execs_run() {
    let script = "echo a; sleep 0.1; echo b; exit 5";
    killed_while(
        begin,
        |containerd| {
            containerd.words(&["tasks", "exec", "--exec-id", "act", "one", "sh", "-c", script])
        },
        |containerd, round| all_is_well(containerd, "one", round),
    );
}

// In the next three, what was asked for may still be under way.

fn containerd_is_killed_while_containers_are_signalled() {
    let words = ["tasks", "kill", "--signal", "SIGKILL", "one"];
    killed_while(begin, |containerd| containerd.words(&words), |_, _| {});
}

fn containerd_is_killed_while_containers_are_paused() {
    let words = ["tasks", "pause", "one"];
    killed_while(begin, |containerd| containerd.words(&words), |_, _| {});
}

fn containerd_is_killed_while_containers_are_deleted() {
    let words = ["tasks", "delete", "--force", "one"];
    killed_while(begin, |containerd| containerd.words(&words), |_, _| {});
}
