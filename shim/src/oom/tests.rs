use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use hull_runtime_sys::process::wait_readable;

use super::*;

const DEADLINE_MS: i32 = 10_000;

/// Uses memory without end, in a shell, so that nothing has to be built. `dd` asks for one
/// buffer of the size and fills it.
const ALLOCATE: &str = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null";

#[test]
fn the_verdict_follows_from_exit_and_kills() {
    let killed = Exit::Signal(libc::SIGKILL);
    for (exit, kills, killed_by_us, expected) in [
        (Exit::Code(0), 0, false, Oom::None),
        (killed, 0, false, Oom::None),
        (killed, 1, false, Oom::Main),
        (killed, 3, false, Oom::Main),
        (killed, 1, true, Oom::Child),
        (Exit::Code(137), 1, false, Oom::Child),
        (Exit::Code(0), 2, false, Oom::Child),
        (Exit::Signal(libc::SIGTERM), 1, false, Oom::Child),
        (Exit::Signal(libc::SIGTERM), 0, true, Oom::None),
    ] {
        let verdict = verdict(exit, kills, killed_by_us);
        assert_eq!(verdict, expected, "{exit:?} {kills} {killed_by_us}");
    }
}

fn v1(first: u64) -> Counts {
    Counts { first, last: first, v1: Some(Notified::default()) }
}

#[test]
fn v1_tells_each_notification_and_counts_kills() {
    let mut counts = v1(2);
    assert_eq!(counts.update(1, Some(2)), 1, "told before it is counted");
    assert_eq!(counts.kills(), 1);
    assert_eq!(counts.update(0, Some(3)), 0, "counted after it was told");
    assert_eq!(counts.kills(), 1);
    assert_eq!(counts.update(2, Some(6)), 2);
    counts.explain();
    assert_eq!(counts.kills(), 4, "one notification can stand for two kills");
}

#[test]
fn v1_takes_the_removals_notification_off() {
    let mut counts = v1(0);
    assert_eq!(counts.update(1, None), 0);
    assert_eq!(counts.kills(), 0);
    // A kill that was told together with the removal.
    let mut counts = v1(0);
    assert_eq!(counts.update(2, None), 1);
    assert_eq!(counts.kills(), 1);
    // The removal is told after the files' end was seen: the sum is right when it comes.
    let mut counts = v1(0);
    assert_eq!(counts.update(1, None) + counts.update(1, None), 1);
    assert_eq!(counts.kills(), 1);
}

#[test]
fn v1_notifications_for_others_are_no_kills() {
    let mut counts = v1(0);
    assert_eq!(counts.update(3, Some(0)), 3);
    counts.explain();
    assert_eq!(counts.kills(), 0);
    assert_eq!(counts.update(1, None), 0, "the removal");
    assert_eq!(counts.kills(), 0);
}

#[test]
fn v2_tells_what_the_counter_has_risen_by() {
    let mut counts = Counts { first: 5, last: 5, v1: None };
    for (counted, news) in [(Some(5), 0), (Some(6), 1), (Some(6), 0), (Some(9), 3), (None, 0)] {
        assert_eq!(counts.update(0, counted), news, "{counted:?}");
    }
    assert_eq!(counts.kills(), 4);
}

#[test]
fn v2_reads_the_kills_of_memory_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory.events");
    for (text, kills) in [
        ("low 0\nhigh 9\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("low 0\nhigh 0\nmax 0\noom 0\n", 0),
        ("", 0),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(kills_in(&File::open(&path).unwrap()), Some(kills), "{text:?}");
    }
}

#[test]
fn a_watched_v2_file_that_changes_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory.events");
    let cgroup = Cgroup::V2(dir.path().to_owned());
    assert!(Watch::open(&cgroup).unwrap().is_none(), "memory is not controlled");
    fs::write(&path, "oom_kill 1\n").unwrap();
    let mut watch = Watch::open(&cgroup).unwrap().unwrap();
    assert!(!wait_readable(watch.fd(), 0).unwrap());
    fs::write(&path, "oom_kill 3\n").unwrap();
    assert!(wait_readable(watch.fd(), DEADLINE_MS).unwrap());
    assert_eq!((watch.take(), watch.take(), watch.kills()), (2, 0, 2));
    assert!(!wait_readable(watch.fd(), 0).unwrap(), "a descriptor that was emptied");
}

/// A v1 memory cgroup of the test's own with a limit, removed with the test.
struct Limited(PathBuf);

impl Limited {
    /// `None` where the test cannot have one.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = Cgroup::of(std::process::id().cast_signed()).ok()?;
        let (Cgroup::V1(_), Some(dir)) = (&own, own.dir("memory")) else { return None };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = dir.join(format!("hull-shim-oom-{}-{count}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        let limited = Self(dir);
        fs::write(limited.0.join("memory.limit_in_bytes"), "16777216").unwrap();
        Some(limited)
    }

    fn cgroup(&self) -> Cgroup {
        Cgroup::V1(vec![("memory", self.0.clone())])
    }

    /// Runs a shell in the cgroup.
    fn run(&self, script: &str) -> ExitStatus {
        let join = format!("echo 0 > {}/cgroup.procs && {script}", self.0.display());
        Command::new("sh").args(["-c", &join]).status().unwrap()
    }

    /// Waits for the last process to be gone, which the kernel finishes after its parent has
    /// reaped it.
    fn remove(&self) {
        let end = Instant::now() + Duration::from_millis(DEADLINE_MS.unsigned_abs().into());
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.remove();
    }
}

macro_rules! limited {
    () => {
        match Limited::new() {
            Some(limited) => limited,
            None => return eprintln!("skipped: needs root and a v1 memory hierarchy"),
        }
    };
}

#[test]
fn a_kill_of_the_main_process_is_told_and_counted() {
    let limited = limited!();
    let mut watch = Watch::open(&limited.cgroup()).unwrap().unwrap();
    assert_eq!((watch.take(), watch.kills()), (0, 0));
    let status = limited.run(&format!("exec {ALLOCATE}"));
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert!(wait_readable(watch.fd(), DEADLINE_MS).unwrap());
    assert_eq!((watch.kills(), watch.take(), watch.take()), (1, 1, 0));
    assert_eq!(verdict(Exit::Signal(libc::SIGKILL), watch.kills(), false), Oom::Main);
}

#[test]
fn a_kill_of_a_child_is_not_the_main_processes() {
    let limited = limited!();
    let mut watch = Watch::open(&limited.cgroup()).unwrap().unwrap();
    let status = limited.run(&format!("{ALLOCATE}; exit 5"));
    assert_eq!(status.code(), Some(5));
    let kills = watch.kills();
    assert_eq!(kills, 1);
    assert_eq!(verdict(Exit::Code(5), kills, false), Oom::Child);
}

#[test]
fn removal_neither_hides_a_kill_nor_makes_one() {
    for (script, kills) in [(format!("exec {ALLOCATE}"), 1), ("true".to_owned(), 0)] {
        let limited = limited!();
        let mut watch = Watch::open(&limited.cgroup()).unwrap().unwrap();
        limited.run(&script);
        limited.remove();
        // The removal's own notification comes from a work queue; the sum settles with it.
        let mut told = 0;
        let end = Instant::now() + Duration::from_millis(DEADLINE_MS.unsigned_abs().into());
        while !watch.counts.v1.unwrap().removed || told < kills {
            assert!(Instant::now() < end, "{:?}", watch.counts);
            wait_readable(watch.fd(), DEADLINE_MS).unwrap();
            told += watch.take();
        }
        assert_eq!((told, watch.kills()), (kills, kills), "{script}");
    }
}

#[test]
fn memory_that_is_not_controlled_is_not_watched() {
    assert!(Watch::open(&Cgroup::V1(Vec::new())).unwrap().is_none());
}
