//! Volumes, mounts, read-only roots, and files going in and out.

use std::fs;

use hull_integration::engine::{Podman, SLEEPER};
use hull_integration::tests;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

tests![
    a_read_only_root_cannot_be_written,
    volumes_keep_what_containers_write,
    files_and_directories_of_the_host_are_mounted,
    later_mounts_of_the_host_reach_a_slave,
    memory_file_systems_have_their_options,
    files_are_copied_in_and_out,
    logs_have_both_streams_in_order,
    an_image_is_built_from_a_container,
    the_root_is_moved_where_it_cannot_be_pivoted,
];

fn a_read_only_root_cannot_be_written() {
    let podman = Podman::new();
    podman.shell(&["--read-only"], "touch /new").exits(1).stderr_says("Read-only");
    podman.shell(&["--read-only"], "touch /tmp/new /run/new /var/tmp/new /dev/shm/new").ok();
    let none = ["--read-only", "--read-only-tmpfs=false"];
    podman.shell(&none, "touch /tmp/new").exits(1).stderr_says("Read-only");
    podman.shell(&none, "echo > /dev/null").ok();
}

fn volumes_keep_what_containers_write() {
    let podman = Podman::new();
    podman.run(&["volume", "create", "kept"]).ok();
    podman.shell(&["--volume", "kept:/data"], "echo kept > /data/file").ok();
    podman.shell(&["--volume", "kept:/data:ro"], "cat /data/file").ok().says("kept");
    podman
        .shell(&["--volume", "kept:/data:ro"], "touch /data/new")
        .exits(1)
        .stderr_says("Read-only");
    podman.detach("one", &["--volume", "kept:/data"], SLEEPER);
    podman.shell(&["--volumes-from", "one"], "cat /data/file").ok().says("kept");
}

fn files_and_directories_of_the_host_are_mounted() {
    let podman = Podman::new();
    let directory = podman.site().make("shared");
    let file = podman.site().write("file", "of the host");
    let (read_write, read_only) =
        (format!("{directory}:/rw"), format!("{file}:/etc/one:ro,nosuid,noexec"));
    podman.shell(&["--volume", &read_write], "echo inside > /rw/new").ok();
    let new = fs::read_to_string(format!("{directory}/new")).expect("the container made it");
    assert_eq!(new, "inside\n");
    podman.shell(&["--volume", &read_only], "cat /etc/one").ok().says("of the host");
    podman.shell(&["--volume", &read_only], "echo > /etc/one").exits(1).stderr_says("Read-only");
    let options = podman.shell(&["--volume", &read_only], "grep ' /etc/one ' /proc/mounts").ok();
    for word in ["ro", "nosuid", "noexec"] {
        assert!(
            options.text().split([' ', ',']).any(|one| one == word),
            "{}",
            options.transcript()
        );
    }
    // The mount point is made, below the root and nowhere else.
    podman
        .shell(&["--volume", &format!("{file}:/a/b/../c/file")], "cat /a/c/file")
        .ok()
        .says("of the host");
}

fn later_mounts_of_the_host_reach_a_slave() {
    let podman = Podman::new();
    let directory = podman.site().make("shared");
    let below = podman.site().make("shared/below");
    let flags = |flags| mount::<str, str, str, str>(None, &directory, None, flags, None);
    mount::<str, str, str, str>(Some(&directory), &*directory, None, MsFlags::MS_BIND, None)
        .and_then(|()| flags(MsFlags::MS_PRIVATE))
        .and_then(|()| flags(MsFlags::MS_SHARED))
        .expect("the suite is root");
    let (slave, private) =
        (format!("{directory}:/slave:rslave"), format!("{directory}:/private:rprivate"));
    podman.detach("one", &["--volume", &slave, "--volume", &private], SLEEPER);
    mount::<str, str, str, str>(Some("late"), &*below, Some("tmpfs"), MsFlags::empty(), None)
        .expect("the suite is root");
    let seen = podman.run(&["exec", "one", "sh", "-c", "grep ^late /proc/mounts | cut -d' ' -f2"]);
    for point in [&below, &directory] {
        umount2(&**point, MntFlags::MNT_DETACH).expect("it was just mounted");
    }
    seen.ok().says("/slave/below");
}

fn memory_file_systems_have_their_options() {
    let podman = Podman::new();
    podman
        .shell(
            &["--tmpfs", "/t:size=1m,mode=700", "--shm-size", "2m"],
            "df -k /t /dev/shm | tail -n 2 | tr -s ' ' | cut -d' ' -f2; stat -c %a /t",
        )
        .ok()
        .says("1024\n2048\n700");
    podman.shell(&["--tmpfs", "/etc"], "ls /etc/passwd").ok();
    podman.shell(&["--tmpfs", "/etc:notmpcopyup"], "ls /etc/passwd").exits(1);
}

fn files_are_copied_in_and_out() {
    let podman = Podman::new();
    let (from, to) = (podman.site().write("from", "copied"), podman.site().path("to"));
    podman.detach("one", &["--tmpfs", "/t"], SLEEPER);
    podman.run(&["cp", &from, "one:/t/file"]).ok();
    podman.run(&["exec", "one", "cat", "/t/file"]).ok().says("copied");
    podman.run(&["cp", "one:/t/file", &to]).ok();
    assert_eq!(fs::read_to_string(&to).expect("it was copied"), "copied");
    podman.run(&["cp", "one:/etc/passwd", &to]).ok();
    podman.run(&["cp", &from, "one:/new"]).ok();
    let diff = podman.run(&["diff", "one"]).ok();
    assert!(diff.lines().contains(&"A /new"), "{}", diff.transcript());
}

fn logs_have_both_streams_in_order() {
    let podman = Podman::new();
    podman.detach("one", &[], "echo first; echo second >&2; sleep 0.1; echo third");
    podman.run(&["wait", "one"]).ok().says("0");
    let logs = podman.run(&["logs", "one"]).ok().says("first\nthird");
    assert_eq!(logs.stderr.trim(), "second");
    podman.run(&["logs", "--tail", "1", "one"]).ok().says("third");
}

fn an_image_is_built_from_a_container() {
    let podman = Podman::new();
    podman.run(&["run", "--name", "one", "busybox", "sh", "-c", "echo built > /built"]).ok();
    podman.run(&["commit", "--quiet", "one", "localhost/built"]).ok();
    podman.run(&["run", "--rm", "localhost/built", "cat", "/built"]).ok().says("built");
}

fn the_root_is_moved_where_it_cannot_be_pivoted() {
    // ctr has an option for it too, but forgets the runtime over it.
    let podman = Podman::with_configuration("no_pivot_root = true");
    let run = podman.shell(&["--volume", "data:/data"], "ls /").ok();
    let lines = run.lines();
    assert!(lines.contains(&"data") && lines.contains(&"proc"), "{}", run.transcript());
    podman.detach("one", &[], SLEEPER);
    podman.run(&["exec", "one", "ls", "/bin/busybox"]).ok();
}
