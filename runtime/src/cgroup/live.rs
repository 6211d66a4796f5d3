//! Tests against the kernel's own hierarchies, in cgroups with names of their own. They need
//! root; without it each says that it was skipped.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::*;

static COUNT: AtomicU32 = AtomicU32::new(0);

fn skipped() -> bool {
    let root = hull_runtime_sys::process::effective_uid() == 0;
    let writable = Host::observe().is_ok_and(|host| {
        let points = host.hierarchies.iter().map(|h| &h.mount_point);
        points.chain(host.unified.iter().map(|u| &u.mount_point)).all(|p| p.is_dir())
    });
    if !root || !writable {
        eprintln!("skipped: needs root and writable cgroups");
    }
    !root || !writable
}

/// A cgroup that is emptied and removed when the test ends, however it ends.
struct Guard(Cgroup);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.thaw();
        let _ = self.0.kill_all(libc::SIGKILL);
        let _ = self.0.destroy();
    }
}

/// A process that is killed and reaped when the test ends.
struct Process(Child);

impl Process {
    fn sleeping() -> Self {
        Self(Command::new("sleep").arg("60").spawn().expect("starts"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("hull-test-{}-{count}", std::process::id())
}

fn located(host: &Host, path: &str) -> Location {
    let request = Request {
        driver: Driver::Cgroupfs,
        cgroups_path: path,
        id: &"unused".parse().expect("an id"),
        rootless: false,
        annotations: &BTreeMap::new(),
        user_manager: None,
    };
    locate(host, &request).expect("a location")
}

fn resources(json: serde_json::Value) -> oci::Resources {
    serde_json::from_value(json).expect("resources")
}

fn docker_rules() -> Vec<oci::DeviceRule> {
    let deny = resources(serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]}));
    device_rules(Some(&deny), &[])
}

/// Creates the cgroup and gives what was made.
fn create(location: &Location, resources: &oci::Resources) -> Result<Guard> {
    let rules = docker_rules();
    let wanted = Wanted { resources: Some(resources), devices: Some(&rules), ..Wanted::default() };
    Cgroup::create(location.clone(), &wanted).map(Guard)
}

fn join(cgroup: &mut Cgroup, pid: i32) {
    for fd in cgroup.join_fds().expect("descriptors").tasks {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        fs::write(path, pid.to_string()).expect("joins");
    }
}

fn text(dir: Option<&Path>, file: &str) -> String {
    let path = dir.expect("a directory").join(file);
    fs::read_to_string(path).expect("reads").trim().to_owned()
}

fn v1_host() -> Option<Host> {
    let host = Host::observe().ok().filter(|host| host.mode() != Mode::V2 && !skipped());
    if host.is_none() {
        eprintln!("skipped: no v1 hierarchies");
    }
    host
}

/// The host without its v1 hierarchies: v2's code runs on the unified one.
fn v2_host() -> Option<Host> {
    let host = Host::observe().ok()?;
    if host.unified.is_none() {
        eprintln!("skipped: the unified hierarchy isn't mounted");
    }
    host.unified.is_some().then(|| Host { hierarchies: Vec::new(), ..host })
}

#[test]
fn a_v1_container_from_create_to_destroy() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}/inner", name()));
    let asked = resources(serde_json::json!({
        "memory": {"limit": 33_554_432, "swap": 33_554_432, "reservation": 16_777_216, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 20}
    }));
    let mut guard = create(&location, &asked).expect("creates");
    let dir = |controller| location.dir(controller);
    assert_eq!(text(dir("memory"), "memory.limit_in_bytes"), "33554432");
    assert_eq!(text(dir("memory"), "memory.swappiness"), "10");
    assert_eq!(text(dir("cpu"), "cpu.shares"), "512");
    assert_eq!(text(dir("cpu"), "cpu.cfs_quota_us"), "50000");
    assert_eq!(text(dir("pids"), "pids.max"), "20");
    let list = text(dir("devices"), "devices.list");
    assert!(list.contains("c 1:3 rwm") && !list.contains("a *:*"), "{list}");
    assert!(!text(dir("cpuset"), "cpuset.cpus").is_empty());

    let process = Process::sleeping();
    join(&mut guard.0, process.pid());
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).expect("reads");
    for place in &location.hierarchies {
        let ending = place.dir.strip_prefix(&place.mount_point).expect("below");
        let line = format!("{}:/{}\n", place.controllers.join(","), ending.display());
        assert!(membership.contains(&line), "{line} in {membership}");
    }
    assert_eq!(guard.0.pids().expect("reads"), [process.pid()]);

    let error = create(&location, &asked).err().expect("the cgroup is in use");
    assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");

    assert!(!guard.0.is_frozen().expect("reads"));
    guard.0.freeze().expect("freezes");
    assert!(guard.0.is_frozen().expect("reads"));
    let stats = guard.0.stats().expect("reads");
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 20));
    assert_eq!(stats.memory.usage.limit, 33_554_432);
    assert!(!stats.memory.raw.is_empty() && !stats.cpuset.cpus.is_empty());

    // Frozen, and still the kill works.
    guard.0.kill_all(libc::SIGKILL).expect("kills");
    drop(process);
    guard.0.destroy().expect("removes");
    assert!(!guard.0.exists());
    guard.0.destroy().expect("is gone already");
    for place in &location.hierarchies {
        assert!(!place.dir.exists(), "{}", place.dir.display());
        // The parent was ours alone.
        fs::remove_dir(place.dir.parent().expect("a parent")).expect("is empty");
    }
}

#[test]
fn limits_are_changed_in_an_order_that_the_kernel_takes() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    let of = |mib: i64, period: u64, quota: i64| {
        let bytes = mib << 20;
        resources(serde_json::json!({
            "memory": {"limit": bytes, "swap": bytes}, "cpu": {"period": period, "quota": quota}
        }))
    };
    let guard = create(&location, &of(64, 100_000, 50_000)).expect("creates");
    for (mib, period, quota) in [(128, 50_000, 25_000), (32, 10_000, 9000), (256, 100_000, 99_000)]
    {
        guard.0.set(&of(mib, period, quota)).expect("updates");
        let memory = location.dir("memory");
        assert_eq!(text(memory, "memory.limit_in_bytes"), (mib << 20).to_string());
        assert_eq!(text(memory, "memory.memsw.limit_in_bytes"), (mib << 20).to_string());
        assert_eq!(text(location.dir("cpu"), "cpu.cfs_quota_us"), quota.to_string());
    }
    guard.0.set(&resources(serde_json::json!({"memory": {"limit": -1}}))).expect("lifts");
    assert!(text(location.dir("memory"), "memory.memsw.limit_in_bytes").len() > 15);
    let error = guard.0.set(&resources(serde_json::json!({"cpu": {"shares": 1}})));
    assert_eq!(error.expect_err("clamped").to_string(), "the minimum allowed cpu-shares is 2");
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    for json in [
        serde_json::json!({"cpu": {"cpus": "60000"}}),
        serde_json::json!({"cpu": {"shares": 1}}),
        serde_json::json!({"memory": {"limit": 4096, "swap": 1024}}),
        serde_json::json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}),
        serde_json::json!({"network": {"classID": 1}}),
        serde_json::json!({"unified": {"pids.max": "1"}}),
    ] {
        let error = create(&location, &resources(json.clone())).err().expect("refused");
        assert!(!format!("{error:#}").contains('\n'), "{json}: {error:#}");
        for place in &location.hierarchies {
            assert!(!place.dir.exists(), "{json}: {}", place.dir.display());
        }
        assert!(location.unified.as_ref().is_none_or(|u| !u.dir.exists()), "{json}");
    }
}

#[test]
fn huge_pages_are_limited_where_the_controller_lives() {
    let Ok(host) = Host::observe() else { return };
    if skipped() || !host.controllers().contains(&"hugetlb") {
        eprintln!("skipped: no hugetlb controller");
        return;
    }
    let location = located(&host, &format!("/{}", name()));
    let asked = serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
    let mut guard = create(&location, &resources(asked)).expect("creates");
    if host.mode() == Mode::Hybrid && location.unified_hugetlb() {
        assert_eq!(text(location.dir("hugetlb"), "hugetlb.2MB.max"), "4194304");
        let process = Process::sleeping();
        join(&mut guard.0, process.pid());
        let membership =
            fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).expect("reads");
        assert!(membership.contains("0::/hull-test-"), "{membership}");
        assert!(guard.0.location().paths().contains_key(""));
        assert!(guard.0.stats().expect("reads").hugetlb.contains_key("2MB"));
    }
}

#[test]
fn without_need_a_hybrid_hosts_unified_hierarchy_is_not_touched() {
    let Some(host) = v1_host().filter(|host| host.mode() == Mode::Hybrid) else {
        eprintln!("skipped: not a hybrid host");
        return;
    };
    if systemd::is_running() {
        eprintln!("skipped: systemd needs the unified hierarchy");
        return;
    }
    let location = located(&host, &format!("/{}", name()));
    let guard = create(&location, &oci::Resources::default()).expect("creates");
    assert!(!location.unified.as_ref().expect("hybrid").dir.exists());
    assert!(!guard.0.location().paths().contains_key(""));
}

#[test]
fn sub_cgroups_are_joined_and_removed() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    let guard = create(&location, &oci::Resources::default()).expect("creates");
    let pids = location.dir("pids").expect("pids");
    fs::create_dir_all(pids.join("sub/below")).expect("makes");
    let parse = |text: &str| SubCgroups::parse(&[text.to_owned()]).expect("parses");
    let fds = guard.0.exec_fds(&parse("pids:sub")).expect("opens");
    assert_eq!(fds.tasks.len(), location.hierarchies.len());
    assert!(guard.0.exec_fds(&parse("pids:nothing")).is_err());
    assert!(guard.0.exec_fds(&parse("pids:../..")).is_err());
    let error = guard.0.exec_fds(&parse("nope:sub")).expect_err("unknown");
    assert_eq!(error.to_string(), "unknown controller nope in SubCgroupPaths");
    guard.0.destroy().expect("removes what is below");
    assert!(!pids.exists());
}

#[test]
fn running_out_of_memory_is_reported() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    let asked = resources(serde_json::json!({"memory": {"limit": 8_388_608, "swap": 8_388_608}}));
    let mut guard = create(&location, &asked).expect("creates");
    let mut notifier = guard.0.oom_notifier().expect("watches");
    assert_eq!(notifier.read().expect("reads"), []);
    // tail keeps an endless line in memory.
    let mut command = Command::new("sh");
    command.args(["-c", "read go; exec tail /dev/zero"]).stdin(Stdio::piped());
    let mut hog = Process(command.spawn().expect("starts"));
    join(&mut guard.0, hog.pid());
    drop(hog.0.stdin.take());
    let ready = hull_runtime_sys::process::wait_readable(&notifier, 20_000).expect("polls");
    assert!(ready, "no event");
    assert_eq!(notifier.read().expect("reads"), [OomEvent::Oom]);
    let status = hog.0.wait().expect("ends");
    assert!(!status.success());
    assert!(guard.0.oom_kills() > 0);
    guard.0.destroy().expect("removes");
    assert!(hull_runtime_sys::process::wait_readable(&notifier, 20_000).expect("polls"));
    assert_eq!(notifier.read().expect("reads"), [OomEvent::Ended]);
}

#[test]
fn a_v2_container_from_create_to_destroy() {
    if skipped() {
        return;
    }
    let Some(host) = v2_host() else { return };
    let location = located(&host, &format!("/{}/inner", name()));
    let mut guard = create(&location, &oci::Resources::default()).expect("creates");
    let fds = guard.0.join_fds().expect("opens");
    assert!(fds.unified_dir.is_some() && fds.tasks.is_empty());
    let dir = location.dir("devices").expect("a directory").to_owned();
    let process = Process::sleeping();
    tree::attach(&dir, process.pid()).expect("joins");
    assert!(create(&location, &oci::Resources::default()).is_err(), "the cgroup is in use");
    guard.0.freeze().expect("freezes");
    assert!(guard.0.is_frozen().expect("reads"));
    guard.0.thaw().expect("thaws");
    assert!(!guard.0.is_frozen().expect("reads"));
    assert_eq!(guard.0.stats().expect("reads").pids.current, 1);
    let fds = guard.0.init_fds(process.pid()).expect("opens");
    let unified = fds.unified_dir.expect("v2");
    let path = fs::read_link(format!("/proc/self/fd/{}", unified.as_raw_fd()));
    assert_eq!(path.expect("reads"), dir);
    guard.0.kill_all(libc::SIGKILL).expect("kills");
    drop(process);
    guard.0.destroy().expect("removes");
    assert!(!guard.0.exists());
    fs::remove_dir(dir.parent().expect("a parent")).expect("is empty");
}

/// A v2 host whose unified hierarchy has the controllers that limits need.
fn v2_host_with_limits() -> Option<Host> {
    let host = Host::observe().ok().filter(|host| {
        let controllers = host.controllers();
        host.mode() == Mode::V2 && ["memory", "pids", "cpu"].iter().all(|c| controllers.contains(c))
    });
    if host.is_none() {
        eprintln!("skipped: no unified hierarchy with memory, pids and cpu");
    }
    host.filter(|_| !skipped())
}

#[test]
fn limits_on_v2_are_written_changed_and_lifted() {
    let Some(host) = v2_host_with_limits() else { return };
    let location = located(&host, &format!("/{}/inner", name()));
    let asked = resources(serde_json::json!({
        "memory": {"limit": 33_554_432, "swap": 33_554_432, "reservation": 16_777_216},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 20},
        "unified": {"memory.high": "30000000"}
    }));
    let guard = create(&location, &asked).expect("creates");
    let dir = location.dir("memory");
    for (file, value) in [
        ("memory.max", "33554432"),
        ("memory.low", "16777216"),
        ("memory.high", "29999104"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "20"),
    ] {
        assert_eq!(text(dir, file), value, "{file}");
    }
    let weight: u64 = text(dir, "cpu.weight").parse().expect("a number");
    assert_eq!(weight, v2::limits::cpu_weight(512));
    guard
        .0
        .set(&resources(serde_json::json!({"memory": {"limit": -1}, "cpu": {"quota": -1},
        "pids": {"limit": -1}})))
        .expect("lifts");
    assert_eq!(text(dir, "memory.max"), "max");
    assert_eq!(text(dir, "cpu.max"), "max 100000");
    assert_eq!(text(dir, "pids.max"), "max");
    let error = guard.0.set(&resources(serde_json::json!({"memory": {"swappiness": 5}})));
    assert!(error.expect_err("not on v2").to_string().contains("swappiness"));
    let stats = guard.0.stats().expect("reads");
    assert!(stats.memory.raw.contains_key("anon"));
    guard.0.destroy().expect("removes");
    fs::remove_dir(dir.and_then(Path::parent).expect("a parent")).expect("is empty");
}

#[test]
fn running_out_of_memory_on_v2_is_reported() {
    let Some(host) = v2_host_with_limits() else { return };
    let location = located(&host, &format!("/{}", name()));
    let asked = resources(serde_json::json!({"memory": {"limit": 8_388_608, "swap": 8_388_608}}));
    let guard = create(&location, &asked).expect("creates");
    let mut notifier = guard.0.oom_notifier().expect("watches");
    let mut command = Command::new("sh");
    command.args(["-c", "read go; exec tail /dev/zero"]).stdin(Stdio::piped());
    let mut hog = Process(command.spawn().expect("starts"));
    tree::attach(location.dir("memory").expect("memory"), hog.pid()).expect("joins");
    drop(hog.0.stdin.take());
    let mut events = Vec::new();
    while !events.contains(&OomEvent::Ended) {
        let ready = hull_runtime_sys::process::wait_readable(&notifier, 20_000).expect("polls");
        assert!(ready, "no event after {events:?}");
        events.extend(notifier.read().expect("reads"));
        let _ = hog.0.try_wait();
    }
    assert!(events.contains(&OomEvent::Oom), "{events:?}");
    assert!(guard.0.oom_kills() > 0);
}

#[test]
fn the_kernel_takes_the_device_program_and_obeys_it() {
    if skipped() {
        return;
    }
    let Some(host) = v2_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    let guard = create(&location, &oci::Resources::default()).expect("creates");
    let dir = location.dir("devices").expect("a directory");
    let script = |body: &str| {
        let join = format!("echo $$ > {}/cgroup.procs && ", dir.display());
        let status = Command::new("sh").args(["-c", &(join + body)]).stderr(Stdio::null()).status();
        status.expect("runs").success()
    };
    assert!(script(": < /dev/null && : < /dev/urandom"), "the defaults are allowed");
    assert!(!script(": < /dev/kmsg"), "another device is not");

    // An update replaces the program; there is never a second one.
    let kmsg = oci::DeviceRule {
        allow: true,
        kind: "c".to_owned(),
        major: Some(1),
        minor: Some(11),
        access: "r".to_owned(),
    };
    let mut rules = docker_rules();
    rules.push(kmsg);
    let access = devices::evaluate(&rules).expect("valid");
    devices::v2::install(dir, &access).expect("replaces");
    assert!(script(": < /dev/kmsg"), "now it is");
    let cgroup = file::open_dir(dir).expect("opens");
    let count = hull_runtime_sys::bpf::query_cgroup_device(&cgroup, &mut [0; 8]).expect("queries");
    assert_eq!(count, 1);
    // A list as long as a careless caller's is still a program.
    let many: Vec<_> = (1000..1400)
        .map(|minor| oci::DeviceRule { minor: Some(minor), ..rules[3].clone() })
        .collect();
    devices::v2::install(dir, &devices::evaluate(&many).expect("valid")).expect("loads");
    assert!(!script(": < /dev/kmsg"));
    guard.0.destroy().expect("removes");
}

#[test]
fn v1_devices_are_updated_without_a_moment_of_deny_all() {
    let Some(host) = v1_host() else { return };
    let location = located(&host, &format!("/{}", name()));
    let _guard = create(&location, &oci::Resources::default()).expect("creates");
    let dir = location.dir("devices").expect("devices");
    let mut rules = docker_rules();
    rules.retain(|rule| rule.major != Some(10));
    let access = devices::evaluate(&rules).expect("valid");
    devices::v1::update(dir, &access).expect("updates");
    let list = text(Some(dir), "devices.list");
    assert!(!list.contains("c 10:200") && list.contains("c 1:3 rwm"), "{list}");
    let all = devices::evaluate(&[oci::DeviceRule {
        allow: true,
        access: "rwm".to_owned(),
        ..Default::default()
    }])
    .expect("valid");
    devices::v1::update(dir, &all).expect("opens");
    assert_eq!(text(Some(dir), "devices.list"), "a *:* rwm");
}

#[test]
fn making_and_removing_is_quick() {
    let Some(host) = Host::observe().ok().filter(|_| !skipped()) else { return };
    let location = located(&host, &format!("/{}", name()));
    let begin = Instant::now();
    for _ in 0..20 {
        let guard = create(&location, &oci::Resources::default()).expect("creates");
        guard.0.destroy().expect("removes");
    }
    let each = begin.elapsed() / 20;
    eprintln!("create and destroy: {each:?}");
    // Not a benchmark: a sleep or a wait for a grace period a hierarchy would show.
    assert!(each < Duration::from_millis(200), "{each:?}");
}

#[test]
fn a_systemd_scope_from_start_to_stop() {
    if skipped() {
        return;
    }
    if !systemd::is_running() {
        eprintln!("skipped: systemd isn't running");
        return;
    }
    let host = Host::observe().expect("cgroups");
    let name = name();
    let annotations =
        BTreeMap::from([("org.systemd.property.TimeoutStopSec".to_owned(), "uint64 5".to_owned())]);
    let request = Request {
        driver: Driver::Systemd,
        cgroups_path: &format!("system-hulltest.slice:hull:{name}"),
        id: &"unused".parse().expect("an id"),
        rootless: false,
        annotations: &annotations,
        user_manager: None,
    };
    let location = locate(&host, &request).expect("a location");
    let asked = resources(serde_json::json!({
        "memory": {"limit": 33_554_432, "swap": 33_554_432},
        "cpu": {"quota": 12_345, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20}
    }));
    let rules = docker_rules();
    let wanted = Wanted { resources: Some(&asked), devices: Some(&rules), ..Wanted::default() };
    let mut guard = Guard(Cgroup::create(location.clone(), &wanted).expect("can be made"));
    assert!(guard.0.join_fds().expect("none").tasks.is_empty());
    let process = Process::sleeping();
    guard.0.apply(process.pid(), &wanted).expect("starts");
    assert_eq!(guard.0.pids().expect("reads"), [process.pid()]);
    assert!(Cgroup::create(location.clone(), &wanted).is_err(), "the scope is in use");
    let show = |property: &str| {
        let unit = format!("hull-{name}.scope");
        let mut command = Command::new("systemctl");
        let text = command.args(["show", "--value", "-p", property, &unit]).output();
        let text = text.expect("runs").stdout;
        String::from_utf8(text).expect("text").trim().to_owned()
    };
    assert_eq!(show("ActiveState"), "active");
    assert_eq!(show("TasksMax"), "20");
    assert_eq!(show("TimeoutStopUSec"), "5s");
    assert_eq!(show("DevicePolicy"), "strict");
    assert_eq!(show("Delegate"), "yes");
    assert_eq!(text(location.dir("pids"), "pids.max"), "20");
    if host.mode() == Mode::V2 {
        assert_eq!(text(location.dir("cpu"), "cpu.max"), "13000 100000");
        let unified = guard.0.exec_fds(&SubCgroups::default()).expect("opens").unified_dir;
        let count =
            hull_runtime_sys::bpf::query_cgroup_device(unified.expect("a directory"), &mut [0; 8]);
        assert_eq!(count.expect("queries"), 1, "our filter in the place of systemd's");
    }
    guard.0.set(&resources(serde_json::json!({"pids": {"limit": 30}}))).expect("updates");
    assert_eq!(show("TasksMax"), "30");
    assert_eq!(text(location.dir("pids"), "pids.max"), "30");
    guard.0.freeze().expect("freezes");
    assert!(guard.0.is_frozen().expect("reads"));
    guard.0.kill_all(libc::SIGKILL).expect("kills");
    drop(process);
    guard.0.destroy().expect("stops");
    assert!(!guard.0.exists());
    assert_eq!(show("ActiveState"), "inactive");
    guard.0.destroy().expect("is gone already");
}

/// A location in which nothing can be made: sysfs refuses every mkdir.
fn closed(mode: Mode, explicit: bool) -> Location {
    let point = PathBuf::from("/sys/kernel");
    let dir = point.join("hull-test");
    let place = |controller: &str| location::Place {
        controllers: vec![controller.to_owned()],
        mount_point: point.clone(),
        dir: dir.clone(),
    };
    let unified = location::UnifiedPlace {
        controllers: vec![],
        mount_point: point.clone(),
        dir: dir.clone(),
        joined: true,
    };
    Location {
        driver: Driver::Cgroupfs,
        mode,
        hierarchies: if mode == Mode::V1 { vec![place("devices"), place("pids")] } else { vec![] },
        unified: (mode == Mode::V2).then_some(unified),
        unit: None,
        rootless: true,
        explicit,
    }
}

#[test]
fn without_permission_a_rootless_container_has_no_cgroup_and_no_limit() {
    for mode in [Mode::V1, Mode::V2] {
        let rules = docker_rules();
        let wanted = Wanted { devices: Some(&rules), ..Wanted::default() };
        let mut cgroup = Cgroup::create(closed(mode, false), &wanted).expect("goes without");
        assert!(cgroup.location().paths().is_empty());
        let fds = cgroup.join_fds().expect("none");
        assert!(fds.unified_dir.is_none() && fds.tasks.is_empty());
        assert!(!cgroup.exists() && !cgroup.is_frozen().expect("no freezer"));
        assert!(cgroup.pids().expect("none").is_empty());
        cgroup.stats().expect("nothing counted");
        cgroup.destroy().expect("nothing to remove");

        let limited = resources(serde_json::json!({"pids": {"limit": 5}}));
        let wanted = Wanted { resources: Some(&limited), ..wanted };
        let error = Cgroup::create(closed(mode, false), &wanted).expect_err("a limit");
        let expected = match mode {
            Mode::V2 => "rootless needs no limits + no cgrouppath",
            _ => "cannot set pids limit: container could not join or create cgroup",
        };
        assert!(format!("{error:#}").contains(expected), "{error:#}");

        let error = Cgroup::create(closed(mode, true), &Wanted::default()).expect_err("a path");
        // EPERM for root, EACCES for others.
        let error = error.downcast_ref::<hull_runtime_sys::Error>().expect("from mkdir");
        assert!(file::is_denied(error), "{error}");
    }
}
