//! Where layers are kept: the drivers, and the ids of files.

use std::fs;
use std::time::Duration;

use hull_integration::engine::{Hull, Lab, busybox_archive, reference};
use hull_integration::{NotRun, not_run, tests, wait_until};

tests![
    plain_copies_do_what_overlays_do,
    both_drivers_commit_the_same_layer,
    containers_have_ids_of_their_own,
    a_container_with_ids_of_its_own_has_a_network,
    sizes_of_file_systems_are_refused_in_dockers_words,
];

const SOON: Duration = Duration::from_secs(20);

/// What only hull promises.
fn hull(flags: &[&str]) -> Hull {
    if reference() {
        not_run(NotRun::PeerLacks("docker: its storage is its own affair".into()));
    }
    let hull = Hull::start_empty(flags);
    hull.run(&["import", busybox_archive(), "busybox"]).ok();
    hull
}

fn plain_copies_do_what_overlays_do() {
    let mut hull = hull(&["--storage-driver", "vfs"]);
    hull.run(&["info", "--format", "{{.Driver}}"]).ok().says("vfs");
    let run = ["run", "--name", "one", "--network", "none", "busybox", "sh", "-c"];
    let script = "echo made > /made; rm /bin/false; chmod 700 /tmp";
    hull.run(&[&run[..], &[script]].concat()).ok();
    let diff = hull.run(&["diff", "one"]).ok();
    for line in ["A /made", "D /bin/false", "C /bin", "C /tmp"] {
        assert!(diff.lines().contains(&line), "{line}: {}", diff.text());
    }
    hull.run(&["commit", "one", "made"]).ok();
    hull.crash_and_restart();
    hull.run(&["run", "--rm", "--network", "none", "made", "cat", "/made"]).ok().says("made");
    hull.run(&["run", "--rm", "--network", "none", "made", "ls", "/bin/false"]).fails();
    hull.run(&["cp", "one:/made", &hull.site().path("copied")]).ok();
    assert_eq!(fs::read_to_string(hull.site().path("copied")).expect("it was copied"), "made\n");
    hull.run(&["start", "one"]).ok();
    hull.run(&["rm", "-f", "one"]).ok();
    hull.run(&["rmi", "made", "busybox"]).ok();
    let kept =
        fs::read_dir(hull.site().path("data/snapshots/vfs")).expect("the driver made it").count();
    assert_eq!(kept, 0, "no layer stays");
    hull.run(&["system", "check"]).ok();
}

fn both_drivers_commit_the_same_layer() {
    // What is mounted over is there after the first time.
    let base =
        "mkdir -p /d/a; echo 1 > /d/a/x; echo 2 > /d/y; touch -d '2019-01-02 00:00:00' /d/a/x";
    let script = "rm -r /d; mkdir -p /d/a; echo 1 > /d/a/b; ln /d/a/b /d/c; ln -s a /d/l
        echo 2 > /bin/new; chmod 4711 /bin/new; rm /bin/false; touch -h -d '2020-01-02 00:00:00' /d/l
        touch -d '2020-01-02 00:00:00' /d/a/b /d/a /d /bin/new /bin /";
    let [one, other] = ["overlayfs", "vfs"].map(|driver| {
        let hull = hull(&["--storage-driver", driver]);
        for (image, script, made) in [("busybox", base, "base"), ("base", script, "made")] {
            let words = ["run", "--name", made, "--network", "none", image, "sh", "-ec", script];
            hull.run(&words).ok();
            hull.run(&["commit", made, made]).ok();
        }
        let inspect = ["image", "inspect", "--format", "{{json .RootFS.Layers}}", "made"];
        let layers = hull.run(&inspect).ok();
        let top = layers.json().as_array().and_then(|layers| layers.last().cloned());
        (top.expect("an image has layers"), hull.run(&["diff", "made"]).ok().text().to_owned())
    });
    assert_eq!(one, other);
}

/// Two containers in user namespaces: what is root inside is nobody outside, and not the same
/// nobody. On the disk are the image's own ids, so that all else stays as it is.
fn containers_have_ids_of_their_own() {
    for driver in ["overlayfs", "vfs"] {
        let first = 300_000_000 + std::process::id() % 10_000 * 10_000;
        let ids = format!("{first}:6000");
        let mut hull = hull(&["--storage-driver", driver, "--userns-auto-user", &ids]);
        let script = "id -u; cat /proc/self/uid_map; stat -c %u /bin/sh /etc/hosts /data; \
             echo x > /made && chown 7:8 /made && echo y > /data/y && stat -c %u:%g /made; sleep 60";
        let start = |name: &str, mode: &str| {
            let options = ["run", "-d", "--name", name, "--network", "none", "--userns", mode];
            let plain = format!("{}:/plain", hull.site().make("plain"));
            let mapped = format!("type=bind,src={},dst=/mapped,idmap", hull.site().make("mapped"));
            let mounts = ["-v", "data:/data", "-v", &plain, "--mount", &mapped];
            hull.run(&[&options[..], &mounts, &["busybox", "sh", "-c", script]].concat())
        };
        // The image has a group 2000.
        start("one", "auto").ok();
        start("two", "auto:size=3000").ok();
        start("three", "auto:size=3000").exits(125).stderr_says("not find enough available IDs");
        let owner = |name: &str| {
            let pid = hull.run(&["inspect", "--format", "{{.State.Pid}}", name]).ok();
            let status = fs::read_to_string(format!("/proc/{}/status", pid.text()));
            let status = status.expect("it runs");
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            let uid = uid.and_then(|uid| uid.split_whitespace().next()?.parse::<u32>().ok());
            uid.expect("procfs says it")
        };
        assert_eq!((owner("one"), owner("two")), (first, first + 2001), "{driver}");
        for (name, base, size) in [("one", first, 2001), ("two", first + 2001, 3000)] {
            wait_until("it has said all", SOON, || {
                hull.run(&["logs", name]).ok().lines().contains(&"7:8")
            });
            let logs = hull.run(&["logs", name]).ok();
            let words: Vec<String> = logs.text().split_whitespace().map(str::to_owned).collect();
            let (base, size) = (base.to_string(), size.to_string());
            assert_eq!(words, ["0", "0", &base, &size, "0", "0", "0", "7:8"], "{driver} {name}");
        }
        let diff = hull.run(&["diff", "one"]).ok();
        assert!(diff.lines().contains(&"A /made"), "{}", diff.text());
        hull.run(&["exec", "one", "id", "-u"]).ok().says("0");
        copied_files_have_the_containers_ids(&hull, first);
        hull.run(&["cp", "one:/made", &hull.site().path("made")]).ok();
        hull.run(&["commit", "one", "made"]).ok();
        let owner_of_made =
            ["run", "--rm", "--network", "none", "made", "stat", "-c", "%u:%g", "/made"];
        hull.run(&owner_of_made).ok().says("7:8");
        // Neither a restart nor a removal gives one range to two.
        hull.crash_and_restart();
        hull.run(&["restart", "-t", "0", "one"]).ok();
        let pid = hull.run(&["inspect", "--format", "{{.State.Pid}}", "one"]).ok();
        let map = fs::read_to_string(format!("/proc/{}/uid_map", pid.text())).expect("it runs");
        assert_eq!(map.split_whitespace().nth(1), Some(&*first.to_string()));
        hull.run(&["rm", "-f", "one"]).ok();
        let again = ["run", "--rm", "--network", "none", "--userns", "auto", "busybox", "cat"];
        let map = hull.run(&[&again[..], &["/proc/self/uid_map"]].concat()).ok();
        assert_eq!(map.text().split_whitespace().nth(1), Some(&*first.to_string()), "given again");
        hull.run(&["rm", "-f", "two"]).ok();
    }
}

/// The network namespace is the host's, so the container may mount no sysfs of it.
fn a_container_with_ids_of_its_own_has_a_network() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: its containers share one map of ids".into()));
    }
    let lab = Lab::start();
    let first = 400_000_000 + std::process::id() % 10_000 * 10_000;
    let hull = Hull::start_in(&lab, &["--userns-auto-user", &format!("{first}:6000")]);
    let script = "ls /sys/class/net; ip -4 -o addr show eth0 | wc -l; touch /sys/x 2>&1 | wc -l";
    hull.run(&["run", "--rm", "--userns", "auto", "busybox", "sh", "-c", script])
        .ok()
        .says("eth0\nlo\n1\n1");
}

/// Into the container `one` while it runs, whose root is `first` on the host.
fn copied_files_have_the_containers_ids(hull: &Hull, first: u32) {
    let here = hull.site().make("here");
    let file = hull.site().write("here/file", "from outside");
    std::os::unix::fs::chown(&file, Some(7), Some(8)).expect("the suite is root");
    let owner = |path: &str| {
        let look = ["exec", "one", "stat", "-c", "%u:%g", path];
        hull.run(&look).ok().text().to_owned()
    };
    for target in ["/", "/data", "/plain", "/mapped"] {
        hull.run(&["cp", &here, &format!("one:{target}")]).ok();
        hull.run(&["cp", "-a", &file, &format!("one:{target}/kept")]).ok();
        let found = ["here", "here/file", "kept"].map(|name| owner(&format!("{target}/{name}")));
        assert_eq!(found, ["0:0", "7:8", "7:8"], "{target}");
        hull.run(&["exec", "one", "sh", "-c", &format!("echo more >> {target}/here/file")]).ok();
    }
    let outside = |path: &str| {
        let found = fs::metadata(hull.site().path(path)).expect("it was copied there");
        std::os::unix::fs::MetadataExt::uid(&found)
    };
    assert_eq!((outside("plain/kept"), outside("mapped/kept")), (first + 7, 7));
    let far = hull.site().write("far", "");
    std::os::unix::fs::chown(&far, Some(70_000), None).expect("the suite is root");
    let refused = hull.run(&["cp", "-a", &far, "one:/far"]).fails();
    refused.stderr_says("the container's user namespace has no id for the owner 70000:0");
}

fn sizes_of_file_systems_are_refused_in_dockers_words() {
    let hull = hull(&[]);
    hull.run(&["run", "--storage-opt", "size=1G", "--network", "none", "busybox", "true"])
        .exits(125)
        .stderr_says(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        );
}
