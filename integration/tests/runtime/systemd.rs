//! The systemd driver: what systemd is told, and that it forgets a container again.
//! Needs `HULL_SYSTEMD=1` on a machine that runs systemd.

use hull_integration::{
    Bundle, Container, Invocation, SOON, cgroup, require, systemd_driver, tests, wait_until,
};
use serde_json::json;

tests![
    a_scope_holds_the_container,
    limits_are_known_to_systemd,
    update_tells_systemd,
    annotations_are_properties,
    delete_removes_the_scope,
    a_failed_create_leaves_no_scope,
    devices_are_refused_after_a_reload,
];

fn need() {
    require!(systemd_driver(), "HULL_SYSTEMD is not set");
}

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.run_detached().ok();
    container
}

fn unit(container: &Container) -> String {
    container.unit().expect("the container is systemd's")
}

fn property(container: &Container, name: &str) -> String {
    let unit = unit(container);
    let words = ["show", "--value", "--property", name, &unit];
    Invocation::new("systemctl").args(words).run().ok().text().to_owned()
}

fn a_scope_holds_the_container() {
    need();
    let container = running(Bundle::sleeper());
    assert_eq!(property(&container, "ActiveState"), "active");
    assert_eq!(property(&container, "Slice"), "system.slice");
    assert_eq!(property(&container, "Delegate"), "yes");
    assert_eq!(property(&container, "ControlGroup"), container.cgroup_path());
    assert!(container.cgroup("pids").ends_with(unit(&container)));
}

fn limits_are_known_to_systemd() {
    need();
    let resources = json!({
        "memory": { "limit": 67_108_864 },
        "cpu": { "quota": 50_000, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 40 },
    });
    let container = running(Bundle::sleeper().set("/linux/resources", resources));
    assert_eq!(property(&container, "MemoryMax"), "67108864");
    assert_eq!(property(&container, "TasksMax"), "40");
    assert_eq!(property(&container, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(property(&container, "AllowedCPUs"), "0");
    assert_eq!(cgroup::read(&container.cgroup("memory"), "memory.max"), "67108864");
    assert_eq!(cgroup::read(&container.cgroup("cpu"), "cpu.max"), "50000 100000");
}

fn update_tells_systemd() {
    need();
    let container = running(Bundle::sleeper());
    let words = ["update", "--memory", "50331648", "--pids-limit", "33", &container.id];
    container.invoke(&words).run().ok();
    assert_eq!(property(&container, "MemoryMax"), "50331648");
    assert_eq!(property(&container, "TasksMax"), "33");
    assert_eq!(cgroup::read(&container.cgroup("pids"), "pids.max"), "33");
}

fn annotations_are_properties() {
    need();
    let annotations = json!({
        "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    });
    let container = running(Bundle::sleeper().set("/annotations", annotations));
    assert_eq!(property(&container, "TimeoutStopUSec"), "2min 3s");
    assert_eq!(property(&container, "CollectMode"), "inactive-or-failed");
}

fn delete_removes_the_scope() {
    need();
    let container = running(Bundle::sleeper());
    let cgroup = container.cgroup("pids");
    container.stop();
    container.delete().ok();
    assert!(!cgroup.exists());
    wait_until("systemd forgets the scope", SOON, || {
        property(&container, "LoadState") == "not-found"
    });
}

fn a_failed_create_leaves_no_scope() {
    need();
    let container = Container::new(Bundle::new().args(&["/no/such/program"]));
    container.create().fails();
    container.assert_gone();
    assert_eq!(property(&container, "LoadState"), "not-found");
    // The name is free again.
    let mut container = container;
    container.bundle.config["process"]["args"] = json!(["true"]);
    container.write_config();
    container.run().ok();
}

fn devices_are_refused_after_a_reload() {
    need();
    let container = running(Bundle::sleeper().capabilities(&["CAP_MKNOD"]));
    // systemd builds its own device programs again.
    Invocation::new("systemctl").arg("daemon-reload").run().ok();
    let made = container.exec(&["/probe", "mknod", "/tmp/odd", "c", "60", "11"]).ok().json();
    assert_eq!(made["open"], 1, "still refused: {made}");
    container.exec(&["sh", "-c", "echo x > /dev/null"]).ok();
}
