//! What a container reaches of the host: devices, and files that tell of it.

use std::fs;

use hull_integration::{Bundle, Container, Invocation, peer_lacks, require, tests, weak_peer};
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
    // Without CAP_SYS_RAWIO the driver of /dev/mem says what the filter says.
    let bundle = || Bundle::sleeper().capabilities(&["CAP_MKNOD", "CAP_SYS_RAWIO"]);
    let container = Container::new(bundle());
    container.run_detached().ok();
    assert_eq!(usable(&container, &nodes), Vec::<String>::new());
    assert_eq!(usable(&container, &[("c", 1, 3)]), ["c 1:3"]);
    // The control: where the configuration allows all, the same devices open.
    let all = json!([{ "allow": true, "access": "rwm" }]);
    let open = Container::new(bundle().set("/linux/resources/devices", all));
    open.run_detached().ok();
    assert_eq!(usable(&open, &[("c", 1, 11), ("c", 1, 1)]), ["c 1:11", "c 1:1"]);
}

/// The devices that a container makes a node of, or opens by one, for reading or writing.
fn usable(container: &Container, nodes: &[(&str, u64, u64)]) -> Vec<String> {
    let mut out = Vec::new();
    for (kind, major, minor) in nodes {
        let path = format!("/tmp/{kind}-{major}-{minor}");
        let (major, minor) = (major.to_string(), minor.to_string());
        let made = container.exec(&["/probe", "mknod", &path, kind, &major, &minor]).ok().json();
        let read = if made["mknod"] == 0 { &made["open"] } else { &made["mknod"] };
        let written = &container.exec(&["/probe", "open", &path, "w"]).ok().json()["open"];
        // Any other answer is the driver's: it was asked.
        if read.as_i64() != Some(EPERM) || *written == 0 {
            out.push(format!("{kind} {major}:{minor}"));
        }
    }
    out
}

// Side channels: CVE-2018-10892, GHSA-7ww5-4wqc-m92c, GHSA-6fw5-f8r9-fgfm.

/// What `spec` writes, with this suite's root.
fn side_channels_are_masked_by_the_default_configuration() {
    peer_lacks!("crun", "its example masks less");
    let bundle = Bundle::new();
    let directory = bundle.dir().join("default");
    fs::create_dir(&directory).expect("ours");
    Invocation::runtime().arg("spec").cwd(&directory).run().ok();
    let written = fs::read(directory.join("config.json")).expect("spec writes it");
    let default: Value = serde_json::from_slice(&written).expect("spec writes JSON");
    let mut args = vec!["/probe", "report"];
    args.extend(SIDE_CHANNELS);
    let mut bundle = bundle.args(&args);
    for pointer in
        ["/linux/maskedPaths", "/linux/readonlyPaths", "/mounts", "/process/capabilities"]
    {
        let value = default.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {default}"));
        bundle = bundle.set(pointer, value.clone());
    }
    let mut container = Container::new(bundle);
    let open = readable(&container.report());
    // The control: without masks the same look finds them.
    container.bundle.config["linux"]["maskedPaths"] = json!([]);
    container.write_config();
    let bare = readable(&container.report());
    assert!(bare.contains(&"/proc/interrupts"), "{bare:?}");
    weak_peer!("runc", "GHSA-6fw5-f8r9-fgfm", !open.is_empty(), "open: {open:?}");
}

const SIDE_CHANNELS: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/devices/system/cpu/cpu1/thermal_throttle",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Those that are there and are neither an empty directory nor the null device.
fn readable(report: &Value) -> Vec<&'static str> {
    let masked = |path: &str| {
        let found = &report["paths"][path];
        match found["kind"].as_str() {
            Some("directory") => found["entries"] == json!([]),
            Some(_) => found["device"] == "1:3" && found["text"] == "",
            None => true,
        }
    };
    SIDE_CHANNELS.into_iter().filter(|path| !masked(path)).collect()
}
