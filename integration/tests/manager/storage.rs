//! Where layers are kept: the drivers.

use std::fs;

use hull_integration::engine::{Hull, busybox_archive, reference};
use hull_integration::{NotRun, not_run, tests};

tests![plain_copies_do_what_overlays_do, sizes_of_file_systems_are_refused_in_dockers_words,];

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

fn sizes_of_file_systems_are_refused_in_dockers_words() {
    let hull = hull(&[]);
    hull.run(&["run", "--storage-opt", "size=1G", "--network", "none", "busybox", "true"])
        .exits(125)
        .stderr_says(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        );
}
