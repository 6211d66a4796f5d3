//! Users without privileges, who exist for one command each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::{runtime, scratch_dir, write_program};

/// How many subordinate ids each user has.
const SUBORDINATE_IDS: u32 = 900;

/// A user who is in no file of the machine's: `newuidmap` and `newgidmap` find the name and
/// the subordinate ids in files that are bound over `/etc`'s, in a mount namespace of the
/// command's own.
#[derive(Debug)]
pub struct User {
    /// Of user and group.
    pub id: u32,
    /// The first subordinate id.
    pub first: u32,
    files: PathBuf,
}

impl User {
    /// A user of a number that no other test has.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Below 2^31, where newuidmap sees an overflow.
        let slot = std::process::id() % 20_000 * 100 + number % 100;
        let (id, first) = (100_000_000 + slot, 200_000_000 + slot * SUBORDINATE_IDS);
        let files = scratch_dir().join(format!("user-{number}"));
        let ids = format!("hull-user:{first}:{SUBORDINATE_IDS}\n");
        fs::create_dir(&files).expect("the scratch directory is writable");
        for (name, content) in [
            ("passwd", format!("hull-user:x:{id}:{id}::/:/bin/sh\n")),
            ("group", format!("hull-user:x:{id}:\n")),
            ("subuid", ids.clone()),
            ("subgid", ids),
        ] {
            fs::write(files.join(name), content).expect("the scratch directory is writable");
        }
        Self { id, first, files }
    }

    /// The user's own id as the container's root.
    pub fn own_id(&self) -> Value {
        json!([{ "containerID": 0, "hostID": self.id, "size": 1 }])
    }

    /// The same, and all subordinate ids from 1 on.
    pub fn all_ids(&self) -> Value {
        json!([
            { "containerID": 0, "hostID": self.id, "size": 1 },
            { "containerID": 1, "hostID": self.first, "size": SUBORDINATE_IDS },
        ])
    }

    /// The shell lines that make the user known.
    pub(crate) fn preludes(&self) -> impl Iterator<Item = String> {
        ["passwd", "group", "subuid", "subgid"]
            .into_iter()
            .map(|name| format!("mount --bind {}/{name} /etc/{name}", self.files.display()))
    }

    /// Whether a process runs as the user, or with one of the subordinate ids.
    pub(crate) fn owns_process(&self, pid: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let mine =
            |id: u32| id == self.id || (self.first..self.first + SUBORDINATE_IDS).contains(&id);
        ids.split_whitespace().filter_map(|id| id.parse().ok()).any(mine)
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

/// A copy of the runtime where everybody can reach it: a checkout may be in root's home.
pub(crate) fn public_runtime() -> &'static Path {
    static COPY: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = &runtime().program;
        let copy = scratch_dir().join(program.file_name().expect("a program has a name"));
        write_program(&copy, fs::read(program).expect("the runtime is readable"));
        copy
    });
    &COPY
}
