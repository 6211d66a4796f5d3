//! Device nodes, the device cgroup, masked and read-only paths.

use hull_integration::{Bundle, Container, cgroup, peer_lacks, require, tests};
use serde_json::{Value, json};

tests![
    the_default_devices_are_there,
    the_default_links_are_there,
    a_device_is_made_with_its_mode_and_owner,
    a_fifo_is_made,
    a_device_without_a_known_type_is_refused,
    a_device_path_through_a_link_stays_inside,
    every_device_is_denied_unless_allowed,
    an_allowed_device_is_opened_as_allowed,
    a_later_rule_overrides_an_earlier_one,
    block_devices_have_their_own_rules,
    a_wrong_rule_is_refused,
    exec_has_the_same_devices,
    devices_work_in_a_user_namespace,
    a_masked_file_reads_as_empty,
    a_masked_directory_is_empty_and_readonly,
    a_masked_path_that_is_missing_is_no_error,
    a_readonly_path_refuses_writes,
    a_readonly_path_keeps_the_other_mount_flags,
    many_masked_paths_are_masked,
    the_default_masks_hide_the_host,
];

/// Refused by the device cgroup.
const EPERM: i64 = 1;
/// Allowed: the number belongs to no driver, which is found out only then.
const ENXIO: i64 = 6;

fn report(bundle: Bundle) -> Value {
    Container::new(bundle).report()
}

fn probe(bundle: Bundle, words: &[&str]) -> Value {
    let mut args = vec!["/probe"];
    args.extend(words);
    Container::new(bundle.capabilities(&["CAP_MKNOD"]).args(&args)).run().ok().json()
}

fn rules(rules: Value) -> Bundle {
    require!(cgroup::hierarchy("devices").is_some(), "no device cgroup");
    Bundle::new().set("/linux/resources/devices", rules)
}

fn the_default_devices_are_there() {
    let nodes = [
        ("/dev/null", "1:3"),
        ("/dev/zero", "1:5"),
        ("/dev/full", "1:7"),
        ("/dev/random", "1:8"),
        ("/dev/urandom", "1:9"),
        ("/dev/tty", "5:0"),
    ];
    let paths: Vec<&str> = nodes.iter().map(|(path, _)| *path).collect();
    let report = report(Bundle::probe(&paths));
    for (path, device) in nodes {
        let node = &report["paths"][path];
        assert_eq!((&node["kind"], &node["device"]), (&json!("char"), &json!(device)), "{path}");
        assert_eq!((&node["mode"], &node["uid"]), (&json!("666"), &json!(0)), "{path}");
    }
}

fn the_default_links_are_there() {
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    let paths: Vec<&str> = links.iter().map(|(path, _)| *path).collect();
    let report = report(Bundle::probe(&paths));
    for (path, target) in links {
        let found = report["paths"][path]["target"].as_str().unwrap_or_default();
        assert_eq!(found.trim_start_matches("/dev/"), target, "{path}");
    }
}

fn a_device_is_made_with_its_mode_and_owner() {
    let devices = json!([
        { "path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6 },
        { "path": "/dev/sub/two", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600 },
        { "path": "/dev/three", "type": "u", "major": 1, "minor": 3 },
    ]);
    let paths = ["/dev/one", "/dev/sub/two", "/dev/three"];
    let report = report(Bundle::probe(&paths).set("/linux/devices", devices));
    let one = &report["paths"]["/dev/one"];
    assert_eq!(
        (&one["kind"], &one["device"], &one["mode"], &one["uid"], &one["gid"]),
        (&json!("char"), &json!("10:229"), &json!("640"), &json!(5), &json!(6))
    );
    let two = &report["paths"]["/dev/sub/two"];
    assert_eq!((&two["kind"], &two["device"]), (&json!("block"), &json!("7:99")));
    assert_eq!(report["paths"]["/dev/three"]["kind"], "char");
}

fn a_fifo_is_made() {
    let devices = json!([{ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }]);
    let report = report(Bundle::probe(&["/dev/pipe"]).set("/linux/devices", devices));
    let pipe = &report["paths"]["/dev/pipe"];
    assert_eq!((&pipe["kind"], &pipe["mode"]), (&json!("fifo"), &json!("622")));
}

fn a_device_without_a_known_type_is_refused() {
    peer_lacks!("crun 1.8", "it takes every type for a character device");
    for kind in ["x", "", "char"] {
        let devices = json!([{ "path": "/dev/odd", "type": kind, "major": 1, "minor": 3 }]);
        let container = Container::new(Bundle::new().set("/linux/devices", devices));
        container.run().fails();
        container.assert_gone();
    }
}

fn a_device_path_through_a_link_stays_inside() {
    let devices = json!([{ "path": "/up/tmp/escaped-node", "type": "c", "major": 1, "minor": 3 }]);
    let bundle =
        Bundle::new().link("/up", "../../../../../../../..").set("/linux/devices", devices);
    Container::new(bundle).run();
    let outside = std::fs::symlink_metadata("/tmp/escaped-node");
    assert!(outside.is_err(), "a device was made on the host");
}

fn every_device_is_denied_unless_allowed() {
    let bundle = || rules(json!([{ "allow": false, "access": "rwm" }]));
    // The defaults are open, whatever the rules say.
    assert_eq!(probe(bundle(), &["open", "/dev/null", "rw"])["open"], 0);
    assert_eq!(probe(bundle(), &["open", "/dev/urandom", "r"])["open"], 0);
    // Making any node is allowed, opening it is not.
    let made = probe(bundle(), &["mknod", "/dev/odd", "c", "60", "11"]);
    assert_eq!(made["open"], EPERM, "{made}");
}

fn an_allowed_device_is_opened_as_allowed() {
    let allowed = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 60, "minor": 11, "access": "rm" },
    ]);
    let made = probe(rules(allowed.clone()), &["mknod", "/tmp/odd", "c", "60", "11"]);
    assert_eq!(made, json!({ "mknod": 0, "open": ENXIO }));
    let device =
        json!([{ "path": "/dev/odd", "type": "c", "major": 60, "minor": 11, "fileMode": 0o666 }]);
    let bundle = rules(allowed).set("/linux/devices", device);
    assert_eq!(probe(bundle, &["open", "/dev/odd", "w"])["open"], EPERM);
}

fn a_later_rule_overrides_an_earlier_one() {
    let denied_again = json!([
        { "allow": true, "access": "rwm" },
        { "allow": false, "type": "c", "major": 60, "minor": 11, "access": "rwm" },
    ]);
    let made = probe(rules(denied_again), &["mknod", "/tmp/odd", "c", "60", "11"]);
    assert_eq!(made["open"], if made["mknod"] == 0 { EPERM } else { 2 }, "{made}");
    let all = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "access": "rwm" }]);
    let made = probe(rules(all), &["mknod", "/tmp/odd", "c", "60", "11"]);
    assert_eq!(made, json!({ "mknod": 0, "open": ENXIO }));
}

fn block_devices_have_their_own_rules() {
    let block = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": 60, "minor": 11, "access": "rwm" },
    ]);
    let made = probe(rules(block), &["mknod", "/tmp/odd", "c", "60", "11"]);
    assert_eq!(made["open"], EPERM, "{made}");
}

fn a_wrong_rule_is_refused() {
    for rule in [
        json!({ "allow": true, "type": "x", "access": "rwm" }),
        json!({ "allow": true, "type": "c", "major": 60, "minor": 11, "access": "q" }),
    ] {
        peer_lacks!("crun 1.8", "it hands the rule to the kernel as it is");
        let container = Container::new(Bundle::new().push("/linux/resources/devices", rule));
        container.run().fails();
        container.assert_gone();
    }
}

fn exec_has_the_same_devices() {
    let bundle = Bundle::sleeper().capabilities(&["CAP_MKNOD"]);
    let container = Container::new(bundle);
    container.run_detached().ok();
    let made = container.exec(&["/probe", "mknod", "/tmp/odd", "c", "60", "11"]).ok().json();
    assert_eq!(made["open"], EPERM, "{made}");
    container.exec(&["sh", "-c", "echo x > /dev/null"]).ok();
}

fn devices_work_in_a_user_namespace() {
    let report = report(Bundle::probe(&["/dev/null", "/dev/zero"]).user_namespace(100_000));
    assert_eq!(report["paths"]["/dev/null"]["device"], "1:3");
    assert_eq!(report["paths"]["/dev/null"]["read"], 0);
}

fn a_masked_file_reads_as_empty() {
    let bundle = Bundle::probe(&["/etc/secret"]).file("/etc/secret", "secret", 0o644);
    let report = report(bundle.set("/linux/maskedPaths", json!(["/etc/secret"])));
    let path = &report["paths"]["/etc/secret"];
    assert_eq!((&path["kind"], &path["device"]), (&json!("char"), &json!("1:3")), "{path}");
    let bundle = Bundle::shell("cat /etc/secret; echo x > /etc/secret; cat /etc/secret");
    let bundle = bundle.file("/etc/secret", "secret", 0o644);
    let container = Container::new(bundle.set("/linux/maskedPaths", json!(["/etc/secret"])));
    assert_eq!(container.run().ok().stdout, "");
    let kept = std::fs::read_to_string(container.bundle.path("/etc/secret")).expect("there");
    assert_eq!(kept, "secret");
}

fn a_masked_directory_is_empty_and_readonly() {
    let bundle = Bundle::shell("ls /etc/dir; touch /etc/dir/new || echo refused");
    let bundle = bundle.file("/etc/dir/secret", "secret", 0o644);
    let container = Container::new(bundle.set("/linux/maskedPaths", json!(["/etc/dir"])));
    assert_eq!(container.run().ok().text(), "refused");
}

fn a_masked_path_that_is_missing_is_no_error() {
    let paths = json!(["/no/such/path", "/proc/no-such-file"]);
    Container::new(Bundle::new().set("/linux/maskedPaths", paths.clone())).run().ok();
    Container::new(Bundle::new().set("/linux/readonlyPaths", paths)).run().ok();
}

fn a_readonly_path_refuses_writes() {
    let bundle = Bundle::shell(
        "cat /etc/dir/file; echo x > /etc/dir/file || echo refused; echo y > /etc/other",
    );
    let bundle = bundle.file("/etc/dir/file", "content\n", 0o644);
    let container = Container::new(bundle.set("/linux/readonlyPaths", json!(["/etc/dir"])));
    assert_eq!(container.run().ok().text(), "content\nrefused");
}

fn a_readonly_path_keeps_the_other_mount_flags() {
    peer_lacks!("crun 1.8", "it drops them");
    let report = report(
        Bundle::probe(&[])
            .mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"])
            .set("/linux/readonlyPaths", json!(["/mnt"])),
    );
    let mounts = report["mounts"].as_array().expect("a list");
    let mount = mounts.iter().rev().find(|mount| mount["at"] == "/mnt").expect("mounted");
    let options = mount["options"].as_array().expect("a list");
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(&json!(word)), "{word}: {options:?}");
    }
}

fn many_masked_paths_are_masked() {
    let mut bundle = Bundle::shell("cat /many/*/file 2>/dev/null | wc -c; ls /many | wc -l");
    let mut paths = Vec::new();
    for number in 0..100 {
        bundle = bundle.file(&format!("/many/{number}/file"), "secret", 0o644);
        paths.push(json!(format!("/many/{number}")));
    }
    let container = Container::new(bundle.set("/linux/maskedPaths", paths));
    let output = container.run().ok();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100"]);
}

fn the_default_masks_hide_the_host() {
    let report =
        report(Bundle::probe(&["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/timer_list"]));
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        let found = &report["paths"][path];
        if found["stat"] == 0 {
            assert_eq!(found["device"], "1:3", "{path}: {found}");
        }
    }
    if report["paths"]["/sys/firmware"]["stat"] == 0 {
        assert_eq!(report["paths"]["/sys/firmware"]["entries"], json!([]));
    }
    let script = "echo 1 > /proc/sys/kernel/printk || echo refused";
    assert_eq!(Container::new(Bundle::shell(script)).run().ok().text(), "refused");
}
