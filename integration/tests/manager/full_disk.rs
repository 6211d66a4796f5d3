//! A data root in which there is no room: what fails says so and leaves nothing, and what makes
//! room works.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use hull_integration::engine::{Hull, busybox_archive, reference};
use hull_integration::{NotRun, not_run, note, tests, wait_until};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

tests![
    a_full_disk_is_a_sentence_and_leaves_nothing,
    each_write_may_find_the_disk_full,
    who_has_no_inode_left_can_start_the_manager_and_make_room,
    what_makes_room_works_on_a_full_disk,
];

const SOON: Duration = Duration::from_secs(30);

/// With a data root that holds some copies of the image, and no more.
fn hull() -> Hull {
    if reference() {
        not_run(NotRun::PeerLacks("docker: its storage is its own affair".into()));
    }
    Hull::start_small(64, &[])
}

/// Takes the inodes there are, by empty files that are removed at the end.
struct Crowd(String);

impl Crowd {
    fn new(hull: &Hull) -> Self {
        // No file system has fewer than it uses.
        let data = hull.site().path("data");
        let used = statvfs(data.as_str()).expect("it is mounted");
        let limit = format!("nr_inodes={}", used.files() - used.files_free() + 64);
        let flags = MsFlags::MS_REMOUNT;
        mount(None::<&str>, data.as_str(), None::<&str>, flags, Some(&*limit))
            .expect("the suite is root");
        let directory = hull.site().make("data/crowd");
        Self(directory)
    }

    /// Lets so many free, and no more.
    fn leave(&self, inodes: usize) {
        let path = |number: usize| format!("{}/{number}", self.0);
        let mut count = fs::read_dir(&self.0).expect("it was made").count();
        loop {
            match File::create_new(path(count)) {
                Ok(_) => count += 1,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32), "{error}");
                    break;
                }
            }
        }
        for number in count.saturating_sub(inodes)..count {
            fs::remove_file(path(number)).expect("it is there");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Takes the space there is, in a file that is removed at the end.
struct Ballast {
    path: String,
    file: File,
}

impl Ballast {
    const PAGE: u64 = 4096;

    fn new(hull: &Hull) -> Self {
        let path = hull.site().path("data/ballast");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Self { file: file.expect("the data root is writable"), path }
    }

    /// Lets so many pages free, and no more.
    fn leave(&mut self, pages: u64) {
        let free = || statvfs(self.path.as_str()).expect("it is mounted").blocks_available();
        let size = self.file.metadata().expect("it is open").len();
        if free() < pages {
            self.file.set_len(size.saturating_sub((pages - free()) * Self::PAGE)).expect("shorter");
            return;
        }
        while free() > pages {
            let piece = vec![1; usize::try_from((free() - pages) * Self::PAGE).expect("small")];
            // Somebody else may be faster.
            let _ = self.file.write(&piece);
        }
    }

    fn fill(&mut self) {
        self.leave(0);
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.set_len(0);
    }
}

/// Before what hulld tells.
const TOLD: &str = "told: ";

/// What there is, in the data root and as hulld tells it.
fn kept(hull: &Hull) -> BTreeSet<String> {
    let data = hull.site().path("data");
    let directories =
        ["snapshots/overlayfs", "content/blobs/sha256", "content/ingest", "containers", "volumes"];
    let files = directories.into_iter().flat_map(|directory| {
        let names = fs::read_dir(Path::new(&data).join(directory)).expect("hulld made it");
        names.map(move |name| {
            let name = name.expect("it can be read").file_name();
            format!("{directory}/{}", name.to_string_lossy())
        })
    });
    let told = [&["ps", "-aq"][..], &["images", "-aq"], &["images"], &["volume", "ls"]];
    let told = told.into_iter().flat_map(|words| {
        let lines = hull.run(words).ok();
        // Ages change.
        let first = |line: &&str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        lines.lines().iter().map(first).map(|line| format!("{TOLD}{line}")).collect::<Vec<_>>()
    });
    files.chain(told).collect()
}

/// What is removed by itself, after its command, is gone soon. Content that nobody refers to may
/// be gone, too.
#[track_caller]
fn is_again(hull: &Hull, before: &BTreeSet<String>, what: &str) {
    wait_until(what, SOON, || {
        let now = kept(hull);
        let differs: Vec<_> = now
            .symmetric_difference(before)
            .filter(|what| now.contains(*what) || what.starts_with(TOLD))
            .collect();
        if !differs.is_empty() {
            note(&format!("differs: {differs:?}"));
        }
        differs.is_empty()
    });
}

/// It failed, and said why in one line.
#[track_caller]
fn is_told(words: &[&str], complaints: &[&str]) {
    let [told] = complaints else { panic!("{words:?} says {complaints:?}") };
    let told = told.to_lowercase();
    assert!(told.contains("no space left") || told.contains("is full"), "{words:?}: {told}");
}

fn a_full_disk_is_a_sentence_and_leaves_nothing() {
    let hull = hull();
    let saved = tempfile::NamedTempFile::new().expect("the temporary directory is writable");
    let saved = saved.path().to_str().expect("the path is text");
    // Large enough that no hole that is left takes it.
    let script = "head -c 3000000 /dev/urandom > /big";
    hull.run(&["run", "--name", "big", "--network", "none", "busybox", "sh", "-c", script]).ok();
    hull.run(&["create", "--name", "small", "busybox", "true"]).ok();
    hull.run(&["commit", "big", "big"]).ok();
    hull.run(&["save", "-o", saved, "big"]).ok();
    hull.run(&["rmi", "big"]).ok();
    let before = kept(&hull);
    let attempts: &[&[&str]] = &[
        &["import", busybox_archive(), "second"],
        &["load", "-i", saved],
        &["commit", "big", "again"],
        &["cp", saved, "small:/x"],
    ];
    let mut ballast = Ballast::new(&hull);
    for words in attempts {
        ballast.fill();
        let failed = hull.run(words).fails();
        is_told(words, &failed.complaints());
    }
    assert_eq!(kept(&hull), before, "nothing half-made");
    drop(ballast);
    for words in attempts {
        hull.run(words).ok();
    }
    hull.run(&["system", "check"]).ok();
}

/// Each command with one page more than before, until that is enough.
fn each_write_may_find_the_disk_full() {
    let hull = hull();
    let outside = hull.site().path("outside");
    let other = "small:1";
    let script = "echo small > /small; sleep 1000";
    let steady = ["run", "-d", "--name", "steady", "--network", "none", "busybox"];
    hull.run(&[&steady[..], &["sh", "-c", script]].concat()).ok();
    hull.run(&["create", "--name", "still", "busybox", "true"]).ok();
    hull.run(&["cp", "still:/bin/busybox", &outside]).ok();
    hull.site().write("small", "of little content");
    let small = hull.site().path("small");
    let small_tar = hull.site().path("small.tar");
    hull.run(&["commit", "steady", other]).ok();
    hull.run(&["save", "-o", &small_tar, other]).ok();
    hull.run(&["rmi", other]).ok();
    let run = ["run", "--rm", "--network", "none", "busybox", "true"];
    let mounts = ["create", "--name", "new", "-v", "/etc", "-v", "/anonymous", "busybox", "true"];
    // What is tried, and what takes it back.
    let attempts: &[(&[&str], &[&[&str]])] = &[
        (&["volume", "create", "new"], &[&["volume", "rm", "new"]]),
        (&["create", "--name", "new", "busybox", "true"], &[&["rm", "new"]]),
        (&mounts, &[&["rm", "-v", "new"]]),
        (&run, &[]),
        (&["exec", "steady", "true"], &[]),
        (&["rename", "still", "other"], &[&["rename", "other", "still"]]),
        (&["cp", &outside, "still:/copied"], &[]),
        (&["tag", "busybox", "new:1"], &[&["rmi", "new:1"]]),
        (&["commit", "steady", "new:1"], &[&["rmi", "new:1"]]),
        (&["import", busybox_archive(), "new:1"], &[&["rmi", "new:1"]]),
        (&["load", "-i", &small_tar], &[&["rmi", other]]),
    ];
    for (words, undo) in attempts {
        let before = kept(&hull);
        let mut ballast = Ballast::new(&hull);
        let mut pages = 0;
        let mut failures = 0;
        loop {
            // The manager's own reserve is whole at each attempt.
            ballast.leave(1024);
            hull.run(&["volume", "create", "refill"]).ok();
            hull.run(&["volume", "rm", "refill"]).ok();
            ballast.leave(pages);
            let output = hull.run(words);
            if output.code() == Some(0) {
                break;
            }
            is_told(words, &output.complaints());
            is_again(&hull, &before, &format!("{words:?} with {pages} pages leaves nothing"));
            failures += 1;
            pages = if pages < 16 { pages + 1 } else { pages * 3 / 2 };
            assert!(pages < 16_384, "{words:?} fails with all the room there is: {output:?}");
        }
        eprintln!("{words:?}: {failures} failures, {pages} pages");
        drop(ballast);
        for words in *undo {
            hull.run(words).ok();
        }
        is_again(&hull, &before, &format!("{words:?} is undone"));
    }
    hull.run(&["exec", "steady", "cat", "/small"]).ok().says("small");
    hull.run(&["cp", &small, "still:/small"]).ok();
    hull.run(&["system", "check"]).ok();
}

fn who_has_no_inode_left_can_start_the_manager_and_make_room() {
    let mut hull = hull();
    let script = "touch /made && echo written";
    let words = ["--network", "none", "busybox", "sh", "-c", script];
    for name in ["one", "two", "three"] {
        hull.run(&[&["create", "--name", name], &words[..]].concat()).ok();
    }
    let crowd = Crowd::new(&hull);
    crowd.leave(0);
    hull.crash();
    // Whatever a killed one has left.
    crowd.leave(0);
    hull.restart();
    // Where it has no place to work in, the kernel mounts a root read-only, and says nothing.
    let attempts: &[(&[&str], &str)] =
        &[(&["start", "-a", "one"], "written"), (&["cp", "/etc/hostname", "two:/copied"], "")];
    for (words, said) in attempts {
        let mut inodes = 0;
        loop {
            crowd.leave(inodes);
            let output = hull.run(words);
            if output.code() == Some(0) {
                output.says(said);
                break;
            }
            is_told(words, &output.complaints()[..1]);
            inodes += 1;
        }
        assert!(inodes > 0, "{words:?} needs none");
    }
    crowd.leave(0);
    for name in ["one", "two", "three"] {
        hull.run(&["rm", name]).ok();
    }
    drop(crowd);
    hull.run(&["system", "check"]).ok();
}

fn what_makes_room_works_on_a_full_disk() {
    let mut hull = hull();
    let start = |name: &str, options: &[&str]| {
        let base = ["run", "-d", "--name", name, "--network", "none"];
        let rest = ["busybox", "sh", "-c", "echo said; exec sleep 1000"];
        hull.run(&[&base[..], options, &rest].concat()).ok();
    };
    start("one", &["-v", "named:/data"]);
    start("two", &["-v", "/anonymous"]);
    start("three", &["--rm"]);
    for number in 0..20 {
        hull.run(&["create", "--name", &format!("idle{number}"), "busybox", "true"]).ok();
    }
    hull.run(&["commit", "one", "made"]).ok();
    hull.run(&["volume", "create", "unused"]).ok();
    wait_until("it has spoken", SOON, || hull.run(&["logs", "one"]).ok().text() == "said");
    let mut ballast = Ballast::new(&hull);
    let mut full = |words: &[&str]| {
        ballast.fill();
        hull.run(words).ok()
    };
    full(&["ps", "-a"]);
    full(&["images"]);
    full(&["system", "df"]);
    full(&["logs", "one"]).says("said");
    full(&["stop", "-t", "0", "one"]);
    full(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"])
        .says("exited 137");
    full(&["kill", "three"]);
    wait_until("it removes itself", SOON, || {
        full(&["ps", "-aq", "--filter", "name=three"]).text().is_empty()
    });
    full(&["wait", "one"]).says("137");
    full(&["rm", "one"]);
    full(&["rm", "-f", "-v", "two"]);
    // As fast as room is made, somebody else takes it.
    for number in 0..19 {
        full(&["rm", &format!("idle{number}")]);
    }
    full(&["volume", "rm", "named"]);
    full(&["volume", "prune", "-a", "-f"]);
    full(&["container", "prune", "-f"]);
    full(&["rmi", "made"]);
    full(&["system", "prune", "-a", "-f", "--volumes"]);
    full(&["ps", "-aq"]).says("");
    full(&["images", "-aq"]).says("");
    full(&["volume", "ls", "-q"]).says("");
    ballast.fill();
    // So does a start.
    hull.crash_and_restart();
    hull.run(&["ps", "-aq"]).ok().says("");
    ballast.fill();
    hull.stop_and_restart();
    hull.run(&["images", "-q"]).ok().says("");
    drop(ballast);
    hull.run(&["import", busybox_archive(), "busybox"]).ok();
    hull.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    hull.run(&["system", "check"]).ok();
}
