//! A shim as a sandbox, by the service that containerd 2 calls for it.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use hull_integration::shim::rpc::{self, Message, Status};
use hull_integration::shim::{
    Bootstrap, Code, Host, Refusal, SLEEPER, SOON, Sandbox, TaskPlan, time,
};
use hull_integration::{NotRun, not_run, reference_lacks, tests, wait_until};
use serde_json::json;

use crate::containerd::{start, stopped};
use crate::faults::alive;

tests![
    a_sandbox_is_made_started_and_ended,
    whoever_waits_for_a_sandbox_is_told_of_its_end,
    a_wait_for_a_sandbox_ends_with_its_connection,
    a_sandbox_needs_no_configuration,
    a_sandbox_outlives_its_containers,
    stopping_a_sandbox_ends_every_container,
    a_stop_with_time_lets_containers_end_themselves,
    containers_are_taken_only_while_the_sandbox_is_ready,
    a_sandbox_that_is_shut_down_keeps_exit_statuses_until_they_are_taken,
    what_needs_a_process_of_the_sandbox_is_refused,
    what_is_asked_of_another_sandbox_is_not_found,
    metrics_of_a_sandbox_are_those_of_its_containers,
    cleaning_up_after_a_sandboxs_shim_ends_its_containers,
    containerd_runs_containers_in_a_sandbox,
    a_sandbox_outlives_a_crash_of_containerd,
];

/// Ends the test for containerd's own shim.
fn needs_the_service() {
    reference_lacks!("it has no sandbox service");
}

fn plan<'host>(host: &'host Host, id: &str, script: &str) -> TaskPlan<'host> {
    host.shell(id, script).sandbox("sandbox")
}

fn code<T>(answer: Result<T, Refusal>) -> Option<Code> {
    answer.err().and_then(|refusal| refusal.code)
}

fn a_sandbox_is_made_started_and_ended() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox");
    let before = SystemTime::now();
    sandbox.try_create(|_| {}).expect("it asks for nothing special");
    assert_eq!(code(sandbox.try_create(|_| {})), Some(Code::ALREADY_EXISTS));
    let status = sandbox.status();
    assert_eq!(
        (status.sandbox_id.as_str(), status.state.as_str()),
        ("sandbox", "SANDBOX_NOTREADY")
    );
    assert_eq!(code(sandbox.try_ping()), Some(Code::FAILED_PRECONDITION));

    let started = sandbox.try_start().expect("it is made");
    assert_eq!(i32::try_from(started.pid), Ok(host.shim_pid("sandbox")));
    let created_at = started.created_at.as_ref().and_then(time).expect("it has a time");
    assert!(created_at >= before && created_at <= SystemTime::now());
    assert_eq!(code(sandbox.try_start()), Some(Code::FAILED_PRECONDITION));
    sandbox.try_ping().expect("it is ready");
    let status = sandbox.status();
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", started.pid));
    assert_eq!((&status.created_at, status.exited_at.is_none()), (&started.created_at, true));
    let platform = sandbox.try_platform().expect("it has one").platform;
    let go_name = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!((platform.os.as_str(), platform.architecture.as_str()), ("linux", go_name));

    sandbox.stop();
    let exit = sandbox.wait();
    let exited_at = exit.exited_at.as_ref().and_then(time).expect("it has a time");
    assert_eq!(exit.exit_status, 0);
    assert!(exited_at >= created_at && exited_at <= SystemTime::now());
    let status = sandbox.status();
    assert_eq!((status.state.as_str(), &status.exited_at), ("SANDBOX_NOTREADY", &exit.exited_at));
    sandbox.stop();
    assert_eq!(sandbox.wait(), exit, "a second stop changes nothing");
    assert_eq!(code(sandbox.try_start()), Some(Code::FAILED_PRECONDITION));
    sandbox.finish();
}

fn whoever_waits_for_a_sandbox_is_told_of_its_end() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let task = plan(&host, "one", SLEEPER).start();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| sandbox.wait())).collect();
        sandbox.stop();
        let answers: Vec<_> =
            waiting.into_iter().map(|one| one.join().expect("it was told")).collect();
        let end = task.wait().at.expect("the container has ended");
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
            assert!(answer.exited_at.as_ref().and_then(time).is_some_and(|at| at >= end));
        }
    });
    task.finish();
    sandbox.finish();
}

fn a_wait_for_a_sandbox_ends_with_its_connection() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let pid = host.shim_pid("sandbox");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let before = descriptors();
    for _ in 0..20 {
        let caller = sandbox.again();
        caller.try_wait(Duration::from_millis(1)).expect_err("the sandbox is ready");
    }
    wait_until("the connections are closed", SOON, || descriptors() <= before + 1);
    sandbox.finish();
}

fn a_sandbox_needs_no_configuration() {
    needs_the_service();
    let host = Host::new();
    host.make_bundle("sandbox", &json!({}));
    fs::remove_file(format!("{}/config.json", host.launch("sandbox").bundle)).expect("it is ours");
    let sandbox = host.sandbox_of_bundle("sandbox").start();
    let task = plan(&host, "one", "exit 3").start();
    assert_eq!(task.finish().status, 3);
    sandbox.finish();
}

fn a_sandbox_outlives_its_containers() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let shim = host.shim_pid("sandbox");
    for number in 1..=3 {
        let first = plan(&host, "first", &format!("exit {number}")).start();
        let second = plan(&host, "second", SLEEPER).start();
        assert_eq!(
            (first.connect().0, second.connect().0),
            (second.connect().0, first.connect().0)
        );
        let verbose = sandbox.try_status(true).expect("it is ready");
        assert_eq!(verbose.info["containers"], r#"["first","second"]"#);
        assert!(sandbox.status().info.is_empty());
        second.terminate();
        // Each asks for the end of the shim.
        assert_eq!((first.finish().status, second.finish().status), (number, 7));
        sandbox.shut_down_task();
        sandbox.try_ping().expect("it is ready");
        assert_eq!(sandbox.status().pid, u32::try_from(shim).expect("pids are positive"));
    }
    sandbox.finish();
}

fn stopping_a_sandbox_ends_every_container() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let running = plan(&host, "running", SLEEPER).start();
    let exec = running.exec("exec", SLEEPER);
    exec.start();
    let paused = plan(&host, "paused", SLEEPER).start();
    paused.stdout().wait_for("ready");
    paused.try_pause().expect("it runs");
    let created = plan(&host, "created", SLEEPER).create();
    let ended = plan(&host, "ended", "exit 4").start();
    ended.wait();
    sandbox.stop();
    for task in [running, paused, created] {
        assert_eq!(task.status(), Status::STOPPED, "{}", task.id());
        assert_eq!(host.events().wait(task.id(), "/tasks/exit").status, 137);
        assert_eq!(task.finish().status, 137);
    }
    assert_eq!(ended.finish().status, 4);
    sandbox.finish();
}

fn a_stop_with_time_lets_containers_end_themselves() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let polite = plan(&host, "polite", SLEEPER).start();
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let deaf = plan(&host, "deaf", deaf).start();
    for task in [&polite, &deaf] {
        task.stdout().wait_for("ready");
    }
    sandbox.try_stop(2).expect("they end");
    assert_eq!((polite.finish().status, deaf.finish().status), (7, 137));
    sandbox.finish();
}

fn containers_are_taken_only_while_the_sandbox_is_ready() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox");
    sandbox.try_create(|_| {}).expect("it asks for nothing special");
    let refused = |id: &str, text: &str| {
        let refusal = plan(&host, id, SLEEPER).try_create().expect_err("it is not ready");
        assert_eq!(refusal.code, Some(Code::FAILED_PRECONDITION), "{refusal:?}");
        assert!(refusal.message.contains(text), "{refusal:?}");
        host.shut_down(id);
    };
    refused("early", "sandbox sandbox is not started");
    sandbox.try_start().expect("it is made");
    let task = plan(&host, "one", SLEEPER).start();
    sandbox.stop();
    refused("late", "sandbox sandbox is stopped");
    task.finish();
    sandbox.finish();
}

fn a_sandbox_that_is_shut_down_keeps_exit_statuses_until_they_are_taken() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let first = plan(&host, "first", "exit 5").start();
    let second = plan(&host, "second", SLEEPER).start();
    first.wait();
    sandbox.try_shut_down().expect("it is ready");
    assert_eq!(code(sandbox.try_status(false)), Some(Code::NOT_FOUND));
    sandbox.try_shut_down().expect("it can be said again");
    assert_eq!((first.finish().status, second.delete().status), (5, 137));
    // Nobody asks it to end.
    host.await_end_of("second");
    host.await_end_of("sandbox");
}

fn what_needs_a_process_of_the_sandbox_is_refused() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox");
    let refuse = |change: &dyn Fn(&mut rpc::CreateSandboxRequest), text: &str| {
        let refusal = sandbox.try_create(change).expect_err("it cannot be had");
        assert_eq!(refusal.code, Some(Code::UNIMPLEMENTED), "{refusal:?}");
        assert!(refusal.message.contains(text), "{refusal:?}");
    };
    refuse(&|request| request.netns_path = "/proc/self/ns/net".to_owned(), "network namespace");
    refuse(&|request| request.rootfs.push(rpc::Mount::default()), "root file system");
    let config = format!("{}/config.json", host.launch("sandbox").bundle);
    fs::write(&config, r#"{"process":{"args":["pause"]}}"#).expect("it is ours");
    refuse(&|_| {}, "[\"process\"]");
    assert_eq!(code(sandbox.try_start()), Some(Code::NOT_FOUND));
    // What containerd asks for when a sandbox could not be made.
    sandbox.finish();
}

fn what_is_asked_of_another_sandbox_is_not_found() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    let other: Sandbox = sandbox.called("other");
    let answers = [
        code(other.try_start()),
        code(other.try_platform()),
        code(other.try_ping()),
        code(other.try_status(false)),
        code(other.try_metrics()),
        code(other.try_stop(0)),
        code(other.try_wait(SOON)),
        code(other.try_shut_down()),
    ];
    assert_eq!(answers, [Some(Code::NOT_FOUND); 8]);
    sandbox.try_ping().expect("nothing has happened to it");
    sandbox.finish();
}

fn metrics_of_a_sandbox_are_those_of_its_containers() {
    needs_the_service();
    let host = Host::new();
    let sandbox = host.sandbox("sandbox").start();
    assert_eq!(code(sandbox.try_metrics()), Some(Code::NOT_FOUND));
    let script = format!("sleep 1000 & {SLEEPER}");
    let tasks = ["one", "two"].map(|id| plan(&host, id, &script).start());
    for task in &tasks {
        task.stdout().wait_for("ready");
    }
    let metric = sandbox.try_metrics().expect("there are containers").metrics;
    assert_eq!((metric.id.as_str(), metric.timestamp.is_some()), ("sandbox", true));
    let kind = &tasks[0].stats().type_url;
    assert_eq!(&metric.data.type_url, kind);
    let bytes = &metric.data.value;
    let (processes, memory, cpu) = if kind.contains("v1") {
        let sum = rpc::MetricsV1::parse_from_bytes(bytes).expect("the right message");
        (sum.pids.current, sum.memory.usage.usage, sum.cpu.usage.total)
    } else {
        let sum = rpc::MetricsV2::parse_from_bytes(bytes).expect("the right message");
        (sum.pids.current, sum.memory.usage, sum.cpu.usage_usec)
    };
    // Two shells, what they left running, and perhaps what they are just starting.
    assert!((4..=6).contains(&processes), "{processes}");
    assert!(memory > 0 && cpu > 0, "{memory} {cpu}");
    sandbox.stop();
    for task in tasks {
        task.finish();
    }
    sandbox.finish();
}

fn cleaning_up_after_a_sandboxs_shim_ends_its_containers() {
    needs_the_service();
    let host = Host::new();
    let _sandbox = host.sandbox("sandbox").start();
    let task = plan(&host, "one", SLEEPER).start();
    let pid = task.pid;
    host.kill_shim("sandbox");
    drop(task);
    host.delete_after_shim("sandbox");
    assert!(!alive(pid), "{pid} lives on");
    // containerd asks for this one when it starts again.
    assert_eq!(host.delete_after_shim("one").exit_status, 137);
}

/// Ends the test below a containerd that puts no container into a sandbox's shim, or, like
/// 2.0 to 2.2, serves sandboxes only with the CRI, which these tests leave out.
fn needs_containerd_2_3() {
    needs_the_service();
    if Bootstrap::of_containerd() != Bootstrap::Message {
        not_run(NotRun::PeerLacks("containerd before 2.3: sandboxes of a shim alone".to_owned()));
    }
}

fn containerd_runs_containers_in_a_sandbox() {
    needs_containerd_2_3();
    let containerd = start();
    let config = containerd.site().write("pod.json", "{}");
    containerd.ctr(&["sandboxes", "run", &config, "pod"]).ok().says("pod");
    let listed = || containerd.ctr(&["sandboxes", "list"]).ok().stdout.contains("pod ");
    assert!(listed());
    for (id, script) in [("one", SLEEPER), ("two", "exit 9")] {
        containerd.detach(id, &["--sandbox", "pod"], script);
        let sandbox = fs::read_to_string(format!("{}/sandbox", containerd.bundle(id)));
        assert_eq!(sandbox.expect("containerd has run no shim for it"), "pod");
    }
    wait_until("it ends", SOON, || stopped(&containerd, "two"));
    containerd.exec("one", "exec", &["sh", "-c", "exit 5"]).exits(5);
    containerd.ctr(&["tasks", "delete", "two"]).stderr_says("exit with non-zero exit code 9");
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    containerd.ctr(&["sandboxes", "remove", "pod"]).ok();
    assert!(!listed());
    assert!(stopped(&containerd, "one"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 137");
}

fn a_sandbox_outlives_a_crash_of_containerd() {
    needs_containerd_2_3();
    let mut containerd = start();
    let config = containerd.site().write("pod.json", "{}");
    containerd.ctr(&["sandboxes", "run", &config, "pod"]).ok();
    let options = ["--sandbox", "pod"];
    containerd.detach("one", &options, SLEEPER);
    containerd.crash_and_restart();
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    containerd.detach("two", &options, SLEEPER);
    containerd.exec("one", "exec", &["sh", "-c", "exit 5"]).exits(5);
    containerd.ctr(&["sandboxes", "remove", "pod"]).ok();
    for id in ["one", "two"] {
        assert!(stopped(&containerd, id), "{id}");
        containerd.ctr(&["tasks", "delete", id]).stderr_says("exit with non-zero exit code 137");
    }
}
