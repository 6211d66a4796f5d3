//! What a container changed: the same layer, to the byte, whatever the driver.

use std::fs;

use hull_manager_archive::changes;
use hull_specs_image::Digest;

use crate::fixture::{Fixture, archive, listed, sh};

const IMAGE: &str = "
    mkdir -p etc/sub var/lib/apt usr/bin tmp; echo a > etc/a; echo b > etc/b; echo c > etc/sub/c
    echo l > var/lib/apt/list; echo x > usr/bin/x; ln usr/bin/x usr/bin/y; ln -s a etc/link
    mkdir -p deep/1/2; echo f > deep/1/2/f; echo g > deep/g; mkdir old; echo o > old/o; echo t > type
    find . -exec touch -h -d '2010-01-01 UTC' {} +
";

/// What a container does to [`IMAGE`], and a fixed time for what it made.
const CASES: &[(&str, &str)] = &[
    ("nothing", ":"),
    ("a new file", "echo new > etc/new"),
    ("a changed file", "echo longer > etc/a"),
    ("a removed file", "rm etc/b"),
    ("a removed directory", "rm -r deep"),
    ("a directory made again", "rm -r deep; mkdir -p deep/1; echo n > deep/1/n"),
    ("a directory made again in another", "rm -r var; mkdir -p var/lib; chmod 700 var/lib"),
    ("a directory that was moved", "mv old new"),
    ("a file in the place of a directory", "rm -r deep; echo f > deep"),
    ("a directory in the place of a file", "rm type; mkdir type; echo n > type/n"),
    ("a mode", "chmod 600 etc/sub/c; chmod 700 etc/sub"),
    ("an owner", "chown 5:6 etc/a; chown -h 7:7 etc/link"),
    ("a link to elsewhere", "ln -sf b etc/link"),
    ("another name", "ln etc/a etc/again"),
    ("a time", "touch -d '2011-01-01 UTC' etc/a"),
    ("made and removed again", "echo x > etc/x; rm etc/x; mkdir etc/y; rmdir etc/y"),
    ("special files", "mkfifo etc/fifo; mknod etc/null c 1 3; ln -s nowhere etc/dangling"),
    ("holes", "truncate -s 1M tmp/holes; echo x >> tmp/holes"),
    (
        "all of it",
        "rm etc/b; echo 2 > etc/sub/c; rm -r var; mkdir var; cp -r old copy; mv usr/bin/x usr/x",
    ),
];

/// Sets the time of whatever was touched.
const SETTLE: &str = "find . -newermt '2012-01-01 UTC' -exec touch -h -d '2020-01-01 UTC' {} +";

fn images() -> [(Fixture, Digest); 2] {
    ["overlayfs", "vfs"].map(|driver| {
        let fixture = Fixture::new(driver);
        let low = fixture.layer("low", None, |root| sh(root, IMAGE));
        let high = fixture.layer("high", Some(&low), |root| {
            sh(root, "mkdir etc; echo h > etc/h; find . -exec touch -d '2010-01-01 UTC' {} +");
        });
        (fixture, high)
    })
}

#[test]
fn every_change_makes_the_same_layer_with_both_drivers() {
    let images = images();
    for (what, script) in CASES {
        let found = images.each_ref().map(|(fixture, image)| {
            fixture.snapshots.prepare("one", Some(image)).unwrap();
            fixture.change("one", script);
            fixture.change("one", SETTLE);
            let changed = fixture.snapshots.changes("one").unwrap();
            let told = changes(&changed.source()).unwrap();
            let found = (told, listed(&changed), Digest::of(&archive(&changed)));
            fixture.snapshots.remove("one").unwrap();
            found
        });
        assert_eq!(found[0], found[1], "{what}");
        assert_eq!(found[0].0.is_empty(), *what == "nothing", "{what}: {found:?}");
    }
}

#[test]
fn a_committed_container_looks_like_the_container() {
    for (fixture, image) in images() {
        for (what, script) in CASES {
            let snapshots = &fixture.snapshots;
            snapshots.prepare("one", Some(&image)).unwrap();
            fixture.change("one", script);
            fixture.change("one", SETTLE);
            let bytes = archive(&snapshots.changes("one").unwrap());
            let staged = snapshots.stage("staged").unwrap();
            crate::fixture::unpack(&staged.dir, &bytes);
            let layer = Digest::of(what.as_bytes());
            snapshots.commit_layer("staged", &layer, Some(&image)).unwrap();
            let look = |root: std::os::fd::OwnedFd| {
                let mut tree = crate::fixture::tree(&crate::fixture::at(&root));
                tree.remove("");
                for line in tree.values_mut() {
                    // Names that an overlay broke apart.
                    if let Some(at) = line.find(" is ") {
                        line.truncate(at);
                    }
                }
                tree
            };
            let container = look(snapshots.mount_detached("one", true).unwrap());
            assert_eq!(look(snapshots.mount_layer(&layer).unwrap()), container, "{what}");
            snapshots.remove("one").unwrap();
        }
        assert!(fs::read_dir(fixture.root()).unwrap().count() == 2 + CASES.len());
    }
}

#[test]
fn a_capability_given_to_a_file_is_a_change() {
    for (fixture, image) in images() {
        fixture.snapshots.prepare("one", Some(&image)).unwrap();
        let root = fixture.snapshots.mount_detached("one", false).unwrap();
        let file = fs::File::open(crate::fixture::at(&root).join("etc/a")).unwrap();
        let capability: Vec<u8> =
            [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        hull_runtime_sys::path::set_attribute(file, c"security.capability", &capability).unwrap();
        drop(root);
        let changed = fixture.snapshots.changes("one").unwrap();
        let told = changes(&changed.source()).unwrap();
        assert!(told.iter().any(|change| change.path == b"/etc/a"), "{}: {told:?}", fixture.driver);
    }
}
