//! Further processes in a container.

use hull_integration::shim::rpc::Status;
use hull_integration::shim::{Code, Host, Io, SLEEPER, SOON, shim};
use hull_integration::{tests, wait_until};
use serde_json::json;

tests![
    an_exec_runs_in_the_container,
    an_exec_is_the_process_that_was_asked_for,
    events_tell_the_life_of_an_exec_in_order,
    states_follow_the_life_of_an_exec,
    an_exec_without_streams_runs,
    an_exec_that_cannot_run_says_why_and_leaves_the_container_alone,
    an_exec_is_killed_alone,
    an_exec_ends_with_its_container,
    an_exec_that_was_never_started_can_be_deleted,
    a_name_is_free_again_after_delete,
];

fn an_exec_runs_in_the_container() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("first", "echo out; echo err >&2; exit 5");
    process.start();
    let exit = process.wait();
    assert_eq!(exit.status, 5);
    assert_eq!(process.stdout().to_end(), "out\n");
    assert_eq!(process.stderr().to_end(), "err\n");
    assert_eq!(process.delete(), exit);
    let (status, output) = task.run(
        "second",
        "for kind in net pid ipc uts mnt cgroup; do
        [ $(readlink /proc/1/ns/$kind) = $(readlink /proc/self/ns/$kind) ] || echo other $kind; done
        diff /proc/1/cgroup /proc/self/cgroup",
    );
    assert_eq!((status, output.as_str()), (0, ""));
}

fn an_exec_is_the_process_that_was_asked_for() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let spec = json!({
        "args": ["sh", "-c", "id -u; id -g; id -G; pwd; echo $A"],
        "env": ["PATH=/bin", "A=b c"], "cwd": "/tmp",
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [2000] },
    });
    let process = task.try_exec_spec("first", host.pipes(false), &spec).expect("it can be added");
    process.start();
    assert_eq!(process.wait().status, 0);
    assert_eq!(process.stdout().to_end(), "1000\n1000\n1000 2000\n/tmp\nb c\n");
    process.delete();
}

fn events_tell_the_life_of_an_exec_in_order() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("first", "exit 5");
    let pid = process.start();
    let exit = process.wait();
    process.delete();
    let told = host.events().wait("one", "/tasks/exit");
    assert_eq!((told.exec.as_str(), told.pid, told.status), ("first", pid, 5));
    assert_eq!(told.exited_at, exit.at);
    let started = host.events().wait("one", "/tasks/exec-started");
    assert_eq!((started.exec.as_str(), started.pid), ("first", pid));
    assert_eq!(host.events().wait("one", "/tasks/exec-added").exec, "first");
    let topics = host.events().topics("one");
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit"
        ]
    );
}

fn states_follow_the_life_of_an_exec() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("first", SLEEPER);
    assert_eq!(process.status(), Status::CREATED);
    let pid = process.start();
    let state = process.state();
    assert_eq!(process.status(), Status::RUNNING);
    assert_eq!((state.id.as_str(), state.pid), ("first", pid));
    assert_eq!(state.stdout, process.paths().stdout);
    let pids = task.pids();
    assert!(pids.contains(&(pid, Some("first".to_owned()))), "{pids:?}");
    assert!(pids.contains(&(task.pid, None)), "{pids:?}");
    process.terminate();
    assert_eq!(process.wait().status, 7);
    assert_eq!(process.status(), Status::STOPPED);
    assert_eq!(process.state().exit_status, 7);
    assert_eq!(process.delete().status, 7);
    let refused = process.try_state().expect_err("it is deleted");
    assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
    assert_eq!(task.status(), Status::RUNNING);
}

fn an_exec_without_streams_runs() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let script = "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done > /links; exit 4";
    let process = task.exec_with("first", Io::default(), &["sh", "-c", script]);
    process.start();
    assert_eq!(process.wait().status, 4);
    process.delete();
    let (_, links) = task.run("second", "cat /links");
    // The loop's own output went to the file.
    assert_eq!(links, "/dev/null\n/links\n/dev/null\n");
}

fn an_exec_that_cannot_run_says_why_and_leaves_the_container_alone() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let cases = [
        ("missing", "no-such-program", "executable file not found in $PATH"),
        ("absent", "/no/such/file", "no such file or directory"),
        ("text", "/etc/passwd", "permission denied"),
    ];
    for (name, program, reason) in cases {
        let process = task.exec_with(name, host.pipes(false), &[program]);
        let refused = process.try_start().expect_err("it cannot run");
        assert!(refused.message.contains(reason), "{refused:?}");
        // Nobody waits for ever for what never began.
        let exit = process.try_wait(SOON).expect("its end is known");
        // containerd's own shim calls it a success, at no time.
        assert!(shim().reference || exit.status != 0, "{exit:?}");
        process.try_delete().expect("it can be deleted");
    }
    assert_eq!(task.run("after", "echo alive"), (0, "alive\n".to_owned()));
}

fn an_exec_is_killed_alone() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let first = task.exec_with("first", host.pipes(false), &["sleep", "1000"]);
    let second = task.exec_with("second", host.pipes(false), &["sleep", "1000"]);
    first.start();
    second.start();
    first.kill(9);
    assert_eq!(first.wait().status, 137);
    assert_eq!(second.status(), Status::RUNNING);
    assert_eq!(task.status(), Status::RUNNING);
    let refused = first.try_kill(9, false).expect_err("it has ended");
    assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
    second.kill(9);
    assert_eq!(second.wait().status, 137);
}

fn an_exec_ends_with_its_container() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("first", SLEEPER);
    process.start();
    task.kill(9);
    assert_eq!(task.wait().status, 137);
    assert_eq!(process.wait().status, 137);
    assert_eq!(process.delete().status, 137);
    let exits = || {
        let events = host.events().all();
        events.iter().filter(|event| event.topic == "/tasks/exit").count()
    };
    wait_until("both ends are told", SOON, || exits() == 2);
    task.finish();
}

fn an_exec_that_was_never_started_can_be_deleted() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("first", "true");
    process.try_delete().expect("it can be deleted");
    let refused = process.try_state().expect_err("it is deleted");
    assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
}

fn a_name_is_free_again_after_delete() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec("same", "exit 1");
    let refused = task.try_exec("same", Io::default(), &["true"]).expect_err("the name is taken");
    assert_eq!(refused.code, Some(Code::ALREADY_EXISTS), "{refused:?}");
    process.start();
    process.wait();
    process.delete();
    assert_eq!(task.run("same", "exit 2").0, 2);
}
