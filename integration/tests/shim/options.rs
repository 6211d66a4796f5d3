//! What the user asks of the shim, and what the runtime is told of it.

use std::ffi::OsString;
use std::fs;

use hull_integration::shim::rpc::Options;
use hull_integration::shim::{Host, SLEEPER, SOON};
use hull_integration::{runtime, tests, wait_until};
use serde_json::{Value, json};

tests![
    options_reach_the_runtime,
    the_runtime_is_called_in_the_namespaces_own_root,
    the_runtimes_own_words_are_kept_beside_the_bundle,
    a_shim_that_is_to_say_more_works,
    no_descriptor_of_the_shim_is_in_the_container,
    orphans_are_waited_for,
];

/// A runtime that writes down what it is told, and then is the one under test, if it is
/// to succeed.
fn spy(host: &Host, succeed: bool) -> String {
    let real = runtime().program.display();
    let rest = match succeed {
        true => format!("exec {real} \"$@\""),
        false => "echo told >&2; exit 1".to_owned(),
    };
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\n{rest}\n", host.site().path("told"));
    host.site().program("spy", &script)
}

fn told(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.site().path("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn with(change: impl Fn(&mut Options), words: &str) {
    let host = Host::new();
    let path = spy(&host, false);
    let plan = host.shell("one", SLEEPER).options(|options| {
        options.binary_name.clone_from(&path);
        change(options);
    });
    plan.try_create().expect_err("the runtime says no");
    let told = told(&host);
    let create = told.iter().find(|line| line.contains(" create ")).expect("it was called");
    assert!(create.contains(words), "no {words:?} in {create:?}");
}

fn options_reach_the_runtime() {
    with(|options| options.no_pivot_root = true, " --no-pivot ");
    with(|options| options.no_new_keyring = true, " --no-new-keyring ");
    with(|options| options.systemd_cgroup = true, "--systemd-cgroup ");
    with(|options| options.root = "/run/elsewhere".to_owned(), "--root /run/elsewhere/test ");
    with(|_| {}, " --bundle ");
}

fn the_runtime_is_called_in_the_namespaces_own_root() {
    let host = Host::new();
    let path = spy(&host, true);
    let task = host.shell("one", SLEEPER).options(|options| options.binary_name = path).start();
    assert_eq!(task.run("first", "exit 3").0, 3);
    task.terminate();
    task.finish();
    let root = format!("--root {}/test ", host.runtime_root());
    let told = told(&host);
    assert!(told.iter().all(|line| line.contains(&root)), "{told:?}");
    for word in [" create ", " start ", " exec ", " delete "] {
        assert!(told.iter().any(|line| line.contains(word)), "no {word:?} in {told:?}");
    }
}

fn the_runtimes_own_words_are_kept_beside_the_bundle() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let bundle = host.launch("one").bundle;
    // Where others look: the first process's number, and the runtime's log.
    let pid = fs::read_to_string(format!("{bundle}/init.pid")).expect("it is kept");
    assert_eq!(pid.trim(), task.pid.to_string());
    let process = task.exec_with("first", host.pipes(false), &["no-such-program"]);
    let refused = process.try_start().expect_err("it cannot run");
    assert!(refused.message.contains("executable file not found"), "{refused:?}");
    // An error of one operation is not taken for that of the next.
    let process = task.exec_with("second", host.pipes(false), &["/etc/passwd"]);
    let refused = process.try_start().expect_err("it cannot run");
    assert!(refused.message.contains("permission denied"), "{refused:?}");
    assert!(!refused.message.contains("not found"), "{refused:?}");
}

fn a_shim_that_is_to_say_more_works() {
    let host = Host::new();
    let mut plan = host.shell("one", "exit 3");
    plan.launch.debug = true;
    let task = plan.start();
    assert_eq!(task.wait().status, 3);
    task.delete();
    wait_until("it says something", SOON, || !host.shim_log("one").is_empty());
    host.shut_down("one");
}

/// The numbers of a process's open descriptors.
pub(crate) fn descriptors(pid: u32) -> Vec<OsString> {
    let list = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
    let mut numbers: Vec<_> = list.map(|entry| entry.file_name()).collect();
    numbers.sort();
    numbers
}

fn no_descriptor_of_the_shim_is_in_the_container() {
    let host = Host::new();
    // Not a shell: it keeps its script open.
    let sleep = |config: &mut Value| config["process"]["args"] = json!(["sleep", "1000"]);
    let task = host.shell("one", "").configure(sleep).with_input().start();
    let process = task.exec_with("first", host.pipes(true), &["sleep", "1000"]);
    for pid in [task.pid, process.start()] {
        let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).expect("it lives");
        wait_until("the program runs", SOON, || comm() == "sleep\n");
        assert_eq!(descriptors(pid), ["0", "1", "2"]);
    }
}

fn orphans_are_waited_for() {
    let host = Host::new();
    let script = "n=0; while [ $n -lt 20 ]; do (sleep 0.01 &); n=$((n+1)); done; echo begun;
        while :; do sleep 0.05; done";
    let task = host
        .shell("one", script)
        .configure(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("it is a list");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        })
        .start();
    task.stdout().wait_for("begun");
    let shim = host.shim_pid("one").to_string();
    let children = || {
        let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let stats =
            processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let parents = stats.filter_map(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            rest.split(' ').nth(1).map(str::to_owned)
        });
        parents.filter(|parent| *parent == shim).count()
    };
    // The container itself is the only child in the end.
    wait_until("the orphans are gone", SOON, || children() == 1);
    task.kill(9);
    assert_eq!(task.finish().status, 137);
}
