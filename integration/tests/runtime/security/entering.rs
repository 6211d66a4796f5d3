//! Processes that enter: what of the host and of the runtime they have with them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hull_integration::{
    Bundle, Container, Invocation, SOON, note, peer_lacks, require, runtime, scratch_dir, tests,
    wait_until, write_program,
};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::{Canary, SECRET, text};

tests![
    a_working_directory_on_the_host_is_out_of_reach,
    no_descriptor_of_the_caller_gets_inside,
    the_programs_own_file_is_not_written_by_an_entrypoint,
    entering_processes_do_not_give_their_program_away,
    entering_processes_do_not_give_their_memory_away,
    entering_processes_of_a_user_namespace_do_not_either,
];

// Leaked descriptors: CVE-2024-21626, CVE-2015-3627.

/// `/proc/self/fd/N` for a descriptor that the runtime has open on the host, and for one
/// that its caller forgot to close.
fn a_working_directory_on_the_host_is_out_of_reach() {
    let canary = Canary::new();
    let up = "../".repeat(12);
    let script = format!("cat {up}{0}/secret; cat .{0}/secret; pwd -P", canary.path());
    // The caller has the host's root open as descriptor 9.
    let mut container = Container::new(Bundle::shell(&script)).prelude("exec 9</");
    let victim = Container::new(Bundle::sleeper()).prelude("exec 9</");
    victim.run_detached().ok();
    let mut entered = 0;
    for number in 3..=64 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            if number > 16 && cwd.ends_with("..") {
                continue;
            }
            container.bundle.config["process"]["cwd"] = json!(cwd);
            container.write_config();
            let output = container.run();
            assert!(!output.stdout.contains(SECRET), "run in {cwd}: {}", output.transcript());
            entered += usize::from(output.code() == Some(0));
            container.delete_force();
            if number > 16 {
                continue;
            }
            let output = victim.exec_with(&["--cwd", &cwd], &["sh", "-c", &script]);
            assert!(!output.stdout.contains(SECRET), "exec in {cwd}: {}", output.transcript());
        }
    }
    note(&format!("{entered} directories were entered"));
    // A link of the root names them as well as the configuration does.
    let bundle =
        Bundle::shell(&script).link("/work", "/proc/self/fd/9").set("/process/cwd", "/work");
    let output = Container::new(bundle).prelude("exec 9</").run();
    assert!(!output.stdout.contains(SECRET), "through a link: {}", output.transcript());
}

fn no_descriptor_of_the_caller_gets_inside() {
    let only_standard = |report: &Value| {
        let numbers: Vec<&String> =
            report["fds"].as_object().expect("/proc is mounted").keys().collect();
        assert_eq!(numbers, ["0", "1", "2"], "{}", report["fds"]);
    };
    let container = Container::new(Bundle::probe(&[])).prelude("exec 5</ 9</etc");
    only_standard(&container.report());
    let container = Container::new(Bundle::sleeper()).prelude("exec 5</ 9</etc");
    container.run_detached().ok();
    only_standard(&container.exec_report(&[]));
}

// The runtime's own program and the process that enters: CVE-2019-5736, CVE-2016-9962.

/// A copy of the driven runtime, which may be lost.
fn copy_of_the_runtime() -> PathBuf {
    peer_lacks!("crun", "it is driven through a shell here");
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let directory = scratch_dir().join(format!("copy-{}", COUNTER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&directory).expect("the scratch directory is writable");
    let program = &runtime().program;
    let copy = directory.join(program.file_name().expect("a program has a name"));
    write_program(&copy, fs::read(program).expect("the runtime is readable"));
    copy
}

fn with_copy(copy: &Path, container: &Container, words: &[&str]) -> Invocation {
    Invocation::new(copy).arg("--root").arg(container.root()).args(words)
}

#[track_caller]
fn assert_same(copy: &Path) {
    let same = fs::read(copy).expect("it is there") == fs::read(&runtime().program).expect("there");
    assert!(same, "the runtime's own program was overwritten");
}

/// The entrypoint is the program that starts it, or a script that names it.
fn the_programs_own_file_is_not_written_by_an_entrypoint() {
    let copy = copy_of_the_runtime();
    let script = "#!/proc/self/exe\n";
    for args in [["/proc/self/exe", "--version"], ["/entry", "--version"], ["/link", "--version"]] {
        let bundle = Bundle::new().args(&args).program("/entry", script);
        let bundle = bundle.link("/link", "/proc/self/exe");
        let container = Container::new(bundle);
        let dir = text(container.bundle.dir()).to_owned();
        with_copy(&copy, &container, &["run", "--bundle", &dir, &container.id]).run();
        assert_same(&copy);
        container.delete_force();
    }
    let bundle = Bundle::sleeper().program("/entry", script);
    let container = Container::new(bundle);
    container.run_detached().ok();
    for program in ["/proc/self/exe", "/entry"] {
        with_copy(&copy, &container, &["exec", &container.id, program, "--version"]).run();
        assert_same(&copy);
    }
}

/// A process inside waits for those that enter, opens their program and writes to it once
/// they have ended, and tries their memory and descriptors.
fn entering_processes_do_not_give_their_program_away() {
    let copy = copy_of_the_runtime();
    let container = Container::new(Bundle::new().args(&["/probe", "scan"]));
    let dir = text(container.bundle.dir()).to_owned();
    let scanner = with_copy(&copy, &container, &["run", "--bundle", &dir, &container.id]);
    let scanner = scanner.limit(Duration::from_secs(240)).start();
    wait_until("it runs", SOON, || runs(&container));
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(5) {
        for program in [&["true"][..], &["/proc/self/exe", "--version"]] {
            with_copy(&copy, &container, &["exec", &container.id]).args(program).run();
            rounds += 1;
        }
    }
    // The control: the program of one who comes in without capabilities and does not hide.
    // It does nothing by other programs, which would be overwritten as well.
    let (weak, go) = (copy.with_file_name("weak"), container.bundle.path("go"));
    write_program(&weak, fs::read("/bin/sh").expect("it is readable"));
    mkfifo(&go, Mode::S_IRWXU).expect("ours");
    let script = format!("read line < {}", text(&go));
    let entered = enter_weakly(&container, false).arg(&weak).args(["-c", &script]).start();
    wait_until("the weak one is met", SOON, || {
        let strangers = fs::read_to_string(container.bundle.path("strangers"));
        strangers.is_ok_and(|names| names.contains("weak"))
    });
    // For both, so that this does not wait for a reader.
    let mut go = fs::File::options().read(true).write(true).open(go).expect("ours");
    go.write_all(b"\n").expect("there is room");
    entered.wait().ok();
    fs::write(container.bundle.path("stop"), "").expect("ours");
    let report = scanner.wait().ok().json();
    assert_same(&copy);
    assert!(report["met"].as_u64().is_some_and(|met| met > 0), "nobody was met: {report}");
    let written = report["written"].as_array().expect("a list");
    let [name] = &written[..] else { panic!("{rounds} rounds: {report}") };
    assert!(name.as_str().is_some_and(|name| name.contains("weak")), "{rounds} rounds: {report}");
    assert!(fs::read(&weak).expect("it is there").ends_with(b"overwritten from inside"));
}

/// Whether it runs already; its state may not be there yet.
fn runs(container: &Container) -> bool {
    let output = container.command("state", &[]);
    output.code() == Some(0) && output.json()["status"] == "running"
}

const ENTRIES: usize = 500;

fn entering_processes_do_not_give_their_memory_away() {
    assert_nothing_is_given_away(|bundle| bundle);
}

/// Its root may trace whatever is in the namespace: only that the runtime is not dumpable
/// keeps it out.
fn entering_processes_of_a_user_namespace_do_not_either() {
    assert_nothing_is_given_away(|bundle| {
        bundle.user_namespace(200_000).capabilities(&["CAP_SYS_PTRACE", "CAP_KILL"])
    });
}

/// A process inside tries memory, descriptors and links of all that come in, before they
/// become the program that was asked for.
fn assert_nothing_is_given_away(change: fn(Bundle) -> Bundle) {
    let container = Container::new(change(Bundle::new().args(&["/probe", "pry", "true"])));
    let limit = Duration::from_secs(240);
    let scanner = container.with_bundle(&["run"]).limit(limit).start();
    wait_until("it runs", SOON, || runs(&container));
    let appears = |name: &str| {
        wait_until(name, SOON, || container.bundle.path(name).exists());
    };
    // One that waits for `start` in the same pid namespace has to be met.
    let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", container.pid());
    let mut bundle = change(Bundle::new()).namespace("pid", Some(&namespace("pid")));
    let user = bundle.config["linux"]["uidMappings"].is_array();
    if user {
        bundle = bundle.namespace("user", Some(&namespace("user"))).without_mount("/sys");
        // Others than old runcs read them from the namespace.
        if !runtime().is_at_most("runc 1.1") {
            bundle = bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
        }
    }
    let waiting = Container::new(bundle);
    waiting.create().ok();
    appears("/refused");
    waiting.delete_force().ok();
    for _ in 0..ENTRIES {
        container.exec(&["true"]).ok();
    }
    // The control: one without capabilities who does not hide is not missed.
    let weak = enter_weakly(&container, user).args(["tail", "-f", "/dev/null"]).start();
    appears("/hit");
    wait_until("the weak one's exec", SOON, || command_of_a_child(weak.pid()) == "tail");
    let _ = fs::write(container.bundle.path("/stop"), "");
    let report = scanner.wait().ok().json();
    note(&format!("{ENTRIES} entries: {report}"));
    let hits = report["hits"].as_object().expect("an object");
    let names: Vec<&String> = hits.keys().collect();
    assert!(names.iter().all(|name| WEAK.contains(&name.as_str())), "{report}");
    assert_eq!(hits["tail"], json!(["cwd", "exe", "fd", "mem", "root"]));
}

/// What a careless runtime would do: a program of the host's comes into the pid namespace,
/// with no more capabilities than those inside, and they may trace it.
fn enter_weakly(container: &Container, user: bool) -> Invocation {
    let help = Invocation::new("setpriv").arg("--help").run();
    require!(help.stdout.contains("--bounding-set"), "setpriv is not util-linux's");
    let enter = Invocation::new("nsenter").arg("--target").arg(container.pid().to_string());
    enter.arg("--pid").args(user.then_some("--user")).args(["setpriv", "--bounding-set=-all"])
}

/// The programs of the control.
const WEAK: [&str; 3] = ["nsenter", "setpriv", "tail"];

/// What the child of a process runs.
fn command_of_a_child(pid: i32) -> String {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child = children.unwrap_or_default();
    let command = fs::read_to_string(format!("/proc/{}/comm", child.trim()));
    command.unwrap_or_default().trim_end().to_owned()
}
