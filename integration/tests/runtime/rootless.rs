//! Containers of a user without privileges.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_integration::{
    Bundle, Container, Invocation, Peer, SOON, User, peer_lacks, require, runtime, systemd_driver,
    tests, wait_until,
};
use serde_json::{Value, json};

tests![
    the_user_is_the_containers_root,
    ranges_of_ids_are_mapped_by_the_setuid_helpers,
    ids_that_the_user_does_not_have_are_refused,
    a_container_is_created_started_entered_killed_and_deleted,
    a_process_enters_as_another_id,
    what_is_mapped_belongs_to_the_container_on_the_host,
    groups_cannot_be_added,
    without_a_user_namespace_it_is_refused,
    without_access_to_cgroups_it_stays_where_the_user_is,
    without_access_to_cgroups_a_limit_is_refused,
    without_access_to_cgroups_a_cgroup_path_is_refused,
    the_cgroups_mounted_are_the_users,
    state_is_kept_in_the_users_runtime_directory,
];

/// A container with the user's own id alone, after a change.
fn single(bundle: Bundle, change: impl FnOnce(Bundle) -> Bundle) -> Container {
    let user = user();
    let ids = user.own_id();
    let bundle = change(bundle.rootless(&user, &ids));
    Container::rootless(user, bundle)
}

/// A container with ids 0 to 900.
fn ranged(bundle: Bundle) -> (Container, u32) {
    require!(Path::new("/usr/bin/newuidmap").exists(), "newuidmap is missing (package uidmap)");
    let user = user();
    let (ids, first) = (user.all_ids(), user.first);
    let bundle = bundle.rootless(&user, &ids);
    (Container::rootless(user, bundle), first)
}

fn user() -> User {
    require!(!systemd_driver(), "an invented user has no systemd of its own");
    for name in ["passwd", "group", "subuid", "subgid"] {
        require!(Path::new("/etc").join(name).exists(), "there is no /etc/{name} to stand in for");
    }
    let closed =
        ["/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"]
            .iter()
            .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0"));
    require!(!closed, "user namespaces are closed to users here");
    User::new()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn the_user_is_the_containers_root() {
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; \
                  echo > /made; cat /secret";
    let container = single(Bundle::shell(script), |bundle| bundle.file("/secret", "x", 0o600));
    let output = container.run();
    let id = fs::metadata(container.root()).expect("it is there").uid().to_string();
    let expected = ["0", "0", "0", &id, "1", "0", &id, "1", "deny"];
    assert_eq!(words(&output.stdout), expected);
    assert!(output.stderr.contains("Permission denied"), "root's file: {}", output.stderr);
    let made = fs::metadata(container.bundle.path("/made")).expect("the root is the user's");
    assert_eq!(made.uid().to_string(), id);
    container.assert_gone();
}

fn ranges_of_ids_are_mapped_by_the_setuid_helpers() {
    let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups";
    let (container, first) = ranged(Bundle::shell(script));
    let output = container.run().ok();
    let id = fs::metadata(container.root()).expect("it is there").uid().to_string();
    let first = first.to_string();
    let map = ["0", &id, "1", "1", &first, "900"];
    assert_eq!(words(&output.stdout), [&map[..], &map[..], &["allow"]].concat());
    container.assert_gone();
}

fn ids_that_the_user_does_not_have_are_refused() {
    for first in [0, 99_999_999] {
        let (mut container, _) = ranged(Bundle::new());
        container.bundle.config["linux"]["uidMappings"][1]["hostID"] = json!(first);
        container.write_config();
        let output = container.run().fails();
        assert!(output.stderr.contains("newuidmap"), "{}", output.transcript());
        container.assert_gone();
    }
}

fn a_container_is_created_started_entered_killed_and_deleted() {
    let container = single(Bundle::sleeper(), |bundle| bundle);
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec(&["sh", "-c", "echo $$; id -u"]).ok().lines()[1], "0");
    container.exec(&["sh", "-c", "exit 7"]).exits(7);
    let listed = container.invoke(&["list", "-q"]).run().ok();
    assert_eq!(listed.text(), container.id);
    container.delete().fails();
    container.stop();
    container.delete().ok();
    container.assert_gone();
}

fn a_process_enters_as_another_id() {
    let (container, _) = ranged(Bundle::sleeper());
    container.run_detached().ok();
    let output = container.exec_with(&["--user", "5:6"], &["sh", "-c", "id -u; id -g"]);
    assert_eq!(output.ok().lines(), ["5", "6"]);
    container.delete_force().ok();
}

fn what_is_mapped_belongs_to_the_container_on_the_host() {
    let (container, first) = ranged(Bundle::shell("echo > /made; chown 5:6 /made"));
    let chown = json!(["CAP_CHOWN"]);
    let mut container = container;
    for set in ["bounding", "effective", "permitted"] {
        container.bundle.config["process"]["capabilities"][set] = chown.clone();
    }
    container.write_config();
    container.run().ok();
    let made = fs::metadata(container.bundle.path("/made")).expect("it was made");
    assert_eq!((made.uid(), made.gid()), (first + 4, first + 5));
}

fn groups_cannot_be_added() {
    peer_lacks!("crun", "it goes on without them");
    let (container, _) = ranged(Bundle::new().set("/process/user/additionalGids", json!([5])));
    container.run().fails_with("cannot set any additional groups in a rootless container");
    container.assert_gone();
}

fn without_a_user_namespace_it_is_refused() {
    peer_lacks!("crun", "it makes one by itself");
    let bare = |bundle: Bundle| {
        bundle.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings")
    };
    let container = single(Bundle::new(), bare);
    container.run().fails_with("rootless container requires user namespaces");
    container.assert_gone();
}

/// Whether this machine's cgroups are closed to a user of no name.
fn require_closed_cgroups() {
    let open = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().any(|entry| {
        entry.metadata().is_ok_and(|about| about.is_dir() && about.mode() & 0o002 != 0)
    });
    require!(!open, "everybody may make cgroups here");
}

fn without_access_to_cgroups_it_stays_where_the_user_is() {
    require_closed_cgroups();
    let script = "cat /proc/self/cgroup";
    let container = single(Bundle::shell(script), |bundle| bundle.without_namespace("cgroup"));
    let output = container.run().ok();
    assert_eq!(output.stdout, fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted"));
    container.assert_gone();
}

fn without_access_to_cgroups_a_limit_is_refused() {
    require_closed_cgroups();
    peer_lacks!("crun", "it goes on without the limit");
    for (field, value) in [("memory", json!({ "limit": 1 << 26 })), ("pids", json!({ "limit": 9 }))]
    {
        let pointer = format!("/linux/resources/{field}");
        let container = single(Bundle::new(), |bundle| bundle.set(&pointer, value));
        container.run().fails();
        container.assert_gone();
    }
}

fn without_access_to_cgroups_a_cgroup_path_is_refused() {
    require_closed_cgroups();
    peer_lacks!("crun", "it goes on without the cgroup");
    let path = |bundle: Bundle| bundle.set("/linux/cgroupsPath", "/hull-rootless");
    let container = single(Bundle::new(), path);
    container.run().fails();
    container.assert_gone();
}

fn the_cgroups_mounted_are_the_users() {
    let mount = |bundle: Bundle| {
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)
    };
    let container = single(Bundle::shell("ls /sys/fs/cgroup | wc -l"), mount);
    let count: u32 = container.run().ok().text().parse().expect("a number");
    assert!(count > 0);
    container.assert_gone();
}

fn state_is_kept_in_the_users_runtime_directory() {
    let user = user();
    let ids = user.own_id();
    let id = "one";
    let bundle = Bundle::sleeper().rootless(&user, &ids);
    // Its directory serves as the runtime directory; it is the user's alone.
    let container = Container::rootless(User::new(), bundle);
    let directory = container.bundle.dir();
    let command = |words: &[&str]| {
        let invocation = Invocation::runtime().user(&user).args(words);
        invocation.env("XDG_RUNTIME_DIR", directory).cwd(directory)
    };
    command(&["create", id]).run().ok();
    let name = match runtime().peer {
        Peer::Hull => "hull-runtime",
        Peer::Crun => "crun",
        _ => "runc",
    };
    let state = directory.join(name);
    let held = state.join(id).exists();
    let mode = fs::metadata(&state).map(|about| about.mode() & 0o7777);
    let listed: Value = command(&["list", "--format", "json"]).run().json();
    command(&["delete", "--force", id]).run().ok();
    assert!(held, "{} is not there", state.join(id).display());
    assert_eq!(listed[0]["id"], id);
    if runtime().peer != Peer::Crun {
        assert_eq!(mode.expect("it was there"), 0o1700, "it is not cleaned up by age");
    }
    wait_until("its removal", SOON, || !state.join(id).exists());
}
