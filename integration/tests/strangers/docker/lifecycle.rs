//! From create to rm, and everything that happens to a running container.

use hull_integration::engine::{Docker, SLEEPER, command, docker::RUNTIME_NAME, runtime_path};
use hull_integration::{Output, SOON, tests, wait_until};
use std::fs;
use std::thread;

use crate::seen::INIT;

tests![
    the_runtime_under_test_is_the_one_that_runs,
    a_container_is_created_started_waited_for_and_removed,
    a_paused_container_stands_still,
    stop_restart_and_kill,
    statistics_and_processes_are_those_of_the_container,
    a_policy_restarts_the_container,
    a_health_check_runs_in_the_container,
    many_containers_live_at_once,
    a_container_outlives_dockerd,
    an_image_is_built_by_running_its_lines,
];

fn the_runtime_under_test_is_the_one_that_runs() {
    let docker = Docker::start();
    docker.detach("one", &[], SLEEPER);
    assert_eq!(docker.inspect("one", "{{.HostConfig.Runtime}}"), RUNTIME_NAME);
    let path = format!("{{{{(index .Runtimes \"{RUNTIME_NAME}\").Path}}}}");
    docker.run(&["info", "--format", &path]).ok().says(runtime_path());
    let (id, root) = (docker.inspect("one", "{{.Id}}"), format!("{}/moby", docker.runtime_root()));
    let state = command(&[runtime_path(), "--root", &root, "state", &id]).run().ok().json();
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"].to_string(), docker.inspect("one", "{{.State.Pid}}"));
}

fn a_container_is_created_started_waited_for_and_removed() {
    let docker = Docker::start();
    docker.run(&["create", "--name", "one", "busybox", "sh", "-c", "echo started; exit 3"]).ok();
    assert_eq!(docker.inspect("one", "{{.State.Status}}"), "created");
    docker.run(&["start", "one"]).ok();
    docker.run(&["wait", "one"]).ok().says("3");
    docker.run(&["logs", "one"]).ok().says("started");
    docker.run(&["start", "--attach", "one"]).exits(3).says("started");
    docker.run(&["rm", "one"]).ok();
    docker.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_paused_container_stands_still() {
    let docker = Docker::start();
    let shared = docker.site().make("shared");
    let volume = format!("{shared}:/shared");
    docker.detach(
        "one",
        &["--volume", &volume],
        "while :; do echo tick >> /shared/ticks; sleep 0.02; done",
    );
    let ticks = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    wait_until("the container ticks", SOON, || ticks() > 5);
    docker.run(&["pause", "one"]).ok();
    assert_eq!(docker.inspect("one", "{{.State.Status}}"), "paused");
    let before = ticks();
    docker.run(&["exec", "one", "true"]).exits(1).stderr_says("is paused");
    docker.run(&["stats", "--no-stream", "one"]).ok();
    assert_eq!(ticks(), before, "it ticks though it is paused");
    docker.run(&["unpause", "one"]).ok();
    wait_until("the container ticks again", SOON, || ticks() > before);
    docker.run(&["pause", "one"]).ok();
    docker.run(&["rm", "--force", "one"]).ok();
}

fn stop_restart_and_kill() {
    let docker = Docker::start();
    docker.detach("one", &[], SLEEPER);
    docker.run(&["kill", "--signal", "USR1", "one"]).ok();
    wait_until("the program hears USR1", SOON, || docker.run(&["logs", "one"]).text() == "usr1");
    docker.run(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(docker.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    docker.run(&["restart", "--time", "20", "one"]).ok();
    let first = docker.inspect("one", "{{.State.Pid}}");
    docker.run(&["restart", "--time", "20", "one"]).ok();
    assert_ne!(docker.inspect("one", "{{.State.Pid}}"), first);
    docker.run(&["kill", "one"]).ok();
    docker.run(&["wait", "one"]).ok().says("137");
    docker.run(&["kill", "one"]).exits(1).stderr_says("is not running");
    docker.detach("deaf", &[], "trap '' TERM; while :; do sleep 0.05; done");
    docker.run(&["stop", "--time", "1", "deaf"]).ok();
    assert_eq!(docker.inspect("deaf", "{{.State.ExitCode}}"), "137");
}

fn statistics_and_processes_are_those_of_the_container() {
    let docker = Docker::start();
    docker.detach("one", &["--memory", "64m"], SLEEPER);
    let stats = docker.run(&["stats", "--no-stream", "--format", "{{json .}}", "one"]).ok().json();
    assert_eq!(stats["Name"], "one");
    assert!(stats["MemUsage"].as_str().unwrap_or_default().ends_with("/ 64MiB"), "{stats}");
    let pids: u32 = stats["PIDs"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    assert!((1..=2).contains(&pids), "{stats}");
    docker.run(&["exec", "one", "sh", "-c", INIT]).ok();
    let top = docker.run(&["top", "one", "-o", "pid,user,comm"]).ok();
    let first = format!("{} root sh", docker.inspect("one", "{{.State.Pid}}"));
    let lines = top.lines();
    let mut processes =
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert!(processes.any(|process| process == first), "{}", top.transcript());
}

fn a_policy_restarts_the_container() {
    let docker = Docker::start();
    docker.detach("one", &["--restart", "on-failure:2"], "echo run; exit 1");
    let settled = || docker.inspect("one", "{{.State.Status}} {{.RestartCount}}") == "exited 2";
    wait_until("two restarts", SOON, settled);
    docker.run(&["logs", "one"]).ok().says("run\nrun\nrun");
}

fn a_health_check_runs_in_the_container() {
    let docker = Docker::start();
    let check =
        ["--health-cmd", "test -e /healthy", "--health-interval", "200ms", "--health-retries", "1"];
    docker.detach("one", &check, SLEEPER);
    let health = |word: &str| docker.inspect("one", "{{.State.Health.Status}}") == word;
    wait_until("unhealthy", SOON, || health("unhealthy"));
    docker.run(&["exec", "one", "touch", "/healthy"]).ok();
    wait_until("healthy", SOON, || health("healthy"));
}

fn many_containers_live_at_once() {
    let docker = Docker::start();
    let docker = &docker;
    let script = |number: i32| format!("echo this is {number}; exit {number}");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let runs: Vec<_> =
            (1..=8).map(|number| scope.spawn(move || docker.shell(&[], &script(number)))).collect();
        runs.into_iter().map(|run| run.join().expect("the engine answered")).collect()
    });
    for (number, output) in (1..).zip(outputs) {
        output.exits(number).says(&format!("this is {number}"));
    }
    docker.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_container_outlives_dockerd() {
    let mut docker = Docker::start();
    docker.detach("one", &[], SLEEPER);
    let pid = docker.inspect("one", "{{.State.Pid}}");
    docker.crash_and_restart();
    assert_eq!(docker.inspect("one", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    docker.run(&["exec", "one", "sh", "-c", INIT]).ok().says("sh");
    docker.run(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(docker.inspect("one", "{{.State.ExitCode}}"), "7");
}

fn an_image_is_built_by_running_its_lines() {
    let docker = Docker::start();
    let context = docker.site().make("context");
    let lines = "FROM busybox\nENV A=b\nRUN echo $A > /built && id -u >> /built\nUSER 1000\nRUN id -u > /tmp/user\nCMD cat /built /tmp/user\n";
    docker.site().write("context/Dockerfile", lines);
    docker.run(&["build", "--quiet", "--tag", "built", &context]).ok();
    docker.run(&["run", "--rm", "built"]).ok().says("b\n0\n1000");
}
