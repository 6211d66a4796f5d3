//! The log that the shim writes itself, and its record of how a process ended. containerd's own
//! shim has neither.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hull_integration::shim::{Host, Io, SLEEPER, SOON, Task, time};
use hull_integration::{Invocation, reference_lacks, require, tests, wait_for, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

tests![
    lines_are_in_dockers_form,
    lines_are_in_kuberneteses_form,
    raw_output_is_as_it_is,
    the_local_form_keeps_bytes,
    lines_go_to_journald,
    a_syslog_that_is_not_there_is_told_at_the_creation,
    a_full_file_is_rotated,
    rotated_files_are_compressed,
    a_full_disk_holds_nobody_up_and_is_told,
    what_a_plain_file_on_a_full_disk_loses_is_counted,
    a_terminals_output_is_logged,
    the_record_tells_an_exit,
    the_record_tells_a_signal,
    the_record_tells_who_ran_out_of_memory,
    the_record_of_an_exec_that_could_not_start_says_why,
    a_killed_shim_loses_no_beginning_of_a_line,
    an_end_before_the_shims_is_told_after_it,
];

fn log(host: &Host) -> PathBuf {
    host.site().path("one.log").into()
}

fn streams(host: &Host, query: &str) -> Io {
    let stdout = format!("hull-log://{}{query}", log(host).display());
    Io { stdout, ..Io::default() }
}

/// Runs a line of shell to its end, with its output in a log.
fn logged(host: &Host, query: &str, script: &str) -> String {
    let task = host.shell("one", script).io(streams(host, query)).start();
    task.finish();
    fs::read_to_string(log(host)).expect("it was made")
}

/// The entries of a log in Docker's form: text and stream.
#[track_caller]
fn entries(text: &str) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let entry: BTreeMap<String, String> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(entry.len(), 3, "{line:?}");
        nanoseconds(&entry["time"]);
        (entry["log"].clone(), entry["stream"].clone())
    };
    text.lines().map(entry).collect()
}

/// Holds a time to RFC 3339 in UTC with nine digits of a second.
#[track_caller]
fn nanoseconds(time: &str) {
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fraction =
        form.strip_prefix("0000-00-00T00:00:00.").and_then(|rest| rest.strip_suffix('Z'));
    assert!(fraction.is_some_and(|digits| (1..=9).contains(&digits.len())), "{time:?}");
}

fn of<'a>(entries: &'a [(String, String)], stream: &str) -> Vec<&'a str> {
    entries.iter().filter(|entry| entry.1 == stream).map(|entry| entry.0.as_str()).collect()
}

#[track_caller]
fn record(host: &Host, name: &str) -> Value {
    let path = format!("{}/{name}", host.launch("one").bundle);
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).expect("a record is JSON")
}

fn lines_are_in_dockers_form() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let script = r#"echo out; echo err >&2; printf 'q"\\\t\001\n\n'; printf end; printf ende >&2"#;
    let text = logged(&host, "?format=json-file", script);
    let entries = entries(&text);
    assert_eq!(of(&entries, "stdout"), ["out\n", "q\"\\\t\u{1}\n", "\n", "end"]);
    assert_eq!(of(&entries, "stderr"), ["err\n", "ende"]);
    assert!(!log(&host).with_extension("log.partial").exists());
}

fn lines_are_in_kuberneteses_form() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo err >&2; printf end";
    let text = logged(&host, "?format=cri", script);
    let mut out = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        nanoseconds(fields[0]);
        match fields[1] {
            "stderr" => assert_eq!(fields[2..], ["F", "err"]),
            "stdout" => out.push((fields[2], fields[3].len())),
            other => panic!("{other}"),
        }
    }
    assert_eq!(out, [("P", 16384), ("P", 16384), ("F", 7232), ("P", 3)]);
}

fn raw_output_is_as_it_is() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let text = logged(&host, "?format=raw", r"printf 'a\000b\r\n\nc'");
    assert_eq!(text, "a\0b\r\n\nc");
}

fn the_local_form_keeps_bytes() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let text = logged(&host, "?format=local", r"printf 'a b\r\n\nc'");
    let entries: Vec<(&str, &str)> = text
        .split_inclusive('\n')
        .map(|line| {
            let (time, rest) = line.split_once(' ').expect("it begins with a time");
            nanoseconds(time);
            rest.split_at("stdout F ".len())
        })
        .collect();
    let expected = [("stdout F ", "a b\r\n"), ("stdout F ", "\n"), ("stdout P ", "c\n")];
    assert_eq!(entries, expected);
}

fn lines_go_to_journald() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let path = host.site().path("journal");
    let journal = UnixDatagram::bind(&path).expect("the directory is ours");
    journal.set_read_timeout(Some(SOON)).expect("it is more than nothing");
    let query = format!("?journald={path}&field=CONTAINER_NAME=one&field=LABEL=a%0ab");
    let text = logged(&host, &query, "echo out; read x < /dev/null; printf end");
    assert_eq!(of(&entries(&text), "stdout"), ["out\n", "end"]);
    let next = || {
        let mut buffer = [0; 1000];
        let n = journal.recv(&mut buffer).expect("a message comes");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let fields = "PRIORITY=6\nCONTAINER_NAME=one\nLABEL\n\u{3}\0\0\0\0\0\0\0a\nb\n";
    assert_eq!(next(), format!("{fields}MESSAGE=out\n"));
    assert_eq!(next(), format!("{fields}CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=end\n"));
}

fn a_syslog_that_is_not_there_is_told_at_the_creation() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let query = "?tag=t&syslog=unixgram:///nonexistent/log";
    let refused = host.shell("one", "true").io(streams(&host, query)).try_create();
    let error = format!("{:?}", refused.expect_err("nobody is there"));
    assert!(error.contains("failed to initialize logging driver"), "{error}");
}

/// Every line of a log and its rotated files, oldest first.
fn all_lines(host: &Host, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let log = log(host);
    let mut paths: Vec<_> =
        (1..10).rev().map(|n| PathBuf::from(format!("{}.{n}", log.display()))).collect();
    paths.push(log);
    let texts: Vec<String> = paths.iter().filter_map(|path| read(path)).collect();
    texts.iter().flat_map(|text| entries(text)).map(|entry| entry.0).collect()
}

fn a_full_file_is_rotated() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done";
    logged(&host, "?max-size=2k&max-file=4", script);
    let mut sizes = Vec::new();
    let lines = all_lines(&host, |path| fs::read_to_string(path).ok());
    for n in 0..5 {
        let suffix = if n == 0 { String::new() } else { format!(".{n}") };
        sizes.extend(
            fs::metadata(format!("{}{suffix}", log(&host).display())).map(|data| data.len()),
        );
    }
    assert_eq!(sizes.len(), 4, "{sizes:?}");
    // An entry that begins before the limit is still in the file.
    assert!(sizes[1..].iter().all(|size| (2000..2200).contains(size)), "{sizes:?}");
    let first = 500 - lines.len();
    let expected: Vec<_> = (first..500).map(|n| format!("line {n}\n")).collect();
    assert_eq!(lines, expected);
}

fn rotated_files_are_compressed() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; read x; exit 3";
    let mut io = streams(&host, "?max-size=2k&max-file=3&compress=true");
    io.stdin = host.pipes(true).stdin;
    let task = host.shell("one", script).io(io).start();
    let gzipped = |n: u32| PathBuf::from(format!("{}.{n}.gz", log(&host).display()));
    let last = || {
        let text = fs::read_to_string(log(&host)).unwrap_or_default();
        text.contains("line 199\\n")
    };
    wait_until("everything is logged", SOON, last);
    wait_until("rotated files are compressed", SOON, || {
        let plain = |n: u32| gzipped(n).with_extension("").exists();
        gzipped(1).exists() && gzipped(2).exists() && !plain(1) && !plain(2)
    });
    let lines = all_lines(&host, |path| {
        let gz = PathBuf::from(format!("{}.gz", path.display()));
        match gz.exists() {
            true => Some(Invocation::new("gzip").arg("-dc").arg(gz).run().ok().stdout),
            false => fs::read_to_string(path).ok(),
        }
    });
    let expected: Vec<_> = (200 - lines.len()..200).map(|n| format!("line {n}\n")).collect();
    assert_eq!(lines, expected);
    assert!(lines.len() > 50, "{}", lines.len());
    task.input().write("\n");
    assert_eq!(task.finish().status, 3);
}

/// A file system of 64 KiB, unmounted also when the test fails.
struct SmallDisk(String);

impl SmallDisk {
    fn mount(path: String) -> Self {
        mount(Some("small"), path.as_str(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
            .expect("the suite is root");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.as_str(), MntFlags::MNT_DETACH);
    }
}

fn a_full_disk_holds_nobody_up_and_is_told() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let disk = SmallDisk::mount(host.site().make("small"));
    let ballast = host.site().write("small/ballast", &"x".repeat(40 << 10));
    let path = host.site().path("small/one.log");
    let io = Io { stdout: format!("hull-log://{path}"), ..Io::default() };
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; : > /written
        while [ ! -e /go ]; do sleep 0.02; done; echo after; exit 5";
    let task = host.shell("one", script).io(io).start();
    let written = host.site().path("upper/one/written");
    wait_until("the container has written everything", SOON, || Path::new(&written).exists());
    fs::remove_file(ballast).expect("it is ours");
    task.run("go", ": > /go");
    assert_eq!(task.wait().status, 5);
    let seen = record(&host, "exit.json");
    // Delete waits for the output; Wait does not, on a busy machine.
    task.finish();
    let text = fs::read_to_string(&path).expect("it was made");
    drop(disk);
    assert_eq!((&seen["exitCode"], &seen["reason"]), (&json!(5), &json!("exited")));
    let entries = entries(&text);
    let out = of(&entries, "stdout");
    assert_eq!(out.last(), Some(&"after\n"));
    let told = of(&entries, "stderr");
    assert_eq!(told.len(), 1, "{told:?}");
    let lost = told[0].strip_prefix("[hull: ").and_then(|rest| {
        let (number, rest) = rest.split_once(' ')?;
        assert!(rest.starts_with("bytes of output were not written: No space left"), "{rest}");
        number.parse::<usize>().ok()
    });
    let whole: usize = (0..2000).map(|n| format!("line {n}\n").len()).sum::<usize>() + 6;
    let here: usize = out.iter().map(|line| line.len()).sum();
    assert_eq!(here + lost.expect("it says how many"), whole);
    assert_eq!(seen["lostOutputBytes"], json!(lost));
}

fn what_a_plain_file_on_a_full_disk_loses_is_counted() {
    reference_lacks!("it stops to read, and so stops the container");
    let host = Host::new();
    let disk = SmallDisk::mount(host.site().make("small"));
    let ballast = host.site().write("small/ballast", &"x".repeat(40 << 10));
    let path = host.site().path("small/one.log");
    let io = Io { stdout: format!("file://{path}"), ..Io::default() };
    // Larger than disk and pipe are.
    let script = "head -c 400000 /dev/zero; : > /written
        while [ ! -e /go ]; do sleep 0.02; done; echo after; exit 5";
    let task = host.shell("one", script).io(io).start();
    let written = host.site().path("upper/one/written");
    wait_until("the container has written everything", SOON, || Path::new(&written).exists());
    wait_until("the loss is told", SOON, || host.shim_log("one").contains("output is lost: "));
    fs::remove_file(ballast).expect("it is ours");
    task.run("go", ": > /go");
    assert_eq!(task.wait().status, 5);
    let text = fs::read(&path).expect("it was made");
    let seen = record(&host, "exit.json");
    let lost = seen["lostOutputBytes"].as_u64().expect("a number");
    wait_until("all of the loss is told", SOON, || {
        let log = host.shim_log("one");
        let told = log.lines().filter_map(|line| {
            let (_, text) = line.split_once("msg=\"")?;
            text.strip_suffix(" bytes of output were lost\"")?.parse::<u64>().ok()
        });
        told.sum::<u64>() == lost
    });
    task.finish();
    drop(disk);
    assert!(text.ends_with(b"after\n") && lost > 0, "{lost}");
    assert_eq!(text.len() as u64 + lost, 400_000 + 6);
}

fn a_terminals_output_is_logged() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let io = Io { terminal: true, ..streams(&host, "") };
    let task = host.shell("one", "echo out; echo err >&2; printf end; exit 2").io(io).start();
    assert_eq!(task.finish().status, 2);
    let text = fs::read_to_string(log(&host)).expect("it was made");
    assert_eq!(of(&entries(&text), "stdout"), ["out\r\n", "err\r\n", "end"]);
    assert!(!log(&host).with_extension("log.partial").exists());
}

/// Waits for a container's end and holds the record to what Wait says.
#[track_caller]
fn ended(host: &Host, task: &Task<'_>) -> Value {
    let exit = task.wait();
    let record = record(host, "exit.json");
    assert_eq!(record["shellCode"], exit.status);
    assert_eq!((&record["containerId"], &record["execId"]), (&json!("one"), &json!("")));
    assert_eq!((&record["pid"], &record["version"]), (&json!(task.pid), &json!(1)));
    record
}

fn the_record_tells_an_exit() {
    reference_lacks!("it keeps no record");
    let host = Host::new();
    let script = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; sleep 0.3; exit 3";
    let before = SystemTime::now();
    let task = host.shell("one", script).io(streams(&host, "")).start();
    let record = ended(&host, &task);
    let elapsed = before.elapsed().expect("time goes on");
    assert_eq!((&record["reason"], &record["oom"]), (&json!("exited"), &json!("none")));
    assert_eq!((&record["exitCode"], &record["signal"]), (&json!(3), &Value::Null));
    let lines: Vec<_> = (10..30).map(|n| format!("line {n}")).collect();
    assert_eq!(record["lastLines"], json!(lines));
    assert_eq!(record["lostOutputBytes"], 0);
    let ran = Duration::from_nanos(record["runTimeNs"].as_u64().expect("a number"));
    assert!(ran >= Duration::from_millis(300) && ran <= elapsed, "{ran:?} of {elapsed:?}");
    assert!(record["peakMemoryBytes"].as_u64().is_none_or(|bytes| bytes > 0), "{record}");
    task.finish();
}

fn the_record_tells_a_signal() {
    reference_lacks!("it keeps no record");
    let host = Host::new();
    let task = host.shell("one", "exec sleep 1000").io(streams(&host, "")).start();
    task.kill(9);
    let record = ended(&host, &task);
    assert_eq!((&record["reason"], &record["signal"]), (&json!("signaled"), &json!(9)));
    assert_eq!((&record["exitCode"], &record["oom"]), (&Value::Null, &json!("none")));
    task.finish();
}

fn the_record_tells_who_ran_out_of_memory() {
    reference_lacks!("it keeps no record");
    require!(hull_integration::cgroup::hierarchy("memory").is_some(), "memory is not controlled");
    let host = Host::new();
    let eat = "dd if=/dev/zero of=/dev/null bs=256M count=1";
    let run = |script: &str| {
        let plan = host.shell("one", script).io(streams(&host, "")).configure(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 64 << 20 });
        });
        let task = plan.start();
        let record = ended(&host, &task);
        task.finish();
        record
    };
    let main = run(&format!("exec {eat}"));
    assert_eq!((&main["reason"], &main["oom"]), (&json!("oom-killed"), &json!("main")));
    assert_eq!((&main["signal"], &main["oomKills"]), (&json!(9), &json!(1)));
    let child = run(&format!("{eat}; exit 4"));
    assert_eq!((&child["reason"], &child["oom"]), (&json!("exited"), &json!("child")));
    assert_eq!((&child["exitCode"], &child["oomKills"]), (&json!(4), &json!(1)));
}

fn the_record_of_an_exec_that_could_not_start_says_why() {
    reference_lacks!("it keeps no record");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec_with("first", host.pipes(false), &["no-such-program"]);
    process.try_start().expect_err("it cannot run");
    let seen = record(&host, "exit@first.json");
    assert_eq!((&seen["reason"], &seen["execId"]), (&json!("start-failed"), &json!("first")));
    assert_eq!((&seen["pid"], &seen["shellCode"]), (&json!(0), &json!(255)));
    let why = seen["runtimeError"].as_str().expect("there is a reason");
    assert!(why.contains("executable file not found in $PATH"), "{why}");
    process.delete();
    assert!(!Path::new(&format!("{}/exit@first.json", host.launch("one").bundle)).exists());
}

fn a_killed_shim_loses_no_beginning_of_a_line() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let script = "echo whole; printf 'no end'; printf 'nor here' >&2; sleep 1000";
    let task = host.shell("one", script).io(streams(&host, "")).start();
    let pid = task.pid;
    let partial = log(&host).with_extension("log.partial");
    wait_for("both beginnings", SOON, || {
        let text = fs::read(&partial).ok()?;
        let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
        (has(b"no end") && has(b"nor here")).then_some(())
    });
    host.kill_shim("one");
    drop(task);
    host.launch("one").delete().ok();
    let text = fs::read_to_string(log(&host)).expect("it was made");
    let entries = entries(&text);
    assert_eq!(of(&entries, "stdout"), ["whole\n", "no end"]);
    assert_eq!(of(&entries, "stderr"), ["nor here"]);
    assert!(!partial.exists());
    let seen = record(&host, "exit.json");
    assert_eq!(seen["reason"], "unknown: the shim was killed");
    assert_eq!((&seen["exitCode"], &seen["signal"]), (&Value::Null, &Value::Null));
    assert_eq!((&seen["shellCode"], &seen["pid"]), (&json!(137), &json!(pid)));
    // Asked again, it says the same.
    assert_eq!(host.delete_after_shim("one").exit_status, 137);
}

fn an_end_before_the_shims_is_told_after_it() {
    reference_lacks!("it forgets it");
    let host = Host::new();
    let task = host.shell("one", "echo last; exit 3").io(streams(&host, "")).start();
    let exit = task.wait();
    host.kill_shim("one");
    drop(task);
    host.launch("one").delete().ok();
    let seen = record(&host, "exit.json");
    assert_eq!((&seen["reason"], &seen["lastLines"]), (&json!("exited"), &json!(["last"])));
    let answer = host.delete_after_shim("one");
    assert_eq!(answer.exit_status, 3);
    assert_eq!(answer.exited_at.as_ref().and_then(time), exit.at);
}
