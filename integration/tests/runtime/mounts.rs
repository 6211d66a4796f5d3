//! Mounts: every family of options, and the root itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use hull_integration::cgroup::{self, Layout};
use hull_integration::{Bundle, Container, Invocation, peer_lacks, require, scratch_dir, tests};
use serde_json::{Value, json};

tests![
    the_default_mounts_are_there,
    a_bind_mount_shows_its_source,
    a_bind_mount_of_a_file_makes_its_target,
    a_missing_bind_source_is_refused,
    a_readonly_bind_mount_refuses_writes,
    bind_options_take_effect,
    a_bind_source_is_relative_to_the_bundle,
    a_recursive_bind_takes_the_mounts_below,
    a_plain_bind_leaves_the_mounts_below,
    a_readonly_recursive_bind_protects_its_top_only,
    a_recursively_readonly_bind_protects_everything,
    recursive_flags_reach_the_mounts_below,
    a_tmpfs_has_its_size_and_mode,
    a_readonly_tmpfs_refuses_writes,
    a_tmpfs_inherits_the_mode_of_its_directory,
    tmpcopyup_keeps_what_was_there,
    a_relative_destination_is_below_the_root,
    a_destination_through_a_link_stays_inside,
    a_destination_through_dotdot_stays_inside,
    a_dangling_link_as_a_destination_is_followed_inside,
    proc_as_a_link_is_refused,
    an_unknown_type_is_refused,
    an_unknown_option_is_refused_or_given_to_the_file_system,
    mounts_happen_in_order,
    a_mount_source_is_of_the_host_not_of_the_container,
    propagation_flags_are_set,
    the_roots_propagation_is_set,
    the_cgroup_mount_shows_the_containers_own,
    a_readonly_dev_refuses_writes,
    a_readonly_root_refuses_writes_and_leaves_mounts_writable,
    a_writable_root_is_writable,
    the_root_is_private_to_the_container,
    mounts_of_the_container_do_not_reach_the_host,
    an_id_mapped_bind_shows_mapped_owners,
    an_id_mapping_without_a_bind_is_refused,
    atime_options_are_set,
    mqueue_and_devpts_are_the_containers_own,
    a_symlink_destination_that_is_absolute_stays_inside,
];

fn report(bundle: Bundle) -> Value {
    Container::new(bundle).report()
}

/// The last mount on a path.
fn mounted<'a>(report: &'a Value, at: &str) -> &'a Value {
    let mounts = report["mounts"].as_array().expect("/proc is mounted");
    mounts
        .iter()
        .rev()
        .find(|mount| mount["at"] == at)
        .unwrap_or_else(|| panic!("nothing is mounted on {at}: {mounts:#?}"))
}

fn options(report: &Value, at: &str) -> Vec<String> {
    let words = mounted(report, at)["options"].as_array().expect("a list").clone();
    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(report: &Value, at: &str, wanted: &[&str]) {
    let found = options(report, at);
    for word in wanted {
        assert!(found.iter().any(|one| one == word), "no {word} on {at}: {found:?}");
    }
}

fn lacks(report: &Value, at: &str, unwanted: &[&str]) {
    let found = options(report, at);
    for word in unwanted {
        assert!(!found.iter().any(|one| one == word), "{word} on {at}: {found:?}");
    }
}

/// A bundle with a directory `share` beside its root, holding `hello`.
fn with_share(script: &str) -> (Bundle, String) {
    let bundle = Bundle::shell(script);
    let share = bundle.dir().join("share");
    fs::create_dir(&share).expect("the bundle is writable");
    fs::write(share.join("hello"), "from the host\n").expect("the bundle is writable");
    let path = share.to_str().expect("text").to_owned();
    (bundle, path)
}

fn refused(bundle: Bundle) {
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn the_default_mounts_are_there() {
    let report = report(Bundle::probe(&[]));
    for (at, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert_eq!(mounted(&report, at)["type"], kind, "{at}");
    }
    has(&report, "/dev", &["nosuid"]);
    has(&report, "/dev/shm", &["nosuid", "noexec", "nodev"]);
    has(&report, "/sys", &["ro", "nosuid", "noexec", "nodev"]);
}

fn a_bind_mount_shows_its_source() {
    for option in ["bind", "rbind"] {
        let (bundle, share) = with_share("cat /mnt/hello; echo new > /mnt/new");
        let container = Container::new(bundle.mount("/mnt", "bind", &share, &[option]));
        assert_eq!(container.run().ok().text(), "from the host");
        let written = fs::read_to_string(format!("{share}/new")).expect("written through");
        assert_eq!(written, "new\n");
    }
}

fn a_bind_mount_of_a_file_makes_its_target() {
    let (bundle, share) = with_share("cat /srv/a/b/file");
    let source = format!("{share}/hello");
    let container = Container::new(bundle.mount("/srv/a/b/file", "none", &source, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

fn a_missing_bind_source_is_refused() {
    let container =
        Container::new(Bundle::new().mount("/mnt", "bind", "/no/such/source", &["bind"]));
    container.run().fails_with("/no/such/source");
    container.assert_gone();
}

fn a_readonly_bind_mount_refuses_writes() {
    let (bundle, share) = with_share("cat /mnt/hello; echo x > /mnt/hello || echo refused");
    let container = Container::new(bundle.mount("/mnt", "bind", &share, &["bind", "ro"]));
    assert_eq!(container.run().ok().text(), "from the host\nrefused");
    assert_eq!(fs::read_to_string(format!("{share}/hello")).expect("there"), "from the host\n");
}

fn bind_options_take_effect() {
    let (bundle, share) = with_share("true");
    let flags = ["bind", "nosuid", "nodev", "noexec", "noatime"];
    let report = report(bundle.args(&["/probe", "report"]).mount("/mnt", "bind", &share, &flags));
    has(&report, "/mnt", &["nosuid", "nodev", "noexec", "noatime", "rw"]);
}

fn a_bind_source_is_relative_to_the_bundle() {
    let (bundle, _) = with_share("cat /mnt/hello");
    let container = Container::new(bundle.mount("/mnt", "bind", "share", &["rbind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

/// A container with `share` on /mnt, where the host has a tmpfs on `share/sub`.
fn with_submount(script: &[&str], options: &[&str]) -> Container {
    let (bundle, share) = with_share("true");
    fs::create_dir(format!("{share}/sub")).expect("the bundle is writable");
    Container::new(bundle.args(script).mount("/mnt", "bind", &share, options))
        .prelude(format!("mount -t tmpfs sub {share}/sub; echo below > {share}/sub/file"))
}

fn a_recursive_bind_takes_the_mounts_below() {
    let container = with_submount(&["cat", "/mnt/sub/file"], &["rbind"]);
    assert_eq!(container.run().ok().text(), "below");
}

fn a_plain_bind_leaves_the_mounts_below() {
    let container = with_submount(&["ls", "/mnt/sub"], &["bind"]);
    assert_eq!(container.run().ok().text(), "");
}

fn a_readonly_recursive_bind_protects_its_top_only() {
    let report = with_submount(&["/probe", "report"], &["rbind", "ro"]).report();
    has(&report, "/mnt", &["ro"]);
    has(&report, "/mnt/sub", &["rw"]);
}

fn a_recursively_readonly_bind_protects_everything() {
    peer_lacks!("runc 1.1", "recursive attributes are newer");
    let report = with_submount(&["/probe", "report"], &["rbind", "rro"]).report();
    has(&report, "/mnt", &["ro"]);
    has(&report, "/mnt/sub", &["ro"]);
}

fn recursive_flags_reach_the_mounts_below() {
    peer_lacks!("runc 1.1", "recursive attributes are newer");
    peer_lacks!("crun 1.8", "it does not clear the other access times");
    let flags = ["rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime"];
    let report = with_submount(&["/probe", "report"], &flags).report();
    for at in ["/mnt", "/mnt/sub"] {
        has(&report, at, &["nosuid", "nodev", "noexec", "noatime", "rw"]);
    }
    let report = with_submount(&["/probe", "report"], &["rbind", "rro", "rrelatime"]).report();
    has(&report, "/mnt/sub", &["ro", "relatime"]);
}

fn a_tmpfs_has_its_size_and_mode() {
    let bundle = Bundle::probe(&["/mnt"]).mount(
        "/mnt",
        "tmpfs",
        "scratch",
        &["nosuid", "size=128k", "mode=1750", "uid=5", "gid=6"],
    );
    let report = report(bundle);
    let mount = mounted(&report, "/mnt");
    assert_eq!((&mount["type"], &mount["source"]), (&json!("tmpfs"), &json!("scratch")));
    assert!(mount["superOptions"].as_array().expect("a list").contains(&json!("size=128k")));
    peer_lacks!("runc 1.1", "it keeps the mode of the directory");
    let path = &report["paths"]["/mnt"];
    assert_eq!((&path["mode"], &path["uid"], &path["gid"]), (&json!("1750"), &json!(5), &json!(6)));
}

fn a_readonly_tmpfs_refuses_writes() {
    let bundle = Bundle::shell("echo x > /mnt/file || echo refused");
    let container = Container::new(bundle.mount("/mnt", "tmpfs", "tmpfs", &["ro"]));
    assert_eq!(container.run().ok().text(), "refused");
}

fn a_tmpfs_inherits_the_mode_of_its_directory() {
    peer_lacks!("crun 1.8", "a tmpfs has mode 1777");
    let bundle = Bundle::probe(&["/mnt", "/made"]).mount("/mnt", "tmpfs", "tmpfs", &[]);
    fs::set_permissions(bundle.path("/mnt"), fs::Permissions::from_mode(0o710)).expect("ours");
    let report = report(bundle.mount("/made", "tmpfs", "tmpfs", &[]));
    assert_eq!(report["paths"]["/mnt"]["mode"], "710");
    peer_lacks!("runc 1.1", "it gives a made directory 0755");
    assert_eq!(report["paths"]["/made"]["mode"], "1777");
}

fn tmpcopyup_keeps_what_was_there() {
    let bundle = Bundle::shell(
        "cat /etc/kept; readlink /etc/ln; stat -c '%a %u' /etc/kept; echo x > /etc/new",
    )
    .file("/etc/kept", "kept\n", 0o640)
    .link("/etc/ln", "kept")
    .mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let container = Container::new(bundle);
    assert_eq!(container.run().ok().text(), "kept\nkept\n640 0");
    assert!(!container.bundle.path("/etc/new").exists(), "the tmpfs took the write");
}

fn a_relative_destination_is_below_the_root() {
    let (bundle, share) = with_share("cat /mnt/rel/hello");
    let container = Container::new(bundle.mount("mnt/rel", "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

fn a_destination_through_a_link_stays_inside() {
    let (bundle, share) = with_share("cat /real/sub/hello");
    let bundle = bundle.directory("/real").link("/linked", "real");
    let container = Container::new(bundle.mount("/linked/sub", "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

fn a_symlink_destination_that_is_absolute_stays_inside() {
    let (bundle, share) = with_share("cat /run/deep/hello");
    let bundle = bundle.link("/var/run", "/run");
    let container = Container::new(bundle.mount("/var/run/deep", "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

fn a_destination_through_dotdot_stays_inside() {
    let (bundle, share) = with_share("cat /escape/hello");
    let bundle = bundle.link("/up", "../../../../../../..");
    let outside = format!("/up/{}", "escape");
    let container = Container::new(bundle.mount(&outside, "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
    assert!(!fs::exists("/escape").expect("the host's root is readable"), "made on the host");
}

fn a_dangling_link_as_a_destination_is_followed_inside() {
    peer_lacks!("crun 1.8", "it refuses a dangling link");
    let (bundle, share) = with_share("cat /nowhere/yet/hello");
    let bundle = bundle.link("/dangling", "/nowhere/yet");
    let container = Container::new(bundle.mount("/dangling", "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
    assert!(!fs::exists("/nowhere").expect("the host's root is readable"));
}

fn proc_as_a_link_is_refused() {
    peer_lacks!("crun", "it resolves the link inside the root");
    let bundle = Bundle::new();
    fs::remove_dir(bundle.path("/proc")).expect("empty");
    fs::create_dir(bundle.path("/elsewhere")).expect("ours");
    symlink("elsewhere", bundle.path("/proc")).expect("ours");
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn an_unknown_type_is_refused() {
    refused(Bundle::new().mount("/mnt", "nosuchfs", "none", &[]));
}

fn an_unknown_option_is_refused_or_given_to_the_file_system() {
    refused(Bundle::new().mount("/mnt", "tmpfs", "tmpfs", &["nosuchoption"]));
    refused(Bundle::new().mount("/mnt", "tmpfs", "tmpfs", &["size=many"]));
}

fn mounts_happen_in_order() {
    let (bundle, share) = with_share("ls /mnt /mnt/below");
    let container = Container::new(bundle.mount("/mnt", "tmpfs", "tmpfs", &[]).mount(
        "/mnt/below",
        "bind",
        &share,
        &["bind"],
    ));
    assert_eq!(container.run().ok().text(), "/mnt:\nbelow\n\n/mnt/below:\nhello");
}

fn a_mount_source_is_of_the_host_not_of_the_container() {
    let (bundle, share) = with_share("cat /mnt/hello");
    // The same path exists inside, with other content.
    let bundle = bundle.file(&format!("{share}/hello"), "from inside\n", 0o644);
    let container = Container::new(bundle.mount("/mnt", "bind", &share, &["bind"]));
    assert_eq!(container.run().ok().text(), "from the host");
}

fn propagation(report: &Value, at: &str) -> String {
    let words = mounted(report, at)["propagation"].as_array().expect("a list").clone();
    words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn propagation_flags_are_set() {
    peer_lacks!("crun 1.8", "shared is lost");
    for (flag, expected) in
        [("private", ""), ("rprivate", ""), ("shared", "shared:"), ("unbindable", "unbindable")]
    {
        let (bundle, share) = with_share("true");
        let bundle =
            bundle.args(&["/probe", "report"]).mount("/mnt", "bind", &share, &["bind", flag]);
        let found = propagation(&report(bundle), "/mnt");
        assert!(found.starts_with(expected), "{flag}: {found:?}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{flag}: {found:?}");
    }
}

fn the_roots_propagation_is_set() {
    peer_lacks!("runc 1.1", "only the parent mount has the propagation");
    peer_lacks!("crun 1.8", "it takes any word");
    for (mode, expected) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
        let bundle = Bundle::probe(&[]).set("/linux/rootfsPropagation", mode);
        let found = propagation(&report(bundle), "/");
        assert!(found.contains(expected), "{mode}: {found:?}");
        if mode == "private" {
            assert_eq!(found, "");
        }
    }
    refused(Bundle::new().set("/linux/rootfsPropagation", "sideways"));
}

fn the_cgroup_mount_shows_the_containers_own() {
    peer_lacks!("crun 1.8", "it leaves the v1 mounts writable");
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; \
                  mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused";
    let container = Container::new(Bundle::shell(script));
    let output = container.run().ok();
    assert!(output.stdout.contains("refused"), "the mount is read-only: {}", output.stdout);
    assert!(!output.stdout.contains(&container.id), "a cgroup namespace hides the path");
    // Without one, a v1 mount is still of the container's own cgroup; a v2 mount is of the
    // whole tree, as under runc, and the container's path leads to its place there.
    let bundle = Bundle::shell(match cgroup::layout() {
        Layout::V2 => "cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/cgroup.procs",
        _ => "cat /sys/fs/cgroup/pids/cgroup.procs",
    });
    let container = Container::new(bundle.without_namespace("cgroup"));
    let output = container.run().ok();
    assert!(output.stdout.lines().any(|line| line == "1"), "{}", output.stdout);
    assert!(output.stdout.lines().count() < 10, "only its own processes: {}", output.stdout);
}

fn a_readonly_dev_refuses_writes() {
    let bundle = Bundle::shell("echo x > /dev/null && touch /dev/file || echo refused")
        .mount_options("/dev", &["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]);
    assert_eq!(Container::new(bundle).run().ok().text(), "refused");
}

fn a_readonly_root_refuses_writes_and_leaves_mounts_writable() {
    let script = "echo x > /file || echo refused; echo y > /dev/shm/file && cat /dev/shm/file";
    let container = Container::new(Bundle::shell(script).set("/root/readonly", true));
    assert_eq!(container.run().ok().text(), "refused\ny");
    assert!(!container.bundle.path("/file").exists());
    let report = report(Bundle::probe(&[]).set("/root/readonly", true));
    has(&report, "/", &["ro"]);
}

fn a_writable_root_is_writable() {
    let container = Container::new(Bundle::shell("echo x > /file"));
    container.run().ok();
    assert_eq!(fs::read_to_string(container.bundle.path("/file")).expect("written"), "x\n");
}

fn the_root_is_private_to_the_container() {
    let report = report(Bundle::probe(&["/"]));
    let mounts = report["mounts"].as_array().expect("a list");
    // Nothing of the host's tree is reachable: the root's parent is not listed.
    assert_eq!(mounts.iter().filter(|mount| mount["at"] == "/").count(), 1);
    let entries = report["paths"]["/"]["entries"].as_array().expect("a list");
    assert!(entries.contains(&json!("probe")) && !entries.contains(&json!("boot")));
    lacks(&report, "/", &["ro"]);
}

fn mounts_of_the_container_do_not_reach_the_host() {
    let count = || {
        fs::read_to_string("/proc/self/mountinfo").expect("/proc").matches("hull-own-mount").count()
    };
    let container =
        Container::new(Bundle::sleeper().mount("/mnt", "tmpfs", "hull-own-mount", &["shared"]));
    container.run_detached().ok();
    assert_eq!(count(), 0);
}

fn id_mapped(option: &str) -> (Bundle, String) {
    let (bundle, share) = with_share("stat -c '%u %g' /mnt/hello");
    let bundle = bundle.push(
        "/mounts",
        json!({
            "destination": "/mnt", "type": "bind", "source": share, "options": ["bind", option],
            "uidMappings": [{ "containerID": 0, "hostID": 5000, "size": 100 }],
            "gidMappings": [{ "containerID": 0, "hostID": 6000, "size": 100 }],
        }),
    );
    (bundle, share)
}

fn an_id_mapped_bind_shows_mapped_owners() {
    peer_lacks!("runc 1.1", "idmap mounts are newer");
    peer_lacks!("crun 1.8", "it maps only with a user namespace");
    let share = scratch_dir();
    let kind = Invocation::new("stat").args(["-f", "-c", "%T"]).arg(share).run().ok();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let maps = kind.text() != "tmpfs" || version >= (6, 3);
    require!(maps, "tmpfs has id-mapped mounts since kernel 6.3");
    for option in ["idmap", "ridmap"] {
        let (bundle, share) = id_mapped(option);
        let container = Container::new(bundle);
        assert_eq!(container.run().ok().text(), "5000 6000");
        // Written through the mapping by uid 5000's owner on the disk: nobody there.
        let metadata = fs::metadata(format!("{share}/hello")).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
    }
}

fn an_id_mapping_without_a_bind_is_refused() {
    peer_lacks!("runc 1.1", "idmap mounts are newer");
    peer_lacks!("crun", "it maps other types too");
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 100 }]);
    refused(Bundle::new().push(
        "/mounts",
        json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                "uidMappings": map, "gidMappings": map }),
    ));
    refused(Bundle::new().push(
        "/mounts",
        json!({ "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"],
                "uidMappings": map }),
    ));
}

fn atime_options_are_set() {
    for (option, wanted) in [("noatime", "noatime"), ("relatime", "relatime")] {
        let bundle = Bundle::probe(&[]).mount("/mnt", "tmpfs", "tmpfs", &[option]);
        has(&report(bundle), "/mnt", &[wanted]);
    }
    let bundle = Bundle::probe(&[]).mount("/mnt", "tmpfs", "tmpfs", &["strictatime"]);
    lacks(&report(bundle), "/mnt", &["noatime", "relatime"]);
    let bundle = Bundle::probe(&[]).mount("/mnt", "tmpfs", "tmpfs", &["nodiratime", "sync"]);
    let report = report(bundle);
    has(&report, "/mnt", &["nodiratime"]);
}

fn mqueue_and_devpts_are_the_containers_own() {
    let report = report(Bundle::probe(&["/dev/pts", "/dev/ptmx", "/dev/mqueue"]));
    assert_eq!(report["paths"]["/dev/pts"]["entries"], json!(["ptmx"]));
    assert_eq!(report["paths"]["/dev/ptmx"]["target"], "pts/ptmx");
    assert_eq!(report["paths"]["/dev/mqueue"]["entries"], json!([]));
}
