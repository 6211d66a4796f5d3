//! What the host offers: which cgroup hierarchies are mounted where, with which
//! controllers, and in which cgroup of each this process runs.
//!
//! Observing is one pass of reads; parsing is pure. In the usual layout (`/sys/fs/cgroup/NAME`
//! for each hierarchy) `/proc/self/cgroup` and one stat a hierarchy are enough; mountinfo,
//! whose cost grows with every mount of the host, is only read for other layouts.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::file;

const ROOT: &str = "/sys/fs/cgroup";

/// Which generation of control groups the host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies, and the unified one beside them, perhaps with controllers of its own.
    Hybrid,
    /// The unified hierarchy alone, at `/sys/fs/cgroup`.
    V2,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its controllers as `/proc/self/cgroup` names them: `["cpu", "cpuacct"]`, `["name=systemd"]`.
    pub(crate) controllers: Vec<String>,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Which of its directories is visible at the mount point; `/` outside a container.
    pub(crate) mount_root: PathBuf,
    /// This process's own cgroup in it.
    pub(crate) own: PathBuf,
}

/// The mounted unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unified {
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Controllers that it (not a v1 hierarchy) holds.
    pub(crate) controllers: Vec<String>,
    /// This process's own cgroup in it.
    pub(crate) own: PathBuf,
}

/// The control groups of this host as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// v1 hierarchies, in the kernel's order.
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// The unified hierarchy, if it is mounted.
    pub(crate) unified: Option<Unified>,
}

impl Host {
    /// Looks at the running system.
    pub(crate) fn observe() -> Result<Self> {
        let memberships = parse_memberships(&file::read_path(Path::new("/proc/self/cgroup"))?)?;
        if let Some(host) = usual_layout(Path::new(ROOT), &memberships) {
            return Ok(host);
        }
        let mounts = parse_mounts(&file::read_path(Path::new("/proc/self/mountinfo"))?);
        let mut host = combine(&memberships, &mounts)?;
        if let Some(unified) = &mut host.unified {
            unified.controllers = root_controllers(&unified.mount_point);
        }
        Ok(host)
    }

    /// Which generation this is.
    pub(crate) fn mode(&self) -> Mode {
        match (&self.unified, self.hierarchies.is_empty()) {
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
            (None, _) => Mode::V1,
        }
    }

    /// Every controller that some mounted hierarchy holds; v2's pseudo controllers too.
    #[cfg(test)]
    pub(crate) fn controllers(&self) -> Vec<&str> {
        let v1 = self.hierarchies.iter().flat_map(|h| &h.controllers).map(String::as_str);
        let v2 = self.unified.iter().flat_map(|u| &u.controllers).map(String::as_str);
        let pseudo: &[&str] = if self.mode() == Mode::V2 { &["devices", "freezer"] } else { &[] };
        v1.filter(|name| !name.starts_with("name="))
            .chain(v2)
            .chain(pseudo.iter().copied())
            .collect()
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Membership {
    /// Empty for the unified hierarchy.
    controllers: Vec<String>,
    path: PathBuf,
}

fn parse_memberships(text: &str) -> Result<Vec<Membership>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            bail!("invalid cgroup entry: must contain at least two colons: {line:?}");
        };
        let controllers =
            controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        found.push(Membership { controllers, path: PathBuf::from(path) });
    }
    // The file lists the newest hierarchy first; mount order reads better in every message.
    found.reverse();
    Ok(found)
}

/// The cgroup of the unified hierarchy in the text of `/proc/PID/cgroup`.
pub(super) fn unified_membership(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// One cgroup mount of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CgroupMount {
    root: PathBuf,
    point: PathBuf,
    v2: bool,
    options: Vec<String>,
}

/// The cgroup mounts among the lines of mountinfo; lines of another shape are not ours to judge.
fn parse_mounts(text: &str) -> Vec<CgroupMount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<CgroupMount> {
    // "36 35 98:0 /root /point options [optional fields] - type source super-options"
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let v2 = match filesystem.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = filesystem.nth(1).unwrap_or_default();
    let mut mount = mount.split(' ').skip(3);
    Some(CgroupMount {
        root: PathBuf::from(unescape_mountinfo(mount.next()?)),
        point: PathBuf::from(unescape_mountinfo(mount.next()?)),
        v2,
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes mountinfo's octal escapes (`\040` for a space).
pub(crate) fn unescape_mountinfo(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Joins memberships and mounts. A hierarchy without a mount is left out: nothing can be
/// made in it.
fn combine(memberships: &[Membership], mounts: &[CgroupMount]) -> Result<Host> {
    let mut host = Host { hierarchies: Vec::new(), unified: None };
    for membership in memberships {
        let Some(first) = membership.controllers.first() else {
            host.unified = mounts.iter().find(|m| m.v2).map(|mount| Unified {
                mount_point: mount.point.clone(),
                controllers: Vec::new(),
                own: membership.path.clone(),
            });
            continue;
        };
        let mount = mounts.iter().find(|m| !m.v2 && m.options.contains(first));
        if let Some(mount) = mount {
            host.hierarchies.push(Hierarchy {
                controllers: membership.controllers.clone(),
                mount_point: mount.point.clone(),
                mount_root: mount.root.clone(),
                own: membership.path.clone(),
            });
        }
    }
    if host.hierarchies.is_empty() && host.unified.is_none() {
        return Err(anyhow!("no cgroup mount found in mountinfo"));
    }
    Ok(host)
}

/// The layout that systemd, Docker's scripts and Kubernetes nodes use, recognised without
/// mountinfo: the unified hierarchy at `root`, or one mount for each hierarchy below it.
/// `None` when anything does not fit exactly.
fn usual_layout(root: &Path, memberships: &[Membership]) -> Option<Host> {
    let unified_own = memberships.iter().find(|m| m.controllers.is_empty()).map(|m| &m.path);
    if let (Some(own), Ok(controllers)) =
        (unified_own, fs::read_to_string(root.join("cgroup.controllers")))
    {
        return Some(Host {
            hierarchies: Vec::new(),
            unified: Some(Unified {
                mount_point: root.to_owned(),
                controllers: words(&controllers),
                own: own.clone(),
            }),
        });
    }
    let root_device = fs::metadata(root).ok()?.dev();
    let mut host = Host { hierarchies: Vec::new(), unified: None };
    for membership in memberships {
        if membership.controllers.is_empty() {
            let point = root.join("unified");
            host.unified =
                fs::read_to_string(point.join("cgroup.controllers")).ok().map(|text| Unified {
                    mount_point: point,
                    controllers: words(&text),
                    own: membership.path.clone(),
                });
            continue;
        }
        let name = membership.controllers.join(",");
        let point = root.join(name.strip_prefix("name=").unwrap_or(&name));
        // The own cgroup is visible below the mount point exactly when the mount shows the
        // hierarchy's root; that it is another device than the tmpfs shows that it is a mount.
        let own = below(&point, &membership.path);
        if fs::metadata(&own).ok()?.dev() == root_device {
            return None;
        }
        host.hierarchies.push(Hierarchy {
            controllers: membership.controllers.clone(),
            mount_point: point,
            mount_root: PathBuf::from("/"),
            own: membership.path.clone(),
        });
    }
    (!host.hierarchies.is_empty()).then_some(host)
}

fn root_controllers(mount_point: &Path) -> Vec<String> {
    // A mount that shows a nested cgroup still has the file; its absence means no controllers.
    fs::read_to_string(mount_point.join("cgroup.controllers"))
        .map(|t| words(&t))
        .unwrap_or_default()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `path`, absolute in a hierarchy, as a path below the hierarchy's mount point.
pub(super) fn below(mount_point: &Path, path: &Path) -> PathBuf {
    mount_point.join(path.strip_prefix("/").unwrap_or(path))
}

/// The directory, below `mount_point`, of the cgroup `own` when the mount shows only what is
/// below `mount_root`: inside a container without a cgroup namespace both name host paths.
pub(super) fn visible(mount_point: &Path, mount_root: &Path, own: &Path) -> Result<PathBuf> {
    own.strip_prefix(mount_root).map(|rest| mount_point.join(rest)).with_context(|| {
        format!(
            "own cgroup {} is not below {}, which is mounted on {}",
            own.display(),
            mount_root.display(),
            mount_point.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
garbage
";
    const HYBRID_SELF: &str = "\
9:name=systemd:/
5:devices:/
4:memory:/user.slice/a:b
1:cpu,cpuacct:/
3:pids:/
0::/init.scope
";

    #[test]
    fn a_hybrid_host_is_read_from_mountinfo() {
        let host = combine(
            &parse_memberships(HYBRID_SELF).expect("fixture"),
            &parse_mounts(HYBRID_MOUNTS),
        )
        .expect("fixture");
        assert_eq!(host.mode(), Mode::Hybrid);
        let cpu = host.hierarchies.iter().find(|h| h.controllers[0] == "cpu").expect("cpu");
        assert_eq!(cpu.controllers, ["cpu", "cpuacct"]);
        assert_eq!(cpu.mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        let memory =
            host.hierarchies.iter().find(|h| h.controllers[0] == "memory").expect("memory");
        assert_eq!(memory.own, Path::new("/user.slice/a:b"), "a path may hold colons");
        assert!(
            !host.hierarchies.iter().any(|h| h.controllers[0] == "pids"),
            "a hierarchy that isn't mounted isn't offered"
        );
        assert_eq!(host.unified.as_ref().expect("unified").own, Path::new("/init.scope"));
        assert_eq!(host.controllers(), ["cpu", "cpuacct", "memory", "devices"]);
    }

    #[test]
    fn a_v2_host_is_read_from_mountinfo() {
        let mounts =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = combine(
            &parse_memberships("0::/user.slice/user-1000.slice\n").expect("fixture"),
            &parse_mounts(mounts),
        )
        .expect("fixture");
        assert_eq!(host.mode(), Mode::V2);
        assert!(host.controllers().contains(&"freezer"));
    }

    #[test]
    fn a_v1_host_without_unified_is_v1() {
        let mounts = "35 31 0:32 / /cg/mem\\040ory rw - cgroup cgroup rw,memory\n";
        let host = combine(
            &parse_memberships("4:memory:/\n0::/\n").expect("fixture"),
            &parse_mounts(mounts),
        )
        .expect("fixture");
        assert_eq!(host.mode(), Mode::V1);
        assert_eq!(host.hierarchies[0].mount_point, Path::new("/cg/mem ory"));
    }

    #[test]
    fn no_mount_is_an_error_and_bad_lines_are_named() {
        assert!(combine(&parse_memberships("4:memory:/\n").expect("fixture"), &[]).is_err());
        let error = parse_memberships("4:memory\n").expect_err("one colon");
        assert!(error.to_string().contains("two colons"), "{error}");
    }

    #[test]
    fn a_nested_mount_shows_the_own_cgroup_relative_to_its_root() {
        let dir = visible(Path::new("/m"), Path::new("/docker/a"), Path::new("/docker/a/b"));
        assert_eq!(dir.expect("below"), Path::new("/m/b"));
        assert!(visible(Path::new("/m"), Path::new("/docker/a"), Path::new("/x")).is_err());
    }

    #[test]
    fn the_fast_layout_agrees_with_mountinfo_on_this_machine() {
        let memberships =
            parse_memberships(&fs::read_to_string("/proc/self/cgroup").expect("proc"))
                .expect("proc");
        let mounts = parse_mounts(&fs::read_to_string("/proc/self/mountinfo").expect("proc"));
        let Some(fast) = usual_layout(Path::new(ROOT), &memberships) else { return };
        let mut slow = combine(&memberships, &mounts).expect("this machine has cgroups");
        if let Some(unified) = &mut slow.unified {
            unified.controllers = root_controllers(&unified.mount_point);
        }
        assert_eq!(fast, slow);
    }
}
