//! What runs in a container: output, exit codes, terminals, exec, users, privileges.

use std::fs;

use hull_integration::engine::{Docker, SLEEPER};
use hull_integration::tests;

use crate::seen::{INIT, capability_sets, converse, field};

tests![
    output_input_and_exit_code_are_the_programs,
    a_program_that_cannot_be_run_says_why,
    run_on_a_terminal,
    exec_on_a_terminal_and_attach,
    exec_joins_the_container,
    capabilities_are_those_that_were_asked_for,
    users_are_found_in_the_image,
    the_default_filter_and_masks_are_in_force,
    namespaces_are_new_shared_or_the_hosts,
];

fn output_input_and_exit_code_are_the_programs() {
    let docker = Docker::start();
    let run = docker.shell(&[], "echo out; echo err >&2; exit 4").exits(4).says("out");
    assert!(run.stderr.contains("err\n"), "{}", run.transcript());
    docker
        .call(&["run", "--rm", "--interactive", "busybox", "wc", "-c"])
        .stdin("12345")
        .run()
        .ok()
        .says("5");
    docker
        .shell(&["--env", "A=b c", "--workdir", "/var/tmp"], "echo $A $PWD")
        .ok()
        .says("b c /var/tmp");
    docker.shell(&["--init"], "cat /proc/1/comm; exit 6").exits(6).says("docker-init");
    docker.shell(&[], "ls /proc/self/fd | wc -l").ok().says("4");
}

fn a_program_that_cannot_be_run_says_why() {
    let docker = Docker::start();
    let run = |program: &str| docker.run(&["run", "--rm", "busybox", program]);
    run("no-such-program").exits(127).stderr_says("executable file not found in $PATH");
    run("/no/such/file").exits(127).stderr_says("no such file or directory");
    run("/etc/passwd").exits(126).stderr_says("permission denied");
    docker.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn run_on_a_terminal() {
    let docker = Docker::start();
    converse(docker.terminal(&["run", "--rm", "--interactive", "--tty", "busybox", "sh"]));
}

fn exec_on_a_terminal_and_attach() {
    let docker = Docker::start();
    docker
        .run(&["run", "--detach", "--interactive", "--tty", "--name", "one", "busybox", "sh"])
        .ok();
    let mut terminal = docker.terminal(&["exec", "--interactive", "--tty", "one", "sh"]);
    terminal.read_until("/ #");
    terminal.write("tty\n");
    terminal.read_until("/dev/pts/1");
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    terminal.write("exit 5\n");
    assert_eq!(terminal.exit_code(), Some(5));
    let mut terminal = docker.terminal(&["attach", "one"]);
    terminal.write("tty; exit 6\n");
    terminal.read_until("/dev/pts/0");
    assert_eq!(terminal.exit_code(), Some(6));
}

fn exec_joins_the_container() {
    let docker = Docker::start();
    docker.detach("one", &["--hostname", "inside", "--env", "A=b"], SLEEPER);
    let exec = |args: &[&str]| docker.run(&[&["exec"], args].concat());
    exec(&["one", "sh", "-c", &format!("hostname; echo $A; {INIT}")]).ok().says("inside\nb\nsh");
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
    exec(&["one", "no-such-program"]).exits(126);
    exec(&["one", "/etc/passwd"]).exits(126);
    docker.call(&["exec", "--interactive", "one", "cat"]).stdin("typed").run().ok().says("typed");
    exec(&["one", "sh", "-c", "diff /proc/1/cgroup /proc/self/cgroup"]).ok();
    exec(&["--detach", "one", "touch", "/detached"]).ok();
    exec(&["one", "sh", "-c", "until [ -e /detached ]; do sleep 0.05; done"]).ok();
    let status = exec(&["one", "cat", "/proc/self/status"]).ok().stdout;
    assert_eq!(field(&status, "Seccomp"), "2");
    docker.run(&["stop", "--time", "20", "one"]).ok();
    exec(&["one", "true"]).exits(1).stderr_says("is not running");
}

fn capabilities_are_those_that_were_asked_for() {
    let docker = Docker::start();
    let sets = |options: &[&str]| {
        capability_sets(&docker.shell(options, "cat /proc/self/status").ok().stdout)
    };
    const DEFAULT: u64 = 0xa804_25fb;
    const CHOWN: u64 = 1;
    assert_eq!(sets(&[]), [0, DEFAULT, DEFAULT, DEFAULT, 0]);
    assert_eq!(sets(&["--cap-drop", "ALL"]), [0; 5]);
    assert_eq!(sets(&["--cap-drop", "CHOWN"])[3], DEFAULT & !CHOWN);
    assert_eq!(sets(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]), [0, CHOWN, CHOWN, CHOWN, 0]);
    assert_eq!(sets(&["--user", "1000"]), [0, 0, 0, DEFAULT, 0]);
    docker
        .shell(&["--cap-drop", "CHOWN"], "chown 1 /etc/passwd")
        .exits(1)
        .stderr_says("not permitted");
}

fn users_are_found_in_the_image() {
    let docker = Docker::start();
    docker.shell(&["--user", "1000:2000"], "id -u; id -g; id -G").ok().says("1000\n2000\n2000");
    // dockerd names a group once for each reason that it is there.
    docker
        .shell(&["--user", "user", "--group-add", "extra"], "id -G | tr ' ' '\\n' | sort -nu")
        .ok()
        .says("1000\n2000");
    docker.shell(&["--user", "4711"], "id -u; id -g").ok().says("4711\n0");
}

fn the_default_filter_and_masks_are_in_force() {
    let docker = Docker::start();
    let status = docker.shell(&[], "cat /proc/self/status").ok().stdout;
    assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "0"));
    docker.shell(&[], "unshare -U true").exits(1).stderr_says("not permitted");
    docker.shell(&[], "head -c 1 /proc/kcore | wc -c").ok().says("0");
    docker.shell(&[], "ls /proc/acpi /sys/firmware").ok().says("/proc/acpi:\n\n/sys/firmware:");
    docker.shell(&[], "echo 1 > /proc/sys/kernel/domainname").exits(1).stderr_says("Read-only");
    let tight =
        docker.shell(&["--security-opt", "no-new-privileges"], "cat /proc/self/status").ok().stdout;
    assert_eq!((field(&tight, "Seccomp"), field(&tight, "NoNewPrivs")), ("2", "1"));
    let loose = docker
        .shell(&["--security-opt", "seccomp=unconfined"], "cat /proc/self/status; unshare -U true")
        .ok()
        .stdout;
    assert_eq!(field(&loose, "Seccomp"), "0");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = format!("seccomp={}", docker.site().write("profile.json", profile));
    docker.shell(&["--security-opt", &profile], "mkdir /new").exits(1).stderr_says("not supported");
}

fn namespaces_are_new_shared_or_the_hosts() {
    let docker = Docker::start();
    docker.shell(&[], "ls /sys/class/net").ok().says("lo");
    docker.detach("one", &["--ipc", "shareable"], SLEEPER);
    for (kind, option) in [("net", "--network"), ("pid", "--pid"), ("ipc", "--ipc")] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).expect("/proc is mounted");
        let script = format!("readlink /proc/self/ns/{kind}");
        assert_ne!(docker.shell(&[], &script).ok().text(), own.to_string_lossy());
        docker.shell(&[option, "host"], &script).ok().says(&own.to_string_lossy());
        let theirs = docker.run(&["exec", "one", "sh", "-c", &script]).ok();
        docker.shell(&[option, "container:one"], &script).ok().says(theirs.text());
    }
    docker
        .shell(
            &["--hostname", "inside", "--domainname", "example"],
            "hostname; cat /proc/sys/kernel/domainname",
        )
        .ok()
        .says("inside\nexample");
    docker
        .shell(&["--sysctl", "net.ipv4.ip_default_ttl=42"], "cat /proc/sys/net/ipv4/ip_default_ttl")
        .ok()
        .says("42");
}
