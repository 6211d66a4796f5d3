//! Who the process is: capabilities, users, and the files that name them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::{Bundle, Container, note, peer_lacks, tests, weak_peer};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

tests![
    capability_sets_are_as_requested,
    odd_users_are_refused_or_numbers,
    a_hostile_passwd_does_not_delay,
];

// Capabilities: CVE-2016-8867, CVE-2022-29162, CVE-2022-24769, CVE-2025-27612.

/// Bits of CAP_AUDIT_WRITE, CAP_KILL and CAP_NET_BIND_SERVICE.
const DEFAULT_SET: u64 = 1 << 29 | 1 << 5 | 1 << 10;
const CAP_SYS_PTRACE: u64 = 1 << 19;

fn capability_sets_are_as_requested() {
    let sets = |report: &Value| -> Vec<u64> {
        ["inheritable", "permitted", "effective", "bounding", "ambient"]
            .into_iter()
            .map(|name| {
                let text = report["capabilities"][name].as_str().expect("/proc is mounted");
                u64::from_str_radix(text, 16).expect("a mask is hexadecimal")
            })
            .collect()
    };
    let user = json!({ "uid": 1000, "gid": 1000 });
    let all = DEFAULT_SET;
    let run = |bundle: Bundle| sets(&Container::new(bundle).report());
    assert_eq!(run(Bundle::probe(&[])), [0, all, all, all, 0], "root");
    assert_eq!(
        run(Bundle::probe(&[]).set("/process/user", user.clone())),
        [0, 0, 0, all, 0],
        "a user"
    );
    assert_eq!(run(Bundle::probe(&[]).capabilities(&[])), [0; 5], "none");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let exec = |options: &[&str]| sets(&container.exec_report(options));
    assert_eq!(exec(&[]), [0, all, all, all, 0], "exec");
    assert_eq!(exec(&["--user", "1000:1000"]), [0, 0, 0, all, 0], "exec as a user");
    let more = all | CAP_SYS_PTRACE;
    assert_eq!(exec(&["--cap", "CAP_SYS_PTRACE"]), [0, more, more, more, 0], "exec --cap");
    let as_user = exec(&["--cap", "CAP_SYS_PTRACE", "--user", "1000:1000"]);
    assert_eq!((as_user[0], as_user[4]), (0, 0), "exec --cap as a user: {as_user:x?}");
    assert_eq!(as_user[3], more);
}

// Users: CVE-2016-3697, CVE-2024-40635, CVE-2026-30892.

fn odd_users_are_refused_or_numbers() {
    peer_lacks!("crun", "it reads a prefix as a number");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let mut wrong = Vec::new();
    for user in [
        "-1",
        "-1:0",
        "0:-1",
        "4294967295",
        "4294967296",
        "4294967297",
        "8589934592",
        "18446744073709551616",
        "99999999999999999999",
        "0x0",
        "1e3",
        "root",
        "1000:root",
        "1:",
        ":1",
        "1:2:3",
        " 0",
        "0 ",
        "0\n",
        "00x",
        "1000:1000:",
        "1000,0",
        "\u{661}",
        "../0",
        "1000:4294967296",
    ] {
        let output = container.exec_with(&["--user", user], &["/probe", "report"]);
        if output.code() != Some(0) {
            continue;
        }
        let report = output.json();
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let (uid, gid): (Option<u64>, Option<u64>) = (uid.parse().ok(), gid.parse().ok());
        if (report["uid"][0].as_u64(), report["gid"][0].as_u64()) != (uid, gid) {
            wrong.push(format!("{user:?} became {}:{}", report["uid"], report["gid"]));
        }
    }
    for uid in [-1_i64, 4_294_967_295, 4_294_967_296, 4_294_967_297] {
        for field in ["uid", "gid"] {
            let bundle = Bundle::probe(&[]).set(&format!("/process/user/{field}"), uid);
            let container = Container::new(bundle);
            let output = container.run();
            if output.code() == Some(0) {
                wrong.push(format!("{field} {uid} was taken"));
            }
            container.delete_force();
        }
    }
    weak_peer!("runc 1.1.5", "numbers cut to 32 bits", !wrong.is_empty(), "{wrong:?}");
}

// Hostile passwd and group files: CVE-2024-9676, CVE-2025-4437.

fn a_hostile_passwd_does_not_delay() {
    let mut slow = Vec::new();
    for kind in ["fifo", "sparse", "zero", "link", "loop", "directory", "lines", "line"] {
        let bundle = Bundle::shell("echo \"$HOME\"")
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        for name in ["/etc/passwd", "/etc/group"] {
            let path = bundle.path(name);
            fs::remove_file(&path).expect("it is there");
            match kind {
                "fifo" => mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("ours"),
                "sparse" => {
                    let file = File::create(&path).expect("ours");
                    file.set_len(1 << 40)
                        .or_else(|_| file.set_len(4 << 30))
                        .expect("holes are free");
                }
                "zero" => {
                    let mode = Mode::from_bits_truncate(0o666);
                    mknod(&path, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("the suite is root");
                }
                "link" => symlink("/dev/zero", &path).expect("ours"),
                "loop" => symlink(name, &path).expect("ours"),
                "directory" => fs::create_dir(&path).expect("ours"),
                "lines" => fs::write(&path, "x:x:1:1:::\n".repeat(500_000)).expect("ours"),
                _ => fs::write(&path, "x".repeat(8 << 20)).expect("ours"),
            }
        }
        let container = Container::new(bundle);
        let limit = Duration::from_secs(10);
        let began = Instant::now();
        let mut create = container.with_bundle(&["create"]).limit(limit).start();
        while !create.ended() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        let rss = peak(create.pid());
        note(&format!("{kind}: create took {took:?}, {rss:?}"));
        if took > Duration::from_secs(2) {
            slow.push(format!("{kind}: {took:?}"));
        }
        drop(create);
        container.delete_force();
    }
    weak_peer!("runc 1.1.5", "CVE-2024-9676", !slow.is_empty(), "create was held up: {slow:?}");
}

/// The most memory a process has had, while it is there.
fn peak(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find(|line| line.starts_with("VmHWM")).map(str::to_owned)
}
