//! Joining an existing container's cgroups, or sub-cgroups of them (`exec --cgroup`).

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    JoinFds, file,
    host::{self, Mode},
    location::Location,
    v1,
};

/// The sub-cgroups that `--cgroup` arguments ask for: by controller, or for all (the empty key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubCgroups(BTreeMap<String, String>);

impl SubCgroups {
    /// Parses the arguments: one path, or `controller[,controller]:path` each.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for argument in arguments {
            let Some((controllers, path)) = argument.split_once(':') else {
                ensure!(
                    arguments.len() == 1,
                    "invalid --cgroup argument: {argument} (missing <controller>: prefix)"
                );
                paths.insert(String::new(), argument.clone());
                continue;
            };
            for controller in controllers.split(',') {
                ensure!(
                    !controller.is_empty(),
                    "invalid --cgroup argument: {argument} (empty <controller> prefix)"
                );
                let old = paths.insert(controller.to_owned(), path.to_owned());
                ensure!(
                    old.is_none(),
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                );
            }
        }
        Ok(Self(paths))
    }
}

/// `sub` below `dir`; `/` and `..` can't leave it.
fn below(dir: &Path, sub: &str) -> Result<PathBuf> {
    let sub_path = Path::new(sub);
    ensure!(
        !sub_path.components().any(|c| c == Component::ParentDir),
        "bad sub cgroup path: {sub}"
    );
    Ok(host::below(dir, sub_path).components().collect())
}

pub(super) fn join(location: &Location, sub: &SubCgroups) -> Result<JoinFds> {
    let SubCgroups(paths) = sub;
    let whole = paths.get("");
    if location.mode == Mode::V2 {
        if let Some(controller) = paths.keys().find(|key| !key.is_empty()) {
            bail!("unknown controller {controller} in SubCgroupPaths");
        }
        let Some(unified) = &location.unified else { return Ok(JoinFds::default()) };
        let dir = below(&unified.dir, whole.map_or("", String::as_str))?;
        return match file::open_dir(&dir) {
            Ok(fd) => Ok(JoinFds { unified_dir: Some(fd), tasks: Vec::new() }),
            Err(_) if location.rootless => Ok(JoinFds::default()),
            Err(error) => Err(error).context("can't open cgroup"),
        };
    }
    let known = location.paths();
    if let Some(controller) = paths.keys().find(|key| !key.is_empty() && !known.contains_key(*key))
    {
        bail!("unknown controller {controller} in SubCgroupPaths");
    }
    let mut tasks = v1::open_tasks(location, |place| {
        let own = place.controllers.iter().find_map(|controller| paths.get(controller));
        own.or(whole).map(|sub| below(&place.dir, sub)).transpose()
    })?;
    if let Some(unified) = location.unified.as_ref().filter(|u| u.joined) {
        let dir = below(&unified.dir, whole.map_or("", String::as_str))?;
        tasks.push(file::open_write(&dir, "cgroup.procs")?.into());
    }
    Ok(JoinFds { unified_dir: None, tasks })
}

/// The cgroup that `pid` is in, on v2.
pub(super) fn join_process(location: &Location, pid: i32) -> Result<JoinFds> {
    let Some(unified) = location.unified.as_ref().filter(|_| location.mode == Mode::V2) else {
        bail!("can't open cgroup of the container's init process: not on cgroup v2");
    };
    let text = file::read_path(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
    let own = host::unified_membership(&text).context("cgroup path not found")?;
    let dir = host::below(&unified.mount_point, Path::new(own));
    let fd = file::open_dir(&dir).context("can't open cgroup")?;
    Ok(JoinFds { unified_dir: Some(fd), tasks: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<SubCgroups> {
        SubCgroups::parse(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments() {
        assert_eq!(parse(&[]).expect("valid"), SubCgroups::default());
        assert_eq!(parse(&["a/b"]).expect("valid").0[""], "a/b");
        let both = parse(&["cpu,cpuacct:x", "memory:y"]).expect("valid").0;
        assert_eq!((both["cpu"].as_str(), both["cpuacct"].as_str()), ("x", "x"));
        for (arguments, part) in [
            (&["a", "cpu:b"][..], "missing <controller>: prefix"),
            (&[":b"][..], "empty <controller> prefix"),
            (&["cpu,:b"][..], "empty <controller> prefix"),
            (&["cpu:a", "cpu:b"][..], "specified multiple times"),
        ] {
            let error = parse(arguments).expect_err("invalid");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_sub_cgroup_is_below_the_container() {
        let dir = Path::new("/sys/fs/cgroup/x");
        assert_eq!(below(dir, "").expect("valid"), dir);
        assert_eq!(below(dir, "/").expect("valid"), dir);
        assert_eq!(below(dir, "/a/b").expect("valid"), dir.join("a/b"));
        for sub in ["..", "a/../../b", "/.."] {
            assert!(below(dir, sub).is_err(), "{sub}");
        }
    }
}
