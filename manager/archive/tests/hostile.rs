//! Hostile archives, byte-exact (H3): each is refused or does nothing outside of the target. A
//! naive applier, and GNU tar where it is one, shows that the corpus bites.

#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod support;

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    time::{Duration, Instant},
};

use hull_manager_archive::{
    Budgets, Options, Refused, Whiteouts, apply,
    compression::{Compression, Compressor},
    tar::{Kind, Reader},
    worker::Job,
};
use support::*;

/// What an archive must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It is the archive's fault.
    Refused,
    /// It is applied, beneath the target.
    Inside,
}

use End::{Inside, Refused as No};

/// Each aims at `../canary` from the target, or at the reader itself.
fn corpus() -> Vec<(&'static str, End, Vec<u8>)> {
    let big = |size: u64| Forged { size, ..file("big", "") };
    let device = |kind, device| Forged { device, ..entry(kind, "device") };
    let cases: Vec<(&'static str, End, Vec<Forged>)> = vec![
        ("parent in a name", No, vec![file("../canary/owned", "x")]),
        ("parent inside a name", No, vec![file("a/../../canary/owned", "x")]),
        ("parent alone", No, vec![directory("..")]),
        ("absolute name", Inside, vec![file("/owned", "x")]),
        ("many slashes", Inside, vec![file("///a//b", "x")]),
        (
            "write through a relative link",
            Inside,
            vec![symlink("l", "../canary"), file("l/owned", "x")],
        ),
        (
            "write through a link of links",
            Inside,
            vec![symlink("a", "b"), symlink("b", "../../canary"), file("a/owned", "x")],
        ),
        (
            "write through a link in the middle",
            Inside,
            vec![directory("d"), symlink("d/l", "../../canary"), file("d/l/below/owned", "x")],
        ),
        (
            "write over a link to a file",
            Inside,
            vec![symlink("secret", "../canary/secret"), file("secret", "x")],
        ),
        (
            "directory over a link",
            Inside,
            vec![symlink("d", "../canary"), directory("d"), file("d/owned", "x")],
        ),
        (
            "mode of a link's target",
            Inside,
            vec![
                symlink("s", "../canary/secret"),
                Forged { mode: 0o777, ..symlink("s", "../canary/secret") },
            ],
        ),
        ("circle of links", No, vec![symlink("a", "b"), symlink("b", "a"), file("a/f", "x")]),
        ("hard link out", No, vec![hard_link("h", "../canary/secret")]),
        ("hard link out by an absolute name", No, vec![hard_link("h", "/canary/secret")]),
        (
            "hard link through a link",
            No,
            vec![symlink("l", "../canary"), hard_link("h", "l/secret"), file("h", "x")],
        ),
        (
            "hard link to a link, then written",
            Inside,
            vec![symlink("l", "../canary/secret"), hard_link("h", "l"), file("h", "x")],
        ),
        ("hard link to a directory", No, vec![directory("d"), hard_link("h", "d")]),
        ("hard link to the root", No, vec![hard_link("h", "./")]),
        ("hard link to itself", Inside, vec![file("f", "x"), hard_link("f", "f")]),
        ("hard link to what comes later", No, vec![hard_link("h", "f"), file("f", "x")]),
        (
            "hard link with content",
            No,
            vec![file("f", "x"), Forged { size: 1, content: b"x".to_vec(), ..hard_link("h", "f") }],
        ),
        ("the root is a file", No, vec![file("./", "x")]),
        ("the root is a link", No, vec![symlink("./", "../canary")]),
        ("the root is a link by an absolute name", No, vec![symlink("/", "../canary")]),
        ("the root is a hard link", No, vec![file("f", "x"), hard_link(".", "f")]),
        ("the root is a fifo", No, vec![entry(b'6', ".")]),
        ("a fifo as parent", No, vec![entry(b'6', "p"), file("p/f", "x")]),
        ("a device as parent", No, vec![device(b'3', (1, 3)), file("device/f", "x")]),
        ("a file as parent", No, vec![file("f", "x"), file("f/g", "x")]),
        ("a fifo, then its content", Inside, vec![entry(b'6', "p"), file("p", "x")]),
        ("a whiteout by its device", No, vec![device(b'3', (0, 0))]),
        ("whiteout of the parent", No, vec![file(".wh...", "")]),
        ("whiteout of itself", No, vec![file("d/.wh..", "")]),
        ("whiteout of the root", No, vec![file(".wh.", "")]),
        (
            "whiteout through a link",
            Inside,
            vec![symlink("l", "../canary"), file("l/.wh.secret", "")],
        ),
        (
            "opaque through a link",
            Inside,
            vec![symlink("l", "../canary"), file("l/.wh..wh..opq", "")],
        ),
        ("beneath a whiteout", No, vec![file(".wh.d/f", "x")]),
        ("hard link to a whiteout", No, vec![file(".wh.a", ""), hard_link("b", "a")]),
        ("empty name", No, vec![file("", "x")]),
        ("huge size", No, vec![big(0o77_777_777_777)]),
        ("size without content", No, vec![big(5000)]),
        ("unknown type", No, vec![entry(b'Z', "z")]),
        ("several volumes", No, vec![entry(b'M', "m")]),
        (
            "directory with content",
            No,
            vec![Forged { size: 3, content: b"abc".to_vec(), ..directory("d") }],
        ),
        (
            "link with content",
            No,
            vec![Forged { size: 3, content: b"abc".to_vec(), ..symlink("l", "x") }],
        ),
        ("link to nothing", No, vec![symlink("l", "")]),
        ("size of two kinds", No, vec![pax(&[("size", "512")]), file("a", "abc")]),
        (
            "size hidden from old readers",
            No,
            vec![
                // An old reader finds `evil` in what others skip.
                pax(&[("size", "1024")]),
                Forged { size: 0, ..file("a", "") },
                file("evil", "x"),
            ],
        ),
        ("name of two kinds", No, vec![long(b'L', "one"), pax(&[("path", "two")]), file("a", "x")]),
        (
            "link of two kinds",
            No,
            vec![long(b'K', "one"), pax(&[("linkpath", "two")]), symlink("a", "x")],
        ),
        ("long name twice", No, vec![long(b'L', "one"), long(b'L', "two"), file("a", "x")]),
        (
            "extended header twice",
            No,
            vec![pax(&[("path", "a")]), pax(&[("path", "b")]), file("c", "x")],
        ),
        ("key twice", No, vec![pax(&[("path", "a"), ("path", "b")]), file("c", "x")]),
        ("extended header of nothing", No, vec![pax(&[("path", "a")])]),
        ("extended header out", No, vec![pax(&[("path", "../canary/owned")]), file("a", "x")]),
        ("extended header with NUL", No, vec![pax(&[("path", "a\0b")]), file("a", "x")]),
        (
            "extended link out",
            No,
            vec![pax(&[("linkpath", "../canary/secret")]), hard_link("h", "f")],
        ),
        ("long name out", No, vec![long(b'L', "../canary/owned"), file("a", "x")]),
        ("global path", No, vec![Forged { kind: b'g', ..pax(&[("path", "a")]) }, file("b", "x")]),
        ("owner -1", No, vec![pax(&[("uid", "4294967295")]), file("a", "x")]),
        ("owner too large", No, vec![pax(&[("uid", "4294967296")]), file("a", "x")]),
        (
            "overlay's attribute",
            No,
            vec![pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/")]), directory("d")],
        ),
        (
            "the host's attribute",
            Inside,
            vec![
                pax(&[("SCHILY.xattr.security.selinux", "x"), ("SCHILY.xattr.trusted.x", "y")]),
                file("a", "x"),
            ],
        ),
        (
            "sparse out of itself",
            No,
            vec![
                pax(&[("GNU.sparse.map", "0,4,2,1"), ("GNU.sparse.size", "8")]),
                file("s", "abcde"),
            ],
        ),
        (
            "sparse beyond its size",
            No,
            vec![pax(&[("GNU.sparse.map", "6,5"), ("GNU.sparse.size", "8")]), file("s", "abcde")],
        ),
        (
            "sparse bomb",
            No,
            vec![
                pax(&[("GNU.sparse.map", "0,1"), ("GNU.sparse.size", "9000000000000000000")]),
                file("s", "a"),
            ],
        ),
        (
            "sparse directory",
            No,
            vec![pax(&[("GNU.sparse.map", ""), ("GNU.sparse.size", "8")]), directory("s")],
        ),
        (
            "sparse of an unknown version",
            No,
            vec![
                pax(&[
                    ("GNU.sparse.major", "2"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "8"),
                ]),
                file("s", "x"),
            ],
        ),
        ("prefix in the oldest format", No, {
            let mut old = Forged { magic: b"", ..file("a", "") };
            old.content = Vec::new();
            vec![old]
        }),
        ("too deep", No, vec![pax(&[("path", &"d/".repeat(1100))]), directory("d")]),
        ("too long", No, vec![pax(&[("path", &"x".repeat(5000))]), file("x", "")]),
        ("component too long", No, vec![pax(&[("path", &"x".repeat(256))]), file("x", "")]),
    ];
    let mut corpus: Vec<(&'static str, End, Vec<u8>)> = cases
        .into_iter()
        .map(|(name, end, entries)| {
            let mut bytes = archive(&entries);
            if name == "prefix in the oldest format" {
                bytes[345..351].copy_from_slice(b"prefix");
                fix_checksum(&mut bytes);
            }
            (name, end, bytes)
        })
        .collect();
    let plain = archive(&[file("a", "x")]);
    let mut wrong = plain.clone();
    wrong[0] = b'b';
    corpus.push(("wrong checksum", No, wrong));
    let mut negative = plain.clone();
    negative[124..136].fill(0xff);
    fix_checksum(&mut negative);
    corpus.push(("negative size", No, negative));
    let mut signed = plain.clone();
    signed[124..136].copy_from_slice(b"-0000000001\0");
    fix_checksum(&mut signed);
    corpus.push(("size with a sign", No, signed));
    corpus.push(("something after the end", No, [&plain[..], b"more"].concat()));
    corpus.push(("an archive after the end", No, [&plain[..], &plain[..]].concat()));
    corpus.push(("header bomb", No, {
        let mut header = pax(&[("comment", &"x".repeat(2 << 20))]);
        header.size = header.content.len() as u64;
        archive(&[header, file("a", "x")])
    }));
    corpus
}

fn fix_checksum(bytes: &mut [u8]) {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn hostile_archives_touch_nothing_outside_and_are_refused_for_a_reason() {
    for (name, end, bytes) in corpus() {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
            if whiteouts == Whiteouts::Remove && name.contains("whiteout") {
                continue;
            }
            let place = Place::new();
            let before = tree(&place.canary());
            let target = fs::metadata(place.target()).unwrap().ino();
            let result = place.apply(&bytes, whiteouts);
            assert_eq!(tree(&place.canary()), before, "{name}: the canary was touched");
            let after = fs::symlink_metadata(place.target()).unwrap();
            assert!(after.is_dir() && after.ino() == target, "{name}: the root changed");
            match end {
                Inside => assert!(result.is_ok(), "{name}: {:#}", result.unwrap_err()),
                No => assert!(is_refused(&result), "{name}: {result:?}"),
            }
        }
    }
}

#[test]
fn the_worker_refuses_what_the_applier_refuses() {
    let place = Place::new();
    let input = place.directory.path().join("archive");
    for (name, end, bytes) in corpus() {
        let before = tree(&place.canary());
        fs::remove_dir_all(place.target()).unwrap();
        fs::create_dir(place.target()).unwrap();
        fs::write(&input, &bytes).unwrap();
        let job = Job::Unpack { options: Options::default() };
        let result = work(&job, &place.target(), Some(&input), None);
        assert_eq!(is_refused(&result), end == No, "{name}: {result:?}");
        assert_eq!(result.is_ok(), end == Inside, "{name}: {result:?}");
        assert_eq!(tree(&place.canary()), before, "{name}: the canary was touched");
    }
}

/// What a careless program does: joins names to the target, and follows what is there.
fn apply_naively(root: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut bytes = bytes;
    while bytes.len() >= 512 && bytes[0] != 0 {
        let text = |at: usize, length: usize| {
            let field = &bytes[at..at + length];
            String::from_utf8_lossy(field.split(|b| *b == 0).next().unwrap()).into_owned()
        };
        let name = text(0, 100);
        let path = if name == "./" { root.to_owned() } else { root.join(name) };
        let size = usize::from_str_radix(text(124, 12).trim(), 8)?;
        let link = text(157, 100);
        match bytes[156] {
            b'0' => fs::write(&path, &bytes[512..512 + size])?,
            b'5' => drop(fs::create_dir(&path)),
            b'2' => {
                if path == root {
                    fs::remove_dir_all(&path)?;
                }
                std::os::unix::fs::symlink(&link, path)?;
            }
            b'1' => fs::hard_link(root.join(link), path)?,
            _ => {}
        }
        bytes = &bytes[512 + size.next_multiple_of(512)..];
    }
    Ok(())
}

#[test]
fn a_careless_applier_falls_for_the_corpus() {
    let mut bitten = Vec::new();
    for (name, _, bytes) in corpus() {
        if name == "absolute name" || bytes.len() > 1 << 20 {
            continue;
        }
        let place = Place::new();
        let before = tree(&place.canary());
        let root = place.target();
        // It may panic as well: that is a way to fall.
        let _ = std::panic::catch_unwind(|| apply_naively(&root, &bytes));
        let root_is_kept = fs::symlink_metadata(&root).is_ok_and(|found| found.is_dir());
        if !root_is_kept || tree(&place.canary()) != before {
            bitten.push(name);
        }
    }
    for name in [
        "parent in a name",
        "write through a relative link",
        "write through a link in the middle",
        "write over a link to a file",
        "hard link out",
        "hard link through a link",
        "the root is a link",
    ] {
        assert!(bitten.contains(&name), "{name} bites nobody: {bitten:?}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused_or_a_part_of_the_whole() {
    let whole = archive(&[
        directory("d"),
        pax(&[("path", "d/renamed"), ("SCHILY.xattr.user.test", "v")]),
        file("x", "content"),
        long(b'L', &"n".repeat(150)),
        file("y", "more"),
        symlink("l", "d"),
    ]);
    let place = Place::in_memory();
    place.apply(&whole, Whiteouts::Overlay).unwrap();
    let all = place.tree();
    for length in 0..whole.len() - 1024 {
        let place = Place::in_memory();
        let result = place.apply(&whole[..length], Whiteouts::Overlay);
        if result.is_ok() {
            // Where a block ends, or where of the last file, of at least four bytes, nothing but
            // the padding is missing.
            assert!(matches!(length % 512, 0 | 4..), "cut at {length}");
            let part = place.tree();
            assert!(part.iter().all(|(name, what)| name.is_empty() || all.get(name) == Some(what)));
        } else {
            assert!(is_refused(&result), "cut at {length}: {result:?}");
        }
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_disk() {
    let budgets = Budgets { free_bytes: 1 << 20, ..Budgets::default() };
    // 48 MiB of zeros, in a file and after the end.
    for header in [Vec::new(), Forged { size: 48 << 20, ..file("zeros", "") }.bytes()] {
        let mut bomb = Compressor::new(Compression::Zstd, Vec::new()).unwrap();
        bomb.write_all(&header).unwrap();
        for _ in 0..48 {
            bomb.write_all(&vec![0; 1 << 20]).unwrap();
        }
        let bomb = bomb.finish().unwrap();
        let place = Place::new();
        let input = place.directory.path().join("bomb");
        fs::write(&input, &bomb).unwrap();
        let job = |budgets| Job::Unpack { options: Options { budgets, ..Options::default() } };
        let result = work(&job(budgets), &place.target(), Some(&input), None);
        assert!(is_refused(&result), "{result:?}");
        let written = fs::metadata(place.target().join("zeros")).map_or(0, |found| found.len());
        assert!(written < 24 << 20, "{written} bytes were written");
        let result = work(&job(Budgets::default()), &place.target(), Some(&input), None);
        assert!(header.is_empty() || result.is_ok(), "what is not much is free: {result:?}");
    }
}

#[test]
fn budgets_are_kept() {
    let entries: Vec<Forged> = (0..20).map(|n| file(&format!("f{n}"), "0123456789")).collect();
    let bytes = archive(&entries);
    for (budgets, fits) in [
        (Budgets { entries: 20, ..Budgets::default() }, true),
        (Budgets { entries: 19, ..Budgets::default() }, false),
        (Budgets { content_bytes: 200, ..Budgets::default() }, true),
        (Budgets { content_bytes: 199, ..Budgets::default() }, false),
    ] {
        let place = Place::new();
        let options = Options { budgets, ..Options::default() };
        let result = apply(place.root().as_fd(), &bytes[..], &options);
        assert_eq!(result.is_ok(), fits, "{budgets:?}");
        assert!(fits || is_refused(&result));
    }
}

/// Seconds of a processor that an archive of `count` entries takes.
fn seconds(count: usize, entry: impl Fn(usize) -> Forged, whiteouts: Whiteouts) -> f64 {
    let place = Place::in_memory();
    for n in 0..64 {
        fs::create_dir_all(place.target().join(format!("lower/{n}"))).unwrap();
    }
    let mut bytes = Vec::with_capacity(count * 512);
    for n in 0..count {
        bytes.extend(entry(n).bytes());
    }
    let start = thread_seconds();
    place.apply(&bytes, whiteouts).unwrap();
    thread_seconds() - start
}

/// How long this thread has run: what others do does not count.
fn thread_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
fn time_grows_with_the_archive_and_no_faster() {
    // The table's size is a million entries.
    let full = std::env::var_os("HULL_FULL").is_some();
    let small = if full { 125_000 } else { 2_000 };
    type Shape = (&'static str, fn(usize) -> Forged);
    let shapes: [Shape; 4] = [
        ("the same whiteout", |_| file("d/.wh.x", "")),
        ("many whiteouts", |n| file(&format!("lower/{}/.wh.{n}", n % 64), "")),
        ("the same opaque directory", |_| file("lower/.wh..wh..opq", "")),
        (
            "a file and a directory in turn",
            |n| if n % 2 == 0 { directory("t") } else { file("t", "") },
        ),
    ];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
        for (name, shape) in shapes {
            let few = seconds(small, shape, whiteouts);
            let many = seconds(8 * small, shape, whiteouts);
            // Eight times as many entries; quadratic would be 64.
            assert!(many < 24.0 * few + 0.5, "{name} {whiteouts:?}: {few:.3} s, then {many:.3} s");
        }
    }
}

/// A generator without a crate: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn mutations_cause_no_panic_and_touch_nothing_outside() {
    let budget: u64 =
        std::env::var("HULL_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let seed = std::env::var("HULL_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
            as u64,
    );
    let mut random = Random(seed | 1);
    let seeds: Vec<Vec<u8>> =
        corpus().into_iter().map(|(_, _, bytes)| bytes).filter(|b| b.len() < 20_000).collect();
    let place = Place::new();
    let before = tree(&place.canary());
    let deadline = Instant::now() + Duration::from_secs(budget);
    let mut rounds = 0_u64;
    while Instant::now() < deadline {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        if random.below(3) == 0 {
            let other = &seeds[random.below(seeds.len())];
            let at = 512 * random.below(bytes.len() / 512);
            bytes.truncate(at);
            bytes.extend_from_slice(other);
        }
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = b"0179/.\0 =\n\xff\x80"[random.below(12)],
                _ => bytes.truncate(at.max(512)),
            }
        }
        // Mutations that the checksum finds are not worth much.
        for at in (0..bytes.len() / 512).map(|block| block * 512) {
            if bytes.len() >= at + 512 && bytes[at + 257..].starts_with(b"ustar") {
                fix_checksum(&mut bytes[at..]);
            }
        }
        let whiteouts = [Whiteouts::Overlay, Whiteouts::Remove, Whiteouts::Keep][random.below(3)];
        let options = Options { whiteouts, ..Options::default() };
        let result = apply(place.root().as_fd(), &bytes[..], &options);
        if let Err(error) = &result {
            let machine = format!("{error:#}");
            assert!(
                Refused::of(error).is_some() || is_the_kernels(&machine),
                "seed {seed}: {machine}"
            );
        }
        rounds += 1;
        if rounds.is_multiple_of(500) {
            assert_eq!(tree(&place.canary()), before, "seed {seed}");
            fs::remove_dir_all(place.target()).unwrap();
            fs::create_dir(place.target()).unwrap();
        }
    }
    assert_eq!(tree(&place.canary()), before, "seed {seed}");
    assert!(rounds > 100, "{rounds} rounds");
}

/// What the kernel refuses of names and numbers is an answer too.
fn is_the_kernels(text: &str) -> bool {
    [
        "invalid argument",
        "file too large",
        "not permitted",
        "name too long",
        "not supported",
        "not empty",
    ]
    .iter()
    .any(|reason| text.contains(reason))
}

#[test]
fn listings_are_those_of_gnu_tar_and_python_or_the_archive_is_refused() {
    let place = Place::new();
    let path = place.directory.path().join("archive.tar");
    let mut compared = 0;
    for (name, _, bytes) in corpus() {
        fs::write(&path, &bytes).unwrap();
        let Some(ours) = listing(&bytes) else { continue };
        let tar = std::process::Command::new("tar")
            .args(["--quoting-style=literal", "-P", "-tf"])
            .arg(&path)
            .output()
            .unwrap();
        let theirs: Vec<String> =
            String::from_utf8_lossy(&tar.stdout).lines().map(normal).collect();
        let python = std::process::Command::new("python3")
            .args(["-c", "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name)"])
            .arg(&path)
            .output()
            .unwrap();
        let pythons: Vec<String> =
            String::from_utf8_lossy(&python.stdout).lines().map(normal).collect();
        assert_eq!(ours, theirs, "{name}: GNU tar, {}", String::from_utf8_lossy(&tar.stderr));
        assert_eq!(ours, pythons, "{name}: Python, {}", String::from_utf8_lossy(&python.stderr));
        compared += 1;
    }
    assert!(compared > 20, "{compared} archives were compared");
}

fn normal(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

fn listing(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes, Budgets::default());
    let mut names = Vec::new();
    loop {
        match reader.next_entry() {
            Err(_) => return None,
            Ok(None) => return Some(names),
            Ok(Some(entry)) => {
                assert!(!matches!(&entry.kind, Kind::SymbolicLink(target) if target.is_empty()));
                names.push(String::from_utf8_lossy(&entry.path).into_owned());
            }
        }
    }
}

#[test]
fn gnu_tars_archives_are_applied_as_gnu_tar_does() {
    let place = Place::new();
    let source = place.directory.path().join("source");
    fs::create_dir_all(source.join("d").join("e".repeat(120))).unwrap();
    fs::write(source.join("d").join("e".repeat(120)).join("f".repeat(130)), "deep").unwrap();
    fs::write(source.join("plain"), "plain").unwrap();
    fs::hard_link(source.join("plain"), source.join("zz-linked")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), source.join("longlink")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 4 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (8 << 20) - 3).unwrap();
    drop(sparse);
    hull_runtime_sys::path::mknod(File::open(&source).unwrap(), c"fifo", libc::S_IFIFO | 0o600, 0)
        .unwrap();
    std::os::unix::fs::chown(source.join("plain"), Some(3_000_000), Some(12)).unwrap();
    fs::set_permissions(
        source.join("plain"),
        <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o6755),
    )
    .unwrap();
    hull_runtime_sys::path::set_attribute(
        File::open(source.join("plain")).unwrap(),
        c"user.test",
        b"v",
    )
    .unwrap();
    for format in [
        &[
            "--format=ustar",
            "--exclude=*eeee*",
            "--exclude=longlink",
            "--exclude=plain",
            "--exclude=zz*",
        ][..],
        &["--format=gnu", "-S"],
        &["--format=pax", "-S", "--xattrs"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=oldgnu", "-S"],
    ] {
        let archive = place.directory.path().join("archive.tar");
        let done = std::process::Command::new("tar")
            .args(format)
            .arg("-C")
            .arg(&source)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .output()
            .unwrap();
        assert!(done.status.success(), "{format:?}: {done:?}");
        let theirs = place.directory.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        let done = std::process::Command::new("tar")
            .args(["--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-C"])
            .arg(&theirs)
            .arg("-xpf")
            .arg(&archive)
            .output()
            .unwrap();
        assert!(done.status.success(), "{format:?}: {done:?}");
        fs::remove_dir_all(place.target()).unwrap();
        fs::create_dir(place.target()).unwrap();
        place.apply(&fs::read(&archive).unwrap(), Whiteouts::Overlay).unwrap();
        assert_eq!(place.tree(), tree(&theirs), "{format:?}");
        if format.contains(&"-S") {
            let blocks = fs::metadata(place.target().join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{format:?}: the holes were filled: {blocks} blocks");
        }
        fs::remove_dir_all(theirs).unwrap();
    }
}
