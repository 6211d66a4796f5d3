//! The whole document: beside what dockerd 20.10.24 gave its runtime for the same requests, and
//! for what dockerd can't say.
//!
//! `testdata/docker-20.10` has what dockerd wrote, without its own paths and ids, the seccomp
//! profile (the runtime's suite compares those call by call) and the devices of the machine.
//! Where we differ on purpose is in [`differences`].

use serde_json::{Value, json};

use super::*;
use crate::defaults::example;

/// As the machine that dockerd ran on: an old kernel where the recordings are of an old dockerd.
fn machine() -> Defaults {
    let mut defaults = example();
    defaults.host.kernel = (5, 4);
    defaults.host.cgroup_v2 = false;
    defaults.host.memory_v1 = true;
    // Its dockerd knew capabilities up to CAP_AUDIT_READ.
    defaults.host.capabilities = (1 << 38) - 1;
    defaults
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn image() -> hull_specs_image::ImageConfig {
    let mut image = hull_specs_image::ImageConfig::default();
    image.config.cmd = words("sleep 600");
    image.config.env = words("A=image");
    image
}

const PASSWD: &[u8] = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:2000::/:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nusers:x:2000:\nextra:x:50:user\n";

/// The configuration of a request, on a machine, with what only the caller knows.
fn build(
    asked: &v1::ContainerOptions,
    defaults: &Defaults,
    facts: impl FnOnce(&mut Input<'_>),
) -> Result<oci::Spec> {
    let options = effective(asked, &image(), defaults)?.options;
    let user = crate::user::resolve(&options.user, PASSWD, GROUP, &options.group_add)?;
    let mut input = Input::new("0123", &options, defaults, user, "golden")?;
    input.files = Files {
        hostname: Some("/files/hostname".into()),
        hosts: Some("/files/hosts".into()),
        resolv_conf: Some("/files/resolv.conf".into()),
    };
    input.init = "/init";
    let resolved = options.mounts.iter().map(|mount| {
        let source = mount.source.clone();
        Resolved { mount: mount.clone(), source }
    });
    input.mounts = resolved.collect();
    let null = HostDevice {
        below: String::new(),
        kind: 'c',
        major: 1,
        minor: 3,
        mode: 0o20666,
        uid: 0,
        gid: 0,
    };
    input.devices = [("/dev/null".to_owned(), vec![null])].into();
    facts(&mut input);
    config(&input)
}

/// What means the same whatever its order is, in one order.
fn ordered(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.into_iter().map(ordered).collect();
            // Arguments and rules are in an order that counts; they are objects or not all here.
            let key = |item: &Value| match item {
                Value::Object(map) => {
                    let key = map.get("destination").or(map.get("path")).or(map.get("type"));
                    key.and_then(Value::as_str).unwrap_or_default().to_owned()
                }
                other => other.to_string(),
            };
            let rules = list.iter().any(|item| item.get("allow").is_some());
            if !rules {
                list.sort_by_key(key);
            }
            Value::Array(list)
        }
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, ordered(value))).collect(),
        other => other,
    }
}

/// What differs on purpose, taken out of both.
fn differences(ours: &mut Value, theirs: &mut Value) {
    // Zeros that mean nothing.
    let resources = &mut theirs["linux"]["resources"];
    for (of, field) in [("memory", "disableOOMKiller"), ("cpu", "shares"), ("blockIO", "weight")] {
        if let Some(map) = resources[of].as_object_mut() {
            map.retain(|key, value| key != field || *value != json!(0) && *value != json!(false));
            if map.is_empty() {
                resources.as_object_mut().unwrap().remove(of);
            }
        }
    }
    // Every major and minor: they write -1, the specification nothing.
    for rule in resources["devices"].as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().retain(|_, value| *value != json!(-1));
    }
    // The newer masks are today's docker's, and R7's.
    for paths in ["maskedPaths", "readonlyPaths"] {
        let list = |value: &mut Value| {
            let list = value["linux"].as_object_mut().unwrap().remove(paths);
            list.and_then(|list| list.as_array().cloned()).unwrap_or_default()
        };
        let (ours, theirs) = (list(ours), list(theirs));
        assert!(theirs.iter().all(|path| ours.contains(path)), "{paths}: {ours:?} {theirs:?}");
        assert_eq!(ours.is_empty(), theirs.is_empty());
    }
    // The host's network: without a namespace; they join it by a path of their own.
    let namespaces = theirs["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["path"] != json!("/netns/host"));
    // 64k is 65536.
    for mount in theirs["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == json!("/t") {
            let options = mount["options"].as_array_mut().unwrap();
            let size = options.iter_mut().find(|option| **option == json!("size=64k"));
            *size.unwrap() = json!("size=65536");
        }
    }
    for field in ["ociVersion", "hooks"] {
        ours.as_object_mut().unwrap().remove(field);
    }
    for field in ["seccomp", "cgroupsPath"] {
        ours["linux"].as_object_mut().unwrap().remove(field);
    }
    ours["root"].as_object_mut().unwrap().remove("path");
    // Empty and absent are the same.
    fn prune(value: &mut Value) {
        if let Value::Object(map) = value {
            map.values_mut().for_each(prune);
            let empty = [json!([]), json!({}), json!(false)];
            map.retain(|_, value| !empty.contains(value));
        }
    }
    prune(ours);
    prune(theirs);
}

#[track_caller]
fn golden(name: &str, recorded: &str, asked: &v1::ContainerOptions) {
    let spec = build(asked, &machine(), |_| {}).unwrap();
    let mut ours = serde_json::to_value(spec).unwrap();
    let mut theirs: Value = serde_json::from_str(recorded).unwrap();
    assert_eq!(ours["process"]["args"], theirs["process"]["args"], "{name}");
    differences(&mut ours, &mut theirs);
    let (ours, theirs) = (ordered(ours), ordered(theirs));
    for part in ["process", "root", "hostname", "mounts", "annotations"] {
        assert_eq!(ours[part], theirs[part], "{name}: {part}");
    }
    for (key, value) in theirs["linux"].as_object().unwrap() {
        assert_eq!(ours["linux"][key], *value, "{name}: linux.{key}");
    }
    assert_eq!(ours, theirs, "{name}");
}

macro_rules! recorded {
    ($name:literal) => {
        ($name, include_str!(concat!("../../testdata/docker-20.10/", $name, ".json")))
    };
}

fn asked() -> v1::ContainerOptions {
    v1::ContainerOptions { hostname: "golden".into(), ..Default::default() }
}

fn mount(kind: v1::mount::Type, source: &str, target: &str) -> v1::Mount {
    let (source, target) = (source.to_owned(), target.to_owned());
    v1::Mount { r#type: kind.into(), source, target, ..Default::default() }
}

#[test]
fn a_plain_and_a_privileged_container_are_dockers() {
    let (name, text) = recorded!("plain");
    golden(name, text, &asked());
    let (name, text) = recorded!("privileged");
    golden(name, text, &v1::ContainerOptions { privileged: true, ..asked() });
}

#[test]
fn user_environment_directory_init_and_terminal_are_dockers() {
    let (name, text) = recorded!("process");
    let options = v1::ContainerOptions {
        tty: true,
        init: Some(true),
        user: "user".into(),
        group_add: words("77"),
        working_dir: "/tmp/x/".into(),
        env: words("A=1 B=2"),
        entrypoint: Some(v1::Words { words: words("/bin/sleep") }),
        command: words("600"),
        ..asked()
    };
    golden(name, text, &options);
}

#[test]
fn rights_are_dockers() {
    let (name, text) = recorded!("security");
    let options = v1::ContainerOptions {
        cap_drop: words("ALL"),
        cap_add: words("chown SYS_ADMIN"),
        security_options: words("no-new-privileges systempaths=unconfined"),
        read_only: true,
        mounts: vec![v1::Mount {
            tmpfs_options: words("size=64k exec"),
            ..mount(v1::mount::Type::Tmpfs, "", "/run")
        }],
        ..asked()
    };
    golden(name, text, &options);
}

#[test]
fn limits_and_devices_are_dockers() {
    let (name, text) = recorded!("limits");
    let options = v1::ContainerOptions {
        resources: Some(v1::Resources {
            memory_bytes: 64 << 20,
            memory_reservation_bytes: 32 << 20,
            memory_swap_bytes: 128 << 20,
            memory_swappiness: Some(10),
            nano_cpus: 1_500_000_000,
            cpu_shares: 100,
            cpuset_cpus: "0".into(),
            pids_limit: Some(50),
            ..Default::default()
        }),
        ulimits: vec![v1::Ulimit { name: "nofile".into(), soft: 77, hard: 88 }],
        oom_score_adj: Some(100),
        devices: vec![v1::Device {
            host_path: "/dev/null".into(),
            container_path: "/dev/nothing".into(),
            permissions: "r".into(),
        }],
        device_cgroup_rules: vec!["b *:* rm".into()],
        shm_size_bytes: 1 << 20,
        sysctls: [("kernel.shmmax".to_owned(), "1000000".to_owned())].into(),
        domainname: "example".into(),
        ..asked()
    };
    golden(name, text, &options);
}

#[test]
fn mounts_are_dockers() {
    use v1::mount::Type::{Bind, Tmpfs};
    let (name, text) = recorded!("mounts");
    let options = v1::ContainerOptions {
        mounts: vec![
            v1::Mount { read_only: true, ..mount(Bind, "/src", "/b/c") },
            mount(Bind, "/src", "/a"),
            v1::Mount {
                tmpfs_size_bytes: 65536,
                tmpfs_mode: Some(0o1777),
                ..mount(Tmpfs, "", "/t")
            },
            v1::Mount {
                non_recursive: true,
                propagation: "private".into(),
                ..mount(Bind, "/src", "/n")
            },
        ],
        ..asked()
    };
    golden(name, text, &options);
}

#[test]
fn namespaces_of_the_host_are_dockers() {
    let (name, text) = recorded!("host");
    let host = || "host".to_owned();
    let options = v1::ContainerOptions {
        network_mode: host(),
        pid_mode: host(),
        uts_mode: host(),
        ipc_mode: host(),
        ..Default::default()
    };
    let mut theirs: Value = serde_json::from_str(text).unwrap();
    // Our caller says what the host is called.
    let env = theirs["process"]["env"].as_array_mut().unwrap();
    for entry in env.iter_mut().filter(|entry| entry.as_str().unwrap().starts_with("HOSTNAME=")) {
        *entry = json!("HOSTNAME=golden");
    }
    golden(name, &theirs.to_string(), &options);
}

#[test]
fn parents_are_mounted_first() {
    use v1::mount::Type::Bind;
    let mounts = ["/a/b/c", "/a", "/a/b"].map(|target| mount(Bind, "/src", target)).into();
    let spec = build(&v1::ContainerOptions { mounts, ..asked() }, &machine(), |_| {}).unwrap();
    let at = |target: &str| spec.mounts.iter().position(|m| m.destination == target).unwrap();
    assert!(at("/a") < at("/a/b") && at("/a/b") < at("/a/b/c"));
}

#[test]
fn a_users_own_dev_comes_without_ours_below_it() {
    let mounts = vec![mount(v1::mount::Type::Bind, "/src", "/dev")];
    let spec = build(&v1::ContainerOptions { mounts, ..asked() }, &machine(), |_| {}).unwrap();
    let below: Vec<_> =
        spec.mounts.iter().filter(|m| m.destination.starts_with("/dev")).map(|m| &m.kind).collect();
    assert_eq!(below, ["bind"]);
}

#[test]
fn read_only_binds_are_recursive_where_the_kernel_can() {
    let options = |mount: v1::Mount| v1::ContainerOptions { mounts: vec![mount], ..asked() };
    let read_only = v1::Mount { read_only: true, ..mount(v1::mount::Type::Bind, "/src", "/x") };
    let of = |mount: v1::Mount, kernel| {
        let mut defaults = machine();
        defaults.host.kernel = kernel;
        let spec = build(&options(mount), &defaults, |_| {}).unwrap();
        spec.mounts.into_iter().find(|m| m.destination == "/x").unwrap().options.join(",")
    };
    assert_eq!(of(read_only.clone(), (6, 1)), "rbind,rro,rprivate");
    assert_eq!(of(read_only.clone(), (5, 10)), "rbind,ro,rprivate");
    let shallow = v1::Mount { read_only_non_recursive: true, ..read_only };
    assert_eq!(of(shallow, (6, 1)), "rbind,ro,rprivate");
}

#[test]
fn a_user_namespace_maps_volumes_and_not_the_hosts_files() {
    use v1::mount::Type::{Bind, Volume};
    let map = oci::IdMapping { container_id: 0, host_id: 100_000, size: 65536 };
    let options = v1::ContainerOptions {
        userns_mode: "auto".into(),
        mounts: vec![
            mount(Bind, "/src", "/bind"),
            mount(Volume, "data", "/volume"),
            v1::Mount { id_mapped: true, ..mount(Bind, "/src", "/mapped") },
        ],
        ..asked()
    };
    let spec = build(&options, &machine(), |input| {
        input.uid_mappings = vec![map];
        input.gid_mappings = vec![map];
    })
    .unwrap();
    let mapped: Vec<_> = spec.mounts.iter().filter(|m| !m.uid_mappings.is_empty()).collect();
    assert_eq!(
        mapped.iter().map(|m| m.destination.as_str()).collect::<Vec<_>>(),
        ["/volume", "/mapped"]
    );
    let linux = spec.linux.unwrap();
    assert_eq!(linux.uid_mappings, [map]);
    assert!(linux.namespaces.iter().any(|ns| ns.kind == NamespaceKind::User));
    assert!(!linux.sysctl.contains_key("net.ipv4.ping_group_range"));
}

#[test]
fn namespaces_of_another_container_are_joined_by_path() {
    let options = v1::ContainerOptions {
        network_mode: "container:a".into(),
        pid_mode: "container:a".into(),
        ipc_mode: "container:a".into(),
        init: Some(true),
        ..Default::default()
    };
    let spec = build(&options, &machine(), |input| {
        input.join = Join {
            ipc: Some("/ipc".into()),
            pid: Some("/pid".into()),
            network: Some("/net".into()),
            ..Default::default()
        };
        input.shm = Some("/shm");
    })
    .unwrap();
    let paths: Vec<_> = spec.linux.unwrap().namespaces.into_iter().map(|ns| ns.path).collect();
    assert_eq!(paths, ["", "/net", "", "/pid", "/ipc"]);
    // The other has a process 1 already.
    assert_eq!(spec.process.unwrap().args, words("sleep 600"));
    let shm = spec.mounts.into_iter().find(|m| m.destination == "/dev/shm").unwrap();
    assert_eq!(shm.source, "/shm");
    assert!(build(&options, &machine(), |_| {}).is_err());
}

#[test]
fn cgroups_are_where_the_driver_has_them() {
    let path = |systemd: bool, default: &str, asked_parent: &str| {
        let defaults =
            Defaults { systemd_cgroups: systemd, cgroup_parent: default.into(), ..machine() };
        let options = v1::ContainerOptions { cgroup_parent: asked_parent.into(), ..asked() };
        build(&options, &defaults, |_| {}).unwrap().linux.unwrap().cgroups_path
    };
    assert_eq!(path(false, "", ""), "/hull/0123");
    assert_eq!(path(false, "/d", ""), "/d/0123");
    assert_eq!(path(false, "/d", "x/y"), "/x/y/0123");
    assert_eq!(path(true, "", ""), "system.slice:hull:0123");
    assert_eq!(path(true, "", "a.slice"), "a.slice:hull:0123");
}

#[test]
fn profiles_are_as_asked() {
    let of = |privileged: bool, list: &[&str]| {
        let mut defaults = machine();
        defaults.host.apparmor = Some("hull-default".into());
        let options = v1::ContainerOptions {
            privileged,
            security_options: list.iter().map(|&option| option.to_owned()).collect(),
            ..asked()
        };
        let spec = build(&options, &defaults, |_| {}).unwrap();
        (spec.linux.unwrap().seccomp.is_some(), spec.process.unwrap().apparmor_profile)
    };
    let is = |seccomp: bool, apparmor: &str| (seccomp, apparmor.to_owned());
    assert_eq!(of(false, &[]), is(true, "hull-default"));
    assert_eq!(of(true, &[]), is(false, "unconfined"));
    assert_eq!(of(true, &["seccomp=builtin", "apparmor=mine"]), is(true, "mine"));
    assert_eq!(of(false, &["seccomp=unconfined"]), is(false, "hull-default"));
    assert!(of(false, &["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]).0);
    assert!(!of(false, &["seccomp={}"]).0);
}
