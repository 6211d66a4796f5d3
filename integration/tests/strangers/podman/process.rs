//! What runs in a container: output, exit codes, terminals, exec, users, privileges.

use hull_integration::engine::{Podman, SLEEPER, command, runtime_path};
use hull_integration::tests;

use crate::seen::{INIT, capability_sets, converse, field};

tests![
    output_input_and_exit_code_are_the_programs,
    a_program_that_cannot_be_run_says_why,
    run_on_a_terminal,
    exec_on_a_terminal,
    exec_joins_the_container,
    capabilities_are_those_that_were_asked_for,
    a_privileged_container_has_what_podman_has,
    users_are_found_in_the_image,
    the_default_filter_and_masks_are_in_force,
    descriptors_are_passed_on,
];

fn output_input_and_exit_code_are_the_programs() {
    let podman = Podman::new();
    let run = podman.shell(&[], "echo out; echo err >&2; exit 4").exits(4).says("out");
    assert_eq!(run.stderr.trim(), "err");
    podman
        .call(&["run", "--rm", "--interactive", "busybox", "wc", "-c"])
        .stdin("12345")
        .run()
        .ok()
        .says("5");
    podman
        .shell(&["--env", "A=b c", "--workdir", "/var/tmp"], "echo $A $PWD")
        .ok()
        .says("b c /var/tmp");
    podman.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_program_that_cannot_be_run_says_why() {
    let podman = Podman::new();
    podman
        .run(&["run", "--rm", "busybox", "no-such-program"])
        .exits(127)
        .stderr_says("executable file not found in $PATH");
    podman
        .run(&["run", "--rm", "busybox", "/no/such/file"])
        .exits(127)
        .stderr_says("no such file or directory");
    podman
        .run(&["run", "--rm", "busybox", "/etc/passwd"])
        .exits(126)
        .stderr_says("permission denied");
    // Asking for JSON, podman takes the sentence from the runtime's log and not from
    // its standard error.
    let name = runtime_path().rsplit('/').next().expect("a path has a name");
    let podman = Podman::with_configuration(&format!("runtime_supports_json = [\"{name}\"]"));
    podman
        .run(&["run", "--rm", "busybox", "no-such-program"])
        .exits(127)
        .stderr_says("executable file not found in $PATH");
    podman
        .run(&["run", "--rm", "busybox", "/etc/passwd"])
        .exits(126)
        .stderr_says("permission denied");
}

fn run_on_a_terminal() {
    let podman = Podman::new();
    converse(podman.terminal(&["run", "--rm", "--interactive", "--tty", "busybox", "sh"]));
}

fn exec_on_a_terminal() {
    let podman = Podman::new();
    podman.detach("one", &[], SLEEPER);
    let mut terminal = podman.terminal(&["exec", "--interactive", "--tty", "one", "sh"]);
    terminal.read_until("/ #");
    terminal.write("tty\n");
    terminal.read_until("/dev/pts/");
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    terminal.write("exit 5\n");
    assert_eq!(terminal.exit_code(), Some(5));
}

fn exec_joins_the_container() {
    let podman = Podman::new();
    podman.detach("one", &["--hostname", "inside", "--env", "A=b"], SLEEPER);
    let exec = |args: &[&str]| podman.run(&[&["exec"], args].concat());
    exec(&["one", "sh", "-c", "hostname; echo $A"]).ok().says("inside\nb");
    exec(&["one", "sh", "-c", INIT]).ok().says("sh");
    exec(&[
        "--user",
        "1000:2000",
        "--workdir",
        "/tmp",
        "--env",
        "C=d",
        "one",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $C",
    ])
    .ok()
    .says("1000\n2000\n/tmp\nd");
    exec(&["one", "sh", "-c", "exit 5"]).exits(5);
    exec(&["one", "no-such-program"]).exits(127);
    exec(&["one", "/etc/passwd"]).exits(126);
    podman.call(&["exec", "--interactive", "one", "cat"]).stdin("typed").run().ok().says("typed");
    let status = exec(&["--privileged", "one", "cat", "/proc/self/status"]).ok();
    assert_ne!(
        field(&status.stdout, "CapEff"),
        field(&exec(&["one", "cat", "/proc/self/status"]).stdout, "CapEff")
    );
    exec(&["--detach", "one", "touch", "/detached"]).ok();
    exec(&["one", "sh", "-c", "until [ -e /detached ]; do sleep 0.05; done"]).ok();
    // The exec'd process is in the container's cgroup.
    exec(&["one", "sh", "-c", "diff /proc/1/cgroup /proc/self/cgroup"]).ok();
    podman.run(&["stop", "--time", "20", "one"]).ok();
    let refused = exec(&["one", "true"]).exits(255);
    refused.stderr_says("container state improper");
}

fn capabilities_are_those_that_were_asked_for() {
    let podman = Podman::new();
    let sets = |options: &[&str]| {
        capability_sets(&podman.shell(options, "cat /proc/self/status").ok().stdout)
    };
    let [inheritable, permitted, effective, bounding, ambient] = sets(&[]);
    assert_eq!((inheritable, ambient), (0, 0));
    assert_eq!((permitted, effective), (bounding, bounding));
    const CHOWN: u64 = 1;
    assert_eq!(sets(&["--cap-drop", "all"]), [0; 5]);
    assert_eq!(sets(&["--cap-drop", "chown"])[3], bounding & !CHOWN);
    assert_eq!(sets(&["--cap-drop", "all", "--cap-add", "chown"]), [0, CHOWN, CHOWN, CHOWN, 0]);
    // A user that is not root has what was asked for only as ambient ones.
    assert_eq!(sets(&["--user", "1000"])[1..3], [0, 0]);
    assert_eq!(sets(&["--user", "1000", "--cap-drop", "all", "--cap-add", "chown"])[4], CHOWN);
    podman
        .shell(&["--cap-drop", "chown"], "chown 1 /etc/passwd")
        .exits(1)
        .stderr_says("not permitted");
    podman.shell(&[], "chown 1 /etc/passwd").ok();
}

fn a_privileged_container_has_what_podman_has() {
    let podman = Podman::new();
    let own = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let status = podman.shell(&["--privileged"], "cat /proc/self/status").ok().stdout;
    assert_eq!(field(&status, "CapEff"), field(&own, "CapBnd"));
    assert_eq!(field(&status, "Seccomp"), "0");
    podman.shell(&["--privileged"], "mount -t tmpfs none /mnt && mount -o remount,ro /mnt").ok();
    podman.shell(&["--privileged"], "test -w /proc/sys/kernel/domainname").ok();
}

fn users_are_found_in_the_image() {
    let podman = Podman::new();
    podman.shell(&["--user", "1000:2000"], "id -u; id -g; id -G").ok().says("1000\n2000\n2000");
    podman
        .shell(&["--user", "user", "--group-add", "extra"], "id -u; id -G")
        .ok()
        .says("1000\n1000 2000");
    podman.shell(&["--user", "4711"], "id -u; id -g").ok().says("4711\n0");
    podman.shell(&["--umask", "0077"], "umask").ok().says("0077");
    let unknown = podman.shell(&["--user", "nobody-here"], "true").stderr_says("nobody-here");
    assert_ne!(unknown.code(), Some(0), "{}", unknown.transcript());
}

fn the_default_filter_and_masks_are_in_force() {
    let podman = Podman::new();
    let status = podman.shell(&[], "cat /proc/self/status").ok().stdout;
    assert_eq!(field(&status, "Seccomp"), "2");
    podman.shell(&["--cap-add", "sys_admin"], "unshare -m true").ok();
    podman.shell(&[], "unshare -m true").exits(1).stderr_says("not permitted");
    podman.shell(&[], "head -c 1 /proc/kcore | wc -c").ok().says("0");
    podman.shell(&[], "ls /proc/acpi /sys/firmware").ok().says("/proc/acpi:\n\n/sys/firmware:");
    podman.shell(&[], "echo 1 > /proc/sys/kernel/domainname").exits(1).stderr_says("Read-only");
    let free = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
    let status = podman.shell(&free, "cat /proc/self/status").ok().stdout;
    assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("0", "1"));
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = format!("seccomp={}", podman.site().write("profile.json", profile));
    podman.shell(&["--security-opt", &profile], "mkdir /new").exits(1).stderr_says("not supported");
    podman.shell(&["--security-opt", "unmask=/sys/firmware"], "ls /sys/firmware").ok();
}

fn descriptors_are_passed_on() {
    let podman = Podman::new();
    let file = podman.site().write("three", "from the caller");
    let words =
        podman.words(&["run", "--rm", "--preserve-fds", "1", "busybox", "sh", "-c", "cat <&3"]);
    let script = format!("exec 3< {file}; exec \"$@\"");
    let mut all = vec!["busybox", "sh", "-c", &script, "sh"];
    all.extend(words.iter().map(String::as_str));
    command(&all).run().ok().says("from the caller");
    // And nothing else: 0, 1, 2 and the one that lists them.
    podman.shell(&[], "ls /proc/self/fd | wc -l").ok().says("4");
}
