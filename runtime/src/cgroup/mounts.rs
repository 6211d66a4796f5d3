//! What the container's own `/sys/fs/cgroup` is made of. Pure; `rootfs` mounts it.

use std::path::PathBuf;

use super::{
    host::{self, Host, Mode},
    location::Location,
};

/// One v1 hierarchy to be mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HierarchyMount {
    /// The directory below the container's `/sys/fs/cgroup`: `memory`, `cpu,cpuacct`, `systemd`.
    pub(crate) name: String,
    /// The mount's data for a new mount inside a cgroup namespace: `memory`, `cpu,cpuacct`,
    /// `name=systemd`.
    pub(crate) options: String,
    /// Where the host has it mounted.
    pub(crate) host_mount: PathBuf,
    /// The container's cgroup in it, to be bound where there is no cgroup namespace.
    pub(crate) container_dir: PathBuf,
    /// Names that lead to `name` by a symbolic link: `cpu` and `cpuacct`.
    pub(crate) links: Vec<String>,
}

/// The unified hierarchy of a v2 host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnifiedMount {
    /// Where the host has it mounted.
    pub(crate) host_mount: PathBuf,
    /// The container's cgroup, to be bound where cgroup2 can't be mounted.
    pub(crate) container_dir: PathBuf,
}

/// Everything for a mount of type `cgroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerMounts {
    /// v1 hierarchies; on v2 there are none. A hybrid host's unified hierarchy isn't shown,
    /// as runc has it.
    pub(crate) hierarchies: Vec<HierarchyMount>,
    /// Set on v2.
    pub(crate) unified: Option<UnifiedMount>,
}

/// Computes it.
pub(crate) fn mounts_for_container(host: &Host, location: &Location) -> ContainerMounts {
    let hierarchies = host.hierarchies.iter().filter_map(|hierarchy| {
        let first = hierarchy.controllers.first()?;
        let container_dir = match location.hierarchies.iter().find(|place| place.holds(first)) {
            Some(place) => place.dir.clone(),
            // One that containers don't join: they stay where the runtime is.
            None => {
                host::visible(&hierarchy.mount_point, &hierarchy.mount_root, &hierarchy.own).ok()?
            }
        };
        let name = hierarchy.mount_point.file_name()?.to_str()?.to_owned();
        let merged = hierarchy.controllers.len() > 1;
        Some(HierarchyMount {
            links: if merged { hierarchy.controllers.clone() } else { Vec::new() },
            name,
            options: hierarchy.controllers.join(","),
            host_mount: hierarchy.mount_point.clone(),
            container_dir,
        })
    });
    let unified = match host.mode() {
        Mode::V2 => host.unified.as_ref().map(|unified| UnifiedMount {
            host_mount: unified.mount_point.clone(),
            container_dir: match &location.unified {
                Some(place) => place.dir.clone(),
                None => host::below(&unified.mount_point, &unified.own),
            },
        }),
        Mode::V1 | Mode::Hybrid => None,
    };
    ContainerMounts { hierarchies: hierarchies.collect(), unified }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::cgroup::{Driver, Request, locate};

    fn hierarchy(controllers: &[&str], mount: &str) -> host::Hierarchy {
        host::Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            mount_point: Path::new("/sys/fs/cgroup").join(mount),
            mount_root: PathBuf::from("/"),
            own: PathBuf::from("/own"),
        }
    }

    fn mounts(host: &Host) -> ContainerMounts {
        let request = Request {
            driver: Driver::Cgroupfs,
            cgroups_path: "/c",
            id: &"c".parse().expect("an id"),
            rootless: false,
            annotations: &BTreeMap::new(),
            user_manager: None,
        };
        mounts_for_container(host, &locate(host, &request).expect("valid"))
    }

    #[test]
    fn hierarchies_of_v1() {
        let host = Host {
            hierarchies: vec![
                hierarchy(&["cpu", "cpuacct"], "cpu,cpuacct"),
                hierarchy(&["devices"], "devices"),
                hierarchy(&["name=systemd"], "systemd"),
                hierarchy(&["name=other"], "other"),
            ],
            unified: None,
        };
        let mounts = mounts(&host).hierarchies;
        assert_eq!(
            (mounts[0].name.as_str(), mounts[0].options.as_str()),
            ("cpu,cpuacct", "cpu,cpuacct")
        );
        assert_eq!(mounts[0].links, ["cpu", "cpuacct"]);
        assert_eq!(mounts[0].container_dir, Path::new("/sys/fs/cgroup/cpu,cpuacct/c"));
        assert_eq!(
            (mounts[2].name.as_str(), mounts[2].options.as_str()),
            ("systemd", "name=systemd")
        );
        assert!(mounts[2].links.is_empty());
        assert_eq!(mounts[3].container_dir, Path::new("/sys/fs/cgroup/other/own"));
    }

    #[test]
    fn the_unified_hierarchy_of_v2() {
        let host = Host {
            hierarchies: vec![],
            unified: Some(host::Unified {
                mount_point: PathBuf::from("/sys/fs/cgroup"),
                controllers: vec![],
                own: PathBuf::from("/own"),
            }),
        };
        let mounts = mounts(&host);
        assert!(mounts.hierarchies.is_empty());
        let unified = mounts.unified.expect("there");
        assert_eq!(unified.container_dir, Path::new("/sys/fs/cgroup/c"));
    }
}
