//! A cgroup directory and what is below it: making, finding the processes, removing. The same
//! for v1 and v2.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use hull_runtime_sys as sys;

use super::file;

/// Directories that were made and are removed again on drop, unless they are kept: a create
/// that fails leaves nothing behind.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes `dir`; says whether it is new. When its parent is missing, `make_parents` makes
    /// that first; parents are shared, so they are kept.
    pub(super) fn mkdir(
        &mut self,
        dir: &Path,
        make_parents: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<bool> {
        let result = match file::mkdir(dir) {
            Err(error) if error.errno() == libc::ENOENT => {
                make_parents(dir.parent().unwrap_or(dir))?;
                file::mkdir(dir)
            }
            result => result,
        };
        match result {
            Ok(()) => {
                self.0.push(dir.to_owned());
                Ok(true)
            }
            Err(error) if error.errno() == libc::EEXIST => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes `dir` at once if it was made here.
    pub(super) fn undo(&mut self, dir: &Path) {
        if let Some(at) = self.0.iter().position(|made| made == dir) {
            self.0.remove(at);
            // Left out and empty: at worst a directory stays.
            let _ = file::rmdir(dir);
        }
    }

    /// The directories stay.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.drain(..).rev() {
            // Already failing; the first error is the one to report.
            let _ = remove(&dir, Instant::now() + Duration::from_secs(1));
        }
    }
}

/// Makes `dir` and what is missing above it.
pub(super) fn make_parents(dir: &Path) -> sys::Result<()> {
    match file::mkdir(dir) {
        Err(error) if error.errno() == libc::EEXIST => Ok(()),
        Err(error) if error.errno() == libc::ENOENT => {
            let Some(parent) = dir.parent() else { return Err(error) };
            make_parents(parent)?;
            match file::mkdir(dir) {
                // Another container of the same parent was quicker.
                Err(error) if error.errno() == libc::EEXIST => Ok(()),
                result => result,
            }
        }
        result => result,
    }
}

/// The cgroup's own processes.
fn own_pids(dir: &Path) -> Result<Vec<i32>> {
    let text = match file::read(dir, "cgroup.procs") {
        // A threaded cgroup lists threads only.
        Err(error) if error.errno() == libc::EOPNOTSUPP => file::read(dir, "cgroup.threads")?,
        text => text?,
    };
    // 0 is a process that our pid namespace can't name.
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The processes of the cgroup and of those below it. What disappears meanwhile is not an
/// error, except for the cgroup itself.
pub(super) fn pids(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = own_pids(dir)?;
    let mut rest = children(dir);
    while let Some(child) = rest.pop() {
        match own_pids(&child) {
            Ok(more) => pids.extend(more),
            Err(error) if error.downcast_ref::<sys::Error>().is_some_and(file::is_missing) => {}
            Err(error) => return Err(error),
        }
        rest.extend(children(&child));
    }
    Ok(pids)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Fails when a cgroup that a new container would take has processes.
pub(super) fn refuse_populated(dir: &Path) -> Result<()> {
    let found = match pids(dir) {
        Err(error) if error.downcast_ref::<sys::Error>().is_some_and(file::is_missing) => 0,
        pids => pids?.len(),
    };
    if found > 0 {
        bail!("container's cgroup is not empty: {found} process(es) found");
    }
    Ok(())
}

/// Moves a process into the cgroup.
pub(super) fn attach(dir: &Path, pid: i32) -> Result<()> {
    let text = pid.to_string();
    for _ in 0..5 {
        match file::write(dir, "cgroup.procs", &text) {
            // The process is still being made (TASK_NEW).
            Err(error) if error.errno() == libc::EINVAL => sleep(Duration::from_millis(30)),
            result => return Ok(result?),
        }
    }
    Ok(file::write(dir, "cgroup.procs", &text)?)
}

/// Removes the cgroup and those below it. One that is gone is fine; one whose last processes
/// are still ending is waited for until `deadline`.
pub(super) fn remove(dir: &Path, deadline: Instant) -> sys::Result<()> {
    if let Ok(()) = file::rmdir(dir) {
        return Ok(());
    }
    // Why it failed shows in what is there: nothing, or sub-cgroups, deepest first.
    if let Err(error) = fs::symlink_metadata(dir) {
        let error = file::error("stat", &error, dir);
        return if file::is_missing(&error) { Ok(()) } else { Err(error) };
    }
    let mut rest = vec![(dir.to_owned(), false)];
    while let Some((dir, visited)) = rest.pop() {
        if visited {
            remove_empty(&dir, deadline)?;
        } else {
            let below = children(&dir);
            rest.push((dir, true));
            rest.extend(below.into_iter().map(|child| (child, false)));
        }
    }
    Ok(())
}

fn remove_empty(dir: &Path, deadline: Instant) -> sys::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match file::rmdir(dir) {
            Err(error) if error.errno() == libc::EBUSY && Instant::now() < deadline => {
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(error) if file::is_missing(&error) => return Ok(()),
            result => return result,
        }
    }
}

/// Sends `signal` to every process of the cgroup and of those below it. The caller has frozen
/// it if it could.
pub(super) fn signal(dir: &Path, signal: i32) -> Result<()> {
    let targets: Vec<_> = pids(dir)?
        .into_iter()
        .filter_map(|pid| Some((pid, sys::process::pidfd(pid).ok()?)))
        .collect();
    // A number listed again after its pidfd was opened can't have been another process's when
    // it was opened, unless the one in the cgroup came later and the pidfd leads nowhere.
    let still = pids(dir)?;
    for (_, pidfd) in targets.iter().filter(|(pid, _)| still.contains(pid)) {
        match sys::process::send_signal(pidfd, signal) {
            Err(error) if error.errno() != libc::ESRCH => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_removed_unless_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let (a, b) = (root.path().join("a/x"), root.path().join("b"));
        {
            let mut made = Made::default();
            let parents = |p: &Path| Ok(make_parents(p)?);
            assert!(made.mkdir(&a, parents).expect("makes"));
            assert!(!made.mkdir(&a, parents).expect("is there"));
            assert!(a.is_dir());
        }
        assert!(!a.exists() && root.path().join("a").is_dir(), "the shared parent stays");
        let mut made = Made::default();
        made.mkdir(&b, |_| Ok(())).expect("makes");
        made.keep();
        drop(made);
        assert!(b.is_dir());
    }

    #[test]
    fn processes_of_the_whole_tree_are_found() {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in [("", "1\n2\n0\n"), ("a", "3\n"), ("a/b", "")] {
            fs::create_dir_all(root.path().join(path)).expect("makes");
            fs::write(root.path().join(path).join("cgroup.procs"), text).expect("writes");
        }
        fs::create_dir(root.path().join("vanishing")).expect("makes");
        assert_eq!(pids(root.path()).expect("reads"), [1, 2, 3]);
        let error = refuse_populated(root.path()).expect_err("populated");
        assert_eq!(error.to_string(), "container's cgroup is not empty: 3 process(es) found");
        assert!(refuse_populated(&root.path().join("gone")).is_ok());
    }

    #[test]
    fn removing_removes_what_is_below_and_twice_is_fine() {
        let root = tempfile::tempdir().expect("a directory");
        let top = root.path().join("top");
        fs::create_dir_all(top.join("a/b")).expect("makes");
        fs::create_dir_all(top.join("c")).expect("makes");
        for _ in 0..2 {
            remove(&top, Instant::now()).expect("removes");
            assert!(!top.exists());
        }
    }
}
