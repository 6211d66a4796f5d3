//! What a container may use, before and after an update.

use hull_integration::engine::{Podman, SLEEPER};
use hull_integration::tests;

use crate::seen::{devices_are_there, limit, process_limits_hold, unified};

tests![
    limits_are_written_to_the_cgroup,
    a_fork_beyond_the_limit_fails,
    memory_beyond_the_limit_kills,
    limits_are_updated_while_the_container_runs,
    process_limits_are_set,
    devices_are_there_and_nothing_else_is,
];

fn limits_are_written_to_the_cgroup() {
    let podman = Podman::new();
    podman.shell(&["--memory", "64m"], &limit("memory")).ok().says("67108864");
    podman.shell(&["--pids-limit", "77"], &limit("pids")).ok().says("77");
    podman.shell(&["--cpus", "0.5"], &limit("quota")).ok().says("50000");
    podman.shell(&["--cpuset-cpus", "0"], &limit("cpus")).ok().says("0");
    if !unified() {
        podman.shell(&["--cpu-shares", "512"], &limit("shares")).ok().says("512");
    }
}

fn a_fork_beyond_the_limit_fails() {
    let podman = Podman::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait";
    podman.shell(&["--pids-limit", "5"], script).exits(2).stderr_says("can't fork");
    podman.shell(&["--pids-limit", "50"], "for i in 1 2 3 4 5 6 7 8; do true & done; wait").ok();
}

fn memory_beyond_the_limit_kills() {
    let podman = Podman::new();
    let small = ["--memory", "32m", "--memory-swap", "32m"];
    let script = "dd if=/dev/zero of=/dev/null bs=100M count=1; echo $?";
    podman.shell(&small, script).ok().says("137");
    podman.shell(&["--memory", "320m"], script).ok().says("0");
    podman.shell(&small, "exec dd if=/dev/zero of=/dev/null bs=100M count=1").exits(137);
}

fn limits_are_updated_while_the_container_runs() {
    let podman = Podman::new();
    podman.detach("one", &["--memory", "64m"], SLEEPER);
    podman.run(&["update", "--memory", "96m", "--cpus", "0.25", "one"]).ok();
    let exec = |name: &str| podman.run(&["exec", "one", "sh", "-c", &limit(name)]).ok();
    exec("memory").says("100663296");
    exec("quota").says("25000");
}

fn process_limits_are_set() {
    let podman = Podman::new();
    process_limits_hold(|options, script| podman.shell(options, script));
}

fn devices_are_there_and_nothing_else_is() {
    let podman = Podman::new();
    devices_are_there(|options, script| podman.shell(options, script));
    // The node can be made, but the cgroup does not let it be opened: 7:0 is loop0.
    podman
        .shell(&["--cap-add", "mknod"], "mknod /loop b 7 0 && head -c 1 /loop")
        .exits(1)
        .stderr_says("not permitted");
    podman
        .shell(
            &["--cap-add", "mknod", "--device-cgroup-rule", "c 1:3 rwm"],
            "mknod /null c 1 3 && echo > /null",
        )
        .ok();
}
