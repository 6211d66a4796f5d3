//! Who the process is: capabilities, users, and the files that name them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use hull_integration::{Bundle, Container, SOON, note, peer_lacks, tests, weak_peer};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::text;

tests![
    capability_sets_are_as_requested,
    added_capabilities_are_neither_inheritable_nor_ambient,
    odd_users_are_refused_or_numbers,
    a_hostile_passwd_does_not_delay,
];

// Capabilities: CVE-2016-8867, CVE-2022-29162, CVE-2022-24769, CVE-2025-27612.

/// In order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const SETS: [&str; 5] = ["inheritable", "permitted", "effective", "bounding", "ambient"];

/// Which of the sets name a capability, who the user is, and which of the sets have it in
/// the program, with no_new_privs. A dash is a set without it.
const GOLDEN: [(&str, u32, &str); 9] = [
    // Root's programs gain what is bounding or inheritable, but no more than was permitted.
    ("-PEB-", 0, "-PEB-"),
    ("-PEB-", 1000, "---B-"),
    ("---B-", 0, "---B-"),
    ("I--B-", 0, "I--B-"),
    ("IPEB-", 0, "IPEB-"),
    ("IPEB-", 1000, "I--B-"),
    ("IPEBA", 0, "IPEBA"),
    ("IPEBA", 1000, "IPEBA"),
    ("-----", 0, "-----"),
];

/// The rows that are tried with `run` as well, whose last steps are those of `exec`.
const RUN: [(&str, u32); 3] = [("-PEB-", 0), ("-PEB-", 1000), ("IPEBA", 1000)];

/// The process's `capabilities` for one row and one capability.
fn configured(sets: &str, name: &str) -> Value {
    let names = |has: bool| if has { vec![format!("CAP_{name}")] } else { Vec::new() };
    let members = SETS.iter().zip(sets.chars());
    members.map(|(set, letter)| ((*set).to_owned(), json!(names(letter != '-')))).collect()
}

/// The sets of a report that are not exactly this capability's golden ones.
fn wrong_sets(report: &Value, number: usize, golden: &str) -> Vec<&'static str> {
    let mask = |letter| if letter == '-' { 0 } else { 1_u64 << number };
    let found = |set: &str| {
        let text = report["capabilities"][set].as_str().expect("/proc is mounted");
        u64::from_str_radix(text, 16).expect("a mask is hexadecimal")
    };
    let wrong = |(set, letter): &(&&'static str, char)| found(set) != mask(*letter);
    SETS.iter().zip(golden.chars()).filter(wrong).map(|(set, _)| *set).collect()
}

/// Those that this suite has itself, and can so give away.
fn grantable() -> Vec<(usize, &'static str)> {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let held = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("it is listed");
    let held = u64::from_str_radix(held.trim(), 16).expect("a mask is hexadecimal");
    let all = CAPABILITIES.into_iter().enumerate();
    all.filter(|(number, _)| held >> number & 1 == 1).collect()
}

/// 41 capabilities, five sets, run and exec.
fn capability_sets_are_as_requested() {
    let mut wrong = Vec::new();
    let shared = Container::new(Bundle::sleeper());
    shared.run_detached().ok();
    let exec = |sets: &str, uid: u32, name: &str| {
        let process = json!({
            "args": ["/probe", "report"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": uid, "gid": uid }, "noNewPrivileges": true,
            "capabilities": configured(sets, name),
        });
        let path = shared.bundle.dir().join("process.json");
        fs::write(&path, process.to_string()).expect("the bundle is writable");
        shared.invoke(&["exec", "--process", text(&path), &shared.id]).run().ok().json()
    };
    let mut container = Container::new(Bundle::probe(&[]));
    for (number, name) in grantable() {
        for (sets, uid, golden) in GOLDEN {
            let mut judge = |how: &str, report: &Value| {
                let sets_wrong = wrong_sets(report, number, golden);
                if !sets_wrong.is_empty() {
                    wrong.push(format!("{how} {name} {sets} uid {uid}: {sets_wrong:?}"));
                }
            };
            judge("exec", &exec(sets, uid, name));
            if !RUN.contains(&(sets, uid)) {
                continue;
            }
            let process = &mut container.bundle.config["process"];
            process["capabilities"] = configured(sets, name);
            process["user"] = json!({ "uid": uid, "gid": uid });
            container.write_config();
            judge("run", &container.report());
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // The control: a set that has one too many, and one that lacks it, are told.
    let kill = CAPABILITIES.iter().position(|name| *name == "KILL").expect("it is listed");
    let report = exec("IPEBA", 1000, "KILL");
    assert_eq!(wrong_sets(&report, kill, "IPEB-"), ["ambient"]);
    assert_eq!(wrong_sets(&report, kill + 1, "IPEBA"), SETS);
    let report = exec("-PEB-", 0, "KILL");
    assert_eq!(wrong_sets(&report, kill, "IPEB-"), ["inheritable"]);
}

/// `--cap` adds to three sets and leaves the other two alone.
fn added_capabilities_are_neither_inheritable_nor_ambient() {
    let container = Container::new(Bundle::sleeper().capabilities(&[]));
    container.run_detached().ok();
    for (number, name) in grantable() {
        for (user, golden) in [("0", "-PEB-"), ("1000", "---B-")] {
            let cap = format!("CAP_{name}");
            let report = container.exec_report(&["--cap", &cap, "--user", user]);
            let wrong: Vec<_> = wrong_sets(&report, number, golden);
            assert_eq!(wrong, Vec::<&str>::new(), "{name} for {user}: {report}");
        }
    }
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
        let began = Instant::now();
        // Far less than it takes to read a terabyte.
        let mut create = container.with_bundle(&["create"]).limit(2 * SOON).start();
        while !create.ended() && began.elapsed() < SOON {
            thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        let rss = peak(create.pid());
        note(&format!("{kind}: create took {took:?}, {rss:?}"));
        if took >= SOON {
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
