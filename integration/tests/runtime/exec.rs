//! `exec`: a second process in a running container.

use std::fs;

use hull_integration::{Bundle, Container, Peer, SOON, peer_lacks, runtime, tests, wait_until};
use serde_json::{Value, json};

tests![
    it_joins_every_namespace_and_cgroup,
    the_exit_code_is_the_programs,
    a_missing_program_says_so,
    a_stopped_container_is_refused,
    a_created_container_is_entered,
    output_and_input_are_the_callers,
    no_descriptor_leaks,
    the_environment_is_the_containers_and_more,
    the_working_directory_is_the_containers_unless_named,
    the_user_is_the_containers_unless_named,
    additional_groups_are_added,
    capabilities_are_added,
    no_new_privileges_is_set_when_asked,
    a_process_file_says_everything,
    a_process_file_that_is_wrong_is_refused,
    a_detached_process_outlives_the_command,
    the_pid_file_holds_the_pid,
    a_process_without_arguments_is_refused,
    a_paused_container_is_refused,
    ignore_paused_waits_for_resume,
    limits_masks_and_root_are_the_containers,
    a_missing_working_directory_is_refused,
    options_after_the_id_belong_to_the_program,
    many_at_once_do_not_disturb_each_other,
    a_sub_cgroup_is_joined,
    home_is_the_users,
    sessions_leave_nothing_behind,
];

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.run_detached().ok();
    container
}

fn it_joins_every_namespace_and_cgroup() {
    let container = running(Bundle::sleeper());
    let pid = container.pid();
    let report = container.exec_report(&[]);
    for (name, link) in report["namespaces"].as_object().expect("an object") {
        let init = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("it runs");
        assert_eq!(link.as_str(), init.to_str(), "{name}");
    }
    let inside = container.exec(&["cat", "/proc/1/cgroup"]).ok().stdout;
    let own = container.exec(&["cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(inside, own);
}

fn the_exit_code_is_the_programs() {
    let container = running(Bundle::sleeper());
    for code in [0, 3, 255] {
        container.exec(&["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    container.exec(&["sh", "-c", "kill -TERM $$"]).exits(128 + 15);
}

fn a_missing_program_says_so() {
    let container = running(Bundle::sleeper());
    container.exec(&["no-such-program"]).fails_with("executable file not found in $PATH");
    container.exec(&["/no/such/program"]).fails_with("no such file or directory");
    if runtime().peer != Peer::Crun {
        container.exec(&["/no/such/program"]).exits(255);
    }
    container.exec(&["/etc/passwd"]).fails_with("permission denied");
    assert_eq!(container.status(), "running");
}

fn a_stopped_container_is_refused() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    container.exec(&["true"]).fails_with("cannot exec in a stopped container");
}

fn a_created_container_is_entered() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    assert_eq!(container.exec(&["echo", "hello"]).ok().text(), "hello");
    assert_eq!(container.status(), "created");
}

fn output_and_input_are_the_callers() {
    let container = running(Bundle::sleeper());
    let invocation = container.invoke(&["exec", &container.id, "sh", "-c", "cat; echo err >&2"]);
    let output = invocation.stdin("typed").run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("typed", "err\n"));
}

fn no_descriptor_leaks() {
    let container = running(Bundle::sleeper());
    let report = container.exec_report(&[]);
    let fds: Vec<&String> = report["fds"].as_object().expect("an object").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", report["fds"]);
}

fn the_environment_is_the_containers_and_more() {
    peer_lacks!("crun 1.8", "--env replaces the environment");
    let container = running(Bundle::sleeper().push("/process/env", "KEPT=from-config"));
    let report = container.exec_report(&["--env", "ADDED=one", "--env", "TERM=changed"]);
    let env: Vec<&str> =
        report["env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for wanted in ["KEPT=from-config", "ADDED=one", "TERM=changed"] {
        assert!(env.contains(&wanted), "{env:?}");
    }
    assert!(!env.contains(&"TERM=xterm"), "{env:?}");
}

fn the_working_directory_is_the_containers_unless_named() {
    peer_lacks!("crun 1.8", "it starts in the root");
    let container = running(Bundle::sleeper().set("/process/cwd", "/etc"));
    assert_eq!(container.exec_report(&[])["cwd"], "/etc");
    assert_eq!(container.exec_report(&["--cwd", "/tmp"])["cwd"], "/tmp");
}

fn the_user_is_the_containers_unless_named() {
    let container = running(Bundle::sleeper());
    let report = container.exec_report(&["--user", "1000:1001"]);
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([1001, 1001, 1001, 1001]));
    let report = container.exec_report(&["--user", "1000"]);
    assert_eq!(report["uid"][0], 1000);
    assert_eq!(container.exec_report(&[])["uid"][0], 0);
    container.exec_with(&["--user", "no:number"], &["true"]).fails();
}

fn additional_groups_are_added() {
    peer_lacks!("crun 1.8", "no --additional-gids");
    let container = running(Bundle::sleeper());
    let report = container.exec_report(&["--additional-gids", "100", "--additional-gids", "99"]);
    let mut groups: Vec<u64> =
        report["groups"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    groups.sort_unstable();
    assert!(groups.contains(&99) && groups.contains(&100), "{groups:?}");
}

fn capabilities_are_added() {
    peer_lacks!("crun 1.8", "--cap replaces the sets");
    let container = running(Bundle::sleeper().capabilities(&["CAP_KILL"]));
    assert_eq!(container.exec_report(&[])["capabilities"]["effective"], "0000000000000020");
    let report = container.exec_report(&["--cap", "CAP_SYS_CHROOT"]);
    assert_eq!(report["capabilities"]["effective"], "0000000000040020");
    assert_eq!(report["capabilities"]["bounding"], "0000000000040020");
}

fn no_new_privileges_is_set_when_asked() {
    let container = running(Bundle::sleeper().set("/process/noNewPrivileges", false));
    assert_eq!(container.exec_report(&[])["noNewPrivs"], "0");
    assert_eq!(container.exec_report(&["--no-new-privs"])["noNewPrivs"], "1");
}

fn process_file(container: &Container, process: &Value) -> String {
    let path = container.bundle.dir().join("process.json");
    fs::write(&path, process.to_string()).expect("the bundle is writable");
    path.to_str().expect("text").to_owned()
}

fn a_process_file_says_everything() {
    let container = running(Bundle::sleeper());
    let path = process_file(
        &container,
        &json!({
            "user": { "uid": 7, "gid": 8, "additionalGids": [9] },
            "args": ["/probe", "report"],
            "env": ["PATH=/bin", "ONLY=this"],
            "cwd": "/tmp",
            "noNewPrivileges": true,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 400, "soft": 400 }],
            "capabilities": { "bounding": ["CAP_CHOWN"] },
        }),
    );
    let report = container.exec_with(&["--process", &path], &[]).ok().json();
    assert_eq!(report["uid"][0], 7);
    assert_eq!(report["gid"][0], 8);
    assert!(report["groups"].as_array().expect("a list").contains(&json!(9)));
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["rlimits"]["NOFILE"], json!(["400", "400"]));
    assert_eq!(report["capabilities"]["bounding"], "0000000000000001");
    assert_eq!(report["capabilities"]["effective"], "0000000000000000");
    let env = report["env"].as_array().expect("a list");
    assert!(env.contains(&json!("ONLY=this")) && !env.contains(&json!("TERM=xterm")), "{env:?}");
}

fn a_process_file_that_is_wrong_is_refused() {
    let container = running(Bundle::sleeper());
    container.exec_with(&["--process", "/no/such/file"], &[]).fails();
    let path = process_file(&container, &json!("a text"));
    container.exec_with(&["--process", &path], &[]).fails();
    let path = process_file(&container, &json!({ "args": [], "cwd": "/", "user": {} }));
    container.exec_with(&["--process", &path], &[]).fails();
    let path =
        process_file(&container, &json!({ "args": ["true"], "cwd": "relative", "user": {} }));
    if runtime().peer != Peer::Crun {
        container.exec_with(&["--process", &path], &[]).fails();
    }
    assert_eq!(container.status(), "running");
}

fn a_detached_process_outlives_the_command() {
    let container = running(Bundle::sleeper());
    container.exec_with(&["--detach"], &["sh", "-c", "echo > /tmp/began; sleep 1000"]).ok();
    wait_until("it began", SOON, || container.bundle.path("/tmp/began").exists());
    let listed = container.exec(&["ps"]).ok().stdout;
    assert!(listed.contains("sleep 1000"), "{listed}");
}

fn the_pid_file_holds_the_pid() {
    let container = running(Bundle::sleeper());
    let file = container.bundle.dir().join("exec-pid");
    let path = file.to_str().expect("text");
    container.exec_with(&["-d", "--pid-file", path], &["sleep", "1000"]).ok();
    let pid: i32 = fs::read_to_string(&file).expect("written").parse().expect("a number only");
    wait_until("the program is sleep", SOON, || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text == b"sleep\x001000\0")
    });
}

fn a_process_without_arguments_is_refused() {
    let container = running(Bundle::sleeper());
    container.exec(&[]).fails();
}

fn a_paused_container_is_refused() {
    let container = running(Bundle::sleeper());
    container.command("pause", &[]).ok();
    container.exec(&["true"]).fails_with("cannot exec in a paused container");
    container.command("resume", &[]).ok();
    container.exec(&["true"]).ok();
}

fn ignore_paused_waits_for_resume() {
    peer_lacks!("crun 1.8", "no --ignore-paused");
    let container = running(Bundle::sleeper());
    container.command("pause", &[]).ok();
    let waiting =
        container.invoke(&["exec", "--ignore-paused", &container.id, "echo", "late"]).start();
    wait_until("the process is in the container", SOON, || container.processes().len() > 1);
    container.command("resume", &[]).ok();
    assert_eq!(waiting.wait().ok().text(), "late");
}

fn limits_masks_and_root_are_the_containers() {
    let bundle = Bundle::sleeper()
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "hard": 222, "soft": 111 }]))
        .set("/process/user/umask", 0o77);
    let container = running(bundle);
    let report = container.exec_report(&[]);
    assert_eq!(container.exec(&["cat", "/proc/keys"]).ok().stdout, "");
    peer_lacks!("crun 1.8", "exec has its own umask and privileges");
    assert_eq!(report["noNewPrivs"], "1");
    peer_lacks!("runc 1.1", "exec has its own umask and raises the soft limit");
    assert_eq!(report["umask"], "0077");
    assert_eq!(report["rlimits"]["NOFILE"], json!(["111", "222"]));
}

fn a_missing_working_directory_is_refused() {
    let container = running(Bundle::sleeper());
    let output = container.exec_with(&["--cwd", "/no/such/place"], &["true"]);
    peer_lacks!("runc 1.1", "it makes the directory");
    output.fails_with("no such file or directory");
}

fn options_after_the_id_belong_to_the_program() {
    let container = running(Bundle::sleeper());
    let output = container.exec(&["echo", "--env", "-t", "--", "x"]).ok();
    assert_eq!(output.text(), "--env -t -- x");
}

fn many_at_once_do_not_disturb_each_other() {
    let container = running(Bundle::sleeper());
    let all: Vec<_> = (0..8)
        .map(|number| {
            let text = number.to_string();
            container.invoke(&["exec", &container.id, "echo", &text]).start()
        })
        .collect();
    for (number, one) in all.into_iter().enumerate() {
        assert_eq!(one.wait().ok().text(), number.to_string());
    }
}

fn a_sub_cgroup_is_joined() {
    peer_lacks!("crun", "its --cgroup joins an existing path on v2 only");
    let container = running(Bundle::sleeper());
    let pids = container.cgroup("pids");
    let sub = pids.join("sub");
    fs::create_dir(&sub).expect("the cgroup is ours");
    let invocation = container.invoke(&["exec", "--cgroup"]);
    let v1 = hull_integration::cgroup::layout() != hull_integration::cgroup::Layout::V2;
    let name = if v1 { "pids:sub" } else { "sub" };
    let output = invocation.args([name, &container.id, "cat", "/proc/self/cgroup"]).run().ok();
    assert!(output.stdout.contains("/sub"), "{}", output.stdout);
    container.exec_with(&["--cgroup", "no-such"], &["true"]).fails();
    container.exec_with(&["--cgroup", "../up"], &["true"]).fails();
}

fn home_is_the_users() {
    peer_lacks!("crun", "it sets HOME for the first process only");
    let container = running(Bundle::sleeper());
    let home = |options: &[&str]| container.exec_with(options, &["sh", "-c", "echo $HOME"]).ok();
    assert_eq!(home(&[]).text(), "/root");
    assert_eq!(home(&["--user", "1000"]).text(), "/home/user");
    assert_eq!(home(&["--env", "HOME=/else"]).text(), "/else");
}

fn sessions_leave_nothing_behind() {
    let container = running(Bundle::new().args(&["sleep", "1000"]));
    for _ in 0..10 {
        container.exec(&["true"]).ok();
    }
    assert_eq!(container.processes().len(), 1, "only the first process");
    let state = container.root().join(&container.id);
    let before: Vec<_> = fs::read_dir(&state).expect("its state").flatten().collect();
    container.exec(&["true"]).ok();
    let after: Vec<_> = fs::read_dir(&state).expect("its state").flatten().collect();
    assert_eq!(before.len(), after.len());
}
