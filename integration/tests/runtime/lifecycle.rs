//! create, start, state, kill, delete and what each refuses.

use std::fs;

use hull_integration::{
    Bundle, Container, Invocation, Peer, SOON, cgroup, peer_lacks, require, runtime, tests,
    wait_until,
};
use serde_json::json;

tests![
    a_container_is_created_started_killed_and_deleted,
    the_state_names_everything_that_callers_read,
    a_stopped_container_has_no_pid,
    a_created_container_runs_nothing_before_start,
    a_started_container_is_never_seen_as_created,
    a_container_without_a_process_is_created_and_cannot_be_started,
    a_container_stops_when_its_process_ends,
    a_missing_container_is_said_not_to_exist,
    an_id_that_is_in_use_is_refused_and_its_owner_untouched,
    two_roots_hold_the_same_id,
    a_running_container_is_not_started_again,
    a_stopped_container_is_not_started_again,
    a_running_container_is_not_deleted,
    a_created_container_is_deleted,
    a_running_container_is_deleted_by_force,
    a_paused_container_is_deleted_by_force,
    deleting_a_missing_container_by_force_is_no_error,
    a_stopped_container_is_not_killed,
    a_created_container_is_killed,
    signals_have_names_and_numbers,
    the_default_signal_is_term,
    an_unknown_signal_is_refused,
    kill_all_reaches_every_process,
    ids_that_are_paths_are_refused,
    ids_of_every_allowed_letter_are_accepted,
    a_bundle_without_a_configuration_is_refused,
    a_missing_bundle_is_refused,
    a_program_that_is_missing_fails_create,
    a_root_that_is_missing_fails_create,
    the_pid_file_holds_the_pid,
    a_pid_file_that_cannot_be_written_leaves_nothing,
    unknown_commands_and_options_are_refused,
    missing_arguments_are_refused,
    the_bundle_is_the_working_directory_by_default,
    a_cgroup_with_processes_in_it_is_refused,
];

fn a_container_is_created_started_killed_and_deleted() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    // Until the shell has its handler, process 1 ignores the signal: on a slow machine the
    // first one can come too early.
    wait_until("stopped", SOON, || {
        container.kill("TERM").code() != Some(0) || container.status() == "stopped"
    });
    container.wait_status("stopped");
    container.delete().ok();
    container.command("state", &[]).fails_with("container does not exist");
    container.assert_gone();
}

fn the_state_names_everything_that_callers_read() {
    let bundle = Bundle::sleeper().set("/annotations", json!({ "org.example.key": "value" }));
    let container = Container::new(bundle);
    container.create().ok();
    let state = container.state();
    assert_eq!(state["id"], json!(container.id));
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(container.bundle.dir()));
    if runtime().peer != Peer::Crun {
        assert_eq!(state["rootfs"], json!(container.bundle.rootfs()));
    }
    assert_eq!(state["annotations"], json!({ "org.example.key": "value" }));
    let pid = state["pid"].as_i64().expect("a number");
    assert!(fs::exists(format!("/proc/{pid}")).expect("/proc is readable"));
    let created = state["created"].as_str().expect("a time");
    // RFC 3339: the callers parse it.
    assert!(created.len() >= 20 && created.as_bytes()[10] == b'T', "{created}");
    assert!(state.get("owner").is_some(), "{state}");
}

fn a_stopped_container_has_no_pid() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    assert_eq!(container.state()["pid"], 0);
}

fn a_created_container_runs_nothing_before_start() {
    let container = Container::new(Bundle::shell("echo ran > /tmp/mark"));
    container.create().ok();
    let mark = container.bundle.path("/tmp/mark");
    assert_eq!(container.status(), "created");
    assert!(!mark.exists());
    container.start().ok();
    wait_until("the process ran", SOON, || mark.exists());
}

fn a_started_container_is_never_seen_as_created() {
    require!(cgroup::hierarchy("cpuset").is_some(), "no cgroup controller cpuset");
    // The moment in which it could be is long where `start` takes the container's processor.
    let bundle = Bundle::new()
        .set("/linux/resources/cpu", json!({ "cpus": "0" }))
        .set("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 19 }));
    let container = Container::new(bundle);
    let script = r#""$0" --root "$1" start "$2" && "$0" --root "$1" state "$2""#;
    for _ in 0..40 {
        container.create().ok();
        let shell = Invocation::new("taskset").args(["1", "sh", "-c", script]);
        let shell = shell.arg(&runtime().program).arg(container.root()).arg(&container.id);
        let status = shell.run().ok().json()["status"].clone();
        assert!(status == "running" || status == "stopped", "{status}");
        container.wait_status("stopped");
        container.delete().ok();
    }
}

fn a_container_without_a_process_is_created_and_cannot_be_started() {
    peer_lacks!("runc", "it refuses to create it");
    peer_lacks!("crun", "it refuses to create it");
    let container = Container::new(Bundle::new().remove("/process"));
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().fails_with("process property must not be empty");
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
    container.assert_gone();
    container.run().fails_with("process property must not be empty");
    container.assert_gone();
}

fn a_container_stops_when_its_process_ends() {
    let container = Container::new(Bundle::shell("sleep 0.05"));
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    container.delete().ok();
    container.assert_gone();
}

fn a_missing_container_is_said_not_to_exist() {
    let container = Container::new(Bundle::new());
    for name in ["state", "start", "delete", "pause", "resume", "ps"] {
        container.command(name, &[]).fails_with("container does not exist");
    }
    container.kill("TERM").fails_with("container does not exist");
    container.exec(&["true"]).fails_with("container does not exist");
    container.command("events", &["--stats"]).fails_with("container does not exist");
    container
        .invoke(&["update", "--pids-limit", "10", &container.id])
        .run()
        .fails_with("container does not exist");
}

fn an_id_that_is_in_use_is_refused_and_its_owner_untouched() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    let before = container.state();
    container.create().fails_with("container with given ID already exists");
    container.run().fails_with("container with given ID already exists");
    assert_eq!(container.state(), before);
    container.start().ok();
    assert_eq!(container.status(), "running");
}

fn two_roots_hold_the_same_id() {
    let first = Container::new(Bundle::sleeper());
    let mut second = Container::new(Bundle::sleeper());
    second.id.clone_from(&first.id);
    first.create().ok();
    second.create().ok();
    assert_ne!(first.pid(), second.pid());
    second.delete_force().ok();
    assert_eq!(first.status(), "created");
}

fn a_running_container_is_not_started_again() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    container.start().ok();
    container.start().fails_with("cannot start an already running container");
    assert_eq!(container.status(), "running");
}

fn a_stopped_container_is_not_started_again() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    container.start().fails_with("cannot start a container that has stopped");
}

fn a_running_container_is_not_deleted() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    container.delete().fails_with("that is not stopped");
    assert_eq!(container.status(), "running");
}

fn a_created_container_is_deleted() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    peer_lacks!("crun", "delete of a created container wants --force");
    container.delete().ok();
    container.assert_gone();
}

fn a_running_container_is_deleted_by_force() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    container.delete_force().ok();
    container.assert_gone();
}

fn a_paused_container_is_deleted_by_force() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    container.command("pause", &[]).ok();
    container.delete_force().ok();
    container.assert_gone();
}

fn deleting_a_missing_container_by_force_is_no_error() {
    Container::new(Bundle::new()).delete_force().ok();
}

fn a_stopped_container_is_not_killed() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    container.kill("TERM").fails_with("container not running");
}

fn a_created_container_is_killed() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    container.stop();
    container.delete().ok();
}

fn signals_have_names_and_numbers() {
    for signal in ["USR1", "SIGUSR1", "10"] {
        let container = Container::new(Bundle::shell(
            "trap 'echo got > /tmp/mark' USR1; echo ready > /tmp/ready; while :; do sleep 0.02; done",
        ));
        container.run_detached().ok();
        wait_until("the trap is set", SOON, || container.bundle.path("/tmp/ready").exists());
        container.kill(signal).ok();
        wait_until(signal, SOON, || container.bundle.path("/tmp/mark").exists());
    }
}

fn the_default_signal_is_term() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    wait_until("stopped by TERM", SOON, || {
        // The shell may not have set its trap when the first one comes.
        container.command("kill", &[]);
        container.status() == "stopped"
    });
}

fn an_unknown_signal_is_refused() {
    peer_lacks!("crun 1.8", "it takes every name for some signal");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    for signal in ["NOSUCH", "SIGNOSUCH", "-1", "9x"] {
        container.invoke(&["kill", &container.id, signal]).run().fails();
    }
    assert_eq!(container.status(), "running");
}

fn kill_all_reaches_every_process() {
    let script = "sleep 1000 & sleep 1000 & sleep 1000 & wait";
    let container = Container::new(Bundle::shell(script).without_namespace("pid"));
    container.run_detached().ok();
    wait_until("four processes", SOON, || container.processes().len() >= 4);
    container.invoke(&["kill", "--all", &container.id, "KILL"]).run().ok();
    container.wait_status("stopped");
    wait_until("no process", SOON, || container.processes().is_empty());
    container.delete().ok();
}

fn ids_that_are_paths_are_refused() {
    peer_lacks!("crun 1.8", "it takes ids that are paths");
    let mut container = Container::new(Bundle::new());
    let own = container.id.clone();
    for id in ["", ".", "..", "../up", "a/b", "/abs", "a b", "a\nb", "é", "a*"] {
        container.id = id.to_owned();
        let output = container.invoke(&["create", "--bundle"]).arg(container.bundle.dir());
        output.arg("--").arg(id).run().fails();
    }
    container.id = own;
    let left: Vec<_> = fs::read_dir(container.root()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn ids_of_every_allowed_letter_are_accepted() {
    let mut container = Container::new(Bundle::new());
    container.id = format!("{}_a+B-.9", container.id);
    container.run().ok();
    container.assert_gone();
}

fn a_bundle_without_a_configuration_is_refused() {
    let container = Container::new(Bundle::new());
    fs::remove_file(container.bundle.dir().join("config.json")).expect("it was written");
    container.create().fails_with("config.json");
    container.assert_gone();
}

fn a_missing_bundle_is_refused() {
    let container = Container::new(Bundle::new());
    container
        .invoke(&["create", "--bundle", "/no/such/bundle", &container.id])
        .run()
        .fails_with("no such file or directory");
    container.assert_gone();
}

fn a_program_that_is_missing_fails_create() {
    for (program, words) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/bin/no-such-program", "no such file or directory"),
    ] {
        let container = Container::new(Bundle::new().args(&[program]));
        let output = container.create().fails_with(words);
        assert!(output.stderr.contains("no-such-program"), "{}", output.transcript());
        container.assert_gone();
    }
}

fn a_root_that_is_missing_fails_create() {
    let container = Container::new(Bundle::new().set("/root/path", "no-such-root"));
    container.create().fails_with("no-such-root");
    container.assert_gone();
}

fn the_pid_file_holds_the_pid() {
    let container = Container::new(Bundle::sleeper());
    let file = container.bundle.dir().join("pid");
    container.with_bundle(&["create", "--pid-file"]).run().fails();
    let path = file.to_str().expect("text");
    container.with_bundle(&["create", "--pid-file", path]).run().ok();
    let text = fs::read_to_string(&file).expect("it was written");
    assert_eq!(text, container.pid().to_string(), "the number and nothing else");
}

fn a_pid_file_that_cannot_be_written_leaves_nothing() {
    let container = Container::new(Bundle::sleeper());
    container.with_bundle(&["create", "--pid-file", "/no/such/directory/pid"]).run().fails();
    container.assert_gone();
}

fn unknown_commands_and_options_are_refused() {
    let container = Container::new(Bundle::new());
    container.invoke(&["frobnicate"]).run().fails();
    container.invoke(&["--frobnicate", "list"]).run().fails();
    container.invoke(&["list", "--frobnicate"]).run().fails();
    container.with_bundle(&["create", "--frobnicate"]).run().fails();
    container.assert_gone();
}

fn missing_arguments_are_refused() {
    let container = Container::new(Bundle::new());
    for name in
        ["create", "start", "state", "kill", "delete", "run", "exec", "pause", "resume", "ps"]
    {
        // From a directory without a bundle, so that nothing can be created by accident.
        container.invoke(&[name]).cwd("/").run().fails();
    }
}

fn the_bundle_is_the_working_directory_by_default() {
    let container = Container::new(Bundle::shell("echo here"));
    let output = container.invoke(&["run", &container.id]).cwd(container.bundle.dir()).run().ok();
    assert_eq!(output.text(), "here");
}

fn a_cgroup_with_processes_in_it_is_refused() {
    peer_lacks!("runc 1.1", "it only warns");
    peer_lacks!("crun", "it joins the cgroup");
    let first = Container::new(Bundle::sleeper());
    first.run_detached().ok();
    let second = Container::new(Bundle::sleeper().set("/linux/cgroupsPath", first.cgroups_path()));
    second.create().fails_with("cgroup is not empty");
    second.assert_gone();
    assert_eq!(first.status(), "running");
    // Nothing of the first was cleaned up with the second.
    Invocation::new("test").arg("-d").arg(first.cgroup("pids")).run().ok();
}
