//! Hooks: the six kinds, their order, what they are told, and what their failure does.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_integration::{Bundle, Container, Peer, SOON, peer_lacks, runtime, tests, wait_until};
use serde_json::{Value, json};

tests![
    every_kind_runs_once_in_its_order,
    the_state_is_on_standard_input,
    the_environment_is_the_given_one,
    arguments_are_passed_unchanged,
    runtime_hooks_see_the_host_and_container_hooks_the_container,
    hooks_of_one_kind_run_in_order_and_stop_at_a_failure,
    a_hook_that_fails_before_start_undoes_create,
    a_failing_start_container_hook_keeps_the_program_from_running,
    a_failing_poststart_hook_stops_the_container,
    a_failing_poststop_hook_does_not_keep_the_container,
    a_hook_that_hangs_is_killed_at_its_timeout,
    a_missing_hook_program_is_an_error,
    a_relative_hook_path_is_refused,
    a_timeout_of_zero_or_less_is_refused,
    a_hook_that_reads_nothing_is_no_error,
    the_hooks_output_is_in_the_error,
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A line of shell as a hook, run by the host's shell, or by the container's.
fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

/// Where a hook can write: a path both inside and outside. The container's own /tmp is
/// a directory of the root, so that the host finds it without entering.
fn log(bundle: &Bundle) -> PathBuf {
    bundle.path("/tmp/hooks")
}

/// A hook of a kind that appends a line of shell output to the log.
fn logging(bundle: &Bundle, kind: &str, script: &str) -> Value {
    let path = match kind {
        "startContainer" => PathBuf::from("/tmp/hooks"),
        _ => log(bundle),
    };
    shell(&format!("{{ {script}; }} >> {}", path.display()))
}

fn with_hooks(mut bundle: Bundle, script: impl Fn(&str) -> String) -> Bundle {
    for kind in KINDS {
        let hook = logging(&bundle, kind, &script(kind));
        bundle = bundle.push(&format!("/hooks/{kind}"), hook);
    }
    bundle
}

fn lines(path: &PathBuf) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn every_kind_runs_once_in_its_order() {
    peer_lacks!("crun 1.8", "a hook that does not read its state kills it by SIGPIPE");
    peer_lacks!("runc", "poststart runs in create");
    let bundle = with_hooks(Bundle::sleeper(), |kind| format!("echo {kind}"));
    let log = log(&bundle);
    let container = Container::new(bundle);
    container.create().ok();
    assert_eq!(lines(&log), KINDS[..3]);
    container.start().ok();
    wait_until("the start hooks ran", SOON, || lines(&log).len() >= 5);
    let after_start = lines(&log);
    container.stop();
    assert_eq!(lines(&log), after_start);
    container.delete().ok();
    let mut seen = lines(&log);
    // poststart follows the exec of the program, which is beside the hook inside.
    seen[3..5].sort();
    let mut expected = KINDS;
    expected[3..5].sort_unstable();
    assert_eq!(seen, expected);
}

fn the_state_is_on_standard_input() {
    peer_lacks!("crun 1.8", "the bundle is wrong inside");
    let bundle =
        with_hooks(Bundle::sleeper(), |kind| format!("echo \"{kind} $(cat | tr -d '\\n')\""));
    let log = log(&bundle);
    let container = Container::new(bundle.set("/annotations", json!({ "org.example.a": "b" })));
    container.create().ok();
    let pid = container.pid();
    container.start().ok();
    wait_until("the start hooks ran", SOON, || lines(&log).len() >= 5);
    container.stop();
    container.delete().ok();
    let seen = lines(&log);
    assert_eq!(seen.len(), 6, "{seen:?}");
    for line in seen {
        let (kind, text) = line.split_once(' ').expect("a kind and a state");
        let state: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(state["id"], json!(container.id), "{kind}");
        assert_eq!(state["bundle"], json!(container.bundle.dir()), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        assert_eq!(state["annotations"]["org.example.a"], "b", "{kind}");
        let status = state["status"].as_str().expect("a status");
        let expected: &[&str] = match kind {
            "prestart" | "createRuntime" | "createContainer" => &["creating", "created"],
            "startContainer" => &["created", "starting"],
            "poststart" if runtime().peer == Peer::Runc => &["created"],
            "poststart" => &["running"],
            _ => &["stopped"],
        };
        assert!(expected.contains(&status), "{kind}: {status}");
        match kind {
            // Inside, the pid may be the one that is seen there.
            "poststop" | "startContainer" | "createContainer" => {}
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
    }
}

fn the_environment_is_the_given_one() {
    let bundle = Bundle::sleeper();
    let log = log(&bundle);
    let mut hook = logging(&bundle, "createRuntime", "/usr/bin/env");
    hook["env"] = json!(["ONE=1", "TWO=a b"]);
    let container = Container::new(bundle.push("/hooks/createRuntime", hook));
    container.with_bundle(&["create"]).env("LEAK", "caller").run().ok();
    let seen = lines(&log);
    assert!(seen.contains(&"ONE=1".to_owned()) && seen.contains(&"TWO=a b".to_owned()), "{seen:?}");
    assert!(!seen.iter().any(|line| line.starts_with("LEAK")), "{seen:?}");
}

fn arguments_are_passed_unchanged() {
    let bundle = Bundle::sleeper();
    let log = log(&bundle);
    let mut hook = logging(&bundle, "createRuntime", "printf '%s\\n' \"$0\" \"$@\"");
    let args = hook["args"].as_array_mut().expect("a list");
    args.extend([json!("first word"), json!(""), json!("--third")]);
    let container = Container::new(bundle.push("/hooks/createRuntime", hook));
    container.create().ok();
    assert_eq!(lines(&log), ["first word", "", "--third"]);
}

fn runtime_hooks_see_the_host_and_container_hooks_the_container() {
    let script = |kind: &str| {
        format!("echo {kind} $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/mnt)")
    };
    let bundle = with_hooks(Bundle::sleeper(), script);
    let log = log(&bundle);
    let container = Container::new(bundle);
    container.create().ok();
    let pid = container.pid();
    let inode = |pid: &str, name: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("it runs").display().to_string()
    };
    let inside = (inode(&pid.to_string(), "uts"), inode(&pid.to_string(), "mnt"));
    let host_uts = inode("self", "uts");
    container.start().ok();
    wait_until("the start hooks ran", SOON, || lines(&log).len() >= 5);
    container.stop();
    container.delete().ok();
    for line in lines(&log) {
        let words: Vec<&str> = line.split(' ').collect();
        let (uts, mnt) = (words[1], words[2]);
        match words[0] {
            "createContainer" | "startContainer" => {
                assert_eq!((uts, mnt), (inside.0.as_str(), inside.1.as_str()), "{line}");
            }
            // By then the container's namespace is gone and its number may be used again.
            "poststop" => assert_eq!(uts, host_uts, "{line}"),
            _ => assert!(uts == host_uts && mnt != inside.1, "{line}"),
        }
    }
}

fn hooks_of_one_kind_run_in_order_and_stop_at_a_failure() {
    let bundle = Bundle::sleeper();
    let log = log(&bundle);
    let hook = |script: &str| logging(&bundle, "createRuntime", script);
    let hooks = json!([hook("echo one"), hook("echo two; exit 3"), hook("echo three")]);
    let container = Container::new(bundle.set("/hooks/createRuntime", hooks));
    container.create().fails();
    assert_eq!(lines(&log), ["one", "two"]);
    container.assert_gone();
}

fn a_hook_that_fails_before_start_undoes_create() {
    for kind in &KINDS[..3] {
        let bundle = Bundle::sleeper().push(&format!("/hooks/{kind}"), shell("exit 7"));
        let container = Container::new(bundle);
        let output = container.create().fails();
        assert!(output.stderr.contains("hook"), "{}", output.summary());
        container.assert_gone();
        container.command("state", &[]).fails_with("container does not exist");
    }
}

fn a_failing_start_container_hook_keeps_the_program_from_running() {
    let bundle =
        Bundle::shell("echo ran > /tmp/mark").push("/hooks/startContainer", shell("exit 7"));
    let container = Container::new(bundle);
    container.run().fails();
    assert!(!container.bundle.path("/tmp/mark").exists());
    container.assert_gone();
    container.create().ok();
    container.start();
    container.wait_status("stopped");
    assert!(!container.bundle.path("/tmp/mark").exists());
}

fn a_failing_poststart_hook_stops_the_container() {
    let bundle = Bundle::sleeper().push("/hooks/poststart", shell("exit 7"));
    peer_lacks!("runc", "poststart runs in create");
    peer_lacks!("crun 1.8", "it goes on");
    let container = Container::new(bundle);
    container.create().ok();
    container.start().fails();
    wait_until("stopped", SOON, || container.command("state", &[]).stdout.contains("\"stopped\""));
}

fn a_failing_poststop_hook_does_not_keep_the_container() {
    peer_lacks!("crun 1.8", "a hook that does not read its state kills it by SIGPIPE");
    let bundle = Bundle::sleeper();
    let log = log(&bundle);
    let hooks = json!([shell("exit 7"), logging(&bundle, "poststop", "echo second")]);
    let container = Container::new(bundle.set("/hooks/poststop", hooks));
    container.create().ok();
    container.stop();
    container.command("delete", &[]);
    container.command("state", &[]).fails_with("container does not exist");
    peer_lacks!("runc", "it stops at the first failure");
    assert_eq!(lines(&log), ["second"], "the remaining hooks run as if it had succeeded");
}

fn a_hook_that_hangs_is_killed_at_its_timeout() {
    for kind in &KINDS[..3] {
        let mut hook = json!({ "path": "/bin/sleep", "args": ["sleep", "600.25"] });
        hook["timeout"] = json!(1);
        let container = Container::new(Bundle::sleeper().push(&format!("/hooks/{kind}"), hook));
        let started = Instant::now();
        container.create().fails();
        let took = started.elapsed();
        assert!(took > Duration::from_millis(800) && took < SOON, "{kind}: {took:?}");
        container.assert_gone();
    }
}

fn a_missing_hook_program_is_an_error() {
    for kind in &KINDS[..3] {
        let hook = json!({ "path": "/no/such/hook" });
        let container = Container::new(Bundle::sleeper().push(&format!("/hooks/{kind}"), hook));
        container.create().fails_with("/no/such/hook");
        container.assert_gone();
    }
}

fn a_relative_hook_path_is_refused() {
    peer_lacks!("runc", "it looks in the working directory");
    peer_lacks!("crun", "it looks in the working directory");
    let hook = json!({ "path": "bin/true" });
    let container = Container::new(Bundle::new().push("/hooks/createRuntime", hook));
    container.create().fails_with("bin/true");
    container.assert_gone();
}

fn a_timeout_of_zero_or_less_is_refused() {
    peer_lacks!("runc", "it takes it as no time at all");
    peer_lacks!("crun", "it takes it as no limit");
    for timeout in [0, -1] {
        let hook = json!({ "path": "/bin/true", "timeout": timeout });
        let container = Container::new(Bundle::new().push("/hooks/createRuntime", hook));
        container.create().fails();
        container.assert_gone();
    }
}

fn a_hook_that_reads_nothing_is_no_error() {
    peer_lacks!("crun 1.8", "a hook that does not read its state kills it by SIGPIPE");
    let mut bundle = Bundle::sleeper();
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let hook = json!({ "path": "/bin/true" });
        bundle = bundle.push(&format!("/hooks/{kind}"), hook);
    }
    // The state is larger than a pipe.
    let container = Container::new(bundle.set("/annotations", json!({ "a": "x".repeat(100_000) })));
    container.create().ok();
    container.start().ok();
    container.stop();
    container.delete().ok();
}

fn the_hooks_output_is_in_the_error() {
    peer_lacks!("crun", "the hook writes to the caller's standard error");
    let hook = shell("echo the reason >&2; exit 9");
    let container = Container::new(Bundle::new().push("/hooks/createRuntime", hook));
    let output = container.create().fails_with("the reason");
    assert!(output.stderr.contains('9'), "the exit code: {}", output.stderr);
}
