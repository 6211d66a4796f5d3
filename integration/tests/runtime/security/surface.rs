//! What a container reaches of the host: devices, and files that tell of it.

use std::fs;

use hull_integration::{Bundle, Container, Invocation, require, tests};
use serde_json::{Value, json};

tests![devices_are_denied_by_default, side_channels_are_masked_by_the_default_configuration,];

const EPERM: i64 = 1;

// Devices: GHSA-g54h-m393-cpwq, CVE-2023-6476.

fn devices_are_denied_by_default() {
    require!(hull_integration::cgroup::hierarchy("devices").is_some(), "no device cgroup");
    // Not 10:200: like runc, the runtime lets containers have tun devices.
    let nodes = [
        ("b", 8, 0),
        ("b", 7, 0),
        ("b", 252, 0),
        ("b", 253, 0),
        ("b", 254, 0),
        ("b", 259, 0),
        ("c", 1, 1),
        ("c", 1, 2),
        ("c", 1, 4),
        ("c", 1, 11),
        ("c", 4, 0),
        ("c", 10, 229),
        ("c", 10, 232),
        ("c", 10, 237),
        ("c", 29, 0),
        ("c", 108, 0),
        ("c", 226, 0),
        ("c", 13, 63),
        ("b", 0, 0),
        ("c", 511, 7),
    ];
    let container = Container::new(Bundle::sleeper().capabilities(&["CAP_MKNOD"]));
    container.run_detached().ok();
    for (kind, major, minor) in nodes {
        let (path, major, minor) =
            (format!("/tmp/{kind}-{major}-{minor}"), major.to_string(), minor.to_string());
        let made = container.exec(&["/probe", "mknod", &path, kind, &major, &minor]).ok().json();
        if made["mknod"] == 0 {
            assert_eq!(made["open"].as_i64(), Some(EPERM), "{kind} {major}:{minor}: {made}");
        } else {
            assert_eq!(made["mknod"].as_i64(), Some(EPERM), "{kind} {major}:{minor}: {made}");
        }
        let opened = container.exec(&["/probe", "open", &path, "rw"]).ok().json();
        assert_ne!(opened["open"], 0, "{kind} {major}:{minor}");
    }
    container.exec(&["/probe", "mknod", "/tmp/null", "c", "1", "3"]).ok();
    assert_eq!(container.exec(&["/probe", "open", "/tmp/null", "rw"]).ok().json()["open"], 0);
}

// Side channels: CVE-2018-10892, GHSA-7ww5-4wqc-m92c, GHSA-6fw5-f8r9-fgfm.

/// What `spec` writes, with this suite's root.
fn side_channels_are_masked_by_the_default_configuration() {
    let bundle = Bundle::new();
    let directory = bundle.dir().join("default");
    fs::create_dir(&directory).expect("ours");
    Invocation::runtime().arg("spec").cwd(&directory).run().ok();
    let written = fs::read(directory.join("config.json")).expect("spec writes it");
    let default: Value = serde_json::from_slice(&written).expect("spec writes JSON");
    let paths = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ];
    let mut args = vec!["/probe", "report"];
    args.extend(paths);
    let mut bundle = bundle.args(&args);
    for pointer in
        ["/linux/maskedPaths", "/linux/readonlyPaths", "/mounts", "/process/capabilities"]
    {
        let value = default.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {default}"));
        bundle = bundle.set(pointer, value.clone());
    }
    let report = Container::new(bundle).report();
    let mut there = 0;
    for path in paths {
        let found = &report["paths"][path];
        if found["stat"] != 0 {
            continue;
        }
        there += 1;
        match found["kind"].as_str() {
            Some("directory") => assert_eq!(found["entries"], json!([]), "{path}"),
            _ => assert_eq!(
                (&found["device"], &found["text"]),
                (&json!("1:3"), &json!("")),
                "{path}: {found}"
            ),
        }
    }
    assert!(there > 0, "nothing to mask on this kernel: {report}");
}
