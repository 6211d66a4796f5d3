//! The private places of one engine, and the check that they are empty at its end.

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::{places, residue};
use crate::wait::poll;
use crate::{SOON, leftovers, note, write_program};

/// A directory and a cgroup of one engine.
#[derive(Debug)]
pub struct Site {
    directory: PathBuf,
    tag: String,
}

impl Site {
    /// Makes one.
    pub fn new() -> Self {
        places::enter();
        let directory = tempfile::Builder::new()
            .prefix("hull-")
            .tempdir()
            .expect("the temporary directory is writable")
            .keep();
        // In memory: engines write their databases to disk at every step, and a disk that
        // others use takes longer for it than everything else together.
        let options = "mode=755,size=4g";
        mount(
            Some(&*leftovers::file_system()),
            &directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .expect("the suite is root");
        let tag = directory.file_name().expect("it has a name").to_string_lossy().into_owned();
        Self { directory, tag }
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("the path is text").to_owned()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a directory in it.
    pub fn make(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("the site is writable");
        path
    }

    /// Makes a file in it.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("the site is writable");
        path
    }

    /// Makes a program in it.
    pub fn program(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        write_program(&path, text);
        path
    }

    /// The cgroup below which every container is.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.tag)
    }

    /// The slice below which every container is where systemd makes the cgroups.
    pub fn slice(&self) -> String {
        format!("{}.slice", self.tag)
    }

    /// The directories of one cgroup below it, one a hierarchy.
    pub fn cgroup_directories(&self, name: &str) -> Vec<String> {
        residue::cgroups(&self.tag)
            .iter()
            .filter(|path| path.file_name().is_some_and(|last| last == name))
            .map(|path| path.to_str().expect("the path is text").to_owned())
            .collect()
    }

    /// Removes everything, and fails the test if something is there that should not be.
    #[track_caller]
    pub fn end(self) {
        report("the test", &self.clear(&[], |_| false));
    }

    /// Removes everything, and gives what should not have been there any more. The
    /// engine leaves `mounts` and cgroups of names that `cgroup` knows with any runtime.
    pub(crate) fn clear(&self, mounts: &[&str], cgroup: impl Fn(&str) -> bool) -> Vec<String> {
        let mut left = Vec::new();
        self.end_processes(&mut left);
        for point in residue::mounts_below(&self.directory) {
            if !mounts.iter().any(|name| point == self.directory.join(name)) {
                left.push(format!("mount {}", point.display()));
            }
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
        for path in residue::cgroups(&self.tag) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name != self.tag && !cgroup(&name) {
                left.push(format!("cgroup {}", path.display()));
            }
            if let Err(error) = remove_cgroup(&path) {
                left.push(format!("cgroup {}: {error}", path.display()));
            }
        }
        // Busy is somebody who still has a file of it open. For a moment that may be a
        // child that another test is about to start.
        let mut unmounted = Ok(());
        poll(SOON, || {
            unmounted = umount2(&self.directory, MntFlags::empty());
            unmounted.is_ok().then_some(())
        });
        if let Err(error) = unmounted {
            left.push(format!("directory {}: {error}", self.directory.display()));
            let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
        }
        // Removes nothing but an empty directory.
        if let Err(error) = fs::remove_dir(&self.directory) {
            left.push(format!("directory {}: {error}", self.directory.display()));
        }
        places::leave();
        left
    }

    /// conmon and the shims outlive their engine, and end on their own.
    fn end_processes(&self, left: &mut Vec<String>) {
        let found = || residue::processes(&self.directory, &self.tag);
        if poll(SOON, || found().is_empty().then_some(())).is_some() {
            return;
        }
        for process in found() {
            let _ = signal::kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            left.push(format!("process {}", process.shown));
        }
        poll(SOON, || found().is_empty().then_some(()));
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

fn remove_cgroup(path: &Path) -> io::Result<()> {
    let removed = || match fs::remove_dir(path) {
        // The last process is gone, but not yet from the kernel's books.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => None,
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Ok(())),
        result => Some(result),
    };
    poll(SOON, removed).unwrap_or_else(|| Err(ErrorKind::ResourceBusy.into()))
}

/// Does one thing on the way out. A failure is noted, and the rest goes on: a panic
/// while another one unwinds would end the whole suite.
pub(crate) fn attempt<T>(left: &mut Vec<String>, step: impl FnOnce() -> T) -> Option<T> {
    let result = panic::catch_unwind(AssertUnwindSafe(step));
    let message = result.as_ref().err().map(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.unwrap_or("a step of cleaning up failed").to_owned()
    });
    left.extend(message);
    result.ok()
}

/// Fails the test with what was left, unless it is failing already.
#[track_caller]
pub(crate) fn report(engine: &str, left: &[String]) {
    if !left.is_empty() {
        let text = format!("{engine} left behind:\n  {}", left.join("\n  "));
        match thread::panicking() {
            true => note(&text),
            false => panic!("{text}"),
        }
    }
}
