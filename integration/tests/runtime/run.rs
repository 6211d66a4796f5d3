//! `run`: exit codes, streams, descriptors, detaching.

use std::fs;

use hull_integration::{
    Bundle, Container, Invocation, SOON, peer_lacks, runtime, tests, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::json;

tests![
    the_exit_code_is_the_programs,
    a_signal_gives_128_and_its_number,
    output_and_errors_go_where_they_should,
    standard_input_reaches_the_program,
    nothing_is_left_after_a_run,
    nothing_is_left_after_a_failing_run,
    keep_leaves_a_stopped_container,
    a_detached_run_returns_while_the_container_runs,
    a_detached_run_writes_the_pid_file,
    signals_to_run_reach_the_program,
    a_foreground_container_can_be_paused_and_deleted_by_others,
    no_descriptor_leaks,
    preserved_descriptors_reach_the_program,
    a_descriptor_that_is_not_open_cannot_be_preserved,
    socket_activation_passes_its_sockets,
    no_pivot_still_hides_the_host,
    no_new_keyring_is_accepted,
    a_root_of_a_dot_is_the_bundle,
    an_absolute_root_is_taken_as_it_is,
    a_program_without_execute_permission_is_refused,
    a_script_with_an_interpreter_runs,
    an_argument_reaches_the_program_unchanged,
    a_large_environment_reaches_the_program,
];

fn the_exit_code_is_the_programs() {
    for code in [0, 1, 42, 255] {
        Container::new(Bundle::shell(&format!("exit {code}"))).run().exits(code);
    }
}

fn a_signal_gives_128_and_its_number() {
    // Outside a pid namespace of its own a process can kill itself.
    for (signal, number) in [("TERM", 15), ("KILL", 9)] {
        let bundle = Bundle::shell(&format!("kill -{signal} $$")).without_namespace("pid");
        Container::new(bundle).run().exits(128 + number);
    }
}

fn output_and_errors_go_where_they_should() {
    let output = Container::new(Bundle::shell("echo out; echo err >&2")).run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

fn standard_input_reaches_the_program() {
    let container = Container::new(Bundle::new().args(&["tr", "a-z", "A-Z"]));
    let output = container.with_bundle(&["run"]).stdin("hello").run().ok();
    assert_eq!(output.stdout, "HELLO");
}

fn nothing_is_left_after_a_run() {
    let container = Container::new(Bundle::shell("sleep 1000 & true"));
    container.run().ok();
    container.assert_gone();
}

fn nothing_is_left_after_a_failing_run() {
    let container = Container::new(Bundle::new().args(&["/no/such/program"]));
    container.run().fails();
    container.assert_gone();
}

fn keep_leaves_a_stopped_container() {
    peer_lacks!("crun 1.8", "no --keep");
    let container = Container::new(Bundle::shell("exit 7"));
    container.with_bundle(&["run", "--keep"]).run().exits(7);
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
    container.assert_gone();
}

fn a_detached_run_returns_while_the_container_runs() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    assert_eq!(container.status(), "running");
    container.stop();
    container.delete().ok();
}

fn a_detached_run_writes_the_pid_file() {
    let container = Container::new(Bundle::sleeper());
    let file = container.bundle.dir().join("pid");
    let path = file.to_str().expect("text");
    container.with_bundle(&["run", "-d", "--pid-file", path]).run().ok();
    assert_eq!(fs::read_to_string(&file).expect("written"), container.pid().to_string());
}

fn signals_to_run_reach_the_program() {
    let script = "trap 'exit 9' TERM; echo ready > /tmp/ready; while :; do sleep 0.02; done";
    let container = Container::new(Bundle::shell(script));
    let running = container.with_bundle(&["run"]).start();
    wait_until("the trap is set", SOON, || container.bundle.path("/tmp/ready").exists());
    running.signal(Signal::SIGTERM);
    running.wait().exits(9);
    container.assert_gone();
}

fn no_descriptor_leaks() {
    let report = Container::new(Bundle::probe(&[])).report();
    let fds: Vec<&String> = report["fds"].as_object().expect("/proc is mounted").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", report["fds"]);
}

/// Opens files at numbers 3 and up, then becomes the runtime.
fn with_descriptors(container: &Container, opens: &str, options: &[&str]) -> Invocation {
    let mut shell = Invocation::new("/bin/sh");
    let prelude = if runtime().peer == hull_integration::Peer::Crun {
        "umount /sys/fs/cgroup/unified 2>/dev/null;"
    } else {
        ""
    };
    let script = format!(
        "cd {}; {prelude} export LISTEN_PID=$$; exec \"$@\" {opens}",
        container.bundle.dir().display()
    );
    if !prelude.is_empty() {
        shell = Invocation::new("unshare").args(["-m", "--propagation", "slave", "/bin/sh"]);
    }
    shell
        .args(["-c", &script, "sh"])
        .arg(&runtime().program)
        .arg("--root")
        .arg(container.root())
        .arg("run")
        .args(options)
        .arg(&container.id)
}

fn preserved_descriptors_reach_the_program() {
    let container = Container::new(Bundle::shell("cat <&3; cat <&4; ls /proc/self/fd | wc -l"));
    for name in ["one", "two", "three"] {
        fs::write(container.bundle.dir().join(name), format!("{name}\n")).expect("writable");
    }
    let output = with_descriptors(&container, "3<one 4<two 5<three", &["--preserve-fds", "2"]);
    let output = output.run().ok();
    // 0, 1, 2, 3, 4 and the directory that ls reads; 5 was not asked for.
    assert_eq!(output.stdout, "one\ntwo\n6\n");
}

fn a_descriptor_that_is_not_open_cannot_be_preserved() {
    peer_lacks!("crun", "it ignores the gap");
    peer_lacks!("runc", "its language's runtime has descriptors of its own there");
    let container = Container::new(Bundle::new());
    with_descriptors(&container, "", &["--preserve-fds", "3"]).run().fails();
    container.assert_gone();
}

fn socket_activation_passes_its_sockets() {
    peer_lacks!("crun 1.8", "it sets no LISTEN_PID");
    let container = Container::new(Bundle::shell("echo $LISTEN_FDS $LISTEN_PID; cat <&3"));
    fs::write(container.bundle.dir().join("one"), "one\n").expect("writable");
    let output = with_descriptors(&container, "3<one", &[]).env("LISTEN_FDS", "1").run().ok();
    assert_eq!(output.stdout, "1 1\none\n");
}

fn no_pivot_still_hides_the_host() {
    let container = Container::new(Bundle::new().args(&["ls", "/"]));
    let output = container.with_bundle(&["run", "--no-pivot"]).run().ok();
    assert!(output.stdout.contains("probe\n"), "the container's root is the root");
    assert!(!output.stdout.contains("boot\n"));
}

fn no_new_keyring_is_accepted() {
    let container = Container::new(Bundle::new());
    container.with_bundle(&["run", "--no-new-keyring"]).run().ok();
}

fn a_root_of_a_dot_is_the_bundle() {
    let container = Container::new(Bundle::shell("echo inside; ls /").set("/root/path", "."));
    // The root is now the bundle itself: what a program needs is linked up.
    let bundle = container.bundle.dir();
    for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
        fs::rename(bundle.join("rootfs").join(name), bundle.join(name)).expect("one file system");
    }
    let output = container.run().ok();
    assert!(output.stdout.starts_with("inside\n") && output.stdout.contains("config.json"));
}

fn an_absolute_root_is_taken_as_it_is() {
    let bundle = Bundle::shell("echo inside");
    let root = bundle.rootfs();
    let container = Container::new(bundle.set("/root/path", json!(root)));
    assert_eq!(container.run().ok().text(), "inside");
    container.assert_gone();
}

fn a_program_without_execute_permission_is_refused() {
    let bundle = Bundle::new().file("/tmp/plain", "data", 0o644).args(&["/tmp/plain"]);
    let container = Container::new(bundle);
    container.run().fails_with("permission denied");
    container.assert_gone();
}

fn a_script_with_an_interpreter_runs() {
    let bundle = Bundle::new().program("/script", "#!/bin/sh\necho \"script $1\"\n");
    let output = Container::new(bundle.args(&["/script", "one"])).run().ok();
    assert_eq!(output.text(), "script one");
}

fn an_argument_reaches_the_program_unchanged() {
    let odd = "a  b\t\"c\" 'd' $e \\ * ü";
    let output = Container::new(Bundle::new().args(&["printf", "%s|", odd, ""])).run().ok();
    assert_eq!(output.stdout, format!("{odd}||"));
}

fn a_large_environment_reaches_the_program() {
    let mut bundle = Bundle::shell("echo ${#BIG}; env | wc -l");
    bundle = bundle.push("/process/env", format!("BIG={}", "x".repeat(100_000)));
    for number in 0..500 {
        bundle = bundle.push("/process/env", format!("V{number}=value"));
    }
    let output = Container::new(bundle).run().ok();
    let mut lines = output.stdout.lines();
    assert_eq!(lines.next(), Some("100000"));
    let count: usize = lines.next().and_then(|line| line.trim().parse().ok()).expect("a number");
    assert!(count >= 503, "{count}");
}

fn a_foreground_container_can_be_paused_and_deleted_by_others() {
    let container = Container::new(Bundle::sleeper());
    let running = container.with_bundle(&["run"]).start();
    let state = || container.command("state", &[]);
    wait_until("the container to run", SOON, || {
        let state = state();
        state.code() == Some(0) && state.json()["status"] == "running"
    });
    container.command("pause", &[]).ok();
    container.command("resume", &[]).ok();
    container.delete_force().ok();
    running.wait().exits(137);
    container.assert_gone();
}
