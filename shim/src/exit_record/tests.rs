use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
    time::UNIX_EPOCH,
};

use hull_runtime_sys::mount::{self, Attributes, attach};

use super::*;
use crate::mountinfo::tests::in_own_mounts;

fn record() -> ExitRecord {
    ExitRecord {
        version: Version,
        container_id: "c1".into(),
        exec_id: String::new(),
        pid: 4711,
        start_time: 123_456,
        exit_code: None,
        signal: Some(9),
        shell_code: 137,
        exited_at: UNIX_EPOCH + Duration::new(1_795_255_872, 123_456_789),
        run_time: Duration::from_millis(2500),
        reason: Reason::OomKilled,
        oom: Oom::Main,
        oom_kills: 1,
        peak_memory_bytes: Some(16 << 20),
        runtime_error: None,
        dropped_clients: 0,
        lost_output_bytes: 0,
        last_lines: vec!["one".into(), "two \"\u{1b}[0m".into()],
    }
}

fn first() -> FileName {
    FileName::of(None)
}

#[test]
fn the_file_is_what_the_manager_reads() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &first(), &record()).unwrap();
    let path = dir.path().join("exit.json");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        r#"{"version":1,"containerId":"c1","execId":"","pid":4711,"startTime":123456,"#.to_owned()
            + r#""exitCode":null,"signal":9,"shellCode":137,"#
            + r#""exitedAt":"2026-11-21T10:11:12.123456789Z","runTimeNs":2500000000,"#
            + r#""reason":"oom-killed","oom":"main","oomKills":1,"#
            + r#""peakMemoryBytes":16777216,"runtimeError":null,"droppedClients":0,"lostOutputBytes":0,"#
            + r#""lastLines":["one","two \"\u001b[0m"]}"#
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(read(dir.path(), &first()).unwrap(), Some(record()));
}

#[test]
fn execs_have_records_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let exec: ExecId = "json".parse().unwrap();
    let exec = FileName::of(Some(&exec));
    let other = ExitRecord { exec_id: "json".into(), exit_code: Some(3), ..record() };
    write(dir.path(), &first(), &record()).unwrap();
    write(dir.path(), &exec, &other).unwrap();
    assert_eq!(read(dir.path(), &first()).unwrap(), Some(record()));
    assert_eq!(read(dir.path(), &exec).unwrap(), Some(other));
    remove(dir.path(), &exec).unwrap();
    remove(dir.path(), &exec).unwrap();
    assert_eq!(read(dir.path(), &exec).unwrap(), None);
    assert!(read(dir.path(), &first()).unwrap().is_some());
    // The longest id fits a file's name.
    let longest = FileName::of(Some(&"x".repeat(128).parse().unwrap()));
    write(dir.path(), &longest, &record()).unwrap();
}

#[test]
fn reasons_follow_from_the_exit_and_the_kill() {
    for (exit, oom, reason) in [
        (Exit::Code(0), Oom::None, Reason::Exited),
        (Exit::Code(137), Oom::Child, Reason::Exited),
        (Exit::Signal(15), Oom::None, Reason::Signaled),
        (Exit::Signal(9), Oom::Child, Reason::Signaled),
        (Exit::Signal(9), Oom::Main, Reason::OomKilled),
    ] {
        assert_eq!(Reason::of(exit, oom), reason, "{exit:?} {oom:?}");
    }
    for (reason, text) in [
        (Reason::Exited, "exited"),
        (Reason::Signaled, "signaled"),
        (Reason::StartFailed, "start-failed"),
        (Reason::Unknown, "unknown: the shim was killed"),
    ] {
        assert_eq!(serde_json::to_value(reason).unwrap(), text);
    }
}

#[test]
fn texts_are_cut_to_what_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = record();
    // Each letter of a NUL takes six in JSON: the largest file there can be.
    long.runtime_error = Some("\0".repeat(1 << 20));
    long.last_lines = (0..30).map(|n| format!("{n}{}", "\0".repeat(1 << 20))).collect();
    write(dir.path(), &first(), &long).unwrap();
    let kept = read(dir.path(), &first()).unwrap().unwrap();
    assert_eq!(kept.runtime_error.unwrap().len(), MAX_ERROR_BYTES);
    assert_eq!(kept.last_lines.len(), MAX_LINES);
    assert!(kept.last_lines[0].starts_with("10\0") && kept.last_lines[19].starts_with("29\0"));
    assert!(kept.last_lines.iter().all(|line| line.len() == MAX_LINE_BYTES));
    assert_eq!(start("aé", 2), "a", "no letter is cut in two");
}

#[test]
fn a_new_record_replaces_the_old_one_and_a_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &first(), &record()).unwrap();
    // What a shim leaves that was killed before the rename.
    fs::write(dir.path().join(".exit.json"), "{\"version\":1,").unwrap();
    assert_eq!(read(dir.path(), &first()).unwrap(), Some(record()));
    let newer = ExitRecord { pid: 12, ..record() };
    write(dir.path(), &first(), &newer).unwrap();
    assert_eq!(read(dir.path(), &first()).unwrap(), Some(newer));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::write(dir.path().join(".exit.json"), "").unwrap();
    remove(dir.path(), &first()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_a_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exit.json");
    write(dir.path(), &first(), &record()).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for (text, says) in [
        (good.replace("\"version\":1", "\"version\":2"), "unknown version 2"),
        (good.replace("2026-11", "2026-13"), "not a time in RFC 3339"),
        (good.replace("\"shellCode\"", "\"other\""), "missing field `shellCode`"),
        (good[..40].to_owned(), "EOF"),
        (String::new(), "EOF"),
        (" ".repeat(LIMIT_BYTES + 1), "file too large"),
    ] {
        fs::write(&path, &text).unwrap();
        let error = format!("{:#}", read(dir.path(), &first()).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(read(dir.path(), &first()).is_err(), "a link is not followed");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(format!("{:#}", read(dir.path(), &first()).unwrap_err()).contains("regular file"));
}

#[test]
fn a_directory_that_is_gone_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    for error in [
        write(&gone, &first(), &record()).unwrap_err(),
        read(&gone, &first()).unwrap_err(),
        remove(&gone, &first()).unwrap_err(),
    ] {
        let text = format!("{error:#}");
        assert!(
            text.contains(&*gone.to_string_lossy()) && text.ends_with("no such file or directory")
        );
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_old_record() {
    in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        // One page for the old record and one for the new, which needs more.
        let disk = mount::Context::open("tmpfs").unwrap();
        disk.set("size", "8k").unwrap();
        disk.create().unwrap();
        attach(disk.mount(Attributes::NONE).unwrap(), File::open(dir.path()).unwrap()).unwrap();
        write(dir.path(), &first(), &record()).unwrap();
        let large = ExitRecord { runtime_error: Some("x".repeat(MAX_ERROR_BYTES)), ..record() };
        let error = format!("{:#}", write(dir.path(), &first(), &large).unwrap_err());
        assert!(error.ends_with("no space left on device"), "{error}");
        assert_eq!(read(dir.path(), &first()).unwrap(), Some(record()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the space is given back");
        // It works again as soon as it fits.
        let newer = ExitRecord { pid: 12, ..record() };
        write(dir.path(), &first(), &newer).unwrap();
        assert_eq!(read(dir.path(), &first()).unwrap(), Some(newer));
        assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    });
}
