//! The classes of attack that touch a runtime, one test each, mounted for real.
//!
//! What has to hold is the same everywhere: a request is refused or it is harmless. What
//! the host keeps as a canary is looked at afterwards. Each check is proved on something
//! weak: where the reference that is driven is known to be, the attack has to work on it
//! (`weak_peer!`); elsewhere the same check judges something made weak on purpose.
//!
//! `HULL_RACES` is how often a race is tried (default 200).

pub(crate) mod encoding;
pub(crate) mod entering;
pub(crate) mod identity;
pub(crate) mod paths;
pub(crate) mod surface;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hull_integration::{Bundle, scratch_dir};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// How many rounds a race gets.
pub(super) fn races() -> usize {
    env::var("HULL_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A directory of the host that nothing may touch, with a secret in it.
pub(super) struct Canary {
    directory: PathBuf,
    before: BTreeMap<PathBuf, (u64, u64, u32, i64, Vec<u8>)>,
}

pub(super) const SECRET: &str = "a secret of the host";

impl Canary {
    pub(super) fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = scratch_dir().join(format!("canary-{number}"));
        for name in ["", "dir", "pts", "net/ipv4"] {
            fs::create_dir_all(directory.join(name)).expect("the scratch directory is writable");
        }
        for name in ["secret", "null", "console", "dir/file"] {
            fs::write(directory.join(name), SECRET).expect("the scratch directory is writable");
        }
        let before = tree(&directory);
        Self { directory, before }
    }

    pub(super) fn path(&self) -> &str {
        self.directory.to_str().expect("the scratch directory's name is text")
    }

    /// What is not as it was: files, or mounts on them.
    pub(super) fn changes(&self) -> Vec<String> {
        let after = tree(&self.directory);
        let mut found: Vec<String> = after
            .iter()
            .filter(|(path, state)| self.before.get(*path) != Some(state))
            .map(|(path, state)| format!("{} is {state:?}", path.display()))
            .collect();
        let missing = self.before.keys().filter(|path| !after.contains_key(*path));
        found.extend(missing.map(|path| format!("{} is gone", path.display())));
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        found.extend(table.lines().filter(|line| line.contains(self.path())).map(str::to_owned));
        found
    }

    #[track_caller]
    pub(super) fn assert_untouched(&self) {
        assert_eq!(self.changes(), Vec::<String>::new(), "the host was changed");
    }
}

/// Everything below a directory: inode, device, mode, change time, content.
pub(super) fn tree(directory: &Path) -> BTreeMap<PathBuf, (u64, u64, u32, i64, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is listed");
        let content = match metadata.is_file() {
            true => fs::read(&path).expect("it is readable"),
            false => Vec::new(),
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("it is readable").flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
        let changed = metadata.ctime_nsec();
        out.insert(path, (metadata.ino(), metadata.dev(), metadata.mode(), changed, content));
    }
    out
}

/// A directory beside the root, which several containers could share.
pub(super) fn share(bundle: &Bundle) -> PathBuf {
    let path = bundle.dir().join("share");
    fs::create_dir_all(&path).expect("the bundle is writable");
    path
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("the scratch directory's name is text")
}

/// Swaps two names until it is dropped.
pub(super) struct Swapper {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Swapper {
    pub(super) fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(Ordering::Relaxed) {
                let swap = RenameFlags::RENAME_EXCHANGE;
                swaps += u64::from(renameat2(AT_FDCWD, &one, AT_FDCWD, &other, swap).is_ok());
            }
            swaps
        });
        Self { stop, thread: Some(thread) }
    }

    pub(super) fn swaps(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was started").join().expect("it does not panic")
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
