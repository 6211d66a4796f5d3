//! Where a container's cgroups are: from `linux.cgroupsPath`, the driver and the host to one
//! directory in each hierarchy. Pure; nothing here touches the system.
//!
//! The rules are runc's, because callers compute the same paths on their side:
//! - cgroupfs, absolute path: below the mount point of every hierarchy;
//! - cgroupfs, relative path: below this process's own cgroup (v1), or beside it (v2, where a
//!   cgroup with processes can't hand controllers to its children);
//! - cgroupfs, no path: the container's id, taken as a relative path;
//! - systemd: `slice:prefix:name`; no path means `:runc:ID`.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use hull_specs_oci::ContainerId;
use serde::{Deserialize, Serialize};

use super::{
    host::{self, Host, Mode},
    systemd::{Property, annotation},
};

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    /// The runtime, through the cgroup file system.
    Cgroupfs,
    /// systemd, asked over D-Bus for a transient scope.
    Systemd,
}

/// The container's directory in one v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The hierarchy's controllers.
    pub(crate) controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub(crate) mount_point: PathBuf,
    /// The container's directory.
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(super) fn holds(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// The container's directory in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnifiedPlace {
    /// Controllers that the hierarchy holds.
    pub(crate) controllers: Vec<String>,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// The container's directory.
    pub(crate) dir: PathBuf,
    /// Whether the container's processes join it: always on v2; on a hybrid host only when a
    /// resource lives there or systemd tracks processes by it.
    pub(crate) joined: bool,
}

/// The systemd unit that stands for the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// `docker-ID.scope`, or the name of a slice.
    pub(crate) name: String,
    /// The slice it is put in, not expanded: `system.slice`.
    pub(crate) slice: String,
    /// The part of `name` that names the container.
    pub(crate) container: String,
    /// Properties from `org.systemd.property.*` annotations; only needed to start the unit.
    #[serde(skip)]
    pub(super) properties: Vec<Property>,
}

/// Everything that is needed to find a container's cgroups again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Location {
    /// Who makes the cgroups.
    pub(crate) driver: Driver,
    /// The host's mode when the container was made.
    pub(crate) mode: Mode,
    /// v1 places, one a hierarchy.
    pub(crate) hierarchies: Vec<Place>,
    /// The place in the unified hierarchy.
    pub(crate) unified: Option<UnifiedPlace>,
    /// The systemd unit, with that driver.
    pub(crate) unit: Option<Unit>,
    /// Permission errors are survivable (see `tolerates`).
    pub(crate) rootless: bool,
    /// The configuration named a path.
    pub(crate) explicit: bool,
}

impl Location {
    /// Controller to directory, as runc's `state.json` lists them; the unified hierarchy's key
    /// is the empty string.
    pub(crate) fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths: BTreeMap<_, _> = self
            .hierarchies
            .iter()
            .flat_map(|place| place.controllers.iter().map(|c| (c.clone(), place.dir.clone())))
            .collect();
        if let Some(unified) = self.unified.as_ref().filter(|u| u.joined) {
            paths.insert(String::new(), unified.dir.clone());
        }
        paths
    }

    /// The directory that holds `controller`'s files.
    pub(crate) fn dir(&self, controller: &str) -> Option<&Path> {
        let v1 = self.hierarchies.iter().find(|place| place.holds(controller));
        v1.map(|place| place.dir.as_path()).or_else(|| {
            let unified = self.unified.as_ref()?;
            let holds = self.mode == Mode::V2 || self.unified_hugetlb() && controller == "hugetlb";
            holds.then_some(unified.dir.as_path())
        })
    }

    /// Whether this is a hybrid host whose unified hierarchy holds hugetlb. It is the only
    /// controller that is looked for there: systemd's hybrid layout has none, and others have
    /// files of different meaning on v2.
    pub(super) fn unified_hugetlb(&self) -> bool {
        let holds = |u: &UnifiedPlace| u.controllers.iter().any(|c| c == "hugetlb");
        self.mode == Mode::Hybrid && self.unified.as_ref().is_some_and(holds)
    }

    /// Whether a hierarchy that can't be written may be left out: without privileges and
    /// without a path of the caller's choice there is nobody to disappoint, and a limit that
    /// needs the hierarchy still fails.
    pub(super) fn tolerates(&self, error: &hull_runtime_sys::Error) -> bool {
        self.rootless && !self.explicit && super::file::is_denied(error)
    }
}

/// What a location is computed from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// Who makes the cgroups.
    pub(crate) driver: Driver,
    /// `linux.cgroupsPath`, or the empty string.
    pub(crate) cgroups_path: &'a str,
    /// The container.
    pub(crate) id: &'a ContainerId,
    /// Whether to survive missing permissions, as runc's `--rootless` decides.
    pub(crate) rootless: bool,
    /// The configuration's annotations.
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// The control group of the user's systemd manager; needed for systemd and rootless.
    pub(crate) user_manager: Option<&'a str>,
}

/// Named hierarchies and controllers that a container joins when they are mounted.
const JOINED: &[&str] = &[
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "name=systemd",
    "misc",
];

/// Computes the location.
pub(crate) fn locate(host: &Host, request: &Request<'_>) -> Result<Location> {
    let mode = host.mode();
    let location = match request.driver {
        Driver::Cgroupfs => cgroupfs(host, request)?,
        Driver::Systemd => systemd(host, request)?,
    };
    // Without the devices controller a v1 container would have every device of the host.
    if mode != Mode::V2 && !location.hierarchies.iter().any(|place| place.holds("devices")) {
        bail!("mountpoint for devices not found");
    }
    Ok(location)
}

fn joined(host: &Host) -> impl Iterator<Item = &host::Hierarchy> {
    host.hierarchies.iter().filter(|h| h.controllers.iter().any(|c| JOINED.contains(&c.as_str())))
}

fn cgroupfs(host: &Host, request: &Request<'_>) -> Result<Location> {
    let inner = if request.cgroups_path.is_empty() {
        PathBuf::from(request.id.as_str())
    } else {
        clean(request.cgroups_path)
    };
    ensure!(
        inner.components().any(|c| matches!(c, Component::Normal(_))),
        "cgroupsPath {:?} names the root cgroup, which can't be a container's",
        request.cgroups_path
    );
    let mut hierarchies = Vec::new();
    for hierarchy in joined(host) {
        let parent = if inner.is_absolute() {
            hierarchy.mount_point.clone()
        } else {
            host::visible(&hierarchy.mount_point, &hierarchy.mount_root, &hierarchy.own)?
        };
        hierarchies.push(Place {
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            dir: host::below(&parent, &inner),
        });
    }
    let unified = host.unified.as_ref().map(|unified| {
        let parent = match (inner.is_absolute(), host.mode()) {
            (true, _) => unified.mount_point.clone(),
            (false, Mode::V2) => {
                host::below(&unified.mount_point, unified.own.parent().unwrap_or(Path::new("/")))
            }
            (false, _) => host::below(&unified.mount_point, &unified.own),
        };
        placed(host, unified, host::below(&parent, &inner))
    });
    Ok(Location {
        driver: Driver::Cgroupfs,
        mode: host.mode(),
        hierarchies,
        unified,
        unit: None,
        rootless: request.rootless,
        explicit: !request.cgroups_path.is_empty(),
    })
}

fn placed(host: &Host, unified: &host::Unified, dir: PathBuf) -> UnifiedPlace {
    UnifiedPlace {
        controllers: unified.controllers.clone(),
        mount_point: unified.mount_point.clone(),
        dir,
        joined: host.mode() == Mode::V2,
    }
}

/// Lexical cleaning that can't climb: `..` at the root stays at the root. An absolute path
/// stays absolute, a relative one relative.
fn clean(path: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let relative: PathBuf = parts.into_iter().collect();
    if path.starts_with('/') { Path::new("/").join(relative) } else { relative }
}

fn systemd(host: &Host, request: &Request<'_>) -> Result<Location> {
    let mode = host.mode();
    ensure!(
        mode == Mode::V2 || !request.rootless,
        "cannot use rootless systemd cgroups manager on cgroup v1"
    );
    let unit = unit(request)?;
    let mut slice = PathBuf::from(expand_slice(&unit.slice)?);
    if request.rootless {
        let Some(manager) = request.user_manager else {
            bail!("the control group of the user's systemd manager isn't known");
        };
        slice = host::below(Path::new(manager), &slice);
    }
    let inner = slice.join(&unit.name);
    let hierarchies = joined(host)
        .map(|hierarchy| Place {
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            dir: host::below(&hierarchy.mount_point, &inner),
        })
        .collect();
    let unified = host.unified.as_ref().map(|unified| {
        let dir = host::below(&unified.mount_point, &inner);
        // On a hybrid host systemd itself moves the scope's processes there.
        UnifiedPlace { joined: true, ..placed(host, unified, dir) }
    });
    Ok(Location {
        driver: Driver::Systemd,
        mode,
        hierarchies,
        unified,
        unit: Some(unit),
        rootless: request.rootless,
        explicit: !request.cgroups_path.is_empty(),
    })
}

fn unit(request: &Request<'_>) -> Result<Unit> {
    let default_slice = if request.rootless { "user.slice" } else { "system.slice" };
    let (slice, prefix, container) = if request.cgroups_path.is_empty() {
        ("", "runc", request.id.as_str())
    } else {
        let mut parts = request.cgroups_path.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
            _ => bail!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got {:?} instead",
                request.cgroups_path
            ),
        }
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    let name = if container.ends_with(".slice") {
        expand_slice(container)?;
        container.to_owned()
    } else {
        format!("{prefix}-{container}.scope")
    };
    let is_unit_name = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    ensure!(
        !container.is_empty() && name.len() < 256 && name.bytes().all(is_unit_name),
        "{name:?} can't be the name of a systemd unit"
    );
    Ok(Unit {
        name,
        slice: slice.to_owned(),
        container: container.to_owned(),
        properties: annotation::properties(request.annotations)?,
    })
}

/// systemd nests slices by their dashes: `a-b.slice` is `/a.slice/a-b.slice`.
pub(super) fn expand_slice(slice: &str) -> Result<String> {
    let invalid = || format!("invalid slice name: {slice}");
    let Some(name) = slice.strip_suffix(".slice").filter(|_| !slice.contains('/')) else {
        bail!(invalid());
    };
    if name == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for component in name.split('-') {
        ensure!(!component.is_empty(), invalid());
        prefix.push_str(component);
        path.push('/');
        path.push_str(&prefix);
        path.push_str(".slice");
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(name: &str, own: &str) -> host::Hierarchy {
        host::Hierarchy {
            controllers: name.split(',').map(str::to_owned).collect(),
            mount_point: Path::new("/sys/fs/cgroup").join(name.trim_start_matches("name=")),
            mount_root: PathBuf::from("/"),
            own: PathBuf::from(own),
        }
    }

    fn unified(mount: &str, own: &str) -> Option<host::Unified> {
        Some(host::Unified {
            mount_point: PathBuf::from(mount),
            controllers: vec!["hugetlb".to_owned()],
            own: PathBuf::from(own),
        })
    }

    fn hybrid() -> Host {
        Host {
            hierarchies: vec![
                hierarchy("cpu,cpuacct", "/"),
                hierarchy("memory", "/a/b"),
                hierarchy("devices", "/"),
                hierarchy("name=systemd", "/"),
                hierarchy("name=elogind", "/"),
            ],
            unified: unified("/sys/fs/cgroup/unified", "/"),
        }
    }

    fn v2() -> Host {
        Host { hierarchies: vec![], unified: unified("/sys/fs/cgroup", "/user.slice/s.scope") }
    }

    fn at(host: &Host, driver: Driver, path: &str) -> Result<Location> {
        let id: ContainerId = "box".parse().expect("an id");
        let annotations = BTreeMap::new();
        let request = Request {
            driver,
            cgroups_path: path,
            id: &id,
            rootless: false,
            annotations: &annotations,
            user_manager: None,
        };
        locate(host, &request)
    }

    fn dir(location: &Location, controller: &str) -> String {
        location.dir(controller).expect("the controller is there").display().to_string()
    }

    #[test]
    fn an_absolute_path_is_below_every_mount() {
        let location = at(&hybrid(), Driver::Cgroupfs, "/docker/../docker/x/").expect("valid");
        assert_eq!(dir(&location, "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/docker/x");
        assert_eq!(dir(&location, "memory"), "/sys/fs/cgroup/memory/docker/x");
        assert_eq!(dir(&location, "name=systemd"), "/sys/fs/cgroup/systemd/docker/x");
        assert_eq!(dir(&location, "hugetlb"), "/sys/fs/cgroup/unified/docker/x");
        let keys: Vec<_> = location.paths().into_keys().collect();
        assert_eq!(keys, ["cpu", "cpuacct", "devices", "memory", "name=systemd"]);
    }

    #[test]
    fn a_relative_path_is_below_the_own_cgroup_and_can_not_climb() {
        let location = at(&hybrid(), Driver::Cgroupfs, "../../x").expect("valid");
        assert_eq!(dir(&location, "memory"), "/sys/fs/cgroup/memory/a/b/x");
        assert_eq!(dir(&location, "devices"), "/sys/fs/cgroup/devices/x");
    }

    #[test]
    fn no_path_is_the_id() {
        let location = at(&hybrid(), Driver::Cgroupfs, "").expect("valid");
        assert_eq!(dir(&location, "memory"), "/sys/fs/cgroup/memory/a/b/box");
        assert!(!location.explicit);
    }

    #[test]
    fn on_v2_a_relative_path_is_beside_the_own_cgroup() {
        let location = at(&v2(), Driver::Cgroupfs, "").expect("valid");
        assert_eq!(location.paths()[""], Path::new("/sys/fs/cgroup/user.slice/box"));
        let location = at(&v2(), Driver::Cgroupfs, "/x/y").expect("valid");
        assert_eq!(location.paths()[""], Path::new("/sys/fs/cgroup/x/y"));
        assert_eq!(dir(&location, "memory"), "/sys/fs/cgroup/x/y");
    }

    #[test]
    fn the_root_cgroup_is_refused() {
        for path in ["/", "/..", "a/..", "."] {
            assert!(at(&v2(), Driver::Cgroupfs, path).is_err(), "{path}");
        }
    }

    #[test]
    fn v1_without_devices_is_refused() {
        let mut host = hybrid();
        host.hierarchies.retain(|h| h.controllers[0] != "devices");
        let error = at(&host, Driver::Cgroupfs, "/x").expect_err("no devices controller");
        assert_eq!(error.to_string(), "mountpoint for devices not found");
    }

    #[test]
    fn a_systemd_path_is_a_scope_in_an_expanded_slice() {
        let location = at(&v2(), Driver::Systemd, "a-b.slice:docker:x").expect("valid");
        assert_eq!(
            location.paths()[""],
            Path::new("/sys/fs/cgroup/a.slice/a-b.slice/docker-x.scope")
        );
        let unit = location.unit.expect("a unit");
        assert_eq!((unit.name.as_str(), unit.slice.as_str()), ("docker-x.scope", "a-b.slice"));
        let location = at(&hybrid(), Driver::Systemd, "").expect("valid");
        assert_eq!(dir(&location, "memory"), "/sys/fs/cgroup/memory/system.slice/runc-box.scope");
        let location = at(&v2(), Driver::Systemd, "a.slice::a-c.slice").expect("valid");
        assert_eq!(location.unit.expect("a unit").name, "a-c.slice");
    }

    #[test]
    fn a_users_scope_is_below_the_users_manager() {
        let id: ContainerId = "box".parse().expect("an id");
        let annotations = BTreeMap::new();
        let request = Request {
            driver: Driver::Systemd,
            cgroups_path: "user.slice:libpod:x",
            id: &id,
            rootless: true,
            annotations: &annotations,
            user_manager: Some("/user.slice/user-1.slice/user@1.service"),
        };
        let location = locate(&v2(), &request).expect("valid");
        assert_eq!(
            location.paths()[""],
            Path::new(
                "/sys/fs/cgroup/user.slice/user-1.slice/user@1.service/user.slice/libpod-x.scope"
            )
        );
        assert!(locate(&hybrid(), &request).is_err(), "not on v1");
        assert!(locate(&v2(), &Request { user_manager: None, ..request }).is_err());
    }

    #[test]
    fn bad_systemd_paths_are_refused() {
        for path in [
            "/docker/x",
            "a:b",
            "a.slice:b:c:d",
            "x:p:n",
            "a--b.slice:p:n",
            "a/b.slice:p:n",
            "a.slice:p:../x",
            "a.slice:p:",
            "a.slice:p/../q:n",
            ".slice:p:n",
            "-a.slice:p:n",
        ] {
            assert!(at(&v2(), Driver::Systemd, path).is_err(), "{path}");
        }
    }

    #[test]
    fn slices_expand_by_their_dashes() {
        for (slice, path) in [
            ("-.slice", "/"),
            ("system.slice", "/system.slice"),
            ("test-a-b.slice", "/test.slice/test-a.slice/test-a-b.slice"),
        ] {
            assert_eq!(expand_slice(slice).expect("valid"), path);
        }
    }

    #[test]
    fn a_location_survives_the_state_file() {
        let location = at(&hybrid(), Driver::Systemd, "a-b.slice:docker:x").expect("valid");
        let text = serde_json::to_string(&location).expect("serializes");
        assert_eq!(serde_json::from_str::<Location>(&text).expect("parses"), location);
    }
}
