//! containerd with `ctr run --runc-binary`.

use hull_integration::engine::{Containerd, SLEEPER, command, runtime_path};
use hull_integration::{Output, SOON, tests, wait_until};
use std::fs;
use std::thread;

use crate::seen::{INIT, field};

tests![
    the_runtime_under_test_is_the_one_that_runs,
    output_input_and_exit_code_are_the_programs,
    a_program_that_cannot_be_run_says_why,
    a_task_is_listed_signalled_and_deleted,
    a_task_is_killed_with_everything_in_it,
    a_container_without_a_process_namespace_dies_whole,
    exec_joins_the_container,
    run_and_exec_on_a_terminal,
    a_paused_task_stands_still,
    metrics_are_those_of_the_container,
    limits_are_written_to_the_cgroup,
    privileges_are_those_that_were_asked_for,
    the_root_is_read_only_on_request,
    namespaces_are_joined_by_path_or_left_to_the_host,
    ids_are_mapped,
    devices_are_there_on_request,
    many_containers_live_at_once,
    a_task_outlives_containerd,
    a_task_is_checkpointed_and_restored,
];

fn the_runtime_under_test_is_the_one_that_runs() {
    let containerd = Containerd::start();
    containerd.detach("one", &[], SLEEPER);
    let root = format!("{}/default", containerd.runtime_root());
    let state = command(&[runtime_path(), "--root", &root, "state", "one"]).run().ok().json();
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], containerd.bundle("one"));
    let init = fs::read_to_string(format!("{}/init.pid", containerd.bundle("one")));
    assert_eq!(state["pid"].to_string(), init.expect("the shim keeps it in the bundle"));
    let options = fs::read(format!("{}/options.json", containerd.bundle("one")));
    let options = options.expect("the shim keeps them in the bundle");
    assert!(String::from_utf8_lossy(&options).contains(runtime_path()));
}

fn output_input_and_exit_code_are_the_programs() {
    let containerd = Containerd::start();
    let run = containerd.shell("one", &[], "echo out; echo err >&2; exit 4").exits(4).says("out");
    assert!(run.stderr.contains("err"), "{}", run.transcript());
    let options = ["--env", "A=b c", "--cwd", "/var/tmp"];
    containerd.shell("two", &options, "echo $A $PWD; hostname").ok();
    command(&containerd.run_words("three", &["--rm"], &["head", "-n", "1"]))
        .stdin("typed\n")
        .run()
        .ok()
        .says("typed");
    containerd.ctr(&["containers", "list", "--quiet"]).ok().says("");
}

fn a_program_that_cannot_be_run_says_why() {
    let containerd = Containerd::start();
    let run = |id: &str, program: &str| {
        command(&containerd.run_words(id, &["--rm"], &[program])).run().exits(1)
    };
    run("one", "no-such-program").stderr_says("executable file not found in $PATH");
    run("two", "/no/such/file").stderr_says("no such file or directory");
    run("three", "/etc/passwd").stderr_says("permission denied");
    containerd.detach("four", &[], SLEEPER);
    containerd
        .exec("four", "first", &["no-such-program"])
        .exits(1)
        .stderr_says("executable file not found in $PATH");
    containerd.exec("four", "second", &["true"]).ok();
}

fn a_task_is_listed_signalled_and_deleted() {
    let containerd = Containerd::start();
    containerd.detach("one", &[], SLEEPER);
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    let processes = containerd.ctr(&["tasks", "ps", "one"]).ok();
    let pid =
        fs::read_to_string(format!("{}/init.pid", containerd.bundle("one"))).expect("it runs");
    assert!(processes.stdout.contains(&pid), "{}", processes.transcript());
    let refused = containerd.ctr(&["tasks", "delete", "one"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.transcript());
    containerd.ctr(&["tasks", "kill", "--signal", "SIGTERM", "one"]).ok();
    wait_until("the task stops", SOON, || containerd.status("one").as_deref() == Some("STOPPED"));
    let deleted = containerd.ctr(&["tasks", "delete", "one"]);
    deleted.stderr_says("exit with non-zero exit code 7");
    assert_eq!(containerd.status("one"), None);
    containerd.ctr(&["containers", "delete", "one"]).ok();
    // The name is free again.
    containerd.shell("one", &[], "exit 3").exits(3);
}

fn a_task_is_killed_with_everything_in_it() {
    let containerd = Containerd::start();
    containerd.detach("one", &[], "sleep 1000 & sleep 1000 & wait");
    containerd.ctr(&["tasks", "kill", "--all", "--signal", "SIGKILL", "one"]).ok();
    wait_until("the task stops", SOON, || containerd.status("one").as_deref() == Some("STOPPED"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 137");
}

fn a_container_without_a_process_namespace_dies_whole() {
    let containerd = Containerd::start();
    let path = format!("pid:/proc/{}/ns/pid", std::process::id());
    containerd.detach("one", &["--with-ns", &path], "trap '' TERM; sleep 1000 & sleep 1000 & wait");
    let pids = || {
        let directories = containerd.site().cgroup_directories("one");
        directories
            .iter()
            .filter_map(|path| fs::read_to_string(format!("{path}/cgroup.procs")).ok())
            .max()
    };
    wait_until("three processes run", SOON, || {
        pids().is_some_and(|list| list.lines().count() == 3)
    });
    containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", "one"]).ok();
    wait_until("the task stops", SOON, || containerd.status("one").as_deref() == Some("STOPPED"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 137");
    assert_eq!(pids(), None, "the cgroup is gone");
}

fn exec_joins_the_container() {
    let containerd = Containerd::start();
    containerd.detach("one", &["--env", "A=b"], SLEEPER);
    let exec = |id: &str, script: &str| containerd.exec("one", id, &["sh", "-c", script]);
    exec("first", &format!("{INIT}; echo $A")).ok().says("sh\nb");
    exec("second", "exit 5").exits(5);
    exec("third", "diff /proc/1/cgroup /proc/self/cgroup").ok();
    for kind in ["net", "pid", "ipc", "uts", "mnt"] {
        exec(
            kind,
            &format!("[ $(readlink /proc/1/ns/{kind}) = $(readlink /proc/self/ns/{kind}) ]"),
        )
        .ok();
    }
    let user =
        ["tasks", "exec", "--exec-id", "user", "--user", "1000:2000", "--cwd", "/tmp", "one"];
    containerd
        .ctr(&[&user[..], &["sh", "-c", "id -u; id -g; pwd"]].concat())
        .ok()
        .says("1000\n2000\n/tmp");
    let detach = ["tasks", "exec", "--detach", "--exec-id", "later", "one", "touch", "/later"];
    containerd.ctr(&detach).ok();
    exec("wait", "until [ -e /later ]; do sleep 0.05; done").ok();
}

fn run_and_exec_on_a_terminal() {
    let containerd = Containerd::start();
    let words = containerd.run_words("one", &["--rm", "--tty"], &["sh"]);
    let mut terminal = containerd.terminal(&words);
    terminal.read_until("/ #");
    terminal.write("tty\n");
    terminal.read_until("/dev/pts/0");
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    let words = containerd.words(&["tasks", "exec", "--tty", "--exec-id", "shell", "one", "sh"]);
    let mut second = containerd.terminal(&words);
    second.read_until("/ #");
    second.write("tty\n");
    second.read_until("/dev/pts/1");
    second.write("until stty size | grep -q '50 101'; do sleep 0.05; done; echo resized\n");
    second.resize_until(50, "\r\nresized");
    second.write("exit 5\n");
    assert_eq!(second.exit_code(), Some(5));
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn a_paused_task_stands_still() {
    let containerd = Containerd::start();
    let shared = containerd.site().make("shared");
    let bind = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
    let script = "while :; do echo tick >> /shared/ticks; sleep 0.02; done";
    containerd.detach("one", &["--mount", &bind], script);
    let ticks = || fs::metadata(format!("{shared}/ticks")).map_or(0, |file| file.len());
    wait_until("the container ticks", SOON, || ticks() > 5);
    containerd.ctr(&["tasks", "pause", "one"]).ok();
    let before = ticks();
    assert_eq!(containerd.status("one").as_deref(), Some("PAUSED"));
    let refused = containerd.exec("one", "refused", &["true"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.transcript());
    assert_eq!(ticks(), before, "it ticks though it is paused");
    containerd.ctr(&["tasks", "resume", "one"]).ok();
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    wait_until("the container ticks again", SOON, || ticks() > before);
}

fn metrics_are_those_of_the_container() {
    let containerd = Containerd::start();
    containerd.detach("one", &["--memory-limit", "67108864"], SLEEPER);
    let metrics = containerd.ctr(&["tasks", "metrics", "--format", "json", "one"]).ok();
    assert!(metrics.stdout.contains("67108864"), "{}", metrics.transcript());
}

fn limits_are_written_to_the_cgroup() {
    let containerd = Containerd::start();
    let limit = |files: [&str; 2]| {
        let directories = containerd.site().cgroup_directories("one");
        let mut paths =
            directories.iter().flat_map(|path| files.map(|file| format!("{path}/{file}")));
        let found = paths.find_map(|path| fs::read_to_string(path).ok());
        found.unwrap_or_else(|| panic!("none of {files:?} in {directories:?}"))
    };
    containerd.detach("one", &["--memory-limit", "67108864", "--cpus", "0.5"], SLEEPER);
    assert_eq!(limit(["memory.limit_in_bytes", "memory.max"]), "67108864\n");
    assert!(limit(["cpu.cfs_quota_us", "cpu.max"]).starts_with("50000"));
    containerd
        .shell(
            "three",
            &["--memory-limit", "33554432"],
            "dd if=/dev/zero of=/dev/null bs=100M count=1",
        )
        .exits(137);
}

fn privileges_are_those_that_were_asked_for() {
    let containerd = Containerd::start();
    let status = |id: &str, options: &[&str]| {
        containerd.shell(id, options, "cat /proc/self/status").ok().stdout
    };
    let plain = status("one", &[]);
    assert_eq!((field(&plain, "Seccomp"), field(&plain, "NoNewPrivs")), ("0", "1"));
    let tight = status("two", &["--seccomp", "--cap-drop", "CAP_CHOWN"]);
    assert_eq!(field(&tight, "Seccomp"), "2");
    let bits = |status: &str| u64::from_str_radix(field(status, "CapBnd"), 16).expect("a number");
    assert_eq!(bits(&tight), bits(&plain) & !1);
    let loose = status("three", &["--allow-new-privs", "--cap-add", "CAP_SYS_ADMIN"]);
    assert_eq!(field(&loose, "NoNewPrivs"), "0");
    assert_eq!(bits(&loose), bits(&plain) | 1 << 21);
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = containerd.site().write("profile.json", profile);
    containerd
        .shell("four", &["--seccomp", "--seccomp-profile", &profile], "mkdir /new")
        .exits(1)
        .stderr_says("not supported");
}

fn the_root_is_read_only_on_request() {
    let containerd = Containerd::start();
    containerd.shell("one", &["--read-only"], "touch /new").exits(1).stderr_says("Read-only");
    containerd.shell("two", &[], "touch /new").ok();
}

fn namespaces_are_joined_by_path_or_left_to_the_host() {
    let containerd = Containerd::start();
    let own = fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
    let link = "readlink /proc/self/ns/net";
    let theirs = containerd.shell("one", &[], link).ok();
    assert_ne!(theirs.text(), own.to_string_lossy());
    containerd.shell("two", &["--net-host"], link).ok().says(&own.to_string_lossy());
    containerd.detach("three", &[], SLEEPER);
    let pid =
        fs::read_to_string(format!("{}/init.pid", containerd.bundle("three"))).expect("it runs");
    let path = format!("network:/proc/{pid}/ns/net");
    let theirs = containerd.exec("three", "link", &["sh", "-c", link]).ok();
    containerd.shell("four", &["--with-ns", &path], link).ok().says(theirs.text());
}

fn ids_are_mapped() {
    let containerd = Containerd::start();
    let map = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let run = containerd
        .shell("one", &map, "id -u; cat /proc/self/uid_map; touch /new; stat -c %u /new")
        .ok();
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0"]);
}

fn devices_are_there_on_request() {
    let containerd = Containerd::start();
    let script = "[ -c /dev/net-null ] || ls /dev; mknod /loop b 7 0 && head -c 1 /loop";
    containerd
        .shell("one", &["--device", "/dev/null"], script)
        .exits(1)
        .stderr_says("not permitted");
}

fn many_containers_live_at_once() {
    let containerd = Containerd::start();
    let containerd = &containerd;
    let script = |number: i32| format!("echo this is {number}; exit {number}");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let runs: Vec<_> = (1..=8)
            .map(|number| {
                scope
                    .spawn(move || containerd.shell(&format!("run-{number}"), &[], &script(number)))
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("the engine answered")).collect()
    });
    for (number, output) in (1..).zip(outputs) {
        output.exits(number).says(&format!("this is {number}"));
    }
    containerd.ctr(&["containers", "list", "--quiet"]).ok().says("");
}

fn a_task_outlives_containerd() {
    let mut containerd = Containerd::start();
    containerd.detach("one", &[], SLEEPER);
    containerd.crash_and_restart();
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    containerd.exec("one", "first", &["sh", "-c", INIT]).ok().says("sh");
    containerd.ctr(&["tasks", "kill", "one"]).ok();
    wait_until("the task stops", SOON, || containerd.status("one").as_deref() == Some("STOPPED"));
    containerd.ctr(&["tasks", "delete", "one"]).stderr_says("exit with non-zero exit code 7");
}

fn a_task_is_checkpointed_and_restored() {
    let containerd = Containerd::start();
    let works = command(&["criu", "check"]).run().code() == Some(0);
    containerd.detach("one", &[], "i=0; while :; do i=$((i + 1)); echo $i > /n; sleep 0.05; done");
    let checkpoint = containerd.ctr(&["tasks", "checkpoint", "one"]);
    if !works {
        // The runtime passes criu's failure on, and the container goes on.
        assert_ne!(checkpoint.code(), Some(0), "{}", checkpoint.transcript());
        let _ = checkpoint.stderr_says("criu");
        assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
        containerd.exec("one", "alive", &["cat", "/n"]).ok();
        return;
    }
    checkpoint.ok();
}
