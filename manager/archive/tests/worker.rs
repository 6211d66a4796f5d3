//! The worker as a process: what it makes, says and may not do.

#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod support;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    time::{Duration, Instant},
};

use hull_manager_archive::{
    Budgets, Options, Owners, Refused, Source, Whiteouts, changes,
    compression::{Compression, Compressor},
    worker::{Changed, Files, Job, Outcome, Packing, Worker, nowhere, spawn_program},
};
use hull_specs_image::Digest;
use support::*;

fn unpack() -> Job {
    Job::Unpack { options: Options::default() }
}

fn sample() -> Vec<u8> {
    let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    archive(&[
        Forged { mode: 0o1777, ..directory("./") },
        Forged { mode: 0o2750, uid: 1000, ..directory("d") },
        Forged { mode: 0o6755, uid: 1000, ..file("d/setuid", "content") },
        pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.test", "v")]),
        Forged { mode: 0o755, ..file("d/capable", "content") },
        hard_link("h", "d/setuid"),
        Forged { uid: 7, ..symlink("l", "/d") },
        Forged { device: (1, 3), mode: 0o666, ..entry(b'3', "null") },
        Forged { mode: 0o640, ..entry(b'6', "fifo") },
        file(".wh.hidden", ""),
        file("d/.wh..wh..opq", ""),
        pax(&[("mtime", "1234567890.123456789")]),
        file("exact", ""),
    ])
}

fn start(job: &Job, root: &Path) -> Worker {
    let root = File::open(root).unwrap();
    let files = Files { root: root.as_fd(), base: None, input: None, output: None };
    spawn_program(program().as_c_str(), job, files).unwrap()
}

#[test]
fn a_layer_arrives_as_it_was_in_every_compression() {
    let plain = sample();
    let mut trees = Vec::new();
    for form in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let place = Place::new();
        let bytes = compressed(form, &plain);
        let mut worker = start(&unpack(), &place.target());
        worker.input.as_mut().unwrap().write_all(&bytes).unwrap();
        let outcome = worker.finish().unwrap();
        assert_eq!(outcome.diff_id, Digest::of(&plain));
        assert_eq!(
            (outcome.plain_bytes, outcome.archive_bytes),
            (plain.len() as u64, bytes.len() as u64)
        );
        assert_eq!(outcome.file_bytes, 14);
        let tree = place.tree();
        assert!(tree[""].starts_with("directory 1777 0:0"), "{tree:?}");
        assert!(tree["d"].starts_with("directory, opaque 2750 1000:0"), "{tree:?}");
        assert!(tree["d/setuid"].contains(" 6755 1000:0"), "{tree:?}");
        assert!(tree["d/capable"].contains("Some([1, 0, 0, 2, 0, 4"), "{tree:?}");
        assert!(tree["h"].ends_with("is d/setuid"), "{tree:?}");
        assert_eq!(tree["null"], "device c 1:3 666 0:0");
        assert_eq!(tree["fifo"], "fifo 640 0:0");
        assert!(tree["hidden"].starts_with("device c 0:0"), "{tree:?}");
        let exact = fs::metadata(place.target().join("exact")).unwrap();
        assert_eq!((exact.mtime(), exact.mtime_nsec()), (1_234_567_890, 123_456_789));
        let directory = fs::metadata(place.target().join("d")).unwrap();
        assert_eq!(directory.mtime(), 0o14_000_000_000, "set after what was made in it");
        trees.push(tree);
    }
    assert!(trees.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn packing_what_was_unpacked_gives_the_same_bytes_again() {
    let place = Place::new();
    place.apply(&sample(), Whiteouts::Overlay).unwrap();
    let diff = |root: &Path, packing| {
        let output = place.directory.path().join("layer");
        let job = Job::Diff { changed: Changed::Upper, packing };
        let outcome = work(&job, root, None, Some(&output)).unwrap();
        let bytes = fs::read(output).unwrap();
        assert_eq!(outcome.archive_bytes, bytes.len() as u64);
        (outcome, bytes)
    };
    let (outcome, bytes) = diff(&place.target(), Packing::Plain);
    assert_eq!(outcome.diff_id, Digest::of(&bytes));
    let again = Place::new();
    again.apply(&bytes, Whiteouts::Overlay).unwrap();
    let (mut ours, mut theirs) = (again.tree(), place.tree());
    // The root is a layer's affair only by what is in it.
    assert!(ours.remove("").is_some() && theirs.remove("").is_some());
    assert_eq!(ours, theirs);
    assert_eq!(diff(&again.target(), Packing::Plain), (outcome, bytes));
    for packing in [Packing::Gzip, Packing::Zstd] {
        let (one, bytes) = diff(&place.target(), packing);
        assert_eq!(one.diff_id, outcome.diff_id);
        assert_eq!(diff(&again.target(), packing).1, bytes);
    }
}

#[test]
fn one_path_is_packed_and_put_elsewhere() {
    let place = Place::new();
    fs::create_dir_all(place.target().join("etc/sub")).unwrap();
    fs::write(place.target().join("etc/sub/f"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", place.target().join("l")).unwrap();
    std::os::unix::fs::symlink("../../canary", place.target().join("out")).unwrap();
    let output = place.directory.path().join("copy");
    let pack = |at: &str, name: &str, follow| {
        let job = Job::Pack { at: at.into(), name: name.into(), follow, packing: Packing::Plain };
        work(&job, &place.target(), None, Some(&output)).map(|_| {
            let mut reader = hull_manager_archive::tar::Reader::new(
                std::io::BufReader::new(File::open(&output).unwrap()),
                Default::default(),
            );
            let mut names = Vec::new();
            while let Some(entry) = reader.next_entry().unwrap() {
                names.push(String::from_utf8(entry.path).unwrap());
            }
            names
        })
    };
    assert_eq!(pack("/etc", "etc", false).unwrap(), ["etc", "etc/sub", "etc/sub/f"]);
    assert_eq!(pack("etc/sub/f", "renamed", false).unwrap(), ["renamed"]);
    assert_eq!(pack("l", "l", false).unwrap(), ["l"]);
    assert_eq!(pack("l", "x", true).unwrap(), ["x", "x/sub", "x/sub/f"]);
    assert_eq!(pack("l/sub", "", false).unwrap(), ["f"]);
    assert!(pack("out/secret", "s", true).is_err(), "links lead nowhere outside");
    assert!(pack("none", "n", false).is_err());

    let job = Job::CopyIn {
        at: b"/l/sub".to_vec(),
        options: Options {
            whiteouts: Whiteouts::Keep,
            owners: Owners::Are(5, 6),
            keep_kinds: true,
            ..Options::default()
        },
    };
    let copy = |entries: &[Forged]| {
        let input = place.directory.path().join("in");
        fs::write(&input, archive(entries)).unwrap();
        work(&job, &place.target(), Some(&input), None)
    };
    copy(&[directory("new"), file("new/.wh.x", "y"), symlink("a", "/l"), file("a/abs", "z")])
        .unwrap();
    let tree = place.tree();
    assert!(tree["etc/sub/new/.wh.x"].contains(" 644 5:6"), "{tree:?}");
    assert!(tree.contains_key("etc/abs"), "links begin at the root: {tree:?}");
    let error = copy(&[file("new", "x")]).unwrap_err();
    assert!(
        error.to_string().contains("cannot overwrite directory with non-directory"),
        "{error:#}"
    );
    let error = copy(&[directory("f")]).unwrap_err();
    assert!(
        error.to_string().contains("cannot overwrite non-directory with directory"),
        "{error:#}"
    );
}

#[test]
fn changes_are_told_as_docker_does_and_make_a_layer() {
    let place = Place::new();
    let base = place.directory.path().join("base");
    for (path, content) in
        [("d/keep", "k"), ("d/edit", "1"), ("d/gone", "g"), ("old/f", "f"), ("type", "t")]
    {
        let path = base.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(base.join("."))
        .arg(place.target())
        .status()
        .unwrap();
    assert!(copied.success());
    fs::write(place.target().join("d/edit"), "22").unwrap();
    fs::remove_file(place.target().join("d/gone")).unwrap();
    fs::remove_dir_all(place.target().join("old")).unwrap();
    fs::remove_file(place.target().join("type")).unwrap();
    fs::create_dir(place.target().join("type")).unwrap();
    fs::write(place.target().join("type/new"), "n").unwrap();
    let (tree, below) = (File::open(place.target()).unwrap(), File::open(&base).unwrap());
    let source = Source::Tree(tree.as_fd(), Some(below.as_fd()));
    let told: Vec<String> = changes(&source)
        .unwrap()
        .into_iter()
        .map(|change| format!("{:?} {}", change.kind, String::from_utf8(change.path).unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            "Modified /d",
            "Modified /d/edit",
            "Deleted /d/gone",
            "Deleted /old",
            "Modified /type",
            "Added /type/new",
        ]
    );
    let mut layer = Vec::new();
    hull_manager_archive::diff(&source, &mut layer).unwrap();
    let again = Place::new();
    fs::remove_dir(again.target()).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&base).arg(again.target()).status().unwrap();
    assert!(copied.success());
    again.apply(&layer, Whiteouts::Remove).unwrap();
    let paths = |place: &Place| place.tree().into_iter().collect::<Vec<_>>();
    assert_eq!(paths(&again), paths(&place));
}

fn compressed(form: Compression, plain: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(form, Vec::new()).unwrap();
    compressor.write_all(plain).unwrap();
    compressor.finish().unwrap()
}

/// What a worker that can reach nothing makes of this, and what it says.
fn decompress(bytes: &[u8], budgets: Budgets) -> (Vec<u8>, anyhow::Result<Outcome>) {
    let nowhere = nowhere().unwrap();
    let files = Files { root: nowhere.as_fd(), base: None, input: None, output: None };
    let job = Job::Decompress { budgets };
    let mut worker = spawn_program(program().as_c_str(), &job, files).unwrap();
    let (mut input, mut output) = (worker.input.take().unwrap(), worker.output.take().unwrap());
    let plain = std::thread::scope(|scope| {
        // It may have enough before all is written.
        scope.spawn(move || drop(input.write_all(bytes)));
        let mut plain = Vec::new();
        output.read_to_end(&mut plain).unwrap();
        plain
    });
    (plain, worker.finish())
}

#[test]
fn an_archive_is_decompressed_and_applied_nowhere() {
    let plain = "0123456789".repeat(1 << 20);
    for form in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = compressed(form, plain.as_bytes());
        let (made, outcome) = decompress(&bytes, Budgets::default());
        assert!(made == plain.as_bytes());
        let outcome = outcome.unwrap();
        assert_eq!(outcome.diff_id, Digest::of(plain.as_bytes()));
        assert_eq!(outcome.archive_bytes, bytes.len() as u64);
        let budgets = Budgets { free_bytes: 1 << 20, expansion: 2, ..Budgets::default() };
        let (made, outcome) = decompress(&bytes, budgets);
        if form != Compression::None {
            assert!(made.len() < 2 << 20, "{} bytes came of a bomb", made.len());
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains("2 times larger"), "{error:#}");
            let (_, outcome) = decompress(&bytes[..bytes.len() / 2], Budgets::default());
            assert!(Refused::of(&outcome.unwrap_err()).is_some());
        }
    }
}

#[test]
fn who_decompresses_has_no_directory() {
    let nowhere = nowhere().unwrap();
    let files = Files { root: nowhere.as_fd(), base: None, input: None, output: None };
    let job = Job::Decompress { budgets: Budgets::default() };
    let worker = spawn_program(program().as_c_str(), &job, files).unwrap();
    let pid = worker.pid().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(pid, "Seccomp:") != "2" {
        assert!(Instant::now() < deadline, "it has no filter");
        std::thread::yield_now();
    }
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0);
    let made = fs::write(format!("/proc/{pid}/root/made"), "");
    assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EROFS));
}

#[test]
fn a_cut_input_is_the_archives_fault_and_a_killed_worker_is_not() {
    let place = Place::new();
    let mut worker = start(&unpack(), &place.target());
    worker.input.as_mut().unwrap().write_all(&sample()[..700]).unwrap();
    let error = worker.finish().unwrap_err();
    assert!(Refused::of(&error).is_some(), "{error:#}");
    assert!(error.to_string().contains("ends in the middle"), "{error:#}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn the_worker_ends_with_whoever_waits_for_it() {
    let place = Place::new();
    let worker = start(&unpack(), &place.target());
    let pid = worker.pid().unwrap();
    // The input stays open: only the end of the report tells it.
    let input =
        File::from(hull_runtime_sys::fd::duplicate(worker.input.as_ref().unwrap(), 3).unwrap());
    drop(worker);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    drop(input);
}

/// What the kernel says of a running worker.
fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn the_worker_has_given_up_what_it_does_not_need() {
    let place = Place::new();
    let worker = start(&unpack(), &place.target());
    let pid = worker.pid().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(pid, "Seccomp:") != "2" {
        assert!(Instant::now() < deadline, "it has no filter");
        std::thread::yield_now();
    }
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    let caps = u64::from_str_radix(&status(pid, "CapEff:"), 16).unwrap();
    // No network, no signals to others, no modules, no chroot, no ptrace, no raw IO.
    for capability in [5, 12, 13, 16, 17, 18, 19, 23] {
        assert_eq!(caps >> capability & 1, 0, "capability {capability}");
    }
    let link = |what: &str, pid: &str| fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
    let pid_text = pid.to_string();
    for namespace in ["ns/net", "ns/mnt", "ns/ipc"] {
        assert_ne!(link(namespace, &pid_text), link(namespace, "self"), "{namespace}");
    }
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/root")).unwrap() {
        seen.push(entry.unwrap().file_name());
    }
    assert!(seen.is_empty(), "its root is the target: {seen:?}");
    let mut kinds: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| !target.starts_with("pipe:") && target != "/dev/null")
        .collect();
    kinds.sort();
    // The target, and this suite's own standard error.
    let stderr = fs::read_link("/proc/self/fd/2").unwrap().display().to_string();
    kinds.retain(|target| *target != stderr && target != "/");
    assert_eq!(kinds, Vec::<String>::new());
    drop(worker);
}

#[test]
fn a_full_disk_is_told_apart() {
    let place = Place::new();
    let options = hull_runtime_sys::mount::Context::open("tmpfs").unwrap();
    options.set("size", "65536").unwrap();
    options.create().unwrap();
    let small = options.mount(hull_runtime_sys::mount::Attributes::NONE).unwrap();
    let bytes = archive(&[file("big", &"x".repeat(200_000))]);
    let input = place.directory.path().join("input");
    fs::write(&input, bytes).unwrap();
    let input = File::open(input).unwrap();
    let files = Files { root: small.as_fd(), base: None, input: Some(input.as_fd()), output: None };
    let error =
        spawn_program(program().as_c_str(), &unpack(), files).unwrap().finish().unwrap_err();
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    assert_eq!(io.and_then(std::io::Error::raw_os_error), Some(libc::ENOSPC), "{error:#}");
}

#[test]
fn the_output_can_be_read_while_it_is_made() {
    let place = Place::new();
    let content = "0123456789".repeat(400_000);
    fs::write(place.target().join("big"), &content).unwrap();
    fs::set_permissions(place.target().join("big"), fs::Permissions::from_mode(0o600)).unwrap();
    let job = Job::Pack { at: Vec::new(), name: Vec::new(), follow: false, packing: Packing::Gzip };
    let mut worker = start(&job, &place.target());
    let mut bytes = Vec::new();
    worker.output.as_mut().unwrap().read_to_end(&mut bytes).unwrap();
    let outcome = worker.finish().unwrap();
    assert_eq!((outcome.entries, outcome.file_bytes), (1, 4_000_000));
    assert_eq!(outcome.archive_bytes, bytes.len() as u64);
}

#[test]
fn a_worker_that_nobody_reads_from_says_so() {
    let place = Place::new();
    // More than the pipe holds.
    fs::write(place.target().join("big"), vec![1; 3 << 20]).unwrap();
    let job =
        Job::Pack { at: Vec::new(), name: Vec::new(), follow: false, packing: Packing::Plain };
    let mut worker = start(&job, &place.target());
    worker.output.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
    let error = worker.finish().unwrap_err();
    let left = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    assert!(error.chain().any(left), "{error:#}");
}
