//! Namespaces: new, joined by path, left out; user namespaces and time offsets.

use std::fs;

use hull_integration::{Bundle, Container, peer_lacks, require, runtime, tests};
use serde_json::{Value, json};

tests![
    each_new_namespace_differs_from_the_callers,
    a_namespace_left_out_is_the_callers,
    each_kind_is_joined_by_path,
    a_missing_namespace_path_is_refused,
    a_path_of_the_wrong_kind_is_refused,
    a_kind_given_twice_is_refused,
    an_unknown_kind_is_refused,
    the_hostname_is_set,
    the_hostname_needs_a_uts_namespace,
    the_domainname_is_set,
    the_first_process_is_process_one,
    loopback_is_up,
    a_user_namespace_maps_its_ids,
    a_user_namespace_without_mappings_is_refused,
    mappings_without_a_user_namespace_are_refused,
    several_ranges_are_mapped,
    a_user_namespace_runs_exec,
    a_user_namespace_is_joined_by_path,
    time_offsets_are_set,
    time_offsets_need_a_time_namespace,
    a_pid_namespace_is_shared_by_two_containers,
    the_pid_is_the_hosts_in_a_pid_namespace_that_is_shared,
    a_sysctl_is_set,
    a_sysctl_of_the_host_is_refused,
    a_sysctl_that_is_a_path_is_refused,
];

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn own(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).expect("/proc").display().to_string()
}

fn refused(bundle: Bundle) {
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn each_new_namespace_differs_from_the_callers() {
    let report = Container::new(Bundle::probe(&[])).report();
    for (_, name) in KINDS {
        assert_ne!(report["namespaces"][name], json!(own(name)), "{name}");
    }
    assert_eq!(report["namespaces"]["user"], json!(own("user")));
}

fn a_namespace_left_out_is_the_callers() {
    for (kind, name) in KINDS {
        if kind == "mount" {
            continue;
        }
        let mut bundle = Bundle::probe(&[]).without_namespace(kind);
        if kind == "network" {
            // sysfs belongs to the network namespace's owner; the host's is mounted the same way.
            bundle = bundle.set("/linux/sysctl", json!({}));
        }
        if kind == "uts" {
            bundle = bundle.remove("/hostname");
        }
        let report = Container::new(bundle).report();
        assert_eq!(report["namespaces"][name], json!(own(name)), "{kind}");
    }
}

fn each_kind_is_joined_by_path() {
    let first = Container::new(Bundle::sleeper());
    first.run_detached().ok();
    let pid = first.pid();
    for (kind, name) in KINDS {
        if kind == "mount" {
            continue; // the container would have no root of its own
        }
        let path = format!("/proc/{pid}/ns/{name}");
        let inode = fs::read_link(&path).expect("it runs").display().to_string();
        let mut bundle = Bundle::probe(&[]).namespace(kind, Some(&path));
        if kind == "uts" {
            bundle = bundle.remove("/hostname");
        }
        let report = Container::new(bundle).report();
        assert_eq!(report["namespaces"][name], json!(inode), "{kind}");
        for (_, other) in KINDS.iter().filter(|(one, _)| *one != kind) {
            assert_ne!(report["namespaces"][*other], json!(own(other)), "{kind}: {other}");
        }
    }
}

fn a_missing_namespace_path_is_refused() {
    for (kind, _) in KINDS {
        let container = Container::new(Bundle::new().namespace(kind, Some("/no/such/namespace")));
        container.create().fails_with("/no/such/namespace");
        container.assert_gone();
    }
}

fn a_path_of_the_wrong_kind_is_refused() {
    refused(Bundle::new().namespace("network", Some("/proc/self/ns/ipc")));
    refused(Bundle::new().namespace("ipc", Some("/etc/passwd")));
}

fn a_kind_given_twice_is_refused() {
    peer_lacks!("crun", "it takes the last one");
    refused(Bundle::new().push("/linux/namespaces", json!({ "type": "ipc" })));
}

fn an_unknown_kind_is_refused() {
    refused(Bundle::new().push("/linux/namespaces", json!({ "type": "nosuch" })));
}

fn the_hostname_is_set() {
    let report = Container::new(Bundle::probe(&[]).set("/hostname", "a-host.example")).report();
    assert_eq!(report["hostname"], "a-host.example");
}

fn the_hostname_needs_a_uts_namespace() {
    refused(Bundle::new().without_namespace("uts").set("/hostname", "other"));
}

fn the_domainname_is_set() {
    peer_lacks!("runc 1.1", "domainname is newer");
    peer_lacks!("crun 1.8.1", "domainname is newer");
    let report = Container::new(Bundle::probe(&[]).set("/domainname", "example.org")).report();
    assert_eq!(report["domainname"], "example.org");
}

fn the_first_process_is_process_one() {
    assert_eq!(Container::new(Bundle::shell("echo $$")).run().ok().text(), "1");
}

fn loopback_is_up() {
    let output = Container::new(Bundle::new().args(&["ip", "-o", "addr"])).run().ok();
    assert!(output.stdout.contains("127.0.0.1/8"), "{}", output.stdout);
    let output = Container::new(Bundle::new().args(&["ip", "link"])).run().ok();
    assert!(output.stdout.contains("LOOPBACK,UP"), "{}", output.stdout);
}

fn userns_available() {
    require!(
        fs::exists("/proc/self/ns/user").unwrap_or(false),
        "the kernel has no user namespaces"
    );
}

fn a_user_namespace_maps_its_ids() {
    userns_available();
    let report = Container::new(Bundle::probe(&["/"]).user_namespace(100_000)).report();
    assert_eq!(report["uidMap"], json!(["0 100000 65536"]));
    assert_eq!(report["gidMap"], json!(["0 100000 65536"]));
    assert_eq!(report["uid"], json!([0, 0, 0, 0]));
    assert_ne!(report["namespaces"]["user"], json!(own("user")));
    assert_eq!(report["paths"]["/"]["uid"], 0);
    let container = Container::new(Bundle::sleeper().user_namespace(100_000));
    container.run_detached().ok();
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(format!("/proc/{}", container.pid())).expect("it runs");
    assert_eq!(metadata.uid(), 100_000);
}

fn a_user_namespace_without_mappings_is_refused() {
    peer_lacks!("crun", "it makes mappings up");
    refused(Bundle::new().namespace("user", None));
}

fn mappings_without_a_user_namespace_are_refused() {
    peer_lacks!("runc 1.1", "it ignores them");
    peer_lacks!("crun", "it ignores them");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    refused(Bundle::new().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map));
}

fn several_ranges_are_mapped() {
    userns_available();
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 },
        { "containerID": 10, "hostID": 200_000, "size": 20 },
    ]);
    let bundle = Bundle::probe(&[])
        .user_namespace(100_000)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]);
    let report = Container::new(bundle).report();
    assert_eq!(report["uidMap"], json!(["0 100000 10", "10 200000 20"]));
}

fn a_user_namespace_runs_exec() {
    userns_available();
    let container = Container::new(Bundle::sleeper().user_namespace(100_000));
    container.run_detached().ok();
    let report = container.exec_report(&["--user", "1000:1000"]);
    assert_eq!(report["uid"][0], 1000);
    assert_eq!(report["uidMap"], json!(["0 100000 65536"]));
}

fn a_user_namespace_is_joined_by_path() {
    userns_available();
    let first = Container::new(Bundle::sleeper().user_namespace(100_000));
    first.run_detached().ok();
    let pid = first.pid();
    let mut bundle = Bundle::probe(&[]).user_namespace(100_000);
    let user = format!("/proc/{pid}/ns/user");
    bundle = bundle.namespace("user", Some(&user));
    if runtime().is_at_most("runc 1.1") {
        bundle = bundle.without_mount("/sys"); // its sysfs needs the owner of a new network
    }
    // runc forbids mappings beside a path, the others read them from the namespace.
    let linux = bundle.config["linux"].as_object_mut().expect("an object");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let container = Container::new(bundle);
    let output = container.run();
    peer_lacks!("runc 1.1", "it wants mappings beside a path");
    let report = output.ok().json();
    let inode = fs::read_link(&user).expect("it runs").display().to_string();
    assert_eq!(report["namespaces"]["user"], json!(inode));
    assert_eq!(report["uidMap"], json!(["0 100000 65536"]));
}

fn time_offsets_are_set() {
    peer_lacks!("crun 1.8", "it fails without words");
    peer_lacks!("runc 1.1", "time namespaces are newer");
    require!(
        fs::exists("/proc/self/ns/time").unwrap_or(false),
        "the kernel has no time namespaces"
    );
    let offsets = json!({
        "monotonic": { "secs": 7881, "nanosecs": 2718281 },
        "boottime": { "secs": 1337, "nanosecs": 3141519 },
    });
    let bundle = Bundle::probe(&[]).namespace("time", None).set("/linux/timeOffsets", offsets);
    let report = Container::new(bundle).report();
    assert_ne!(report["namespaces"]["time"], json!(own("time")));
    let lines: Vec<&str> = report["timeOffsets"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(lines, ["monotonic 7881 2718281", "boottime 1337 3141519"]);
}

fn time_offsets_need_a_time_namespace() {
    peer_lacks!("runc 1.1", "time namespaces are newer");
    peer_lacks!("crun", "it ignores them");
    let offsets = json!({ "monotonic": { "secs": 1 } });
    refused(Bundle::new().set("/linux/timeOffsets", offsets));
    let unknown = json!({ "realtime": { "secs": 1 } });
    refused(Bundle::new().namespace("time", None).set("/linux/timeOffsets", unknown));
}

fn a_pid_namespace_is_shared_by_two_containers() {
    let first = Container::new(Bundle::new().args(&["sleep", "1001"]));
    first.run_detached().ok();
    let path = format!("/proc/{}/ns/pid", first.pid());
    let second =
        Container::new(Bundle::new().args(&["sleep", "1002"]).namespace("pid", Some(&path)));
    second.run_detached().ok();
    let listed = first.exec(&["ps", "-o", "pid,args"]).ok().stdout;
    assert!(listed.contains("sleep 1001") && listed.contains("sleep 1002"), "{listed}");
    second.stop();
    second.delete().ok();
    assert_eq!(first.status(), "running");
}

/// With a user namespace that is joined, or a time namespace that is made, the process is
/// not the runtime's child at once; its pid must be the one out here all the same.
fn the_pid_is_the_hosts_in_a_pid_namespace_that_is_shared() {
    peer_lacks!("runc 1.1", "it wants mappings beside a path, and time namespaces are newer");
    let path = |first: &Container, kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    for kind in ["user", "time"] {
        let user = |bundle: Bundle| match kind {
            "user" => bundle.user_namespace(300_000),
            _ => bundle,
        };
        let first = Container::new(user(Bundle::sleeper()));
        first.run_detached().ok();
        let bundle = user(Bundle::sleeper()).namespace("pid", Some(&path(&first, "pid")));
        let bundle = match kind {
            "user" => bundle
                .namespace("user", Some(&path(&first, "user")))
                .remove("/linux/uidMappings")
                .remove("/linux/gidMappings"),
            _ => bundle.namespace("time", None),
        };
        let second = Container::new(bundle);
        second.run_detached().ok();
        let status = fs::read_to_string(format!("/proc/{}/status", second.pid()));
        let status = status.expect("the process is there");
        let pids = status.lines().find(|line| line.starts_with("NSpid:")).expect("it is listed");
        let pids: Vec<&str> = pids.split_whitespace().skip(1).collect();
        assert_eq!((pids.len(), pids[0]), (2, second.pid().to_string().as_str()), "{kind}");
        let in_first = |file: String| fs::read_link(file).expect("the process is there");
        assert_eq!(in_first(path(&first, "pid")), in_first(path(&second, "pid")), "{kind}");
        second.stop();
        second.delete().ok();
        assert_eq!(first.status(), "running");
    }
}

fn a_sysctl_is_set() {
    let sysctl =
        json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "123", "fs.mqueue.msg_max": "9" });
    let script =
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max";
    let container = Container::new(Bundle::shell(script).set("/linux/sysctl", sysctl));
    assert_eq!(container.run().ok().text(), "1\n123\n9");
}

fn a_sysctl_of_the_host_is_refused() {
    for (name, kind) in [
        ("kernel.pid_max", None),
        ("vm.swappiness", None),
        ("net.ipv4.ip_forward", Some("network")),
        ("kernel.shmmax", Some("ipc")),
    ] {
        let mut bundle = Bundle::new().set("/linux/sysctl", json!({ name: "1" }));
        if let Some(kind) = kind {
            bundle = bundle.without_namespace(kind);
        }
        let container = Container::new(bundle);
        container.run().fails_with(name);
        container.assert_gone();
    }
}

fn a_sysctl_that_is_a_path_is_refused() {
    for name in ["net/../kernel/pid_max", "net.ipv4/../../kernel/pid_max", "../kernel/pid_max", ""]
    {
        let container = Container::new(Bundle::new().set("/linux/sysctl", json!({ name: "1" })));
        container.run().fails();
        container.assert_gone();
    }
}
