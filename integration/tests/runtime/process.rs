//! The fields of `process`: who runs, with what rights and limits, where.

use std::fs;

use hull_integration::{Bundle, Container, SOON, SyscallProgram, peer_lacks, tests, wait_until};
use serde_json::{Value, json};

tests![
    the_user_and_its_groups_are_set,
    a_user_without_groups_keeps_none_of_the_callers,
    the_umask_is_set,
    the_umask_is_022_by_default,
    the_environment_is_exactly_the_given_one,
    home_is_the_users,
    the_working_directory_is_made,
    a_working_directory_of_the_user_only_is_entered,
    a_relative_working_directory_is_refused,
    a_working_directory_that_leads_out_is_refused,
    a_root_user_has_the_bounding_set,
    a_user_has_its_ambient_set,
    all_five_sets_are_the_given_ones,
    no_capabilities_means_none,
    an_unknown_capability_gives_nothing,
    no_new_privileges_is_what_is_asked,
    limits_are_lowered,
    an_unknown_limit_is_refused,
    a_limit_given_twice_is_refused,
    a_soft_limit_above_the_hard_one_is_refused,
    the_oom_score_is_raised,
    the_oom_score_is_raised_in_a_user_namespace,
    an_oom_score_out_of_range_is_refused,
    the_oom_score_of_the_caller_is_kept,
    the_io_priority_is_set,
    an_unknown_io_priority_class_is_refused,
    the_scheduling_policy_is_set,
    an_unknown_scheduling_policy_is_refused,
    the_processors_of_exec_are_set,
    empty_arguments_are_refused,
    signals_are_neither_blocked_nor_ignored,
    the_process_leads_its_session,
    the_user_owns_its_standard_streams,
    the_host_is_not_visible_through_the_program,
    the_personality_is_set,
    an_unknown_personality_is_refused,
];

fn report(bundle: Bundle) -> Value {
    Container::new(bundle).report()
}

fn sorted(groups: &Value) -> Vec<u64> {
    let mut out: Vec<u64> =
        groups.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    out.sort_unstable();
    out
}

fn the_user_and_its_groups_are_set() {
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [50, 60, 2000] });
    let report = report(Bundle::probe(&[]).set("/process/user", user));
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([1001, 1001, 1001, 1001]));
    let mut groups = sorted(&report["groups"]);
    // The primary group may be among them, as after a login.
    groups.retain(|group| *group != 1001);
    assert_eq!(groups, [50, 60, 2000]);
}

fn a_user_without_groups_keeps_none_of_the_callers() {
    let report = report(Bundle::probe(&[]).set("/process/user", json!({ "uid": 5, "gid": 6 })));
    let groups = sorted(&report["groups"]);
    // Some peers repeat the primary group here.
    assert!(groups.is_empty() || groups == [6], "{groups:?}");
}

fn the_umask_is_set() {
    assert_eq!(report(Bundle::probe(&[]).set("/process/user/umask", 0o137))["umask"], "0137");
}

fn the_umask_is_022_by_default() {
    assert_eq!(report(Bundle::probe(&[]))["umask"], "0022");
}

fn the_environment_is_exactly_the_given_one() {
    let env = json!(["PATH=/bin", "A=1", "B=two words", "C=a\nb", "D="]);
    let container = Container::new(Bundle::probe(&[]).set("/process/env", env));
    let invocation = container.with_bundle(&["run"]).env("LEAK", "from the caller");
    let report = invocation.run().ok().json();
    let mut env: Vec<&str> =
        report["env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    env.retain(|word| !word.starts_with("HOME="));
    assert_eq!(env, ["PATH=/bin", "A=1", "B=two words", "C=a\nb", "D="]);
}

fn home_is_the_users() {
    let home = |bundle: Bundle| {
        let bundle = bundle.args(&["sh", "-c", "echo $HOME"]);
        Container::new(bundle).run().ok().text().to_owned()
    };
    assert_eq!(home(Bundle::new()), "/root");
    assert_eq!(home(Bundle::new().set("/process/user/uid", 1000)), "/home/user");
    assert_eq!(home(Bundle::new().push("/process/env", "HOME=/else")), "/else");
    peer_lacks!("crun 1.8", "a user without an entry has no home");
    assert_eq!(home(Bundle::new().set("/process/user/uid", 4711)), "/");
}

fn the_working_directory_is_made() {
    let bundle = Bundle::probe(&[]).set("/process/cwd", "/srv/deep/er");
    let report = report(bundle);
    assert_eq!(report["cwd"], "/srv/deep/er");
}

fn a_working_directory_of_the_user_only_is_entered() {
    peer_lacks!("crun 1.8", "it enters the directory as root only");
    let bundle = Bundle::probe(&[])
        .directory("/private")
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities", json!({}))
        .set("/process/cwd", "/private");
    nix::unistd::chown(&bundle.path("/private"), Some(1000.into()), Some(1000.into()))
        .expect("root");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(bundle.path("/private"), mode).expect("root");
    assert_eq!(report(bundle)["cwd"], "/private");
}

fn a_relative_working_directory_is_refused() {
    for cwd in ["relative/path", ""] {
        let container = Container::new(Bundle::new().set("/process/cwd", cwd));
        peer_lacks!("crun 1.8", "it takes a relative cwd from the root");
        container.run().fails();
        container.assert_gone();
    }
}

fn a_working_directory_that_leads_out_is_refused() {
    // CVE-2024-21626: a descriptor of the runtime as the working directory.
    peer_lacks!("runc 1.1.5", "CVE-2024-21626");
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let container = Container::new(Bundle::shell("ls -la; pwd").set("/process/cwd", cwd));
        let output = container.run();
        assert_ne!(output.code(), Some(0), "{}", output.summary());
        container.assert_gone();
    }
}

fn a_root_user_has_the_bounding_set() {
    let report = report(Bundle::probe(&[]).capabilities(&["CAP_CHOWN", "CAP_KILL"]));
    for set in ["bounding", "permitted", "effective"] {
        assert_eq!(report["capabilities"][set], "0000000000000021", "{set}");
    }
    assert_eq!(report["capabilities"]["inheritable"], "0000000000000000");
    assert_eq!(report["capabilities"]["ambient"], "0000000000000000");
}

fn a_user_has_its_ambient_set() {
    let both = json!(["CAP_CHOWN", "CAP_KILL"]);
    let ambient = json!(["CAP_KILL"]);
    let capabilities = json!({
        "bounding": both, "permitted": both, "effective": both,
        "inheritable": ambient, "ambient": ambient,
    });
    let bundle = Bundle::probe(&[])
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities", capabilities);
    let report = report(bundle);
    assert_eq!(report["capabilities"]["bounding"], "0000000000000021");
    for set in ["permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(report["capabilities"][set], "0000000000000020", "{set}");
    }
    let bundle = Bundle::probe(&[])
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .capabilities(&["CAP_CHOWN", "CAP_KILL"]);
    let report = Container::new(bundle).report();
    assert_eq!(report["capabilities"]["permitted"], "0000000000000000");
    assert_eq!(report["capabilities"]["bounding"], "0000000000000021");
}

fn all_five_sets_are_the_given_ones() {
    let one = json!(["CAP_CHOWN"]);
    let two = json!(["CAP_CHOWN", "CAP_KILL"]);
    let three = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    let capabilities = json!({
        "bounding": three, "permitted": two, "effective": two, "inheritable": one, "ambient": one,
    });
    let bundle = Bundle::probe(&[])
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities", capabilities);
    let sets = &report(bundle)["capabilities"];
    assert_eq!(sets["bounding"], "0000000000002021");
    // execve of a file without capabilities leaves a user the ambient set.
    for set in ["permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(sets[set], "0000000000000001", "{set}");
    }
}

fn no_capabilities_means_none() {
    let sets =
        report(Bundle::probe(&[]).set("/process/capabilities", json!({})))["capabilities"].clone();
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(sets[set], "0000000000000000", "{set}");
    }
}

fn an_unknown_capability_gives_nothing() {
    // runc warns and goes on; to refuse is the specification's other choice.
    let bundle = Bundle::probe(&[]).capabilities(&["CAP_KILL", "CAP_NO_SUCH"]);
    let container = Container::new(bundle);
    let output = container.run();
    if output.code() == Some(0) {
        assert_eq!(output.json()["capabilities"]["bounding"], "0000000000000020");
    } else {
        output.fails_with("CAP_NO_SUCH");
    }
}

fn no_new_privileges_is_what_is_asked() {
    assert_eq!(report(Bundle::probe(&[]))["noNewPrivs"], "1");
    let bundle = Bundle::probe(&[]).set("/process/noNewPrivileges", false);
    assert_eq!(report(bundle)["noNewPrivs"], "0");
}

fn limits_are_lowered() {
    let kinds = [
        ("CORE", "RLIMIT_CORE", 0_u64, 0_u64),
        ("NOFILE", "RLIMIT_NOFILE", 300, 400),
        ("NPROC", "RLIMIT_NPROC", 500, 600),
        ("STACK", "RLIMIT_STACK", 1 << 20, 8 << 20),
        ("FSIZE", "RLIMIT_FSIZE", 1 << 30, 2 << 30),
        ("CPU", "RLIMIT_CPU", 1000, 2000),
        ("MEMLOCK", "RLIMIT_MEMLOCK", 4096, 8192),
        ("AS", "RLIMIT_AS", 1_u64 << 34, 1_u64 << 35),
        ("DATA", "RLIMIT_DATA", 1_u64 << 34, 1_u64 << 35),
        ("LOCKS", "RLIMIT_LOCKS", 10, 20),
        ("SIGPENDING", "RLIMIT_SIGPENDING", 100, 200),
        ("MSGQUEUE", "RLIMIT_MSGQUEUE", 4096, 8192),
        ("RTTIME", "RLIMIT_RTTIME", 1000, 2000),
        ("RSS", "RLIMIT_RSS", 1 << 30, 1_u64 << 31),
    ];
    let limits: Vec<Value> = kinds
        .iter()
        .map(|(_, kind, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }))
        .collect();
    let report = report(Bundle::probe(&[]).set("/process/rlimits", limits));
    for (name, _, soft, hard) in kinds {
        let expected = json!([soft.to_string(), hard.to_string()]);
        assert_eq!(report["rlimits"][name], expected, "{name}");
    }
}

fn refused(bundle: Bundle) {
    let container = Container::new(bundle);
    container.run().fails();
    container.assert_gone();
}

fn an_unknown_limit_is_refused() {
    let limits = json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }]);
    refused(Bundle::new().set("/process/rlimits", limits));
}

fn a_limit_given_twice_is_refused() {
    peer_lacks!("runc", "the last one wins");
    peer_lacks!("crun", "the last one wins");
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 10 });
    refused(Bundle::new().set("/process/rlimits", json!([limit, limit])));
}

fn a_soft_limit_above_the_hard_one_is_refused() {
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 10 }]);
    refused(Bundle::new().set("/process/rlimits", limits));
}

fn the_oom_score_is_raised() {
    assert_eq!(report(Bundle::probe(&[]).set("/process/oomScoreAdj", 321))["oomScoreAdj"], 321);
}

fn the_oom_score_is_raised_in_a_user_namespace() {
    let bundle = Bundle::probe(&[]).user_namespace(100_000).set("/process/oomScoreAdj", 321);
    assert_eq!(report(bundle)["oomScoreAdj"], 321);
}

fn an_oom_score_out_of_range_is_refused() {
    refused(Bundle::new().set("/process/oomScoreAdj", 1001));
}

fn the_oom_score_of_the_caller_is_kept() {
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("/proc");
    let own: i64 = own.trim().parse().expect("a number");
    assert_eq!(report(Bundle::probe(&[]))["oomScoreAdj"], own);
}

fn the_io_priority_is_set() {
    peer_lacks!("runc 1.1", "ioPriority is newer");
    peer_lacks!("crun 1.8.1", "ioPriority is newer");
    // ioprio_get of the process itself
    let program = SyscallProgram::new(252).argument(1).argument(0).reporting();
    for (class, level, value) in
        [("IOPRIO_CLASS_BE", 6, 2 << 13 | 6), ("IOPRIO_CLASS_IDLE", 0, 3 << 13)]
    {
        let bundle = Bundle::new()
            .args(&["/ioprio"])
            .syscall_program("/ioprio", &program)
            .set("/process/ioPriority", json!({ "class": class, "priority": level }));
        let container = Container::new(bundle);
        let output = container.run().ok();
        let bytes: [u8; 8] = output.stdout.as_bytes().try_into().expect("8 bytes");
        let found = u64::from_le_bytes(bytes);
        assert_eq!(found & 0xffff, value, "{class} {level}: {found:#x}");
    }
}

fn an_unknown_io_priority_class_is_refused() {
    peer_lacks!("runc 1.1", "ioPriority is newer");
    peer_lacks!("crun 1.8.1", "ioPriority is newer");
    refused(Bundle::new().set("/process/ioPriority", json!({ "class": "NOSUCH", "priority": 4 })));
}

fn the_scheduling_policy_is_set() {
    peer_lacks!("runc 1.1", "scheduler is newer");
    peer_lacks!("crun 1.8.1", "scheduler is newer");
    let bundle =
        Bundle::probe(&[]).set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }));
    let scheduler = report(bundle)["scheduler"].clone();
    assert_eq!((&scheduler["policy"], &scheduler["nice"]), (&json!(3), &json!(5)));
    let bundle = Bundle::probe(&[]).set("/process/scheduler", json!({ "policy": "SCHED_IDLE" }));
    assert_eq!(report(bundle)["scheduler"]["policy"], 5);
}

fn an_unknown_scheduling_policy_is_refused() {
    peer_lacks!("runc 1.1", "scheduler is newer");
    peer_lacks!("crun 1.8.1", "scheduler is newer");
    refused(Bundle::new().set("/process/scheduler", json!({ "policy": "SCHED_NOSUCH" })));
    let flags = json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOSUCH"] });
    refused(Bundle::new().set("/process/scheduler", flags));
}

fn the_processors_of_exec_are_set() {
    peer_lacks!("runc 1.1", "execCPUAffinity is newer");
    peer_lacks!("crun 1.8.1", "execCPUAffinity is newer");
    let affinity = json!({ "initial": "0", "final": "0" });
    let container = Container::new(Bundle::sleeper().set("/process/execCPUAffinity", affinity));
    container.run_detached().ok();
    assert_eq!(container.exec_report(&[])["cpus"], "0");
    let wrong = json!({ "initial": "0", "final": "a-b" });
    refused(Bundle::new().set("/process/execCPUAffinity", wrong));
}

fn empty_arguments_are_refused() {
    refused(Bundle::new().set("/process/args", json!([])));
    refused(Bundle::new().set("/process/args", json!([""])));
    refused(Bundle::new().remove("/process/args"));
}

fn signals_are_neither_blocked_nor_ignored() {
    let words = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"];
    let own = fs::read_to_string("/proc/self/status").expect("/proc");
    let own = mask(&own, "SigIgn:");
    let found = Container::new(Bundle::new().args(&words)).run().ok().stdout;
    assert_eq!(mask(&found, "SigBlk:"), 0);
    // What the caller ignores may stay ignored, as across every exec; signals 32 and 33
    // are the C library's own, which it ignores in what it spawns.
    assert_eq!(mask(&found, "SigIgn:") & !own & !(3 << 31), 0, "{found}");
}

fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a status");
    u64::from_str_radix(line.trim(), 16).expect("a mask")
}

fn the_process_leads_its_session() {
    let script = "cut -d' ' -f1,5,6 /proc/$$/stat";
    let output = Container::new(Bundle::shell(script)).run().ok();
    assert_eq!(output.text(), "1 1 1", "pid, process group, session");
}

fn the_user_owns_its_standard_streams() {
    // A user can reopen what it was given, as programs that log to /dev/stderr do.
    let bundle = Bundle::shell("echo reopened > /dev/stdout")
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let container = Container::new(bundle);
    let shell = format!(
        "umount /sys/fs/cgroup/unified 2>/dev/null; {} --root {} run --bundle {} {} | cat",
        hull_integration::runtime().program.display(),
        container.root().display(),
        container.bundle.dir().display(),
        container.id
    );
    let mut invocation = hull_integration::Invocation::new("/bin/sh").args(["-c", &shell]);
    if hull_integration::runtime().peer == hull_integration::Peer::Crun {
        let words = ["-m", "--propagation", "slave", "/bin/sh", "-c", &shell];
        invocation = hull_integration::Invocation::new("unshare").args(words);
    }
    assert_eq!(invocation.run().ok().text(), "reopened");
}

fn the_host_is_not_visible_through_the_program() {
    // CVE-2019-5736: /proc/1/exe of a created container is the runtime.
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    let pid = container.pid();
    let exe = fs::metadata(format!("/proc/{pid}/exe"));
    let own = fs::metadata(&hull_integration::runtime().program).expect("it runs");
    if let Ok(exe) = exe {
        use std::os::unix::fs::MetadataExt;
        let same = (exe.dev(), exe.ino()) == (own.dev(), own.ino());
        if same {
            // Then it must be sealed or read-only from inside: writing through it fails.
            let path = format!("/proc/{pid}/exe");
            let write = fs::OpenOptions::new().append(true).open(path);
            assert!(write.is_err(), "the runtime can be written through /proc");
        }
    }
    container.start().ok();
    wait_until("the program runs", SOON, || {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("busybox"))
    });
}

fn the_personality_is_set() {
    peer_lacks!("runc 1.1", "personality is newer");
    let bundle = Bundle::new()
        .args(&["uname", "-m"])
        .set("/linux/personality", json!({ "domain": "LINUX32" }));
    assert_eq!(Container::new(bundle).run().ok().text(), "i686");
    let bundle = Bundle::sleeper().set("/linux/personality", json!({ "domain": "LINUX32" }));
    let container = Container::new(bundle);
    container.run_detached().ok();
    assert_eq!(container.exec(&["uname", "-m"]).ok().text(), "i686");
}

fn an_unknown_personality_is_refused() {
    peer_lacks!("runc 1.1", "personality is newer");
    refused(Bundle::new().set("/linux/personality", json!({ "domain": "LINUX64" })));
}
