//! Bad input: an error in one sentence, and nothing left.

use std::fs;

use hull_integration::{Bundle, Container, Peer, peer_lacks, runtime, tests};
use serde_json::{Value, json};

tests![
    malformed_json_is_refused,
    values_of_the_wrong_type_are_refused,
    missing_parts_are_refused,
    an_unsupported_version_is_refused,
    unknown_members_are_ignored,
    null_members_are_as_if_absent,
    deep_nesting_is_refused,
    a_huge_configuration_is_refused_or_read,
    a_configuration_that_is_no_file_is_refused,
    text_with_nul_is_refused,
    the_spec_is_checked_before_anything_is_made,
];

fn refused_text(text: &[u8]) {
    let container = Container::new(Bundle::new());
    fs::write(container.bundle.dir().join("config.json"), text).expect("writable");
    container.create().fails();
    container.run().fails();
    container.assert_gone();
}

fn malformed_json_is_refused() {
    let mut texts: Vec<Vec<u8>> =
        ["", "{", "}", "null", "[]", "\"text\"", "7", "{} {}", "{'a':1}", "\u{feff}{}"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    texts.push(vec![0; 100]);
    texts.push(vec![0xff, 0xfe, 0x00]);
    texts.push(b"{\"ociVersion\":\"1.0.2\xff\"}".to_vec());
    for text in texts {
        refused_text(&text);
    }
}

fn refused(bundle: Bundle) {
    let container = Container::new(bundle);
    container.create().fails();
    container.assert_gone();
}

fn values_of_the_wrong_type_are_refused() {
    peer_lacks!("crun", "its parser takes a member of the wrong type as absent");
    for (pointer, value) in [
        ("/process", json!([])),
        ("/process/args", json!("sh")),
        ("/process/args", json!([1])),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(1_u64 << 40)),
        ("/process/user/uid", json!(1.5)),
        ("/process/env", json!({ "A": "b" })),
        ("/process/cwd", json!(7)),
        ("/process/noNewPrivileges", json!("yes")),
        ("/process/capabilities", json!(["CAP_KILL"])),
        ("/process/rlimits", json!({ "type": "RLIMIT_CORE" })),
        ("/root", json!("rootfs")),
        ("/root/path", json!(null)),
        ("/mounts", json!({})),
        ("/mounts/0/options", json!("ro")),
        ("/mounts/0/destination", json!(["/proc"])),
        ("/linux", json!([])),
        ("/linux/namespaces", json!({})),
        ("/linux/namespaces/0", json!("pid")),
        ("/linux/sysctl", json!([])),
        ("/linux/resources/memory", json!(7)),
        ("/linux/maskedPaths", json!("/proc/kcore")),
        ("/hooks", json!([])),
        ("/hostname", json!(7)),
        ("/ociVersion", json!(1)),
    ] {
        let container = Container::new(Bundle::new().set(pointer, value.clone()));
        let output = container.create();
        assert!(output.code() != Some(0), "{pointer} = {value}: {}", output.summary());
        output.fails();
        container.assert_gone();
    }
}

fn missing_parts_are_refused() {
    peer_lacks!("crun 1.8", "it dies of a missing root");
    refused(Bundle::new().remove("/root"));
    refused(Bundle::new().remove("/process/args"));
}

fn an_unsupported_version_is_refused() {
    peer_lacks!("runc", "it does not look at the version");
    peer_lacks!("crun", "it does not look at the version");
    for version in ["", "2.0.0", "0.1.0", "one"] {
        refused(Bundle::new().set("/ociVersion", version));
    }
    refused(Bundle::new().remove("/ociVersion"));
}

fn unknown_members_are_ignored() {
    let bundle = Bundle::shell("echo ran")
        .set("/unknown", json!({ "a": [1, 2] }))
        .set("/process/unknown", "text")
        .set("/linux/unknown", 7);
    assert_eq!(Container::new(bundle).run().ok().text(), "ran");
}

fn null_members_are_as_if_absent() {
    let bundle = Bundle::shell("echo ran")
        .set("/hooks", Value::Null)
        .set("/annotations", Value::Null)
        .set("/process/rlimits", Value::Null)
        .set("/linux/resources", Value::Null)
        .set("/linux/maskedPaths", Value::Null)
        .set("/linux/seccomp", Value::Null);
    assert_eq!(Container::new(bundle).run().ok().text(), "ran");
}

fn deep_nesting_is_refused() {
    peer_lacks!("runc", "its parser has no limit below ten thousand");
    peer_lacks!("crun", "its parser has no limit");
    let depth = 100_000;
    let text = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    refused_text(text.as_bytes());
}

fn a_huge_configuration_is_refused_or_read() {
    peer_lacks!("crun", "it takes seconds for it");
    let container = Container::new(Bundle::shell("echo ran"));
    let mut config = container.bundle.config.clone();
    config["annotations"] = json!({ "a": "x".repeat(8 << 20) });
    fs::write(container.bundle.dir().join("config.json"), config.to_string()).expect("writable");
    let output = container.run();
    assert!(matches!(output.code(), Some(0 | 1)), "{}", output.code().unwrap_or(-1));
    assert!(!output.stderr.contains("panicked"));
    container.assert_gone();
}

fn a_configuration_that_is_no_file_is_refused() {
    let container = Container::new(Bundle::new());
    let path = container.bundle.dir().join("config.json");
    fs::remove_file(&path).expect("it was written");
    fs::create_dir(&path).expect("writable");
    container.create().fails();
    container.assert_gone();
    fs::remove_dir(&path).expect("empty");
    peer_lacks!("runc", "it waits for a writer of the pipe");
    peer_lacks!("crun", "it waits for a writer of the pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("writable");
    container.create().fails();
    container.assert_gone();
}

fn text_with_nul_is_refused() {
    for (pointer, text) in [
        ("/process/args/0", "tr\0ue"),
        ("/process/cwd", "/\0"),
        ("/hostname", "a\0b"),
        ("/mounts/0/destination", "/pr\0oc"),
        ("/root/path", "root\0fs"),
    ] {
        peer_lacks!("crun", "its strings end there");
        let container = Container::new(Bundle::new().set(pointer, text));
        if pointer == "/hostname" && runtime().peer == Peer::Runc {
            continue; // its kernel call takes a length
        }
        container.create().fails();
        container.assert_gone();
    }
}

fn the_spec_is_checked_before_anything_is_made() {
    let bundle = Bundle::new()
        .mount("/made-before-the-check", "tmpfs", "tmpfs", &[])
        .set("/process/cwd", "relative");
    peer_lacks!("crun", "it takes a relative cwd from the root");
    let container = Container::new(bundle);
    container.create().fails();
    assert!(!container.bundle.path("/made-before-the-check").exists());
    container.assert_gone();
}
