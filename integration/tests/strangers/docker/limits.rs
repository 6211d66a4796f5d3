//! What a container may use, before and after an update.

use hull_integration::engine::{Docker, SLEEPER};
use hull_integration::{SOON, tests, wait_until};

use crate::seen::{devices_are_there, limit, process_limits_hold, unified};

tests![
    limits_are_written_to_the_cgroup,
    a_memory_kill_is_reported,
    limits_are_updated_while_the_container_runs,
    process_limits_are_set,
    devices_are_there_and_nothing_else_is,
];

fn limits_are_written_to_the_cgroup() {
    let docker = Docker::start();
    docker.shell(&["--memory", "64m"], &limit("memory")).ok().says("67108864");
    docker.shell(&["--pids-limit", "77"], &limit("pids")).ok().says("77");
    docker.shell(&["--cpus", "0.5"], &limit("quota")).ok().says("50000");
    docker.shell(&["--cpuset-cpus", "0"], &limit("cpus")).ok().says("0");
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait";
    docker.shell(&["--pids-limit", "5"], script).exits(2).stderr_says("can't fork");
}

/// containerd's shim watches for kills from after the program's start on, and what it sees
/// races with the program's end. So the program waits for the watch to be there, and only the
/// one that outlives the kill is held to the flag.
fn a_memory_kill_is_reported() {
    let docker = Docker::start();
    let volume = format!("{}:/told", docker.site().make("told"));
    let run = |name: &str, memory: &str, script: &str| {
        let options = ["--memory", memory, "--memory-swap", memory, "--volume", &volume];
        docker.detach(name, &options, &format!("{}; {script}", until(&format!("{name}-go"))));
    };
    let tell = |what: String| drop(docker.site().write(&format!("told/{what}"), ""));
    let is_told = |name: &str| {
        let container = format!("container={name}");
        let events = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"];
        let events = [&events[..], &["--filter", &container]].concat();
        wait_until("dockerd tells of the kill", SOON, || {
            docker.run(&events).ok().lines().contains(&"oom")
        });
    };
    let state = |name: &str| docker.inspect(name, "{{.State.OOMKilled}} {{.State.ExitCode}}");
    let greedy = "dd if=/dev/zero of=/dev/null bs=100M count=1";
    for (name, memory, code, expected) in
        [("child", "32m", "137", "true 0"), ("modest", "320m", "0", "false 0")]
    {
        run(name, memory, &format!("{greedy}; echo $?; {}", until(&format!("{name}-end"))));
        tell(format!("{name}-go"));
        if code == "137" {
            is_told(name);
        }
        tell(format!("{name}-end"));
        docker.run(&["wait", name]).ok().says("0");
        docker.run(&["logs", name]).ok().says(code);
        assert_eq!(state(name), expected);
    }
    run("init", "32m", &format!("exec {greedy}"));
    tell("init-go".to_owned());
    docker.run(&["wait", "init"]).ok().says("137");
    is_told("init");
}

/// A line of shell that waits for a file.
fn until(name: &str) -> String {
    format!("until [ -e /told/{name} ]; do sleep 0.05; done")
}

fn limits_are_updated_while_the_container_runs() {
    let docker = Docker::start();
    docker.detach("one", &["--memory", "64m", "--memory-swap", "64m"], SLEEPER);
    let update = [
        "update",
        "--memory",
        "96m",
        "--memory-swap",
        "96m",
        "--pids-limit",
        "44",
        "--cpu-period",
        "100000",
        "--cpu-quota",
        "25000",
        "--cpuset-cpus",
        "1",
        "one",
    ];
    docker.run(&update).ok();
    let exec = |name: &str| docker.run(&["exec", "one", "sh", "-c", &limit(name)]).ok();
    exec("memory").says("100663296");
    exec("pids").says("44");
    exec("quota").says("25000");
    exec("cpus").says("1");
    if !unified() {
        docker.run(&["update", "--cpu-shares", "512", "one"]).ok();
        exec("shares").says("512");
    }
    // Both directions: swap and memory have to be written in the right order.
    docker.run(&["update", "--memory", "48m", "--memory-swap", "48m", "one"]).ok();
    exec("memory").says("50331648");
}

fn process_limits_are_set() {
    let docker = Docker::start();
    process_limits_hold(|options, script| docker.shell(options, script));
}

fn devices_are_there_and_nothing_else_is() {
    let docker = Docker::start();
    devices_are_there(|options, script| docker.shell(options, script));
    docker.shell(&[], "mknod /loop b 7 0 && head -c 1 /loop").exits(1).stderr_says("not permitted");
    let allowed =
        docker.shell(&["--device-cgroup-rule", "b 7:* r"], "mknod /loop b 7 0 && head -c 1 /loop");
    // Not every kernel has the device; what counts is who says no.
    assert!(!allowed.stderr.contains("not permitted"), "{}", allowed.transcript());
}
