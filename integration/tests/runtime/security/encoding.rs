//! Values that are longer than a length field, or hold what separates values elsewhere:
//! they stay values (CVE-2021-43784).

use hull_integration::{Bundle, Container, tests};
use serde_json::{Value, json};

tests![long_values_do_not_become_settings];

/// More than 16 bits can count, less than the kernel takes as one argument.
const LENGTH_BYTES: usize = 100 << 10;

/// What a netlink message, a map of ids, a list of mount options, an environment and a C
/// string would take for something of their own. Without zero bytes, which most are refused for, and with.
const INJECTED: [&str; 2] = [
    ",rw,suid,dev,exec,\n0 0 4294967295\nHOME=/injected\n",
    "\u{8}\0\u{1}\0\0\0\0\0,rw,suid\n0 0 4294967295\n\0HOME=/injected\0",
];

/// A value whose injected part is where a length of 16 bits starts again, and at its end.
fn hostile(injected: &str) -> String {
    let mut text = "x".repeat(1 << 16);
    text.push_str(injected);
    let end = LENGTH_BYTES - injected.len();
    text.extend(std::iter::repeat_n('x', end - text.len()));
    text + injected
}

/// Texts of the configuration, `-` for a new item of a list.
const PLACES: [&str; 22] = [
    "/process/args/-",
    "/process/env/-",
    "/process/cwd",
    "/process/user/username",
    "/process/apparmorProfile",
    "/process/selinuxLabel",
    "/hostname",
    "/domainname",
    "/root/path",
    "/annotations/key",
    "/mounts/0/destination",
    "/mounts/0/source",
    "/mounts/0/type",
    "/mounts/0/options/-",
    "/mounts/1/options/-",
    "/linux/cgroupsPath",
    "/linux/namespaces/1/path",
    "/linux/maskedPaths/-",
    "/linux/readonlyPaths/-",
    "/linux/mountLabel",
    "/linux/rootfsPropagation",
    "/linux/sysctl/net.ipv4.ip_forward",
];

fn long_values_do_not_become_settings() {
    let bundle = Bundle::probe(&[])
        .set("/annotations", json!({}))
        .set("/linux/sysctl", json!({}))
        .set("/mounts/0/options", json!([]));
    let mut container = Container::new(bundle);
    let usual = confinement(&container.report());
    let config = container.bundle.config.clone();
    let (mut ran, mut wrong) = (Vec::new(), Vec::new());
    for place in PLACES {
        for injected in INJECTED {
            container.bundle.config = with(&config, place, hostile(injected));
            container.write_config();
            let output = container.run();
            if output.code() == Some(0) {
                ran.push(place);
                let confined = confinement(&output.json());
                if confined != usual {
                    wrong.push(format!("{place} with {injected:?}: {confined}"));
                }
            } else {
                output.fails();
            }
            container.delete_force();
            container.assert_gone();
        }
    }
    assert!(ran.contains(&"/process/args/-"), "an argument may be so long: {ran:?}");
    assert_eq!(wrong, Vec::<String>::new());
    // The control: one namespace, one option or one line less is told apart.
    for weak in [
        Bundle::probe(&[]).without_namespace("network"),
        Bundle::probe(&[]).mount_options("/dev/shm", &["nosuid", "noexec"]),
        Bundle::probe(&[]).user_namespace(400_000),
        Bundle::probe(&[]).push("/process/env", "HOME=/injected"),
    ] {
        assert_ne!(confinement(&Container::new(weak).report()), usual);
    }
}

/// A configuration with a text at a place of it.
fn with(config: &Value, place: &str, text: String) -> Value {
    let mut config = config.clone();
    let (parent, name) = place.rsplit_once('/').expect("a pointer starts with a slash");
    match config.pointer_mut(parent).expect("the place is there") {
        Value::Array(items) if parent.ends_with("env") => items.push(format!("LONG={text}").into()),
        Value::Array(items) => items.push(text.into()),
        other => other[name] = text.into(),
    }
    config
}

/// What a container is confined by, in a form that is the same for any two of them.
fn confinement(report: &Value) -> Value {
    let host = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        report["namespaces"][kind] == json!(link.to_string_lossy())
    };
    let hosts: Vec<&str> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|kind| host(kind))
        .collect();
    let mounts = report["mounts"].as_array().into_iter().flatten();
    let mounts: Vec<Value> =
        mounts.map(|mount| json!([mount["at"], mount["type"], mount["options"]])).collect();
    let env = report["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let env: Vec<&str> = env.filter(|word| !word.starts_with("LONG=")).collect();
    json!({
        "hosts": hosts, "mounts": mounts, "env": env, "uidMap": report["uidMap"],
        "capabilities": report["capabilities"], "noNewPrivs": report["noNewPrivs"],
        "uid": report["uid"], "gid": report["gid"], "groups": report["groups"],
    })
}
