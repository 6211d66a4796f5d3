//! From Create to Shutdown: answers, exit codes, events.

use std::time::SystemTime;

use hull_integration::shim::rpc::Status;
use hull_integration::shim::{Host, SLEEPER, time};
use hull_integration::tests;

tests![
    a_container_runs_and_is_gone_afterwards,
    states_follow_the_life_of_the_container,
    events_tell_the_life_of_the_container_in_order,
    every_exit_code_is_told,
    every_signal_is_told,
];

fn a_container_runs_and_is_gone_afterwards() {
    let host = Host::new();
    let before = SystemTime::now();
    let task = host.shell("one", "echo out; echo err >&2; exit 3").start();
    let exit = task.wait();
    assert_eq!(exit.status, 3);
    let at = exit.at.expect("the end has a time");
    assert!(at >= before && at <= SystemTime::now(), "{before:?} {at:?}");
    assert_eq!(task.stdout().to_end(), "out\n");
    assert_eq!(task.stderr().to_end(), "err\n");
    // Whoever asks later is told the same.
    assert_eq!(task.wait(), exit);
    task.finish();
}

fn states_follow_the_life_of_the_container() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).create();
    let created = task.state();
    assert_eq!(task.status(), Status::CREATED);
    assert_eq!((created.id.as_str(), created.pid), ("one", task.pid));
    assert_eq!(created.bundle, host.launch("one").bundle);
    assert_eq!(created.stdout, task.paths().stdout);
    assert!(!created.terminal && created.exited_at.as_ref().and_then(time).is_none());
    assert_eq!(task.start(), task.pid);
    assert_eq!(task.status(), Status::RUNNING);
    task.terminate();
    let exit = task.wait();
    let stopped = task.state();
    assert_eq!(task.status(), Status::STOPPED);
    assert_eq!((stopped.exit_status, exit.status), (7, 7));
    assert_eq!(stopped.pid, task.pid);
    task.finish();
}

fn events_tell_the_life_of_the_container_in_order() {
    let host = Host::new();
    let task = host.shell("one", "exit 3").create();
    let pid = task.start();
    let exit = task.wait();
    task.delete();
    host.events().wait("one", "/tasks/delete");
    let topics = host.events().topics("one");
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    for event in host.events().all() {
        assert_eq!((event.namespace.as_str(), event.pid), ("test", pid), "{event:?}");
        assert!(event.at.is_some(), "{event:?}");
    }
    let told = host.events().wait("one", "/tasks/exit");
    assert_eq!((told.status, told.exited_at, told.exec.as_str()), (3, exit.at, ""));
    let told = host.events().wait("one", "/tasks/delete");
    assert_eq!((told.status, told.exited_at), (3, exit.at));
    let created = host.events().wait("one", "/tasks/create");
    assert_eq!(created.text, format!("{} {}", host.launch("one").bundle, task.paths().stdout));
    host.shut_down("one");
}

fn every_exit_code_is_told() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    for code in 0..=255 {
        let process = task.exec(&format!("exit-{code}"), &format!("exit {code}"));
        process.start();
        assert_eq!(process.wait().status, code);
        assert_eq!(process.delete().status, code);
    }
    for code in [0, 1, 127, 128, 137, 255] {
        let task = host.shell(&format!("exit-{code}"), &format!("exit {code}")).start();
        assert_eq!(task.finish().status, code);
    }
}

fn every_signal_is_told() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    for signal in 1..=64 {
        // Not the ones that stop or do nothing, and the two that the C library keeps.
        if matches!(signal, 17..=23 | 28 | 32 | 33) {
            continue;
        }
        let io = host.pipes(false);
        let sleep = task.exec_with(&format!("sleep-{signal}"), io, &["sleep", "1000"]);
        sleep.start();
        sleep.kill(signal);
        assert_eq!(sleep.wait().status, 128 + u32::try_from(signal).expect("positive"));
        sleep.delete();
    }
}
