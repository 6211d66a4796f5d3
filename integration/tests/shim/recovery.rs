//! What fails in the middle: what is said, what is left, and what is done about it later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use hull_integration::shim::{Host, SLEEPER, SOON};
use hull_integration::{reference_lacks, tests, wait_until};

tests![a_root_is_mounted_by_a_program, a_program_that_mounts_a_root_holds_nobody_up];

fn a_root_is_mounted_by_a_program() {
    let host = Host::new();
    let mut root = host.overlay("one");
    root.type_ = "fuse3.fuse-overlayfs".to_owned();
    let mut bad = root.clone();
    bad.options = vec!["lowerdir=/not/there".to_owned()];
    let script = "stat -fc %t /; echo written > /file; exit 3";
    let task = host.shell("one", script).root(root).start();
    assert_eq!(task.stdout().to_end(), "65735546\n");
    assert_eq!(task.finish().status, 3);
    let written = fs::read_to_string(host.site().path("upper/one/file"));
    assert_eq!(written.expect("it is kept"), "written\n");
    let refused = host.shell("two", script).root(bad).try_create();
    let refused = refused.expect_err("there is no such directory").message;
    assert!(refused.contains("mount.fuse3") && refused.contains("exit status"), "{refused}");
}

fn a_program_that_mounts_a_root_holds_nobody_up() {
    reference_lacks!("it makes one container after the other");
    let host = Host::new();
    let (programs, go) = (host.site().make("programs"), host.site().path("go"));
    let script = format!("#!/bin/sh\n: > {go}.begun\nread word < {go}; echo $word >&2; exit 1\n");
    let path = host.site().write("programs/mount.fuse3", &script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    nix::unistd::mkfifo(go.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("the site is writable");
    let plan = |id: &str| host.shell(id, SLEEPER).annotation("io.containerd.runc.v2.group", "pod");
    let mut keeper = plan("keeper");
    keeper.launch.preludes.push(format!("export PATH={programs}:$PATH"));
    let keeper = keeper.start();
    let mut root = host.overlay("two");
    root.type_ = "fuse3.any".to_owned();
    thread::scope(|scope| {
        let creator = scope.spawn(|| plan("two").root(root).try_create().map(drop));
        wait_until("it mounts", SOON, || Path::new(&format!("{go}.begun")).exists());
        let answer = keeper.run("first", "echo served");
        fs::write(&go, "enough\n").expect("it is read");
        let refused = creator.join().expect("it does not panic").expect_err("it was refused");
        assert!(refused.message.contains("enough"), "{refused:?}");
        assert_eq!(answer, (0, "served\n".to_owned()));
    });
}
