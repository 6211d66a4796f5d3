//! What the program does, as process 1 of a pid namespace and as an ordinary process.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const INIT: &str = env!("CARGO_BIN_EXE_hull-init");

/// Both ways to be started. A pid namespace needs root.
fn ways() -> Vec<Vec<&'static str>> {
    let mut ways = vec![vec![INIT, "--"]];
    if fs::metadata("/proc/self").is_ok_and(|file| std::os::unix::fs::MetadataExt::uid(&file) == 0)
    {
        ways.push(vec!["unshare", "--pid", "--fork", "--mount-proc", "--", INIT, "--"]);
    }
    ways
}

fn command(way: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new(way[0]);
    command.args(&way[1..]).args(words).stdin(Stdio::null());
    command
}

fn run(way: &[&str], words: &[&str]) -> Output {
    command(way, words).output().expect("the program was built")
}

#[test]
fn it_ends_as_its_command_does() {
    for way in ways() {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("exit 255", 255),
            ("kill -9 $$", 137),
            ("kill -TERM $$", 143),
        ] {
            assert_eq!(
                run(&way, &["sh", "-c", script]).status.code(),
                Some(code),
                "{way:?} {script}"
            );
        }
        let output = run(&way, &["sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    }
}

#[test]
fn a_command_that_cannot_be_run_says_why() {
    for way in ways() {
        for (word, code, text) in [
            (
                "no-such-command",
                127,
                "hull-init: exec no-such-command: no such file or directory\n",
            ),
            ("/no/such/file", 127, "hull-init: exec /no/such/file: no such file or directory\n"),
            ("/etc/passwd", 126, "hull-init: exec /etc/passwd: permission denied\n"),
        ] {
            let output = run(&way, &[word]);
            assert_eq!(output.status.code(), Some(code), "{word}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), text);
        }
    }
    assert_eq!(run(&[INIT], &[]).status.code(), Some(1));
}

#[test]
fn every_signal_is_passed_on() {
    let script = "for s in HUP INT QUIT USR1 USR2 TERM WINCH CONT; do trap \"echo $s\" $s; done; \
                  echo ready; while :; do sleep 0.02; done";
    let mut child =
        command(&[INIT, "--"], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = child.id().to_string();
    for name in ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"] {
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        assert_eq!(lines.next().unwrap().unwrap(), name);
    }
    // It has no handler: the command ends by it.
    assert!(Command::new("kill").args(["-s", "ALRM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 14));
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    // Each sleep loses its parent at once. None may stay a zombie.
    let script = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &) ; done; echo made; read line";
    for way in ways() {
        let mut child = command(&way, &["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "made");
        let init = match way[0] {
            INIT => child.id(),
            _ => children(child.id())[0],
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while children(init).len() > 1 {
            assert!(Instant::now() < deadline, "children stay: {:?}", children(init));
            std::thread::yield_now();
        }
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let mut text = String::new();
    let file = fs::File::open(format!("/proc/{pid}/task/{pid}/children"));
    file.and_then(|mut file| file.read_to_string(&mut text)).expect("it runs");
    text.split_whitespace().map(|word| word.parse().expect("a process id")).collect()
}

#[test]
fn the_command_has_a_process_group_of_its_own_and_clean_signals() {
    // No shell: while it waits for a command, its own mask is another.
    let text = |words: &[&str]| String::from_utf8(run(&[INIT, "--"], words).stdout).unwrap();
    let ids = text(&["cut", "-d", " ", "-f", "1,5", "/proc/self/stat"]);
    let (pid, group) = ids.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
    for line in text(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]).lines() {
        let set = line.split_whitespace().last().unwrap();
        // 32 and 33 are the C library's own; their state is the caller's.
        let set = u64::from_str_radix(set, 16).unwrap() & !(1 << 31 | 1 << 32);
        assert_eq!(set, 0, "{line}");
    }
}
