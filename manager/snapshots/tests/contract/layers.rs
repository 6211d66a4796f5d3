//! The life of layers, snapshots and views.

use std::{fs, os::unix::fs::PermissionsExt as _};

use hull_manager_core::ErrorKind;
use hull_manager_snapshots::{Kind, open};
use hull_specs_image::Digest;

use crate::{
    fixture::{Fixture, at, names},
    with_each_driver,
};

with_each_driver! {
    fn a_snapshot_shows_its_layers_and_keeps_its_changes(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        let high = fixture.simple("high", Some(&low));
        let snapshots = &fixture.snapshots;
        let mounts = snapshots.prepare("one", Some(&high)).unwrap();
        assert_eq!(mounts, snapshots.mounts("one").unwrap());
        assert_eq!(mounts[0].kind, if fixture.driver == "vfs" { "bind" } else { "overlay" });
        let mounted = snapshots.mount_detached("one", false).unwrap();
        assert_eq!(names(&mounted), ["high", "low"]);
        fs::write(at(&mounted).join("made"), "x").unwrap();
        drop(mounted);
        assert_eq!(fixture.names("one"), ["high", "low", "made"]);
        assert_eq!(names(&snapshots.mount_layer(&low).unwrap()), ["low"]);
        assert_eq!(names(&snapshots.mount_layer(&high).unwrap()), ["high", "low"]);
        let usage = snapshots.usage("one").unwrap();
        assert_eq!((usage.inodes, usage.bytes), (2, 1));
        let usage = snapshots.layer_usage(&high).unwrap();
        assert_eq!(usage.inodes, 2, "its own root and file, not its parent's");
        let read_only = snapshots.mount_detached("one", true).unwrap();
        assert!(fs::write(at(&read_only).join("x"), "x").is_err());
    }

    fn a_layer_is_not_changed_by_what_lies_on_it(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        for key in ["one", "two"] {
            fixture.snapshots.prepare(key, Some(&low)).unwrap();
        }
        fixture.change("one", "echo other > low; chmod 700 .; rm -f none; mkdir d");
        assert_eq!(fixture.names("two"), ["low"]);
        let layer = fixture.snapshots.mount_layer(&low).unwrap();
        assert_eq!(fs::read(at(&layer).join("low")).unwrap(), b"low");
        assert!(fs::write(at(&layer).join("x"), "x").is_err());
    }

    fn a_view_shows_a_layer_and_takes_nothing(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        for (key, parent, shown) in [("v", Some(&low), vec!["low"]), ("empty", None, vec![])] {
            let mounts = fixture.snapshots.view(key, parent).unwrap();
            assert!(mounts[0].options.iter().any(|option| option == "ro") || mounts[0].kind == "overlay");
            assert_eq!(fixture.names(key), shown);
            let mounted = fixture.snapshots.mount_detached(key, false).unwrap();
            assert!(fs::write(at(&mounted).join("x"), "x").is_err(), "{key}");
        }
        assert!(fixture.snapshots.remove_layer(&low).is_err(), "the view lies on it");
        fixture.snapshots.remove("v").unwrap();
        fixture.snapshots.remove_layer(&low).unwrap();
    }

    fn a_snapshot_on_nothing_is_an_empty_directory(fixture: &mut Fixture) {
        fixture.snapshots.prepare("one", None).unwrap();
        fixture.change("one", "echo a > a");
        assert_eq!(fixture.names("one"), ["a"]);
        assert!(fixture.snapshots.changes("one").unwrap().below.is_none());
    }

    fn a_layer_in_use_is_not_removed(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        let high = fixture.simple("high", Some(&low));
        let snapshots = &fixture.snapshots;
        snapshots.prepare("one", Some(&high)).unwrap();
        for layer in [&low, &high] {
            assert_eq!(snapshots.remove_layer(layer).unwrap_err().kind(), ErrorKind::FailedPrecondition);
        }
        assert_eq!(snapshots.prepare("one", None).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(snapshots.view("one", None).unwrap_err().kind(), ErrorKind::AlreadyExists);
        snapshots.remove("one").unwrap();
        snapshots.remove("one").unwrap();
        snapshots.remove_layer(&high).unwrap();
        snapshots.remove_layer(&low).unwrap();
        assert_eq!(snapshots.remove_layer(&low).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!((snapshots.list().unwrap().len(), fixture.directories()), (0, 0));
    }

    fn what_is_not_there_is_not_found(fixture: &mut Fixture) {
        let none = Digest::of(b"none");
        let snapshots = &fixture.snapshots;
        assert_eq!(snapshots.prepare("one", Some(&none)).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(snapshots.mounts("one").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(snapshots.changes("one").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(snapshots.usage("one").unwrap_err().kind(), ErrorKind::NotFound);
        snapshots.stage("s").unwrap();
        assert!(snapshots.commit_layer("s", &Digest::of(b"x"), Some(&none)).is_err());
        snapshots.remove("s").unwrap();
        assert_eq!(fixture.directories(), 0, "a failed one leaves nothing");
    }

    fn the_same_layer_twice_is_one(fixture: &mut Fixture) {
        let first = fixture.simple("low", None);
        assert_eq!(fixture.simple("low", None), first);
        assert_eq!(fixture.directories(), 1);
        assert!(!fixture.snapshots.has_layer(&Digest::of(b"")).unwrap());
        assert!(fixture.snapshots.has_layer(&first).unwrap());
        let list = fixture.snapshots.list().unwrap();
        assert_eq!((list.len(), list[0].kind, &list[0].parent), (1, Kind::Layer, &None));
    }

    fn what_is_staged_again_begins_empty(fixture: &mut Fixture) {
        let staged = fixture.snapshots.stage("s").unwrap();
        fs::write(staged.path.join("half"), "x").unwrap();
        assert_eq!(names(&fixture.snapshots.stage("s").unwrap().dir), [""; 0]);
        assert_eq!(fixture.directories(), 1);
    }

    fn a_hundred_layers_are_mounted(fixture: &mut Fixture) {
        let mut below = None;
        for number in 0..100 {
            below = Some(fixture.simple(&format!("l{number}"), below.as_ref()));
        }
        fixture.snapshots.prepare("one", below.as_ref()).unwrap();
        assert_eq!(fixture.names("one").len(), 100);
    }

    fn the_roots_mode_and_owner_are_the_images(fixture: &mut Fixture) {
        let low = fixture.layer("low", None, |root| {
            fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(root, Some(5), Some(6)).unwrap();
        });
        fixture.snapshots.prepare("one", Some(&low)).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let root = fixture.snapshots.mount_detached("one", true).unwrap();
        let found = fs::metadata(at(&root)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o700, 5, 6));
    }

    fn many_at_once_leave_one_layer_and_their_own_snapshots(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        let fixture = &*fixture;
        std::thread::scope(|scope| {
            for number in 0..8 {
                let low = &low;
                scope.spawn(move || {
                    let key = format!("stage-{number}");
                    let staged = fixture.snapshots.stage(&key).unwrap();
                    fs::write(staged.path.join("high"), "high").unwrap();
                    let high = Digest::of(b"high");
                    fixture.snapshots.commit_layer(&key, &high, Some(low)).unwrap();
                    let key = format!("one-{number}");
                    fixture.snapshots.prepare(&key, Some(&high)).unwrap();
                    assert_eq!(fixture.names(&key), ["high", "low"]);
                    // Refused: others lie on it.
                    assert!(fixture.snapshots.remove_layer(low).is_err());
                    if number % 2 == 0 {
                        fixture.snapshots.remove(&key).unwrap();
                    }
                });
            }
        });
        assert_eq!(fixture.directories(), 2 + 4);
        assert_eq!(fixture.snapshots.list().unwrap().len(), 2 + 4);
        assert_eq!(fixture.snapshots.check(false).unwrap(), []);
    }
}

#[test]
fn a_data_root_stays_with_the_driver_that_it_was_used_with() {
    let fixture = Fixture::new("vfs");
    fixture.simple("low", None);
    let root = fixture.directory.path().join("snapshots");
    let reopen = |driver| open(driver, &root, &fixture.store);
    assert_eq!(reopen(None).unwrap().name(), "vfs");
    let error = reopen(Some("overlay2")).err().unwrap();
    assert!(error.message().contains("are of vfs"), "{error}");
    fixture.snapshots.remove_layer(&Digest::of(b"low")).unwrap();
    assert_eq!(reopen(Some("overlay2")).unwrap().name(), "overlayfs");
    assert_eq!(reopen(None).unwrap().name(), "overlayfs", "where it works");
    assert_eq!(reopen(Some("zfs")).err().unwrap().kind(), ErrorKind::InvalidArgument);
}
