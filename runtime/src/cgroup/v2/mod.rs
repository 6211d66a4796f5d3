//! The unified hierarchy through the cgroup file system.

pub(super) mod freezer;
pub(super) mod limits;
pub(super) mod stats;

use std::{fs, os::unix::fs::chown, path::Path};

use anyhow::{Context, Result, bail, ensure};
use hull_specs_oci as oci;

use super::{
    devices::{self, Access},
    file,
    limit::{self, Limit},
    location::{Location, UnifiedPlace},
    tree::{self, Made},
};

/// Makes the container's cgroup, with every controller of the hierarchy enabled for it.
/// Says whether the directory is new.
pub(super) fn make(place: &UnifiedPlace, made: &mut Made, needs_domain: bool) -> Result<bool> {
    let new = made.mkdir(&place.dir, |parent| Ok(tree::make_parents(parent)?))?;
    if !new {
        tree::refuse_populated(&place.dir)?;
        ensure!(!freezer::is_frozen(&place.dir)?, "container's cgroup unexpectedly frozen");
    }
    // The first container below a parent enables the controllers, the others find them so.
    let available = file::read(&place.dir, "cgroup.controllers").unwrap_or_default();
    let complete =
        place.controllers.iter().all(|c| available.split_whitespace().any(|have| have == c));
    if !complete {
        enable(place, needs_domain)?;
    }
    Ok(new)
}

/// Walks from the root to the container's cgroup. Controllers that can't be enabled are not
/// an error here: without privileges most can't, and a limit that needs one says so.
pub(super) fn enable(place: &UnifiedPlace, needs_domain: bool) -> Result<()> {
    let below = place
        .dir
        .strip_prefix(&place.mount_point)
        .with_context(|| format!("invalid cgroup path {}", place.dir.display()))?;
    let mut current = place.mount_point.clone();
    for component in below {
        hand_down(&current, &place.controllers);
        current.push(component);
        check_type(&current, needs_domain)?;
    }
    Ok(())
}

fn hand_down(dir: &Path, controllers: &[String]) {
    let have = file::read(dir, "cgroup.subtree_control").unwrap_or_default();
    let missing: Vec<_> = controllers
        .iter()
        .filter(|c| !have.split_whitespace().any(|h| h == *c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() || file::write(dir, "cgroup.subtree_control", &missing.join(" ")).is_ok()
    {
        return;
    }
    // All or nothing failed: one by one, so that one refusal does not cost the others.
    for controller in missing {
        let _ = file::write(dir, "cgroup.subtree_control", &controller);
    }
}

/// A cgroup below one with processes is unusable until it is made threaded, and a threaded
/// one can't have the controllers that account for whole processes.
fn check_type(dir: &Path, needs_domain: bool) -> Result<()> {
    let kind = file::read(dir, "cgroup.type").unwrap_or_default();
    match kind.trim() {
        "domain invalid" if needs_domain => bail!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in an invalid state",
            dir.display().to_string()
        ),
        "domain invalid" => {
            // A failure shows when the process joins.
            let _ = file::write(dir, "cgroup.type", "threaded");
            Ok(())
        }
        kind @ ("domain threaded" | "threaded") if needs_domain => bail!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in {kind} mode",
            dir.display().to_string()
        ),
        _ => Ok(()),
    }
}

/// Writes limits, device filter and the unified map, in runc's order.
pub(super) fn set(
    location: &Location,
    resources: &oci::Resources,
    limits: &[Limit],
    access: Option<&Access>,
) -> Result<()> {
    let Some(place) = &location.unified else { bail!("the container has no cgroup") };
    refuse_below_usage(&place.dir, resources)?;
    limit::apply(limits, |_| Some(place.dir.as_path()))?;
    if let Some(access) = access {
        install(location, &place.dir, access)?;
    }
    unified(&place.dir, resources)
}

fn install(location: &Location, dir: &Path, access: &Access) -> Result<()> {
    match devices::v2::install(dir, access) {
        // Without privileges there is no bpf(2), and no way to open a device either.
        Err(_) if location.rootless => Ok(()),
        result => result.context("cannot set device rules"),
    }
}

/// `memory.checkBeforeUpdate`: v2 would kill processes to get below a lower limit.
pub(super) fn refuse_below_usage(dir: &Path, resources: &oci::Resources) -> Result<()> {
    let Some(memory) = resources.memory.as_ref().filter(|m| m.check_before_update == Some(true))
    else {
        return Ok(());
    };
    // As good as it can be: a usage that can't be read refuses nothing.
    let Ok(usage) = file::read_number(dir, "memory.current") else { return Ok(()) };
    for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
        let limit = limit.and_then(|l| u64::try_from(l).ok()).filter(|l| *l > 0);
        if let Some(limit) = limit.filter(|limit| *limit <= usage) {
            bail!("rejecting {what} limit {limit} <= usage {usage}");
        }
    }
    Ok(())
}

/// `unified`: file name to text, a line at a time.
fn unified(dir: &Path, resources: &oci::Resources) -> Result<()> {
    for (name, value) in &resources.unified {
        let controller = controller_of(name)?;
        let path = dir.join(name);
        let mut file = match file::open_write(dir, name) {
            Err(error) if file::is_missing(&error) || file::is_denied(&error) => {
                let list = file::read(dir, "cgroup.controllers").unwrap_or_default();
                if controller != "cgroup" && !list.split_whitespace().any(|c| c == controller) {
                    bail!(
                        "unified resource {name:?} can't be set: controller {controller:?} not \
                         available"
                    );
                }
                return Err(error)
                    .with_context(|| format!("unable to set unified resource {name:?}"));
            }
            file => file?,
        };
        for line in value.split_inclusive('\n') {
            file::write_open(&mut file, &path, line)
                .with_context(|| format!("unable to set unified resource {name:?}"))?;
        }
    }
    Ok(())
}

/// The controller that a key of `unified` belongs to.
pub(super) fn controller_of(name: &str) -> Result<&str> {
    ensure!(!name.contains('/'), "unified resource {name:?} must be a file name (no slashes)");
    match name.split_once('.') {
        Some((controller, _)) if !controller.is_empty() => Ok(controller),
        _ => bail!("unified resource {name:?} must be in the form CONTROLLER.PARAMETER"),
    }
}

/// Gives the cgroup to `uid`, as far as the kernel lists files for delegation.
pub(super) fn delegate(dir: &Path, uid: u32) -> Result<()> {
    let own =
        |path: &Path| chown(path, Some(uid), None).map_err(|e| file::error("chown", &e, path));
    own(dir)?;
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate");
    // The file is as old as 4.15; the names are those of cgroups(7).
    let list = list.as_deref().unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
    for name in list.lines() {
        match own(&dir.join(name)) {
            Err(error) if !file::is_missing(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("writes");
        }
        dir
    }

    fn resources(json: serde_json::Value) -> oci::Resources {
        serde_json::from_value(json).expect("resources")
    }

    #[test]
    fn a_limit_below_the_usage_is_rejected_on_request() {
        let dir = cgroup(&[("memory.current", "1000\n")]);
        let check = |json| refuse_below_usage(dir.path(), &resources(json));
        let error =
            check(serde_json::json!({"memory": {"limit": 1000, "checkBeforeUpdate": true}}))
                .expect_err("too low");
        assert_eq!(error.to_string(), "rejecting memory limit 1000 <= usage 1000");
        assert!(
            check(serde_json::json!({"memory": {"limit": 1001, "checkBeforeUpdate": true}}))
                .is_ok()
        );
        assert!(check(serde_json::json!({"memory": {"limit": 10}})).is_ok());
        assert!(
            check(
                serde_json::json!({"memory": {"limit": -1, "swap": -1, "checkBeforeUpdate": true}})
            )
            .is_ok()
        );
    }

    #[test]
    fn unified_keys_are_files_of_available_controllers() {
        let dir = cgroup(&[("cgroup.controllers", "memory\n"), ("memory.high", "")]);
        let set = |key: &str, value: &str| {
            unified(dir.path(), &resources(serde_json::json!({"unified": {key: value}})))
        };
        set("memory.high", "10").expect("writes");
        assert_eq!(fs::read_to_string(dir.path().join("memory.high")).expect("reads"), "10");
        for (key, part) in [
            ("a/b.c", "no slashes"),
            ("plain", "CONTROLLER.PARAMETER"),
            (".x", "CONTROLLER.PARAMETER"),
            ("cpu.max", "controller \"cpu\" not available"),
            ("memory.nothing", "unable to set unified resource"),
        ] {
            let error = set(key, "1").expect_err(key);
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }

    #[test]
    fn a_threaded_cgroup_takes_no_domain_controllers() {
        for kind in ["threaded\n", "domain threaded\n", "domain invalid\n"] {
            let dir = cgroup(&[("cgroup.type", kind)]);
            assert!(check_type(dir.path(), true).is_err(), "{kind}");
            assert!(check_type(dir.path(), false).is_ok(), "{kind}");
        }
        let dir = cgroup(&[("cgroup.type", "domain\n")]);
        assert!(check_type(dir.path(), true).is_ok());
        let dir = cgroup(&[("cgroup.type", "domain invalid\n")]);
        check_type(dir.path(), false).expect("made threaded");
        assert!(
            fs::read_to_string(dir.path().join("cgroup.type"))
                .expect("reads")
                .starts_with("threaded")
        );
    }

    #[test]
    fn only_missing_controllers_are_handed_down() {
        let dir = cgroup(&[("cgroup.subtree_control", "cpu pids\n")]);
        hand_down(dir.path(), &["cpu".to_owned(), "pids".to_owned()]);
        let read = || fs::read_to_string(dir.path().join("cgroup.subtree_control")).expect("reads");
        assert_eq!(read(), "cpu pids\n");
        hand_down(dir.path(), &["cpu".to_owned(), "memory".to_owned(), "io".to_owned()]);
        assert!(read().starts_with("+memory +io"));
    }
}
