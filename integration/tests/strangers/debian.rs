//! A real Debian root, not only busybox: dynamic linking, many users, thousands of files.

use hull_integration::engine::{Docker, Podman, debian_archive};
use hull_integration::{Output, tests};

tests![debian_runs_under_podman, debian_runs_under_docker,];

/// What Debian's own programs do in a container.
fn check(run: impl Fn(&[&str], &[&str]) -> Output) {
    let release = run(&[], &["cat", "/etc/os-release"]).ok();
    assert!(release.lines().contains(&"ID=debian"), "{}", release.transcript());
    let apt = run(&[], &["apt", "--version"]).ok();
    assert!(apt.text().starts_with("apt "), "{}", apt.transcript());
    let packages =
        run(&[], &["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
            .ok();
    assert!(packages.lines().len() > 80, "{}", packages.transcript());
    assert!(
        packages.lines().iter().all(|line| line.ends_with(" installed")),
        "{}",
        packages.transcript()
    );
    // Maintainer scripts: groups, users, links, ownership, a service that is not there.
    run(&[], &["dpkg-reconfigure", "--frontend", "noninteractive", "base-passwd"]).ok();
    run(&[], &["dpkg", "--verify"]).ok();
    run(&["--user", "nobody"], &["id", "-un"]).ok().says("nobody");
    // apt drops its privileges to a user of its own.
    let script = "install -o _apt -d /tmp/owned && setpriv --reuid=_apt --regid=nogroup --clear-groups touch /tmp/owned/new && stat -c %U /tmp/owned/new";
    run(&[], &["bash", "-c", script]).ok().says("_apt");
    run(&[], &["perl", "-e", "print join ' ', map { $_ * $_ } 1..4"]).ok().says("1 4 9 16");
    run(
        &["--read-only", "--tmpfs", "/tmp"],
        &["bash", "-c", "cat <<< here > /tmp/file; cat /tmp/file"],
    )
    .ok()
    .says("here");
    run(&[], &["bash", "-c", "exit 42"]).exits(42);
}

fn debian_runs_under_podman() {
    let podman = Podman::new();
    podman.run(&["import", debian_archive(), "localhost/debian"]).ok();
    check(|options, args| {
        podman.run(&[&["run", "--rm"], options, &["localhost/debian"], args].concat())
    });
    let mut terminal =
        podman.terminal(&["run", "--rm", "--interactive", "--tty", "localhost/debian", "bash"]);
    terminal.read_until("# ");
    // Job control needs the terminal to be the session's own.
    let job = "trap 'echo continued' CONT; echo waiting; while :; do sleep 0.1; done";
    terminal.write(&format!("bash -c \"{job}\"\n"));
    terminal.read_until("\rwaiting\r\n");
    terminal.write("\x1a");
    terminal.read_until("Stopped");
    terminal.read_until("# ");
    terminal.write("fg\n");
    terminal.read_until("\ncontinued\r\n");
    terminal.write("\x03");
    terminal.read_until("# ");
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn debian_runs_under_docker() {
    let docker = Docker::start();
    docker.run(&["import", debian_archive(), "debian"]).ok();
    check(|options, args| docker.run(&[&["run", "--rm"], options, &["debian"], args].concat()));
}
