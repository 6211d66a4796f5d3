//! Which runtime is driven, and what is known of it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::cgroup;

/// The family of the driven runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The runtime of this project.
    Hull,
    /// The reference implementation.
    Runc,
    /// The one in C.
    Crun,
    /// Any other.
    Other,
}

/// The runtime under test.
#[derive(Debug)]
pub struct Runtime {
    /// Its executable.
    pub program: PathBuf,
    /// Its family.
    pub peer: Peer,
    /// Major, minor and patch number as it prints them.
    pub version: Vec<u32>,
    /// The first line of `--version`.
    pub banner: String,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(Runtime::find);

/// The runtime under test, found once.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// Whether containers are given to systemd's driver: `HULL_SYSTEMD=1`. Their cgroups are
/// then scopes below `system.slice`.
pub fn systemd_driver() -> bool {
    static ASKED: LazyLock<bool> =
        LazyLock::new(|| env::var("HULL_SYSTEMD").is_ok_and(|value| value == "1"));
    *ASKED
}

impl Runtime {
    fn find() -> Self {
        let program = match env::var_os("HULL_RUNTIME") {
            Some(name) => resolve(Path::new(&name)),
            None => built_beside_the_test(),
        };
        let output = Command::new(&program).arg("--version").output().unwrap_or_else(|error| {
            panic!("cannot run the runtime {}: {error}", program.display());
        });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let banner = text.lines().next().unwrap_or_default().to_owned();
        let own_name = program.file_name().is_some_and(|name| name == "hull-runtime");
        let peer = match banner.split_whitespace().next() {
            _ if own_name => Peer::Hull,
            Some("hull-runtime") => Peer::Hull,
            Some("runc") => Peer::Runc,
            Some("crun") => Peer::Crun,
            _ => Peer::Other,
        };
        let version = banner
            .split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .unwrap_or_default()
            .split(|letter: char| !letter.is_ascii_digit())
            .take(3)
            .filter_map(|number| number.parse().ok())
            .collect();
        Self { program, peer, version, banner }
    }

    /// Whether this is the peer `name version`, or an older one of that name.
    pub fn is_at_most(&self, peer: &str) -> bool {
        let (name, version) = peer.split_once(' ').unwrap_or((peer, ""));
        let named = match name {
            "runc" => Peer::Runc,
            "crun" => Peer::Crun,
            _ => panic!("no peer is called {name}"),
        };
        let limit: Vec<u32> = version.split('.').filter_map(|number| number.parse().ok()).collect();
        self.peer == named && self.version.iter().take(limit.len()).le(limit.iter())
    }

    /// What a shell does before the runtime starts, in a mount namespace of its own.
    ///
    /// crun refuses a hybrid layout whose v2 tree has a controller.
    pub(crate) fn prelude(&self) -> Option<&'static str> {
        (self.peer == Peer::Crun && cgroup::layout() == cgroup::Layout::Hybrid)
            .then_some("umount /sys/fs/cgroup/unified")
    }
}

fn resolve(name: &Path) -> PathBuf {
    if name.components().count() > 1 {
        return std::path::absolute(name).expect("the working directory can be read");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("HULL_RUNTIME names {}, which is not in PATH", name.display()))
}

fn built_beside_the_test() -> PathBuf {
    let test = env::current_exe().expect("/proc is mounted");
    // target/[TRIPLE/]PROFILE/deps/TEST
    let profile = test.ancestors().nth(2).unwrap_or(Path::new("/"));
    let target = profile.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    let mut candidates = vec![profile.join("hull-runtime")];
    if let Some(target) = target {
        for triple in ["x86_64-unknown-linux-gnu/", ""] {
            for profile in ["release", "debug"] {
                candidates.push(target.join(format!("{triple}{profile}/hull-runtime")));
            }
        }
    }
    candidates.iter().find(|file| file.is_file()).cloned().unwrap_or_else(|| {
        panic!("hull-runtime is not built: no file at {candidates:?}; build it or set HULL_RUNTIME")
    })
}
