//! v1's cpuset: a new cgroup has no processors and no memory nodes, and takes no task until it
//! has both. What the configuration doesn't set is copied from the parent.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cgroup::{file, limit::Limit};

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Fills what is empty in `dir`. `new` says that nobody can have set anything but the
/// container's own `limits`, so that only the parent needs to be read.
pub(super) fn inherit(dir: &Path, new: bool, limits: &[Limit]) -> Result<()> {
    for name in FILES {
        if limits.iter().any(|limit| limit.file == name) {
            continue;
        }
        // A parent with cgroup.clone_children set has filled it already; copying the same
        // value again is cheaper than looking.
        if new || is_empty(&file::read(dir, name)?) {
            let parent = dir.parent().context("a cgroup has a parent")?;
            let mut value = file::read(parent, name)?;
            if is_empty(&value) {
                fill(parent)?;
                value = file::read(parent, name)?;
            }
            file::write(dir, name, value.trim())?;
        }
    }
    Ok(())
}

/// Makes `dir` and the cgroups above it that are missing, each with its parent's values.
pub(super) fn make_parents(dir: &Path) -> Result<()> {
    match file::mkdir(dir) {
        Ok(()) => {}
        Err(error) if error.errno() == libc::EEXIST => {}
        Err(error) if error.errno() == libc::ENOENT => {
            make_parents(dir.parent().context("a cgroup has a parent")?)?;
            match file::mkdir(dir) {
                Err(error) if error.errno() != libc::EEXIST => return Err(error.into()),
                _ => {}
            }
        }
        Err(error) => return Err(error.into()),
    }
    fill(dir)
}

/// Fills `dir` and, where they are empty too, the cgroups above it. Ends at the hierarchy's
/// root, which is never empty.
fn fill(dir: &Path) -> Result<()> {
    for name in FILES {
        if !is_empty(&file::read(dir, name)?) {
            continue;
        }
        let parent = dir.parent().context("a cgroup has a parent")?;
        let mut value = file::read(parent, name)?;
        if is_empty(&value) {
            fill(parent)?;
            value = file::read(parent, name)?;
        }
        file::write(dir, name, value.trim())?;
    }
    Ok(())
}

fn is_empty(value: &str) -> bool {
    value.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limit::Limit;
    use std::fs;

    /// A directory tree that plays a hierarchy: `set` are (path, cpus, mems).
    fn hierarchy(set: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, cpus, mems) in set {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).expect("makes");
            fs::write(dir.join(FILES[0]), cpus).expect("writes");
            fs::write(dir.join(FILES[1]), mems).expect("writes");
        }
        root
    }

    fn cpus(root: &tempfile::TempDir, path: &str) -> String {
        fs::read_to_string(root.path().join(path).join(FILES[0])).expect("reads").trim().to_owned()
    }

    #[test]
    fn a_new_cgroup_takes_its_parents_values() {
        let root = hierarchy(&[("", "0-3\n", "0\n"), ("a", "\n", "\n")]);
        inherit(&root.path().join("a"), true, &[]).expect("fills");
        assert_eq!(cpus(&root, "a"), "0-3");
    }

    #[test]
    fn empty_cgroups_on_the_way_are_filled_first() {
        let root = hierarchy(&[("", "0-3\n", "0\n"), ("a", "\n", "\n"), ("a/b", "\n", "\n")]);
        inherit(&root.path().join("a/b"), true, &[]).expect("fills");
        assert_eq!((cpus(&root, "a"), cpus(&root, "a/b")), ("0-3".to_owned(), "0-3".to_owned()));
    }

    #[test]
    fn what_is_set_stays() {
        let root = hierarchy(&[("", "0-3\n", "0\n"), ("a", "1\n", "\n"), ("b", "2\n", "\n")]);
        inherit(&root.path().join("a"), false, &[]).expect("fills");
        assert_eq!(cpus(&root, "a"), "1");
        let limit = Limit::new("cpuset", "cpu.cpus", "cpuset.cpus", "2");
        inherit(&root.path().join("b"), true, &[limit]).expect("fills");
        assert_eq!(cpus(&root, "b"), "2");
    }
}
