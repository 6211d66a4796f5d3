//! The v1 devices controller: `devices.allow` and `devices.deny`.

use std::{fs::File, path::Path};

use anyhow::{Context, Result, ensure};

use super::{Access, Rule};
use crate::cgroup::file;

/// Gives a cgroup that was just made its devices. It allows what its parent allows, so
/// nothing needs to be read first: the default is set, then the exceptions.
pub(in crate::cgroup) fn initialise(dir: &Path, target: &Access) -> Result<()> {
    let inherited = Access::parse_list("a *:* rwm").context("the kernel's default")?;
    write(dir, &inherited.transition(target))?;
    verify(dir, target)
}

/// Changes a cgroup in use, disturbing its processes as little as possible.
pub(in crate::cgroup) fn update(dir: &Path, target: &Access) -> Result<()> {
    let current = Access::parse_list(&file::read(dir, "devices.list")?)?;
    write(dir, &current.transition(target))?;
    verify(dir, target)
}

fn write(dir: &Path, rules: &[Rule]) -> Result<()> {
    for group in rules.chunk_by(|a, b| a.allow == b.allow) {
        let name = if group[0].allow { "devices.allow" } else { "devices.deny" };
        let path = dir.join(name);
        let mut file: File = file::open_write(dir, name)?;
        for rule in group {
            let text = rule.to_string();
            file::write_open(&mut file, &path, &text)
                .with_context(|| format!("failed to write {text:?}"))?;
        }
    }
    Ok(())
}

/// A cgroup that allows by default prints only that, so only that can be compared.
fn verify(dir: &Path, target: &Access) -> Result<()> {
    let now = Access::parse_list(&file::read(dir, "devices.list")?)?;
    if target.allows_by_default() {
        ensure!(now.allows_by_default(), "resulting devices cgroup doesn't match target mode");
    } else {
        ensure!(now == *target, "resulting devices cgroup doesn't precisely match target");
    }
    Ok(())
}
