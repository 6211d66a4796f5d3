//! What a manager finds that was killed, and what it does about lost directories.

use std::{fs, process::Command};

use hull_manager_core::ErrorKind;
use hull_manager_snapshots::Kind;

use crate::{
    fixture::{Fixture, names},
    with_each_driver,
};

with_each_driver! {
    fn killed_after_each_step_nothing_half_made_stays(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        // Staged, and written to.
        let staged = fixture.snapshots.stage("half").unwrap();
        fs::write(staged.path.join("half"), "x").unwrap();
        fixture.restart();
        assert_eq!((fixture.directories(), fixture.snapshots.list().unwrap().len()), (1, 1));
        // Committed.
        let high = fixture.simple("high", Some(&low));
        fixture.restart();
        assert!(fixture.snapshots.has_layer(&high).unwrap());
        // Prepared, and changed.
        fixture.snapshots.prepare("one", Some(&high)).unwrap();
        fixture.change("one", "echo x > made");
        fixture.restart();
        assert_eq!(fixture.names("one"), ["high", "low", "made"]);
        assert!(fixture.snapshots.remove_layer(&high).is_err());
        // A directory whose row was rolled back, and one on its way out, which is no finding.
        for stray in ["77", "trash-5"] {
            fs::create_dir_all(fixture.root().join(stray).join("fs/x")).unwrap();
        }
        let findings = fixture.snapshots.check(false).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        fixture.restart();
        assert_eq!(fixture.directories(), 3);
        assert_eq!(fixture.snapshots.check(true).unwrap(), []);
        // Removed.
        fixture.snapshots.remove("one").unwrap();
        fixture.restart();
        assert_eq!(fixture.directories(), 2);
    }

    fn killed_while_it_was_made_a_snapshot_is_gone(fixture: &mut Fixture) {
        // The row as it is before the directory is whole (plain copies), or not at all.
        let low = fixture.simple("low", None);
        fixture.snapshots.prepare("one", Some(&low)).unwrap();
        if fixture.driver == "vfs" {
            fixture.store.write(|t| {
                t.execute("UPDATE snapshots SET kind = 0 WHERE name = 'one'", [])?;
                Ok(())
            }).unwrap();
        } else {
            fixture.store.write(|t| {
                t.execute("DELETE FROM snapshots WHERE name = 'one'", [])?;
                Ok(())
            }).unwrap();
        }
        fixture.restart();
        assert_eq!(fixture.snapshots.mounts("one").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fixture.directories(), 1);
        fixture.snapshots.remove_layer(&low).unwrap();
    }

    fn what_others_are_making_and_removing_is_whole_to_a_check(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        let snapshots = &fixture.snapshots;
        std::thread::scope(|scope| {
            let others: Vec<_> = ["one", "two", "three"]
                .map(|key| {
                    let low = &low;
                    scope.spawn(move || {
                        for _ in 0..150 {
                            let mounts = snapshots.prepare(key, Some(low)).unwrap();
                            // Refused, and undone.
                            assert!(snapshots.prepare(key, Some(low)).is_err());
                            assert!(!mounts.is_empty() && snapshots.usage(key).is_ok());
                            snapshots.remove(key).unwrap();
                        }
                    })
                })
                .into();
            while !others.iter().all(|other| other.is_finished()) {
                assert_eq!(snapshots.check(true).unwrap(), []);
            }
        });
    }

    fn a_layer_whose_directory_was_lost_is_taken_again(fixture: &mut Fixture) {
        let low = fixture.simple("low", None);
        let high = fixture.simple("high", Some(&low));
        fixture.snapshots.prepare("one", Some(&high)).unwrap();
        let lost = fs::read_dir(fixture.root()).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
        fs::remove_dir_all(&lost).unwrap();
        assert!(!fixture.snapshots.has_layer(&low).unwrap());
        assert!(fixture.snapshots.has_layer(&high).unwrap());
        let findings = fixture.snapshots.check(true).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].problem.contains("is gone") && findings[0].repaired.is_none());
        let error = fixture.snapshots.prepare("two", Some(&low)).unwrap_err();
        assert!(error.message().contains("system check --repair"), "{error}");
        assert_eq!(fixture.snapshots.list().unwrap().iter().filter(|info| info.kind != Kind::Layer).count(), 1);
        fixture.simple("low", None);
        assert!(fixture.snapshots.has_layer(&low).unwrap());
        assert_eq!(fixture.snapshots.check(true).unwrap(), []);
        assert_eq!(names(&fixture.snapshots.mount_layer(&high).unwrap()), ["high", "low"]);
        assert_eq!(fixture.names("one"), ["high", "low"]);
        assert!(fixture.snapshots.remove_layer(&low).is_err(), "the same row: others lie on it");
    }
}

/// What the two tests below trace.
#[test]
fn a_layer_is_committed() {
    let driver = std::env::var("HULL_CONTRACT_DRIVER").unwrap_or_default();
    let fixture = Fixture::new(if driver == "vfs" { "vfs" } else { "overlayfs" });
    let low = fixture.simple("low", None);
    fixture.layer("high", Some(&low), |root| fs::write(root.join("last-file"), "x").unwrap());
    assert!(fixture.snapshots.mount_layer(&low).is_ok());
}

/// After a power cut the row may be there, which is written to the log of the database, and so
/// must be the files.
fn files_come_before_the_row(driver: &str) {
    let output = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "trace=openat,syncfs,pwrite64"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "recovery::a_layer_is_committed"])
        .env("HULL_CONTRACT_DRIVER", driver)
        .output()
        .expect("strace is installed");
    let trace = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{trace}");
    let find = |what: &[&str]| {
        let lines = trace.lines().enumerate();
        lines.filter(|(_, line)| what.iter().all(|word| line.contains(word))).last()
    };
    let (file, _) = find(&["openat", "last-file", "O_CREAT"]).expect("the file is made");
    let (sync, line) = find(&["syncfs"]).expect("the layer is synced");
    assert!(line.ends_with("= 0"), "{line}");
    let (row, _) = find(&["pwrite64", "meta.db-wal"]).expect("the row is written");
    assert!(file < sync && sync < row, "{driver}: file {file}, syncfs {sync}, row {row}\n{trace}");
}

#[test]
fn a_layer_of_an_overlay_is_on_the_disk_before_it_is_one() {
    files_come_before_the_row("overlayfs");
}

#[test]
fn a_copied_layer_is_on_the_disk_before_it_is_one() {
    files_come_before_the_row("vfs");
}
