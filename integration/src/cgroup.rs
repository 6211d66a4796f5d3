//! Where cgroups are on this machine, and what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// How the hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies, with v2 beside them.
    Hybrid,
    /// Only v2.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Its v1 controllers, or `name=...`; empty for v2.
    pub controllers: Vec<String>,
    /// Whether it is v2.
    pub unified: bool,
}

static HIERARCHIES: LazyLock<Vec<Hierarchy>> = LazyLock::new(|| {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let at = PathBuf::from(before.split(' ').nth(4)?);
            let mut after = after.split(' ');
            let kind = after.next()?;
            let options = after.nth(1)?;
            let unified = match kind {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let controllers = options
                .split(',')
                .filter(|word| {
                    !unified && !matches!(*word, "rw" | "ro" | "xattr" | "clone_children")
                })
                .map(str::to_owned)
                .collect();
            Some(Hierarchy { at, controllers, unified })
        })
        .collect()
});

/// Every mounted hierarchy.
pub fn hierarchies() -> &'static [Hierarchy] {
    &HIERARCHIES
}

/// The layout of this machine.
pub fn layout() -> Layout {
    let v1 = hierarchies().iter().any(|one| !one.unified);
    let v2 = hierarchies().iter().any(|one| one.unified);
    match (v1, v2) {
        (true, true) => Layout::Hybrid,
        (true, false) => Layout::V1,
        _ => Layout::V2,
    }
}

/// The v1 hierarchy that has `controller`, or the v2 one when the layout is v2.
pub fn hierarchy(controller: &str) -> Option<&'static Hierarchy> {
    if layout() == Layout::V2 {
        let v2 = hierarchies().iter().find(|one| one.unified)?;
        let listed = fs::read_to_string(v2.at.join("cgroup.controllers")).ok()?;
        // Devices are a program on v2, the freezer is part of the core.
        let built_in = matches!(controller, "devices" | "freezer");
        return (built_in || listed.split_whitespace().any(|name| name == controller))
            .then_some(v2);
    }
    hierarchies().iter().find(|one| one.controllers.iter().any(|name| name == controller))
}

/// The directory of a process's cgroup in the hierarchy of `controller`.
pub fn of_process(pid: i32, controller: &str) -> Option<PathBuf> {
    let hierarchy = hierarchy(controller)?;
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let same = if hierarchy.unified {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        same.then(|| hierarchy.at.join(path.trim_start_matches('/')))
    })
}

/// Reads one file of a cgroup, without its last line end.
#[track_caller]
pub fn read(directory: &Path, file: &str) -> String {
    let path = directory.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => panic!("cannot read {}: {error}", path.display()),
    }
}

/// Every cgroup whose path names `id`, over all hierarchies.
pub fn named(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.at, id, 0, &mut found);
    }
    found
}

fn walk(directory: &Path, id: &str, depth: usize, found: &mut Vec<PathBuf>) {
    const DEPTH_MAX: usize = 5;
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(path.clone());
        }
        if depth < DEPTH_MAX {
            walk(&path, id, depth + 1, found);
        }
    }
}

/// Makes a private mount namespace without the v2 mount of a hybrid layout, if there is one.
/// crun refuses such a layout when v2 has a controller. The machine's own mounts stay as they
/// are.
///
/// # Errors
/// The caller is not root, or has a second thread.
pub fn hide_unified() -> Result<bool> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    unshare(CloneFlags::CLONE_NEWNS).context("make a private mount namespace (are you root?)")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .context("make the mounts slaves")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let hybrid = mounts.lines().any(|line| line.split(' ').nth(1) == Some(UNIFIED));
    if hybrid {
        umount2(UNIFIED, MntFlags::MNT_DETACH).context("hide the unified cgroup mount")?;
    }
    Ok(hybrid)
}
