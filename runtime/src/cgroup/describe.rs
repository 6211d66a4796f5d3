//! The cgroups in words, for `explain`: what would be made, and what would be written where.
//! Touches nothing; fails on what `Cgroup::create` would refuse before it makes anything.

use std::path::Path;

use anyhow::Result;
use hull_specs_oci as oci;
use serde::Serialize;

use super::{Wanted, join_unified_too, location::Driver, location::Location, plan, systemd};

/// The plan of a container's cgroups.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    /// `cgroupfs` or `systemd`.
    pub(crate) driver: Driver,
    /// `v1`, `hybrid` or `v2`.
    pub(crate) host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<UnitDescription>,
    pub(crate) directories: Vec<Directory>,
    /// In order.
    pub(crate) writes: Vec<Write>,
    /// `None`: devices are left as the parent cgroup has them.
    pub(crate) devices: Option<Devices>,
}

/// The systemd unit that would be started.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct UnitDescription {
    pub(crate) name: String,
    pub(crate) slice: String,
}

/// A directory that the container's processes join.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Directory {
    pub(crate) controllers: Vec<String>,
    pub(crate) path: String,
}

/// One write to one file.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Write {
    pub(crate) file: String,
    pub(crate) value: String,
    /// The field below `linux.resources` that asks for it.
    pub(crate) field: String,
}

/// What device files may be used.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Devices {
    /// What holds for a device without an exception.
    pub(crate) allowed_by_default: bool,
    /// `c 1:3 rwm`: allowed where the default is to deny, and the other way round.
    pub(crate) exceptions: Vec<String>,
}

/// Describes the cgroups that `wanted` would get at `location`.
pub(crate) fn describe(location: &Location, wanted: &Wanted<'_>) -> Result<Description> {
    let rounded;
    let resources = match location.driver {
        Driver::Cgroupfs => wanted.resources,
        Driver::Systemd => {
            rounded = systemd::rounded(wanted.resources);
            Some(&rounded)
        }
    };
    let (limits, access) = plan(location, &Wanted { resources, ..*wanted })?;
    let mut directories: Vec<_> = location
        .hierarchies
        .iter()
        .map(|place| Directory { controllers: place.controllers.clone(), path: text(&place.dir) })
        .collect();
    if let Some(place) = &location.unified
        && (place.joined || join_unified_too(location, &limits))
    {
        let controllers = place.controllers.clone();
        directories.push(Directory { controllers, path: text(&place.dir) });
    }
    let mut writes: Vec<_> = limits
        .iter()
        .filter_map(|limit| {
            let dir = location.dir(limit.controller)?;
            Some(Write {
                file: text(&dir.join(limit.file.as_ref())),
                value: limit.value.clone(),
                field: limit.field.to_owned(),
            })
        })
        .collect();
    writes.extend(unified(location, resources));
    Ok(Description {
        driver: location.driver,
        host: format!("{:?}", location.mode).to_lowercase(),
        unit: location
            .unit
            .as_ref()
            .map(|unit| UnitDescription { name: unit.name.clone(), slice: unit.slice.clone() }),
        directories,
        writes,
        devices: access.map(|access| Devices {
            allowed_by_default: access.allows_by_default(),
            exceptions: access
                .exceptions()
                .iter()
                .map(|(devices, modes)| format!("{devices} {modes}"))
                .collect(),
        }),
    })
}

fn unified(location: &Location, resources: Option<&oci::Resources>) -> Vec<Write> {
    let (Some(place), Some(resources)) = (&location.unified, resources) else { return Vec::new() };
    resources
        .unified
        .iter()
        .map(|(name, value)| Write {
            file: text(&place.dir.join(name)),
            value: value.clone(),
            field: format!("unified.{name}"),
        })
        .collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Description {
    /// One line a fact.
    pub(crate) fn lines(&self) -> Vec<String> {
        let driver = match self.driver {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        };
        let mut lines = vec![format!("driver: {driver}, on a {} host", self.host)];
        if let Some(unit) = &self.unit {
            lines.push(format!(
                "start {} in {}; limits go to systemd as far as it has names for them, and to \
                 the files",
                unit.name, unit.slice
            ));
        }
        for directory in &self.directories {
            let controllers = match directory.controllers.as_slice() {
                [] => "no controller".to_owned(),
                controllers => controllers.join(","),
            };
            lines.push(format!("join {} ({controllers})", directory.path));
        }
        for write in &self.writes {
            lines.push(format!("write {:?} to {} ({})", write.value, write.file, write.field));
        }
        lines.push(match &self.devices {
            None => "devices: as the parent cgroup allows".to_owned(),
            Some(devices) => {
                let default = if devices.allowed_by_default { "allow" } else { "deny" };
                match devices.exceptions.as_slice() {
                    [] => format!("devices: {default} all"),
                    list => format!("devices: {default} all but {}", list.join(", ")),
                }
            }
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cgroup::{
        Mode,
        location::{Place, UnifiedPlace},
    };

    fn location(mode: Mode) -> Location {
        let unified = UnifiedPlace {
            controllers: vec!["memory".to_owned(), "pids".to_owned()],
            mount_point: PathBuf::from("/u"),
            dir: PathBuf::from("/u/c"),
            joined: mode == Mode::V2,
        };
        let place = |controller: &str| Place {
            controllers: vec![controller.to_owned()],
            mount_point: PathBuf::from("/sys/fs/cgroup").join(controller),
            dir: PathBuf::from("/sys/fs/cgroup").join(controller).join("c"),
        };
        Location {
            driver: Driver::Cgroupfs,
            mode,
            hierarchies: match mode {
                Mode::V2 => Vec::new(),
                _ => vec![place("memory"), place("devices")],
            },
            unified: (mode == Mode::V2).then_some(unified),
            unit: None,
            rootless: false,
            explicit: true,
        }
    }

    fn described(mode: Mode, json: serde_json::Value) -> Result<Vec<String>> {
        let resources = serde_json::from_value(json).expect("resources");
        let rules: Vec<oci::DeviceRule> = serde_json::from_value(serde_json::json!(
            [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
        ))
        .expect("rules");
        let wanted = Wanted { resources: Some(&resources), devices: Some(&rules), owner_uid: None };
        Ok(describe(&location(mode), &wanted)?.lines())
    }

    #[test]
    fn writes_have_their_files_on_both_generations() {
        let limit = serde_json::json!({"memory": {"limit": 65536}});
        assert_eq!(
            described(Mode::V1, limit.clone()).unwrap(),
            [
                "driver: cgroupfs, on a v1 host",
                "join /sys/fs/cgroup/memory/c (memory)",
                "join /sys/fs/cgroup/devices/c (devices)",
                "write \"65536\" to /sys/fs/cgroup/memory/c/memory.limit_in_bytes (memory.limit)",
                "devices: deny all but c 1:3 rw",
            ]
        );
        let mut limit = limit;
        limit["unified"] = serde_json::json!({"memory.high": "1000"});
        let lines = described(Mode::V2, limit).unwrap();
        assert!(lines.contains(&"join /u/c (memory,pids)".to_owned()), "{lines:?}");
        assert!(
            lines.contains(&"write \"65536\" to /u/c/memory.max (memory.limit)".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"write \"1000\" to /u/c/memory.high (unified.memory.high)".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn what_create_refuses_is_refused_here() {
        let pids = serde_json::json!({"pids": {"limit": 5}});
        assert!(described(Mode::V1, pids).is_err(), "the host has no pids controller");
        assert!(described(Mode::V1, serde_json::json!({"unified": {"a.b": "1"}})).is_err());
    }
}
