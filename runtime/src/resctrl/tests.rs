use super::*;

/// A plain directory that plays resctrl, with a class of service `gold`.
fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path();
    for name in ["info/L3", "info/MB", "gold/mon_groups"] {
        fs::create_dir_all(mount.join(name)).unwrap();
    }
    fs::write(mount.join("info/MB/bandwidth_gran"), "10\n").unwrap();
    fs::write(mount.join("info/last_cmd_status"), "ok\n").unwrap();
    for name in ["schemata", "gold/schemata"] {
        fs::write(mount.join(name), "    L3:0=00ff;1=c0\n    MB:0= 20;1=100\n").unwrap();
    }
    let host = Host::at(mount.to_owned()).unwrap();
    (dir, host)
}

fn rdt(json: &str) -> IntelRdt {
    serde_json::from_str(json).unwrap()
}

fn plan_on(host: &Host, json: &str) -> Result<Plan> {
    host.plan(&rdt(json), "one", |clos| read(&clos.join("schemata")))
}

#[test]
fn the_class_is_named_after_the_container_unless_it_has_a_name() {
    let (_dir, host) = host();
    for (json, name, make, own) in [
        ("{}", "one", true, true),
        (r#"{"l3CacheSchema":"L3:0=f"}"#, "one", true, true),
        (r#"{"closID":"gold"}"#, "gold", false, false),
        (r#"{"closID":"new","schemata":["L3:0=f"]}"#, "new", true, false),
        (r#"{"closID":"/"}"#, "", false, false),
        (r#"{"closID":"gold","l3CacheSchema":"L3:0=ff"}"#, "gold", false, false),
        // The kernel has rounded it up.
        (r#"{"closID":"gold","memBwSchema":"MB:0=15;1=100"}"#, "gold", false, false),
    ] {
        let plan = plan_on(&host, json).unwrap();
        let clos = host.mount.join(name);
        assert_eq!(plan.group.clos.components().as_path(), clos.components().as_path(), "{json}");
        assert_eq!((plan.make, plan.group.own), (make, own), "{json}");
    }
}

#[test]
fn what_the_specification_forbids_is_refused() {
    let (_dir, host) = host();
    for (json, why) in [
        (r#"{"closID":".."}"#, "invalid intelRdt.ClosID"),
        (r#"{"closID":"a/b"}"#, "invalid intelRdt.ClosID"),
        (r#"{"closID":"info"}"#, "cannot be the name"),
        (r#"{"closID":"new"}"#, "does not exist"),
        (r#"{"memBwSchema":"L3:0=f"}"#, "must start with MB:"),
        (r#"{"memBwSchema":"MB:0=10\nL3:0=f"}"#, "line break"),
        (r#"{"schemata":["L3:0=f\n"]}"#, "line break"),
        (r#"{"closID":"gold","l3CacheSchema":"L3:0=fe"}"#, "does not match"),
        (r#"{"closID":"gold","l3CacheSchema":"L3:2=ff"}"#, "does not match"),
        (r#"{"closID":"gold","l3CacheSchema":"L2:0=ff"}"#, "has no L2"),
        (r#"{"closID":"gold","l3CacheSchema":"L3"}"#, "is no schema"),
        (r#"{"closID":"gold","memBwSchema":"MB:0=25"}"#, "does not match"),
    ] {
        let error = format!("{:#}", plan_on(&host, json).unwrap_err());
        assert!(error.contains(why), "{json}: {error}");
    }
    let none = Host { mount: host.mount.clone(), ..Host::default() };
    for json in [r#"{"memBwSchema":"MB:0=10"}"#, r#"{"l3CacheSchema":"L3:0=f"}"#] {
        assert!(plan_on(&none, json).unwrap_err().to_string().contains("no such resource"));
    }
}

#[test]
fn schemata_are_written_in_the_specifications_order() {
    let (_dir, host) = host();
    let json = r#"{"schemata":["L2:0=f"],"memBwSchema":"MB:0=10","l3CacheSchema":"L3:0=f"}"#;
    let plan = plan_on(&host, json).unwrap();
    plan.apply(42).unwrap();
    let read = |name: &str| fs::read_to_string(host.mount.join("one").join(name)).unwrap();
    assert_eq!(read("schemata"), "L3:0=f\nMB:0=10\nL2:0=f\n");
    assert_eq!(read("tasks"), "42");
    plan.group.update(None, Some("MB:0=30")).unwrap();
    assert_eq!(read("schemata"), "MB:0=30\n");
    assert!(plan.group.update(None, Some("30")).is_err());
    // Files of resctrl go with their directory; plain ones have to be taken away.
    for name in ["schemata", "tasks"] {
        fs::remove_file(host.mount.join("one").join(name)).unwrap();
    }
    plan.group.remove().unwrap();
    assert!(!host.mount.join("one").exists());
    plan.group.remove().unwrap();
}

#[test]
fn a_class_of_others_stays_and_only_the_monitoring_group_goes() {
    let (_dir, host) = host();
    let plan = plan_on(&host, r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
    let before = fs::read_to_string(host.mount.join("gold/schemata")).unwrap();
    plan.apply(42).unwrap();
    assert_eq!(fs::read_to_string(host.mount.join("gold/schemata")).unwrap(), before);
    assert_eq!(fs::read_to_string(host.mount.join("gold/tasks")).unwrap(), "42");
    let monitor = host.mount.join("gold/mon_groups/one");
    assert_eq!(fs::read_to_string(monitor.join("tasks")).unwrap(), "42");
    fs::remove_file(monitor.join("tasks")).unwrap();
    plan.group.remove().unwrap();
    assert!(!monitor.exists() && host.mount.join("gold").exists());
}

#[test]
fn a_failure_quotes_the_kernel() {
    let (_dir, host) = host();
    fs::write(host.mount.join("info/last_cmd_status"), "Too many groups\n").unwrap();
    let plan = plan_on(&host, "{}").unwrap();
    fs::create_dir(host.mount.join("one")).unwrap();
    let error = format!("{:#}", plan.apply(42).unwrap_err());
    assert!(error.contains("one (Too many groups): "), "{error}");
}

#[test]
fn the_mount_is_found_wherever_it_is() {
    let table = "30 1 0:27 / /proc rw - proc proc rw\n\
                 36 30 0:31 / /mnt/res\\040ctrl rw,relatime shared:9 - resctrl none rw\n";
    assert_eq!(mount_point(table), Some("/mnt/res ctrl".into()));
    assert_eq!(mount_point("30 1 0:27 / /proc rw - proc proc rw\n"), None);
}
