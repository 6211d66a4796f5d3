//! From create to rm, and everything that happens to a running container.

use hull_integration::engine::{Podman, SLEEPER, command, runtime_path};
use hull_integration::{Output, SOON, tests, wait_until};
use std::fs;
use std::thread;

use crate::seen::INIT;

tests![
    the_runtime_under_test_is_the_one_that_runs,
    a_container_is_created_started_waited_for_and_removed,
    a_paused_container_stands_still,
    stop_lets_the_program_end_by_itself,
    stop_kills_a_program_that_does_not_listen,
    kill_sends_the_signal_that_was_asked_for,
    statistics_and_processes_are_those_of_the_container,
    many_containers_live_at_once,
    a_health_check_runs_in_the_container,
    a_failed_start_leaves_the_container_and_its_reason,
    a_container_is_checkpointed_and_restored,
    the_runtime_is_named_in_the_configuration,
];

fn the_runtime_under_test_is_the_one_that_runs() {
    let podman = Podman::new();
    podman.detach("one", &[], SLEEPER);
    assert_eq!(podman.inspect("one", "{{.OCIRuntime}}"), runtime_path());
    let id = podman.inspect("one", "{{.Id}}");
    let state = command(&[runtime_path(), "state", &id]).run().ok().json();
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"].to_string(), podman.inspect("one", "{{.State.Pid}}"));
    assert_eq!(
        podman.run(&["info", "--format", "{{.Host.OCIRuntime.Path}}"]).text(),
        runtime_path()
    );
}

fn a_container_is_created_started_waited_for_and_removed() {
    let podman = Podman::new();
    podman.run(&["create", "--name", "one", "busybox", "sh", "-c", "echo started; exit 3"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "created");
    podman.run(&["init", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "initialized");
    assert_eq!(podman.run(&["logs", "one"]).text(), "");
    podman.run(&["start", "one"]).ok();
    podman.run(&["wait", "one"]).ok().says("3");
    podman.run(&["logs", "one"]).ok().says("started");
    podman.run(&["start", "--attach", "one"]).exits(3).says("started");
    podman.run(&["rm", "one"]).ok();
    podman.run(&["container", "exists", "one"]).exits(1);
}

fn a_paused_container_stands_still() {
    let podman = Podman::new();
    let shared = podman.site().make("shared");
    let volume = format!("{shared}:/shared");
    podman.detach(
        "one",
        &["--volume", &volume],
        "while :; do echo tick >> /shared/ticks; sleep 0.02; done",
    );
    let ticks = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    wait_until("the container ticks", SOON, || ticks() > 5);
    podman.run(&["pause", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "paused");
    let before = ticks();
    podman.run(&["exec", "one", "true"]).exits(255);
    podman.run(&["ps", "--all", "--format", "{{.Status}}"]).ok().says("Paused");
    assert_eq!(ticks(), before, "it ticks though it is paused");
    podman.run(&["unpause", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
    wait_until("the container ticks again", SOON, || ticks() > before);
}

fn stop_lets_the_program_end_by_itself() {
    let podman = Podman::new();
    podman.detach("one", &[], SLEEPER);
    podman.run(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    podman.run(&["restart", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
}

fn stop_kills_a_program_that_does_not_listen() {
    let podman = Podman::new();
    podman.detach("one", &[], "trap '' TERM; while :; do sleep 0.05; done");
    podman.run(&["stop", "--time", "1", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

fn kill_sends_the_signal_that_was_asked_for() {
    let podman = Podman::new();
    podman.detach("one", &[], SLEEPER);
    podman.run(&["kill", "--signal", "USR1", "one"]).ok();
    wait_until("the program hears USR1", SOON, || podman.run(&["logs", "one"]).text() == "usr1");
    podman.run(&["kill", "one"]).ok();
    podman.run(&["wait", "one"]).ok().says("137");
    let refused = podman.run(&["kill", "one"]);
    assert_ne!(refused.code(), Some(0), "{}", refused.transcript());
}

fn statistics_and_processes_are_those_of_the_container() {
    let podman = Podman::new();
    podman.detach("one", &["--memory", "64m"], SLEEPER);
    let stats = podman.run(&["stats", "--no-stream", "--format", "json", "one"]).ok().json();
    assert_eq!(stats[0]["name"], "one");
    let limit = stats[0]["mem_usage"].as_str().unwrap_or_default();
    assert!(limit.ends_with("/ 67.11MB"), "{stats}");
    let pids: u32 = stats[0]["pids"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    assert!((1..=2).contains(&pids), "{stats}");
    podman.run(&["exec", "one", "sh", "-c", INIT]).ok();
    let top = podman.run(&["top", "one", "pid", "user", "comm"]).ok();
    let first: Vec<&str> = top.lines()[1].split_whitespace().collect();
    assert_eq!(first, ["1", "root", "sh"], "{}", top.transcript());
}

fn many_containers_live_at_once() {
    let podman = Podman::new();
    let podman = &podman;
    let script = |number: i32| format!("echo this is {number}; exit {number}");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let runs: Vec<_> =
            (1..=8).map(|number| scope.spawn(move || podman.shell(&[], &script(number)))).collect();
        runs.into_iter().map(|run| run.join().expect("the engine answered")).collect()
    });
    for (number, output) in (1..).zip(outputs) {
        output.exits(number).says(&format!("this is {number}"));
    }
    podman.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_health_check_runs_in_the_container() {
    let podman = Podman::new();
    let check = [
        "--health-cmd",
        "test -e /healthy",
        "--health-interval",
        "disable",
        "--health-retries",
        "1",
    ];
    podman.detach("one", &check, SLEEPER);
    podman.run(&["healthcheck", "run", "one"]).exits(1).says("unhealthy");
    podman.run(&["exec", "one", "touch", "/healthy"]).ok();
    podman.run(&["healthcheck", "run", "one"]).ok();
    assert_eq!(podman.inspect("one", "{{.State.Health.Status}}"), "healthy");
}

fn a_failed_start_leaves_the_container_and_its_reason() {
    let podman = Podman::new();
    podman.run(&["run", "--name", "one", "busybox", "/no/such/file"]).exits(127);
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "created");
    podman.run(&["rm", "one"]).ok();
}

fn a_container_is_checkpointed_and_restored() {
    let podman = Podman::new();
    let script = "i=0; while :; do i=$((i + 1)); echo $i > /n; sleep 0.05; done";
    podman.detach("one", &[], script);
    let count = || -> u64 {
        let read = podman.run(&["exec", "one", "cat", "/n"]).ok();
        read.text().parse().unwrap_or(0)
    };
    wait_until("it counts", SOON, || count() > 2);
    let before = count();
    let checkpoint = podman.run(&["container", "checkpoint", "one"]);
    if command(&["criu", "check"]).run().code() != Some(0) {
        // criu knows this kernel not: the runtime passes that on, and the container runs.
        assert_ne!(checkpoint.code(), Some(0), "{}", checkpoint.transcript());
        let _ = checkpoint.stderr_says("criu ");
        wait_until("it counts on", SOON, || count() > before);
        return;
    }
    checkpoint.ok();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "exited");
    podman.run(&["container", "restore", "one"]).ok();
    wait_until("it counts on", SOON, || count() > before);
}

fn the_runtime_is_named_in_the_configuration() {
    let podman = Podman::with_configuration(&format!(
        "runtime = \"named\"\n[engine.runtimes]\nnamed = [\"/no/such/file\", \"{}\"]",
        runtime_path()
    ));
    podman.run(&["--runtime", "named", "run", "--name", "one", "busybox", "true"]).ok();
    assert_eq!(podman.inspect("one", "{{.OCIRuntime}}"), "named");
}
