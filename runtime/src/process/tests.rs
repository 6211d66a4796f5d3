use std::{
    env, fs,
    io::Read,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use super::*;

fn process(json: &str) -> oci::Process {
    serde_json::from_str(json).unwrap()
}

fn planned(json: &str) -> Result<Plan> {
    plan(&process(json), None)
}

#[test]
fn a_process_needs_a_program_and_a_place() {
    for (json, why) in [
        (r#"{"args":["x"]}"#, "Cwd property must not be empty"),
        (r#"{"args":["x"],"cwd":"tmp"}"#, "Cwd must be an absolute path"),
        (r#"{"args":["x"],"cwd":"./"}"#, "Cwd must be an absolute path"),
        (r#"{"cwd":"/"}"#, "args must not be empty"),
        (r#"{"args":[],"cwd":"/"}"#, "args must not be empty"),
        (r#"{"args":["x","a\u0000b"],"cwd":"/"}"#, r#"argument "a\0b" is not usable"#),
        (r#"{"args":["x"],"cwd":"/a\u0000"}"#, r#"cwd "/a\0" is not usable"#),
        (r#"{"args":["x"],"cwd":"/","env":["A"]}"#, "invalid environment variable: missing '='"),
        (
            r#"{"args":["x"],"cwd":"/","oomScoreAdj":1001}"#,
            "oomScoreAdj 1001 is not in the range -1000 to 1000",
        ),
        (
            r#"{"args":["x"],"cwd":"/","terminal":true,"consoleSize":{"height":1,"width":65536}}"#,
            "consoleSize 1 x 65536 is larger than a terminal can be",
        ),
        (
            r#"{"args":["x"],"cwd":"/","execCPUAffinity":{"initial":"x"}}"#,
            "bad CPUAffinity.Initial",
        ),
        (r#"{"args":["x"],"cwd":"/","execCPUAffinity":{"final":"1-0"}}"#, "bad CPUAffinity.Final"),
    ] {
        assert_eq!(planned(json).unwrap_err().to_string(), why, "{json}");
    }
}

#[test]
fn a_size_needs_a_terminal() {
    let size = |terminal: &str, height: u32, width: u32| {
        let json = format!(
            r#"{{"args":["x"],"cwd":"/","terminal":{terminal},
                "consoleSize":{{"height":{height},"width":{width}}}}}"#
        );
        planned(&json).unwrap().console_size
    };
    assert_eq!(size("true", 24, 80), Some(ConsoleSize { rows: 24, columns: 80 }));
    assert_eq!(size("true", 0, 80), None);
    assert_eq!(size("true", 24, 0), None);
    assert_eq!(size("false", 24, 80), None);
    assert_eq!(size("false", 70000, 80), None);
}

#[test]
fn what_the_container_configures_for_its_processes_is_taken_along() {
    let linux: oci::Linux = serde_json::from_str(
        r#"{"personality":{"domain":"LINUX32"},
            "memoryPolicy":{"mode":"MPOL_BIND","nodes":"0,2","flags":["MPOL_F_STATIC_NODES"]},
            "resources":{"cpu":{"cpus":"0"}}}"#,
    )
    .unwrap();
    let process =
        process(r#"{"args":["x"],"cwd":"/","scheduler":{"policy":"SCHED_FIFO","priority":9}}"#);
    let plan = plan(&process, Some(&linux)).unwrap();
    assert_eq!(plan.personality, Some(Personality::Linux32));
    let policy = plan.memory_policy.unwrap();
    assert_eq!((policy.mode, policy.flags), (2, 1 << 15));
    assert_eq!(policy.nodes.unwrap().words(), [5]);
    assert!(plan.scheduler.unwrap().limited_to_cpus);
}

#[test]
fn a_joining_process_inherits_what_it_does_not_say() {
    let container = process(
        r#"{"args":["x"],"cwd":"/","user":{"uid":5,"umask":7},"noNewPrivileges":true,
            "capabilities":{"bounding":["CAP_KILL"]},"oomScoreAdj":9,"apparmorProfile":"p",
            "selinuxLabel":"l","rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1}],
            "ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1},
            "scheduler":{"policy":"SCHED_IDLE"},"execCPUAffinity":{"final":"0"},
            "env":["A=1"]}"#,
    );
    let mut plain = process(r#"{"args":["y"],"cwd":"/tmp"}"#);
    inherit(&mut plain, &container);
    let mut expected = container.clone();
    expected.args = vec!["y".to_owned()];
    expected.cwd = "/tmp".to_owned();
    expected.user.uid = 0;
    expected.no_new_privileges = false;
    expected.env.clear();
    assert_eq!(plain, expected);

    let mut own = process(
        r#"{"args":["y"],"cwd":"/","user":{"umask":1},"capabilities":{},"oomScoreAdj":1,
            "apparmorProfile":"q","selinuxLabel":"m",
            "rlimits":[{"type":"RLIMIT_AS","soft":1,"hard":1}],
            "ioPriority":{"class":"IOPRIO_CLASS_RT","priority":1},
            "scheduler":{"policy":"SCHED_OTHER"},"execCPUAffinity":{"final":"1"}}"#,
    );
    let before = own.clone();
    inherit(&mut own, &container);
    assert_eq!(own, before);
}

#[test]
fn a_description_is_one_line_a_fact() {
    let plan = planned(
        r#"{"args":["sh","-c","a\nb"],"cwd":"/w","terminal":true,
            "user":{"uid":1,"gid":2,"additionalGids":[3],"umask":63},
            "env":["A=x\u001b[31m"],
            "capabilities":{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_NO"]},
            "rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":18446744073709551615}],
            "scheduler":{"policy":"SCHED_BATCH","nice":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":4},
            "execCPUAffinity":{"final":"0-1"},"oomScoreAdj":5,"noNewPrivileges":true}"#,
    )
    .unwrap();
    let description = plan.describe();
    let lines = description.lines();
    for expected in [
        r#"command: ["sh", "-c", "a\nb"]"#,
        "working directory: /w",
        "user: 1:2, groups [2, 3]",
        "umask: 0077",
        r"environment: A=x\u{1b}[31m",
        "environment: HOME=(from /etc/passwd of the container, or /)",
        "terminal: yes",
        "capabilities, bounding: CAP_CHOWN CAP_KILL",
        "capabilities, permitted: none",
        "no new privileges: yes",
        "limit: RLIMIT_CORE soft 0 hard unlimited",
        "out-of-memory score: 5",
        "scheduler: SCHED_BATCH nice 3 SCHED_FLAG_RESET_ON_FORK",
        "I/O priority: IOPRIO_CLASS_IDLE level 4",
        "processors of an exec: final 0-1",
        r#"warning: ignoring unknown or unavailable capabilities: ["CAP_NO"]"#,
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}\nin {lines:#?}");
    }
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)));
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(json["capabilities"]["bounding"], serde_json::json!(["CAP_CHOWN", "CAP_KILL"]));
    assert_eq!(json["noNewPrivileges"], true);
}

/// In a child that this test binary starts of itself: becomes what `process` says and
/// executes its program. The errors are printed.
const CHILD: &str = "HULL_TEST_PROCESS";

/// Set if the child shall leave its supplementary groups alone.
const KEEP_GROUPS: &str = "HULL_TEST_KEEP_GROUPS";

/// Set if the child shall leave closing its descriptors to the exec.
const KEEP_OPEN: &str = "HULL_TEST_KEEP_OPEN";

fn act_as_child(json: &str) -> Result<()> {
    let plan = planned(json)?;
    let root = fs::File::open("/")?;
    // What a caller might have left open.
    let leaked = fs::File::open("/")?;
    sys::fd::place(&leaked, 90)?;
    let procfs = fs::File::open("/proc")?;
    let mut environment = plan.environment.clone();
    environment.add_home(plan.user.uid, &root);
    plan.set_limits(0)?;
    plan.set_oom_score(&procfs, 0)?;
    plan.set_scheduling()?;
    plan.become_user(&root, 0, env::var_os(KEEP_GROUPS).is_none())?;
    for warning in plan.set_capabilities()? {
        println!("warning: {warning}");
    }
    let program = find_executable(&plan.args[0], environment.path())?;
    let args = sys::process::StringArray::new(plan.args);
    let env = sys::process::StringArray::new(environment.variables);
    if env::var_os(KEEP_OPEN).is_none() {
        sys::fd::close_from(3, &[])?;
    }
    let error = sys::process::execve(&program, &args, &env);
    println!("failed: {}", diagnose(&program, &error));
    // The owners of what is closed must not be dropped.
    sys::process::exit_now(1)
}

/// Runs the test of this name again, as [`act_as_child`], and returns what it printed.
/// `None` in that child.
fn run_child(test: &str, wrapper: &[&str], json: &str) -> Option<String> {
    if let Some(json) = env::var_os(CHILD) {
        let error = act_as_child(json.to_str().unwrap()).unwrap_err();
        println!("failed: {error:#}");
        return None;
    }
    let binary = env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&binary),
        [wrapper, options @ ..] => {
            let mut command = Command::new(wrapper);
            command.args(options).arg(&binary);
            command
        }
    };
    command.args(["--exact", "--nocapture"]).arg(format!("process::tests::{test}"));
    command.env(CHILD, json).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    Some(output)
}

fn is_root() -> bool {
    let root = sys::process::effective_uid() == 0;
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// The fields of `/proc/PID/status` by name.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is missing in {status}")).trim()
}

const DOCKER_SETS: &str = r#"["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FSETID","CAP_FOWNER",
    "CAP_MKNOD","CAP_NET_RAW","CAP_SETGID","CAP_SETUID","CAP_SETFCAP","CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE","CAP_SYS_CHROOT","CAP_KILL","CAP_AUDIT_WRITE"]"#;

/// The class "capability sets": what the program has, after its exec, against a golden table.
#[test]
fn programs_have_the_capabilities_of_the_golden_table() {
    if !is_root() {
        return;
    }
    let d = DOCKER_SETS;
    let none = "[]";
    let bind = r#"["CAP_NET_BIND_SERVICE"]"#;
    // uid; bounding, permitted and effective, inheritable, ambient; then Inh Prm Eff Bnd Amb.
    let table = [
        (0, d, d, none, none, [0, 0xa804_25fb, 0xa804_25fb, 0xa804_25fb, 0]),
        (1000, d, d, none, none, [0, 0, 0, 0xa804_25fb, 0]),
        (1000, d, d, bind, bind, [0x400, 0x400, 0x400, 0xa804_25fb, 0x400]),
        (1000, d, d, bind, none, [0x400, 0, 0, 0xa804_25fb, 0]),
        // Ambient without inheritable is refused by the kernel: a warning, and nothing more.
        (1000, d, d, none, bind, [0, 0, 0, 0xa804_25fb, 0]),
        (0, bind, none, none, none, [0, 0x400, 0x400, 0x400, 0]),
        (0, none, none, none, none, [0; 5]),
        (1000, none, none, none, none, [0; 5]),
    ];
    for (uid, bounding, permitted, inheritable, ambient, golden) in table {
        let json = format!(
            r#"{{"args":["cat","/proc/self/status"],"cwd":"/","env":["PATH=/bin"],
                "user":{{"uid":{uid},"gid":7,"additionalGids":[9]}},
                "capabilities":{{"bounding":{bounding},"permitted":{permitted},
                "effective":{permitted},"inheritable":{inheritable},"ambient":{ambient}}}}}"#
        );
        let name = "programs_have_the_capabilities_of_the_golden_table";
        let Some(status) = run_child(name, &[], &json) else { return };
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .map(|name| u64::from_str_radix(field(&status, name), 16).unwrap());
        assert_eq!(sets, golden, "{json}");
        assert_eq!(field(&status, "Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(field(&status, "Gid"), "7\t7\t7\t7");
        assert_eq!(field(&status, "Groups"), "7 9");
        let refused = inheritable == none && ambient != none;
        assert_eq!(status.contains("warning: can't raise ambient capability"), refused);
    }
}

/// Without a `capabilities` object nothing changes, as with runc.
#[test]
fn no_capabilities_object_grants_none() {
    if !is_root() {
        return;
    }
    let json = r#"{"args":["/bin/cat","/proc/self/status"],"cwd":"/"}"#;
    let Some(status) = run_child("no_capabilities_object_grants_none", &[], json) else { return };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, name), "0000000000000000", "{name}");
    }
    assert_eq!(field(&status, "Groups"), "0");
}

/// CVE-2024-21626: nothing but the standard streams, and what was asked for, is inherited;
/// not even where only the mark close-on-exec protects it.
#[test]
fn no_descriptor_is_left_to_the_program() {
    if !is_root() {
        return;
    }
    let json = r#"{"args":["/bin/ls","/proc/self/fd"],"cwd":"/usr/bin"}"#;
    for wrapper in [&[][..], &["env", "HULL_TEST_KEEP_OPEN=1"]] {
        let output = run_child("no_descriptor_is_left_to_the_program", wrapper, json);
        let Some(output) = output else { return };
        let numbers: Vec<&str> =
            output.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
        // 3 is ls's own, on the directory.
        assert_eq!(numbers, ["0", "1", "2", "3"], "{output}");
    }
}

/// CVE-2024-21626: the program itself is on the host, behind a descriptor of the runtime.
/// The control is the same without closing: close-on-exec comes too late for it.
#[test]
fn a_program_behind_a_descriptor_is_out_of_reach() {
    if !is_root() {
        return;
    }
    let json = r#"{"args":["/proc/self/fd/90/bin/echo","reached"],"cwd":"/"}"#;
    let run = |wrapper: &[&str]| {
        run_child("a_program_behind_a_descriptor_is_out_of_reach", wrapper, json)
    };
    let Some(output) = run(&[]) else { return };
    let why = "exec /proc/self/fd/90/bin/echo: no such file or directory: the file does not exist";
    assert!(output.contains(&format!("failed: {why}")), "{output}");
    let Some(output) = run(&["env", "HULL_TEST_KEEP_OPEN=1"]) else { return };
    assert!(output.lines().any(|line| line == "reached"), "{output}");
}

#[test]
fn limits_and_priorities_reach_the_program() {
    if !is_root() {
        return;
    }
    let json = r#"{"args":["/bin/sh","-c",
        "ulimit -n; ulimit -Hc; cat /proc/self/oom_score_adj; nice; pwd; uname -m; echo $HOME"],
        "cwd":"/usr/bin",
        "rlimits":[{"type":"RLIMIT_NOFILE","soft":77,"hard":88},
                   {"type":"RLIMIT_CORE","soft":0,"hard":0}],
        "oomScoreAdj":321,"scheduler":{"policy":"SCHED_BATCH","nice":5},
        "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0}}"#;
    let name = "limits_and_priorities_reach_the_program";
    let Some(output) = run_child(name, &[], json) else { return };
    let lines: Vec<&str> = output.lines().collect();
    let printed = ["77", "0", "321", "5", "/usr/bin", env::consts::ARCH, "/root"];
    assert!(lines.ends_with(&printed), "{output}");
}

#[test]
fn ids_without_a_mapping_are_named() {
    if !is_root() {
        return;
    }
    for (user, why) in [
        (r#"{"uid":5}"#, "cannot setuid to unmapped uid 5 in user namespace"),
        (r#"{"gid":6}"#, "cannot setgid to unmapped gid 6 in user namespace"),
    ] {
        let json = format!(r#"{{"args":["/bin/true"],"cwd":"/","user":{user}}}"#);
        let wrapper = ["env", "HULL_TEST_KEEP_GROUPS=1", "unshare", "--user", "--map-root-user"];
        let Some(output) = run_child("ids_without_a_mapping_are_named", &wrapper, &json) else {
            return;
        };
        assert!(output.contains(&format!("failed: unable to setup user: {why}")), "{output}");
    }
}

/// A directory that only the container's user may enter is entered as that user.
#[test]
fn the_working_directory_is_tried_as_either_user() {
    if !is_root() {
        return;
    }
    // The child executes another program, and would leave a directory of its own behind.
    if env::var_os(CHILD).is_some() {
        run_child("", &[], "");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let private = dir.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let cwd = private.to_str().unwrap();
    let run = |uid: u32, wrapper: &[&str]| {
        let json = format!(
            r#"{{"args":["/bin/pwd"],"cwd":{cwd:?},"user":{{"uid":{uid},"gid":0}},
                "capabilities":{{}}}}"#
        );
        run_child("the_working_directory_is_tried_as_either_user", wrapper, &json)
    };
    // Root enters what the user may not.
    let Some(output) = run(1000, &[]) else { return };
    assert!(output.lines().any(|line| line == cwd), "{output}");
    // A root without power over files does not, but the owner does.
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    assert_eq!(fs::metadata(&private).unwrap().uid(), 1000);
    let weak = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let Some(output) = run(1000, &weak) else { return };
    assert!(output.lines().any(|line| line == cwd), "{output}");
    let Some(output) = run(1001, &weak) else { return };
    let failure = format!("failed: chdir to cwd ({cwd:?}) set in config.json failed: ");
    assert!(output.contains(&failure) && output.contains("permission denied"), "{output}");
}
