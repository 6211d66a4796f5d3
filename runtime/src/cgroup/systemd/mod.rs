//! The systemd driver: a transient scope for each container, so that systemd knows the
//! container's cgroup as its own and lets the runtime rule below it (`Delegate=`).
//!
//! systemd is asked over D-Bus by a client of our own (`wire`, `bus`): a handful of blocking
//! calls. The crates for it bring an async runtime or more code than this runtime has.
//! Limits go to systemd as far as it has names for them, and then to the cgroup file system,
//! which also has those that systemd has no name for.

pub(super) mod annotation;
mod bus;
mod properties;
mod wire;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hull_specs_oci as oci;

use super::{
    Wanted, devices,
    devices::Access,
    file,
    host::Mode,
    limit, limits,
    location::{Location, Unit},
    tree::{self, Made},
    v1, v2,
};
use bus::Bus;
use wire::Value;

/// A unit's property.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    name: String,
    value: Value,
}

impl Property {
    fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }

    fn text(name: &str, value: impl Into<String>) -> Self {
        Self::new(name, Value::String(value.into()))
    }

    fn flag(name: &str, value: bool) -> Self {
        Self::new(name, Value::Bool(value))
    }
}

/// Whether the host was booted with systemd; the test that systemd documents.
pub(super) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The control group of the user's systemd manager, below which a rootless scope is.
///
/// # Errors
/// No session bus.
pub(crate) fn user_manager() -> Result<String> {
    Bus::user()?.manager_property("ControlGroup")
}

fn connect(location: &Location) -> Result<Bus> {
    if location.rootless { Bus::user() } else { Bus::system() }
}

fn unit(location: &Location) -> Result<&Unit> {
    location.unit.as_ref().context("the container has no systemd unit")
}

/// What can be known before there is a process: systemd runs, and the scope's cgroup is free.
pub(super) fn check(location: &Location) -> Result<()> {
    ensure!(is_running(), "systemd not running on this host, cannot use systemd cgroups manager");
    let Some(dir) = location.dir("devices") else { return Ok(()) };
    tree::refuse_populated(dir)?;
    let frozen = match location.dir("freezer") {
        Some(dir) if location.mode == Mode::V2 => v2::freezer::is_frozen(dir)?,
        Some(dir) => v1::freezer::is_frozen(dir)?,
        None => false,
    };
    ensure!(!frozen, "container's cgroup unexpectedly frozen");
    Ok(())
}

/// Starts the scope with the process in it, joins what systemd doesn't manage, and sets limits
/// and devices. The caller destroys the cgroup when this fails.
pub(super) fn apply(
    location: &Location,
    pid: i32,
    wanted: &Wanted<'_>,
    access: Option<&Access>,
) -> Result<()> {
    let mut bus = connect(location)?;
    apply_by(&mut bus, location, pid, wanted, access)
}

fn apply_by(
    bus: &mut Bus,
    location: &Location,
    pid: i32,
    wanted: &Wanted<'_>,
    access: Option<&Access>,
) -> Result<()> {
    let resources = rounded(wanted.resources);
    let version = bus.version();
    let groups = file::read_path(Path::new("/proc/devices")).unwrap_or_default();
    let unit = unit(location)?;
    let mut all = identity(unit, pid, location.mode)?;
    all.extend(properties::limits(&resources, location.mode, version)?);
    all.extend(properties::oom_policy(&resources, version)?);
    if let Some(access) = access {
        all.extend(properties::devices(access, &groups, version));
    }
    bus.start(&unit.name, &all)?;
    finish(location, pid, &resources, wanted.owner_uid, access)
}

/// What the cgroup file system gets once the scope is there.
fn finish(
    location: &Location,
    pid: i32,
    resources: &oci::Resources,
    owner_uid: Option<u32>,
    access: Option<&Access>,
) -> Result<()> {
    let limits = limits(location, Some(resources))?;
    if location.mode == Mode::V2 {
        let place = location.unified.as_ref().context("the host has no unified hierarchy")?;
        v2::enable(place, v2::limits::needs_domain(resources))?;
        if let Some(uid) = owner_uid {
            v2::delegate(&place.dir, uid)?;
        }
        return v2::set(location, resources, &limits, access);
    }
    let mut made = Made::default();
    v1::attach(location, &mut made, pid)?;
    // The process is in them, and `destroy` removes them with the rest.
    made.keep();
    limit::apply(&limits, |controller| location.dir(controller))?;
    if let (Some(access), Some(dir)) = (access, location.dir("devices")) {
        devices::v1::update(dir, access).context("cannot set device rules")?;
    }
    Ok(())
}

pub(super) fn rounded(resources: Option<&oci::Resources>) -> oci::Resources {
    let mut resources = resources.cloned().unwrap_or_default();
    if let Some(cpu) = &mut resources.cpu {
        properties::round_quota(cpu);
    }
    resources
}

/// What the unit is, apart from its limits.
fn identity(unit: &Unit, pid: i32, mode: Mode) -> Result<Vec<Property>> {
    let Ok(pid) = u32::try_from(pid) else { bail!("{pid} is not a process") };
    let mut all = vec![Property::text("Description", format!("hull container {}", unit.container))];
    if unit.name.ends_with(".slice") {
        let wants = vec![Value::String(unit.slice.clone())];
        all.push(Property::new("Wants", Value::Array("s".into(), wants)));
    } else {
        all.push(Property::text("Slice", unit.slice.clone()));
        all.push(Property::flag("Delegate", true));
        let pids = vec![Value::Uint32(pid)];
        all.push(Property::new("PIDs", Value::Array("u".into(), pids)));
    }
    // Joining the memory controller later is something the kernel is bad at.
    let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        all.push(Property::flag(name, true));
    }
    // Or shutdown would stop containers before the engine that can stop them in order.
    all.push(Property::flag("DefaultDependencies", false));
    all.extend(unit.properties.iter().cloned());
    Ok(all)
}

/// Changes limits; devices stay.
pub(super) fn update(location: &Location, resources: &oci::Resources) -> Result<()> {
    let mut bus = connect(location)?;
    update_by(&mut bus, location, resources)
}

fn update_by(bus: &mut Bus, location: &Location, resources: &oci::Resources) -> Result<()> {
    let resources = rounded(Some(resources));
    let unit = &unit(location)?.name;
    if let Some(place) = location.unified.as_ref().filter(|_| location.mode == Mode::V2) {
        // systemd would write the limit, and the kernel kill, before we look.
        v2::refuse_below_usage(&place.dir, &resources)?;
        let all = properties::limits(&resources, location.mode, bus.version())?;
        bus.set_properties(unit, &all)?;
        let limits = limits(location, Some(&resources))?;
        return v2::set(location, &resources, &limits, None);
    }
    let all = properties::limits(&resources, location.mode, bus.version())?;
    // On v1 systemd rewrites device rules from deny-all whenever it touches a unit: frozen,
    // the container doesn't see it.
    let freezer = location.dir("freezer");
    let frozen = match freezer {
        Some(dir) if !v1::freezer::is_frozen(dir)? => {
            v1::freezer::freeze(dir)?;
            Some(dir)
        }
        _ => None,
    };
    let result = bus.set_properties(unit, &all);
    if let Some(dir) = frozen {
        v1::freezer::thaw(dir)?;
    }
    result?;
    v1::update(location, &limits(location, Some(&resources))?)
}

/// Stops the unit. systemd ends what still runs in it.
pub(super) fn stop(location: &Location) -> Result<()> {
    connect(location)?.stop(&unit(location)?.name)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::cgroup::{
        Driver, Host, Request,
        host::Unified,
        locate,
        systemd::{
            bus::tests::{done, fake, removed},
            wire::Message,
        },
    };

    /// A v2 hierarchy played by a directory, in which the scope's cgroup is made.
    fn scope(annotations: &BTreeMap<String, String>) -> (tempfile::TempDir, Location) {
        let root = tempfile::tempdir().expect("a directory");
        let host = Host {
            hierarchies: vec![],
            unified: Some(Unified {
                mount_point: root.path().to_owned(),
                controllers: vec!["pids".to_owned()],
                own: "/".into(),
            }),
        };
        let request = Request {
            driver: Driver::Systemd,
            cgroups_path: "a-b.slice:docker:x",
            id: &"x".parse().expect("an id"),
            rootless: false,
            annotations,
            user_manager: None,
        };
        let location = locate(&host, &request).expect("valid");
        let dir = root.path().join("a.slice/a-b.slice/docker-x.scope");
        fs::create_dir_all(&dir).expect("makes");
        for name in ["cgroup.controllers", "pids.max", "cgroup.type"] {
            fs::write(dir.join(name), "").expect("writes");
        }
        (root, location)
    }

    fn answer(call: &Message) -> Vec<Message> {
        match call.member.as_str() {
            "Get" => {
                let version = Value::String("252.1".into());
                vec![done(call, vec![Value::Variant(Box::new(version))])]
            }
            "StartTransientUnit" => vec![
                done(call, vec![Value::ObjectPath("/job/1".into())]),
                removed("/job/1", "done"),
            ],
            _ => vec![done(call, vec![])],
        }
    }

    fn names(list: &Value) -> Vec<String> {
        let Value::Array(_, entries) = list else { panic!("not a list") };
        let name = |entry: &Value| match entry {
            Value::Struct(fields) => fields[0].as_text().expect("a name").to_owned(),
            other => panic!("{other:?}"),
        };
        entries.iter().map(name).collect()
    }

    #[test]
    fn a_scope_is_started_with_process_limits_and_annotations() {
        let annotations = BTreeMap::from([(
            "org.systemd.property.CollectMode".to_owned(),
            "'inactive-or-failed'".to_owned(),
        )]);
        let (root, location) = scope(&annotations);
        let socket = root.path().join("socket");
        let server = fake(&socket, true, answer);
        let mut bus = Bus::connect(&socket, true).expect("connects");
        let resources: oci::Resources =
            serde_json::from_value(serde_json::json!({"pids": {"limit": 7}})).expect("resources");
        let wanted = Wanted { resources: Some(&resources), ..Wanted::default() };
        apply_by(&mut bus, &location, 42, &wanted, None).expect("applies");
        drop(bus);
        let calls = server.join().expect("ends");
        let start = calls.iter().find(|c| c.member == "StartTransientUnit").expect("a start");
        assert_eq!(start.body[0], Value::String("docker-x.scope".into()));
        let names = names(&start.body[2]);
        for name in ["Slice", "Delegate", "PIDs", "CollectMode", "TasksMax", "IOAccounting"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        let dir = location.dir("pids").expect("a directory");
        assert_eq!(fs::read_to_string(dir.join("pids.max")).expect("reads"), "7");
    }

    #[test]
    fn an_update_goes_to_systemd_and_to_the_file() {
        let (root, location) = scope(&BTreeMap::new());
        let socket = root.path().join("socket");
        let server = fake(&socket, false, answer);
        let mut bus = Bus::connect(&socket, false).expect("connects");
        let resources =
            serde_json::from_value(serde_json::json!({"pids": {"limit": 9}})).expect("resources");
        update_by(&mut bus, &location, &resources).expect("updates");
        drop(bus);
        let calls = server.join().expect("ends");
        let set = calls.iter().find(|c| c.member == "SetUnitProperties").expect("a call");
        assert_eq!(names(&set.body[2]), ["TasksMax"]);
        let dir = location.dir("pids").expect("a directory");
        assert_eq!(fs::read_to_string(dir.join("pids.max")).expect("reads"), "9");
    }

    #[test]
    fn a_slice_wants_its_parent_and_takes_no_process() {
        let unit = Unit {
            name: "a-b.slice".into(),
            slice: "a.slice".into(),
            container: "a-b.slice".into(),
            properties: vec![],
        };
        let all = identity(&unit, 42, Mode::V2).expect("valid");
        assert!(all.iter().any(|p| p.name == "Wants"));
        assert!(!all.iter().any(|p| p.name == "PIDs" || p.name == "Slice"));
        assert!(identity(&unit, -1, Mode::V2).is_err());
    }
}
