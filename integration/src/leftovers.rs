//! What a suite that was killed has left behind: the next one removes it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::engine::residue::{self, mounts_below};
use crate::wait::poll;
use crate::{SOON, cgroup};

/// A directory of a process that is gone, and what the names of its cgroups begin with.
struct Leftover {
    directory: PathBuf,
    tag: String,
}

/// The file system that a site of this process is on: by its name it is found again.
pub(crate) fn file_system() -> String {
    format!("hull-{}", std::process::id())
}

/// Ends the processes and removes the cgroups, mounts and directories of suites that do not
/// run any more.
pub(crate) fn remove() {
    let gone = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let scratch = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.strip_prefix("hull-suite-")?.to_owned();
        gone(&pid).then(|| Leftover { directory: entry.path(), tag: format!("hull-{pid}-") })
    });
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let sites = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - tmpfs hull-")?;
        let directory = PathBuf::from(before.split(' ').nth(4)?);
        let tag = directory.file_name()?.to_str()?.to_owned();
        gone(after.split(' ').next()?).then_some(Leftover { directory, tag })
    });
    for leftover in scratch.chain(sites) {
        leftover.remove();
    }
}

impl Leftover {
    fn remove(&self) {
        poll(SOON, || {
            let groups = self.cgroups();
            for group in &groups {
                let _ = fs::write(group.join("freezer.state"), "THAWED");
                let _ = fs::write(group.join("cgroup.freeze"), "0");
            }
            let orphans = residue::orphans(&self.directory, &self.tag);
            for pid in &orphans {
                let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            for group in &groups {
                let _ = fs::remove_dir(group);
            }
            (groups.is_empty() && orphans.is_empty()).then_some(())
        });
        for point in mounts_below(&self.directory) {
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
        // Not a mount point unless it is a site's.
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
        // What is still mounted would be removed with it.
        if mounts_below(&self.directory).is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    /// Children before their parents.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for group in cgroup::named(&self.tag) {
            residue::collect(&group, &mut found);
        }
        found
    }
}
