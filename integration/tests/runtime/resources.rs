//! Cgroups: limits at create and by `update`, freezing, and what becomes of the cgroup.

use std::fs;
use std::time::Duration;

use hull_integration::cgroup::{self, Layout};
use hull_integration::{
    Bundle, Container, SOON, peer_lacks, require, systemd_driver, tests, wait_until,
};
use serde_json::{Value, json};

tests![
    intel_rdt_needs_resctrl,
    the_cgroup_is_at_the_named_path,
    every_hierarchy_is_joined,
    a_relative_path_is_below_the_callers,
    without_a_path_the_id_names_the_cgroup,
    a_deep_path_is_made_and_removed,
    memory_limits_are_set,
    the_memory_limit_kills,
    a_swap_limit_below_the_memory_limit_is_refused,
    cpu_limits_are_set,
    cpu_shares_are_set,
    a_cpuset_is_set,
    a_cpuset_that_does_not_exist_is_refused,
    the_pids_limit_is_set_and_holds,
    a_pids_limit_of_zero_or_less_is_understood,
    block_io_limits_are_set,
    a_huge_page_limit_is_set,
    network_classes_are_set,
    unified_settings_need_v2,
    an_impossible_limit_is_refused_and_leaves_nothing,
    update_changes_limits_by_option,
    update_changes_limits_from_standard_input,
    update_changes_limits_from_a_file,
    update_with_wrong_input_changes_nothing,
    update_of_one_limit_keeps_the_others,
    update_leaves_devices_alone,
    a_paused_container_stands_still,
    pausing_and_resuming_change_the_status,
    pausing_needs_a_running_container,
    resuming_needs_a_paused_container,
    a_paused_container_is_killed_after_resume,
    delete_removes_cgroups_made_inside,
    a_frozen_cgroup_is_refused,
    exec_is_limited_as_well,
];

const MIB: i64 = 1 << 20;

fn v2() -> bool {
    cgroup::layout() == Layout::V2
}

fn need(controller: &str) {
    require!(cgroup::hierarchy(controller).is_some(), "no cgroup controller {controller}");
}

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.run_detached().ok();
    container
}

fn value(container: &Container, controller: &str, v1: &str, v2_name: &str) -> String {
    cgroup::read(&container.cgroup(controller), if v2() { v2_name } else { v1 })
}

fn the_cgroup_is_at_the_named_path() {
    need("pids");
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    let directory = container.cgroup("pids");
    assert!(directory.ends_with(container.cgroup_path().trim_start_matches('/')), "{directory:?}");
    let pids = cgroup::read(&directory, "cgroup.procs");
    assert!(pids.lines().any(|line| line == container.pid().to_string()), "{pids}");
}

fn every_hierarchy_is_joined() {
    let container = running(Bundle::sleeper());
    let table = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("it runs");
    for line in table.lines() {
        let (controllers, path) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':')).expect("a line");
        // Only hierarchies that are mounted can be joined.
        let mounted = cgroup::hierarchies().iter().any(|one| {
            one.unified == controllers.is_empty()
                && (one.unified
                    || one
                        .controllers
                        .iter()
                        .any(|name| controllers.split(',').any(|other| other == name)))
        });
        if mounted && (!controllers.is_empty() || v2()) {
            assert!(path.contains(&container.id), "{line}");
        }
    }
}

fn a_relative_path_is_below_the_callers() {
    need("pids");
    require!(!systemd_driver(), "systemd's driver takes no paths");
    let own = cgroup::of_process(std::process::id().cast_signed(), "pids").expect("a cgroup");
    peer_lacks!("crun", "it takes every path from the root");
    let name = format!("relative-{}", std::process::id());
    let container =
        Container::new(Bundle::sleeper().set("/linux/cgroupsPath", format!("{name}/x")));
    container.run_detached().ok();
    let directory = container.cgroup("pids");
    assert_eq!(directory, own.join(&name).join("x"));
    container.delete_force().ok();
    assert!(!directory.exists());
    for path in cgroup::named(&name) {
        let _ = fs::remove_dir(path);
    }
}

fn without_a_path_the_id_names_the_cgroup() {
    need("pids");
    let mut container = Container::new(Bundle::sleeper());
    let linux = container.bundle.config["linux"].as_object_mut().expect("an object");
    linux.remove("cgroupsPath");
    container.bundle.write();
    container.run_detached().ok();
    let directory = container.cgroup("pids");
    let name = match systemd_driver() {
        true => format!("system.slice/runc-{}.scope", container.id),
        false => container.id.clone(),
    };
    assert!(directory.ends_with(name), "{directory:?}");
    container.delete_force().ok();
    container.assert_gone();
}

fn a_deep_path_is_made_and_removed() {
    need("pids");
    require!(!systemd_driver(), "systemd's driver takes no paths");
    let mut container = Container::new(Bundle::sleeper());
    let path = format!("/{}/a/b/leaf", container.id);
    container.bundle.config["linux"]["cgroupsPath"] = json!(path);
    container.write_config();
    container.run_detached().ok();
    assert!(container.cgroup("pids").ends_with("a/b/leaf"));
    container.delete_force().ok();
    let left: Vec<_> = cgroup::named("leaf");
    assert!(!left.iter().any(|one| one.to_string_lossy().contains(&container.id)), "{left:?}");
    // The parents may belong to others and stay, as under runc.
    for suffix in ["a/b", "a", ""] {
        for hierarchy in cgroup::hierarchies() {
            let _ = fs::remove_dir(hierarchy.at.join(&container.id).join(suffix));
        }
    }
}

fn memory_limits_are_set() {
    need("memory");
    let memory = json!({
        "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB,
    });
    let container = running(Bundle::sleeper().set("/linux/resources/memory", memory));
    assert_eq!(
        value(&container, "memory", "memory.limit_in_bytes", "memory.max"),
        (64 * MIB).to_string()
    );
    assert_eq!(
        value(&container, "memory", "memory.soft_limit_in_bytes", "memory.low"),
        (32 * MIB).to_string()
    );
    // v2 counts swap alone, v1 memory and swap.
    let swap = if v2() { 32 * MIB } else { 96 * MIB };
    assert_eq!(
        value(&container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        swap.to_string()
    );
}

fn the_memory_limit_kills() {
    need("memory");
    let memory = json!({ "limit": 16 * MIB, "swap": 16 * MIB });
    let bytes = (64 * MIB).to_string();
    let bundle = Bundle::new().args(&["/probe", "alloc", &bytes]);
    Container::new(bundle.set("/linux/resources/memory", memory)).run().exits(128 + 9);
    let bundle = Bundle::new().args(&["/probe", "alloc", &bytes]);
    let enough = json!({ "limit": 256 * MIB });
    Container::new(bundle.set("/linux/resources/memory", enough)).run().ok();
}

fn a_swap_limit_below_the_memory_limit_is_refused() {
    peer_lacks!("crun 1.8", "it leaves its v1 cgroups behind after a failure");
    need("memory");
    let memory = json!({ "limit": 64 * MIB, "swap": 32 * MIB });
    let container = Container::new(Bundle::new().set("/linux/resources/memory", memory));
    container.run().fails();
    container.assert_gone();
}

fn cpu_limits_are_set() {
    need("cpu");
    let cpu = json!({ "quota": 50_000, "period": 100_000 });
    let container = running(Bundle::sleeper().set("/linux/resources/cpu", cpu));
    if v2() {
        assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.max"), "50000 100000");
    } else {
        assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.cfs_quota_us"), "50000");
        assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.cfs_period_us"), "100000");
    }
    // A quota above the default period, with the period lowered at the same time.
    let cpu = json!({ "quota": 20_000, "period": 10_000 });
    let container = running(Bundle::sleeper().set("/linux/resources/cpu", cpu));
    let file = if v2() { "cpu.max" } else { "cpu.cfs_quota_us" };
    assert!(cgroup::read(&container.cgroup("cpu"), file).starts_with("20000"));
}

fn cpu_shares_are_set() {
    need("cpu");
    let container =
        running(Bundle::sleeper().set("/linux/resources/cpu", json!({ "shares": 512 })));
    if v2() {
        let weight: u64 =
            cgroup::read(&container.cgroup("cpu"), "cpu.weight").parse().expect("a number");
        assert!((1..100).contains(&weight), "half the default of 1024 shares: {weight}");
    } else {
        assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.shares"), "512");
    }
}

fn a_cpuset_is_set() {
    need("cpuset");
    let bundle = Bundle::sleeper().set("/linux/resources/cpu", json!({ "cpus": "0", "mems": "0" }));
    let container = running(bundle);
    assert_eq!(cgroup::read(&container.cgroup("cpuset"), "cpuset.cpus"), "0");
    assert_eq!(cgroup::read(&container.cgroup("cpuset"), "cpuset.mems"), "0");
    assert_eq!(container.exec_report(&[])["cpus"], "0");
}

fn a_cpuset_that_does_not_exist_is_refused() {
    peer_lacks!("crun 1.8", "it leaves its v1 cgroups behind after a failure");
    need("cpuset");
    for cpus in ["0-9999", "nonsense"] {
        let bundle = Bundle::new().set("/linux/resources/cpu", json!({ "cpus": cpus }));
        let container = Container::new(bundle);
        container.run().fails();
        container.assert_gone();
    }
}

fn the_pids_limit_is_set_and_holds() {
    need("pids");
    let bundle = Bundle::shell("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all")
        .set("/linux/resources/pids", json!({ "limit": 4 }));
    let output = Container::new(bundle).run();
    assert!(!output.stdout.contains("all"), "{}", output.summary());
    let container = running(Bundle::sleeper().set("/linux/resources/pids", json!({ "limit": 20 })));
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "20");
}

fn a_pids_limit_of_zero_or_less_is_understood() {
    peer_lacks!("crun 1.8", "it writes the number as it is");
    need("pids");
    let bundle = Bundle::sleeper().set("/linux/resources/pids", json!({ "limit": -1 }));
    assert_eq!(cgroup::read(&running(bundle).cgroup("pids"), "pids.max"), "max");
    peer_lacks!("runc 1.1", "it takes zero as unset");
    let bundle = Bundle::new().args(&["sleep", "1000"]);
    let container = running(bundle.set("/linux/resources/pids", json!({ "limit": 0 })));
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "1");
}

/// The number of a block device of this machine.
fn block_device() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").ok()?;
    entries.flatten().find_map(|entry| {
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn block_io_limits_are_set() {
    let controller = if v2() { "io" } else { "blkio" };
    need(controller);
    let device = block_device();
    require!(device.is_some(), "no block device");
    let (major, minor) = device.expect("just checked");
    let rate = |rate: i64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let block_io = json!({
        "throttleReadBpsDevice": rate(MIB),
        "throttleWriteBpsDevice": rate(2 * MIB),
        "throttleReadIOPSDevice": rate(100),
        "throttleWriteIOPSDevice": rate(200),
    });
    let container = running(Bundle::sleeper().set("/linux/resources/blockIO", block_io));
    let directory = container.cgroup(controller);
    if v2() {
        let line = cgroup::read(&directory, "io.max");
        for word in ["rbps=1048576", "wbps=2097152", "riops=100", "wiops=200"] {
            assert!(line.contains(word), "{line}");
        }
        return;
    }
    for (file, rate) in [
        ("blkio.throttle.read_bps_device", MIB),
        ("blkio.throttle.write_bps_device", 2 * MIB),
        ("blkio.throttle.read_iops_device", 100),
        ("blkio.throttle.write_iops_device", 200),
    ] {
        assert_eq!(cgroup::read(&directory, file), format!("{major}:{minor} {rate}"), "{file}");
    }
}

fn a_huge_page_limit_is_set() {
    need("hugetlb");
    let limits = json!([{ "pageSize": "2MB", "limit": 4 * MIB }]);
    let container = running(Bundle::sleeper().set("/linux/resources/hugepageLimits", limits));
    let found = value(&container, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    assert_eq!(found, (4 * MIB).to_string());
}

fn network_classes_are_set() {
    require!(!v2(), "network classes are v1 only");
    need("net_cls");
    let network = json!({ "classID": 1_048_577 });
    let container = running(Bundle::sleeper().set("/linux/resources/network", network));
    assert_eq!(cgroup::read(&container.cgroup("net_cls"), "net_cls.classid"), "1048577");
}

fn unified_settings_need_v2() {
    let unified = json!({ "pids.max": "77" });
    let bundle = Bundle::sleeper().set("/linux/resources/unified", unified);
    if v2() {
        assert_eq!(cgroup::read(&running(bundle).cgroup("pids"), "pids.max"), "77");
        for name in ["no.such.file", "../pids.max", "nosuch"] {
            let bundle = Bundle::new().set("/linux/resources/unified", json!({ name: "1" }));
            let container = Container::new(bundle);
            container.run().fails();
            container.assert_gone();
        }
    } else {
        peer_lacks!("crun 1.8", "it ignores them");
        let container = Container::new(bundle);
        container.run().fails();
        container.assert_gone();
    }
}

fn an_impossible_limit_is_refused_and_leaves_nothing() {
    peer_lacks!("crun 1.8", "it leaves its v1 cgroups behind after a failure");
    need("cpu");
    let mut impossible =
        vec![json!({ "cpu": { "period": 1 } }), json!({ "memory": { "limit": 1 << 13 } })];
    // systemd's driver rounds a quota up to what systemd can tell apart, as runc's does.
    if !systemd_driver() {
        impossible.push(json!({ "cpu": { "quota": 5 } }));
    }
    for resources in impossible {
        let bundle = Bundle::new().args(&["/probe", "alloc", "1000000"]);
        let mut container = Container::new(bundle);
        for (name, value) in resources.as_object().expect("an object") {
            container.bundle.config["linux"]["resources"][name] = value.clone();
        }
        container.write_config();
        let output = container.run();
        assert_ne!(output.code(), Some(0), "{}", output.summary());
        container.assert_gone();
    }
}

fn update(container: &Container, options: &[&str]) -> hull_integration::Output {
    container.invoke(&["update"]).args(options).arg(&container.id).run()
}

fn update_changes_limits_by_option() {
    need("memory");
    let memory = json!({ "limit": 64 * MIB });
    let container = running(Bundle::sleeper().set("/linux/resources/memory", memory));
    update(&container, &["--memory", "50331648"]).ok();
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes", "memory.max"), "50331648");
    update(&container, &["--pids-limit", "33"]).ok();
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "33");
    update(&container, &["--cpu-quota", "30000", "--cpu-period", "60000"]).ok();
    let file = if v2() { "cpu.max" } else { "cpu.cfs_quota_us" };
    assert!(cgroup::read(&container.cgroup("cpu"), file).starts_with("30000"));
    update(&container, &["--cpuset-cpus", "0"]).ok();
    assert_eq!(cgroup::read(&container.cgroup("cpuset"), "cpuset.cpus"), "0");
    update(&container, &["--memory-reservation", "33554432"]).ok();
    assert_eq!(value(&container, "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    peer_lacks!("crun 1.8", "it calls the option --cpu-share and takes no shares alone");
    update(&container, &["--cpu-share", "256"]).ok();
    if !v2() {
        assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.shares"), "256");
    }
}

fn update_changes_limits_from_standard_input() {
    need("memory");
    let container = running(Bundle::sleeper());
    let resources =
        json!({ "memory": { "limit": 48 * MIB }, "pids": { "limit": 44 }, "cpu": { "cpus": "0" } });
    let invocation = container.invoke(&["update", "--resources", "-", &container.id]);
    invocation.stdin(resources.to_string()).run().ok();
    assert_eq!(
        value(&container, "memory", "memory.limit_in_bytes", "memory.max"),
        (48 * MIB).to_string()
    );
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "44");
    assert_eq!(cgroup::read(&container.cgroup("cpuset"), "cpuset.cpus"), "0");
}

fn update_changes_limits_from_a_file() {
    need("pids");
    let container = running(Bundle::sleeper());
    let path = container.bundle.dir().join("resources.json");
    fs::write(&path, json!({ "pids": { "limit": 55 } }).to_string()).expect("writable");
    update(&container, &["-r", path.to_str().expect("text")]).ok();
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "55");
}

fn update_with_wrong_input_changes_nothing() {
    peer_lacks!("crun 1.8", "it takes a list for an empty object");
    need("pids");
    let container = running(Bundle::sleeper().set("/linux/resources/pids", json!({ "limit": 66 })));
    for text in ["{", "[]", "\"text\"", "{\"pids\":{\"limit\":\"many\"}}", "{\"memory\":7}"] {
        let invocation = container.invoke(&["update", "--resources", "-", &container.id]);
        invocation.stdin(text).run().fails();
    }
    update(&container, &["--pids-limit", "many"]).fails();
    update(&container, &["--memory", "lots"]).fails();
    update(&container, &["--resources", "/no/such/file"]).fails();
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "66");
}

fn update_of_one_limit_keeps_the_others() {
    need("memory");
    let bundle = Bundle::sleeper()
        .set("/linux/resources/memory", json!({ "limit": 64 * MIB }))
        .set("/linux/resources/pids", json!({ "limit": 30 }));
    let container = running(bundle);
    update(&container, &["--pids-limit", "31"]).ok();
    assert_eq!(
        value(&container, "memory", "memory.limit_in_bytes", "memory.max"),
        (64 * MIB).to_string()
    );
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "31");
    update(&container, &["--memory", "67108864", "--memory-swap", "67108864"]).ok();
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "31");
}

fn update_leaves_devices_alone() {
    need("devices");
    let container = running(Bundle::sleeper().capabilities(&["CAP_MKNOD"]));
    update(&container, &["--pids-limit", "40"]).ok();
    let made = container.exec(&["/probe", "mknod", "/tmp/odd", "c", "60", "11"]).ok().json();
    assert_eq!(made["open"], 1, "still refused: {made}");
    container.exec(&["sh", "-c", "echo x > /dev/null"]).ok();
}

fn a_paused_container_stands_still() {
    let script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.01; done";
    let container = running(Bundle::shell(script));
    let path = container.bundle.path("/tmp/count");
    let count = || fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    wait_until("it counts", SOON, || count().is_some_and(|count| count > 3));
    container.command("pause", &[]).ok();
    let stopped_at = fs::read_to_string(&path).expect("counted");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read_to_string(&path).expect("counted"), stopped_at);
    container.command("resume", &[]).ok();
    wait_until("it counts on", SOON, || {
        fs::read_to_string(&path).is_ok_and(|text| text != stopped_at && !text.is_empty())
    });
}

fn pausing_and_resuming_change_the_status() {
    let container = running(Bundle::sleeper());
    container.command("pause", &[]).ok();
    assert_eq!(container.status(), "paused");
    container.command("resume", &[]).ok();
    assert_eq!(container.status(), "running");
}

fn pausing_needs_a_running_container() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    container.command("pause", &[]).fails_with("container not running");
}

fn resuming_needs_a_paused_container() {
    peer_lacks!("crun 1.8", "resuming a running container is no error");
    let container = running(Bundle::sleeper());
    container.command("resume", &[]).fails_with("container not paused");
}

fn a_paused_container_is_killed_after_resume() {
    let container = running(Bundle::sleeper());
    container.command("pause", &[]).ok();
    container.kill("KILL").ok();
    if container.status() == "paused" {
        container.command("resume", &[]).ok();
    }
    container.wait_status("stopped");
}

fn delete_removes_cgroups_made_inside() {
    need("pids");
    let container = running(Bundle::sleeper());
    for controller in ["pids", "memory", "freezer"] {
        if cgroup::hierarchy(controller).is_some() {
            fs::create_dir_all(container.cgroup(controller).join("inner/most")).expect("ours");
        }
    }
    container.delete_force().ok();
    container.assert_gone();
}

fn a_frozen_cgroup_is_refused() {
    require!(!v2(), "needs the v1 freezer");
    need("freezer");
    peer_lacks!("crun", "it hangs");
    let freezer = cgroup::hierarchy("freezer").expect("just checked").at.clone();
    let container = Container::new(Bundle::new());
    let directory = freezer.join(&container.id);
    fs::create_dir(&directory).expect("cgroups can be made");
    fs::write(directory.join("freezer.state"), "FROZEN").expect("it can be frozen");
    container.create().fails();
    let kept = directory.exists();
    let _ = fs::write(directory.join("freezer.state"), "THAWED");
    let _ = fs::remove_dir(&directory);
    assert!(kept, "a cgroup that it did not make was removed");
}

fn exec_is_limited_as_well() {
    need("memory");
    let memory = json!({ "limit": 24 * MIB, "swap": 24 * MIB });
    let container = running(Bundle::sleeper().set("/linux/resources/memory", memory));
    let bytes = (100 * MIB).to_string();
    container.exec(&["/probe", "alloc", &bytes]).exits(128 + 9);
    let report: Value = container.exec_report(&[]);
    assert!(report["cgroups"].is_array());
    assert_eq!(container.status(), "running");
}

fn intel_rdt_needs_resctrl() {
    peer_lacks!("crun 1.8", "it ignores the field");
    let mounted = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    require!(!mounted.contains(" resctrl "), "this machine has resctrl mounted");
    let container = Container::new(
        Bundle::sleeper().set("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=f" })),
    );
    container.create().fails_with("is not enabled");
    container.assert_gone();
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    container.invoke(&["update", "--mem-bw-schema", "MB:0=10", &container.id]).run().fails();
}
