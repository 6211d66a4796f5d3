//! Volumes, mounts, read-only roots, and files going in and out.

use std::fs;

use hull_integration::engine::{Docker, SLEEPER};
use hull_integration::tests;

tests![
    a_read_only_root_cannot_be_written,
    volumes_and_files_of_the_host_are_mounted,
    files_are_copied_in_and_out,
    logs_have_both_streams,
];

fn a_read_only_root_cannot_be_written() {
    let docker = Docker::start();
    docker.shell(&["--read-only"], "touch /new").exits(1).stderr_says("Read-only");
    docker
        .shell(&["--read-only", "--tmpfs", "/tmp"], "touch /tmp/new /dev/shm/new; echo > /dev/null")
        .ok();
}

fn volumes_and_files_of_the_host_are_mounted() {
    let docker = Docker::start();
    docker.shell(&["--volume", "kept:/data"], "echo kept > /data/file").ok();
    docker.shell(&["--volume", "kept:/data:ro"], "cat /data/file").ok().says("kept");
    docker
        .shell(&["--volume", "kept:/data:ro"], "touch /data/new")
        .exits(1)
        .stderr_says("Read-only");
    // A new volume starts with what the image has in its place.
    docker.shell(&["--volume", "copied:/etc"], "ls /etc/passwd").ok();
    let directory = docker.site().make("shared");
    let file = docker.site().write("file", "of the host");
    docker.shell(&["--volume", &format!("{directory}:/rw")], "echo inside > /rw/new").ok();
    let new = fs::read_to_string(format!("{directory}/new")).expect("the container made it");
    assert_eq!(new, "inside\n");
    let bind = format!("type=bind,src={file},dst=/a/b/file,readonly");
    docker
        .shell(&["--mount", &bind], "cat /a/b/file; echo > /a/b/file")
        .exits(1)
        .says("of the host");
    docker
        .shell(
            &["--tmpfs", "/t:size=1m,mode=700", "--shm-size", "2m"],
            "df -k /t /dev/shm | tail -n 2 | tr -s ' ' | cut -d' ' -f2; stat -c %a /t",
        )
        .ok()
        .says("1024\n2048\n700");
}

fn files_are_copied_in_and_out() {
    let docker = Docker::start();
    let (from, to) = (docker.site().write("from", "copied"), docker.site().path("to"));
    docker.detach("one", &["--volume", "data:/data"], SLEEPER);
    for path in ["/new", "/data/new"] {
        docker.run(&["cp", &from, &format!("one:{path}")]).ok();
        docker.run(&["exec", "one", "cat", path]).ok().says("copied");
        docker.run(&["cp", &format!("one:{path}"), &to]).ok();
        assert_eq!(fs::read_to_string(&to).expect("it was copied"), "copied");
    }
    docker.run(&["stop", "--time", "20", "one"]).ok();
    docker.run(&["cp", "one:/data/new", &to]).ok();
    let diff = docker.run(&["diff", "one"]).ok();
    assert!(diff.lines().contains(&"A /new"), "{}", diff.transcript());
}

fn logs_have_both_streams() {
    let docker = Docker::start();
    docker.detach("one", &[], "echo first; echo second >&2; echo third");
    docker.run(&["wait", "one"]).ok().says("0");
    let logs = docker.run(&["logs", "one"]).ok().says("first\nthird");
    assert_eq!(logs.stderr.trim(), "second");
    docker.run(&["logs", "--tail", "1", "one"]).ok();
}
